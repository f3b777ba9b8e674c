package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

func playOpen(dir, _ string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	fmt.Println("open")
	awaitStdin()
	return s.Close()
}

func TestOpenTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wantLocked := func() {
		t.Helper()
		s, err := Open(dir, Options{})
		if !errors.Is(err, ErrLocked) {
			t.Fatalf("second Open = %v, %v, want ErrLocked", s, err)
		}
		if !strings.Contains(err.Error(), dir) {
			t.Errorf("%q does not name the folder", err)
		}
	}
	c := start(t, "open", dir, "")
	c.wantLine(t, "open")
	wantLocked()

	// Objects can be used by others all the same.
	o, err := OpenObjects(dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, o, layout.IndexKey, "x", builder.PutOptions{})

	c.stdin.Close()
	c.finish(t)
	s, err := Open(dir, Options{NewCatalog: true}) // something is published
	if err != nil {
		t.Fatalf("Open after the other's Close: %v", err)
	}
	wantLocked()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if _, err := s.Catalog().Snapshot(t.Context()); err == nil {
		t.Error("Snapshot after Close succeeded")
	}
	if err := s.Queue().Send(t.Context(), []byte("x")); err == nil {
		t.Error("Send after Close succeeded")
	}
	wantObject(t, s.Objects(), layout.IndexKey, "x")
}

func TestLockEndsWithProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := start(t, "open", dir, "")
	c.wantLine(t, "open")
	c.cmd.Process.Kill()
	c.wantKilled(t)
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Open(dir, Options{MaxReceives: -1}); err == nil {
		t.Error("Open accepted MaxReceives -1")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open of a file = %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, dbName), bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("Open of something else = %v", err)
	}
}

// What was closed is there when it is opened again.
func TestReopen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	for i := range 3 {
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		item := catalog.Item{App: fmt.Sprint("app", i), Track: "prod"}
		if err := s.Catalog().Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(item)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Queue().Send(t.Context(), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		put(t, s.Objects(), layout.PlanKey(uint64(i)), fmt.Sprint(i), builder.PutOptions{})
		if n, err := s.Ledger().Next(t.Context()); err != nil || n != uint64(i+1) {
			t.Errorf("Next = %d, %v", n, err)
		}
		if err := s.Ledger().Open(t.Context(), "build", 3); err != nil {
			t.Fatal(err)
		}
		if left, err := s.Ledger().Done(t.Context(), "build", i); err != nil || left != 2-i {
			t.Errorf("Done = %d, %v", left, err)
		}
		if items, err := s.Catalog().Snapshot(t.Context()); err != nil || len(items) != i+1 {
			t.Errorf("Snapshot = %v, %v", items, err)
		}
		if waiting, _, _, err := s.Queue().Depth(t.Context()); err != nil || waiting != i+1 {
			t.Errorf("%d messages wait, %v", waiting, err)
		}
		for k := range i + 1 {
			wantObject(t, s.Objects(), layout.PlanKey(uint64(k)), fmt.Sprint(k))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
