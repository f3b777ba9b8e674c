package local

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/builder"
)

// Entries that nobody closes are forgotten in time, but not before 24 hours.
func TestLedgerForgets(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	s := openTemp(t, Options{Now: clock.Now})
	l := s.Ledger()
	for i := range 20 {
		if err := l.Open(t.Context(), fmt.Sprint("old ", i), 2); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(t.Context(), "old 7"); err != nil {
		t.Fatal(err)
	}
	clock.Advance(25 * time.Hour)
	if err := l.Open(t.Context(), "young", 2); err != nil {
		t.Fatal(err)
	}
	if left, err := l.Done(t.Context(), "old 3", 1); err != nil || left != 1 {
		t.Errorf("after 25 hours Done = %d, %v", left, err)
	}
	clock.Advance(24 * time.Hour)
	for i := range 3 { // a few are forgotten at a time
		if err := l.Open(t.Context(), fmt.Sprint("new ", i), 1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		if _, err := l.Done(t.Context(), fmt.Sprint("old ", i), 0); !errors.Is(err, builder.ErrNotExist) {
			t.Errorf("after 49 hours Done = %v", err)
		}
	}
	if left, err := l.Done(t.Context(), "young", 1); err != nil || left != 1 {
		t.Errorf("Done = %d, %v", left, err)
	}
	// Opening one that is old does not forget it under its opener's hands: it is open anew.
	clock.Advance(25 * time.Hour)
	if err := l.Open(t.Context(), "young", 3); err != nil {
		t.Fatal(err)
	}
	if left, err := l.Done(t.Context(), "young", 0); err != nil || left != 2 {
		t.Errorf("Done = %d, %v", left, err)
	}
	for _, id := range []string{"young", "new 0", "new 1", "new 2"} {
		if err := l.Close(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketEntries, bucketOpened} {
			if k, _ := tx.Bucket(name).Cursor().First(); k != nil {
				t.Errorf("bucket %s still has %q", name, k)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
