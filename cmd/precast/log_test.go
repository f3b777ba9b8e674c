package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// A log that somebody rewrote in the database is found out.
func TestRewrittenLogIsFound(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PRECAST_DATA", filepath.Join(dir, "data"))
	binary := filepath.Join(dir, "binary")
	if err := os.WriteFile(binary, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1", "2", "3"} {
		says(t, exitOK, "catalog", "put", "app", binary, "--version", version, "--actor", "eve")
	}
	out, _ := says(t, exitOK, "catalog", "log", "--verify")
	if !strings.HasPrefix(out, "3 entries, none of them changed") {
		t.Errorf("%q", out)
	}
	db, err := bbolt.Open(filepath.Join(dir, "data", "precast.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		k, v := tx.Bucket([]byte("catalog.log")).Cursor().Seek([]byte{0, 0, 0, 0, 0, 0, 0, 2})
		return tx.Bucket([]byte("catalog.log")).Put(k, bytes.ReplaceAll(v, []byte("eve"), []byte("bob")))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, errs := says(t, exitError, "catalog", "log", "--verify")
	if !strings.Contains(errs, "the log is broken: entry 2 does not have its digest: it was changed after it was written") {
		t.Errorf("%q", errs)
	}
}
