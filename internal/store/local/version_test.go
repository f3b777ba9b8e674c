package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// change changes a folder's database as another program might.
func change(t *testing.T, dir string, f func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, dbName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func setVersion(v []byte) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return tx.Bucket(bucketStore).Put(keyVersion, v) }
}

// folder makes a data folder with one item.
func folder(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	item := catalog.Item{App: "a", Track: "prod"}
	if err := errors.Join(s.Catalog().Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(item)}}), s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantOneItem(t *testing.T, dir string) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if items, err := s.Catalog().Snapshot(t.Context()); err != nil || len(items) != 1 {
		t.Errorf("Snapshot = %v, %v", items, err)
	}
	if err := s.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketStore).Get(keyVersion); string(v) != string(u64(catalog.Version)) {
			t.Errorf("the version is %x, want %d", v, catalog.Version)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// S13: what a later program wrote is refused, in words that help, and left as it is.
func TestS13LaterVersionsAreRefused(t *testing.T) {
	t.Parallel()
	for name, v := range map[string][]byte{"later": u64(catalog.Version + 1), "none": u64(0), "damaged": []byte("x")} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			change(t, dir, setVersion(v))
			before, err := os.ReadFile(filepath.Join(dir, dbName))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(dir, Options{})
			if err == nil || !strings.Contains(err.Error(), dir) {
				t.Fatalf("Open with version %x = %v", v, err)
			}
			if found, is := errors.AsType[catalog.VersionError](err); name == "later" &&
				(!is || found.Found != catalog.Version+1 || !strings.Contains(err.Error(), fmt.Sprintf("version %d, and this program knows versions up to %d: a newer precast is needed", catalog.Version+1, catalog.Version))) {
				t.Errorf("Open = %v", err)
			}
			if after, err := os.ReadFile(filepath.Join(dir, dbName)); err != nil || string(after) != string(before) {
				t.Errorf("the refused database was written (%v)", err)
			}
			change(t, dir, setVersion(u64(catalog.Version))) // the refusal has let go of the lock, too
			wantOneItem(t, dir)
		})
	}
}

// S13: an earlier version is taken up as it is opened, by one transaction: a crash leaves the version before, whole.
func TestS13EarlierVersionsAreTakenUp(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	change(t, dir, setVersion(u64(1)))
	path := filepath.Join(dir, dbName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	transactions := func() (n int) {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil }), db.Close()); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := transactions()
	wantOneItem(t, dir)
	if n := transactions() - first; n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A transaction's pages are written first, then one of the two pages that say which pages count.
	counting := 2 * os.Getpagesize()
	if string(after[:counting]) == string(before[:counting]) {
		t.Fatal("the database was not written")
	}
	for name, kept := range map[string]int{"before that page": counting, "within that page": counting / 4} {
		torn := append(append([]byte{}, before[:counting]...), after[counting:]...)
		copy(torn[kept:counting], after[kept:counting])
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run("crash "+name, func(t *testing.T) { wantOneItem(t, dir) })
	}
}
