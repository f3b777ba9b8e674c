package local

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
)

func applyVersions(t *testing.T, c *Catalog, versions ...int) {
	t.Helper()
	for _, v := range versions {
		if err := c.Apply(t.Context(), catalog.Edit{Changes: itemsOf(v)[:1]}); err != nil {
			t.Fatal(err)
		}
	}
}

func wantChanges(t *testing.T, c *Catalog, after uint64, max int, seqs ...uint64) []Change {
	t.Helper()
	changes, err := c.Changes(t.Context(), after, max, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, ch := range changes {
		got = append(got, ch.Seq)
	}
	if len(got) != len(seqs) {
		t.Fatalf("Changes(%d, %d) = %v, want %v", after, max, got, seqs)
	}
	for i := range got {
		if got[i] != seqs[i] {
			t.Fatalf("Changes(%d, %d) = %v, want %v", after, max, got, seqs)
		}
	}
	return changes
}

func TestChanges(t *testing.T) {
	t.Parallel()
	c := openTemp(t, Options{}).Catalog()
	wantChanges(t, c, 0, 10)
	applyVersions(t, c, 1, 2)
	if err := c.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{
		catalog.Remove(catalog.Key{App: "a", Track: "prod"}), catalog.Put(catalog.Item{App: "z", Track: "beta", Size: 7}),
	}}); err != nil {
		t.Fatal(err)
	}
	changes := wantChanges(t, c, 0, 10, 1, 2, 3, 4)
	for i, want := range []string{"1", "2"} {
		if changes[i].Item == nil || changes[i].Item.Version != want || changes[i].Key.App != "a" {
			t.Errorf("change %d is %+v", i, changes[i])
		}
	}
	if changes[2].Item != nil || changes[2].Key != (catalog.Key{App: "a", Track: "prod"}) {
		t.Errorf("the removal is %+v", changes[2])
	}
	if changes[3].Item == nil || changes[3].Item.Size != 7 {
		t.Errorf("the last change is %+v", changes[3])
	}
	wantChanges(t, c, 0, 3, 1, 2, 3)
	wantChanges(t, c, 2, 10, 3, 4)
	wantChanges(t, c, 4, 10)
	wantChanges(t, c, 1000, 10)

	for _, upTo := range []uint64{0, 2, 1} {
		if err := c.TrimChanges(t.Context(), upTo); err != nil {
			t.Fatal(err)
		}
	}
	wantChanges(t, c, 0, 10, 3, 4)
	if err := c.TrimChanges(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	wantChanges(t, c, 0, 10)
	if last, err := c.LastChange(t.Context()); err != nil || last != 4 {
		t.Errorf("LastChange = %d, %v", last, err)
	}
	applyVersions(t, c, 3)
	wantChanges(t, c, 0, 10, 5)
	if _, err := c.Changes(t.Context(), 0, 0, 0); err == nil {
		t.Error("Changes accepted a max of 0")
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	c := openTemp(t, Options{}).Catalog()
	good := catalog.Item{App: "a", Track: "prod"}
	for _, bad := range []catalog.Change{
		{Key: catalog.Key{App: "other", Track: "prod"}, Item: &good}, catalog.Put(catalog.Item{Track: "prod"}),
	} {
		if err := c.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(good), bad}}); err == nil {
			t.Errorf("Apply accepted %+v", bad)
		}
		if items, err := c.Snapshot(t.Context()); err != nil || len(items) != 0 {
			t.Errorf("a refused Apply left %v, %v", items, err)
		}
		wantChanges(t, c, 0, 10)
	}
}

func TestCursors(t *testing.T) {
	t.Parallel()
	c := openTemp(t, Options{}).Catalog()
	want := func(name string, want uint64) {
		t.Helper()
		if got, err := c.Cursor(t.Context(), name); err != nil || got != want {
			t.Errorf("Cursor(%q) = %d, %v, want %d", name, got, err, want)
		}
	}
	want("enqueuer", 0)
	for name, seq := range map[string]uint64{"enqueuer": 7, "": 8, "other": 1 << 60} {
		if err := c.SetCursor(t.Context(), name, seq); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetCursor(t.Context(), "other", 3); err != nil {
		t.Fatal(err)
	}
	want("enqueuer", 7)
	want("", 8)
	want("other", 3)
}

// In a synctest bubble, time passes only when everybody waits: so these durations are exact.

func TestChangesWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openTemp(t, Options{})
		c := s.Catalog()
		begin := time.Now()
		if changes, err := c.Changes(t.Context(), 0, 10, time.Minute); err != nil || len(changes) != 0 || time.Since(begin) != time.Minute {
			t.Errorf("Changes = %v, %v after %v", changes, err, time.Since(begin))
		}
		// Two wait, for different changes.
		begin = time.Now()
		got := make(chan time.Duration)
		for after := range uint64(2) {
			go func() {
				changes, err := c.Changes(t.Context(), after, 10, time.Hour)
				if err != nil || len(changes) != 1 || changes[0].Item.Version != strconv.Itoa(int(after)) {
					t.Errorf("Changes = %v, %v", changes, err)
				}
				got <- time.Since(begin)
			}()
		}
		for version := range 2 {
			time.Sleep(10 * time.Second)
			applyVersions(t, c, version)
			if took, want := <-got, time.Duration(version+1)*10*time.Second; took != want {
				t.Errorf("change %d came after %v, want %v", version, took, want)
			}
		}
		// A wait ends with its context, and with the store.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Changes(ctx, 2, 10, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Changes = %v", err)
		}
		time.AfterFunc(time.Second, func() { s.Close() })
		if _, err := c.Changes(t.Context(), 2, 10, time.Hour); !errors.Is(err, errClosed) {
			t.Errorf("Changes of a store that closes = %v", err)
		}
	})
}
