package cdn_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// world is a published index, and a store that the table is kept in.
type world struct {
	t       *testing.T
	objects builder.Objects
	*store
	now time.Time
	// tables are the tables of generations.
	tables map[uint64][]string
}

func newWorld(t *testing.T) *world {
	return &world{t: t, objects: storetest.NewMemory(time.Now, 5).Objects, store: newStore(), now: time.Unix(1e9, 0), tables: map[uint64][]string{}}
}

// publish publishes a generation with a table.
func (w *world) publish(generation uint64, table ...string) {
	w.t.Helper()
	w.tables[generation] = table
	data := index.New(index.Index{Generation: generation, Sequence: generation, Format: "f"}).Encode()
	if _, err := w.objects.Put(w.t.Context(), layout.IndexKey, builder.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}, builder.PutOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// rollouts are those of one builder.
func (w *world) rollouts() *cdn.Rollouts {
	return &cdn.Rollouts{Client: w.store, Store: storeARN, Objects: w.objects, Now: func() time.Time { return w.now },
		Table: func(ix *index.Index) []string { return w.tables[ix.Generation] }}
}

// has checks what the function at the edge would read.
func (w *world) has(table ...string) {
	w.t.Helper()
	want := map[string]string{}
	for i, v := range table {
		want[fmt.Sprint("rollouts.", i)] = v
	}
	got := maps.Clone(w.items)
	maps.DeleteFunc(got, func(k, _ string) bool { return !strings.HasPrefix(k, "rollouts.") })
	if !maps.Equal(got, want) {
		w.t.Fatalf("the store has %q, want %q", got, want)
	}
}

func (w *world) bring(r *cdn.Rollouts, want cdn.Table) {
	w.t.Helper()
	if got, err := r.Bring(w.t.Context()); err != nil || got != want {
		w.t.Fatalf("%v, %v; want %v", got, err, want)
	}
}

func TestTheTableFollowsWhatIsPublished(t *testing.T) {
	w := newWorld(t)
	w.store.page = 2
	w.items["somebody's"] = "own"
	r := w.rollouts()
	w.publish(1)
	w.bring(r, cdn.TableKept) // no rollouts, no table
	w.publish(2, "a\n+\n", "b\n+\n", "c\n")
	w.bring(r, cdn.TableWritten)
	w.has("a\n+\n", "b\n+\n", "c\n")
	w.publish(3, "a\n+\n", "d\n")
	w.bring(r, cdn.TableWritten)
	w.has("a\n+\n", "d\n")
	w.publish(4)
	w.bring(r, cdn.TableWritten)
	w.has()
	if w.items["somebody's"] != "own" {
		t.Error("a key that is not the table's is gone")
	}
	if w.updates != 3 {
		t.Errorf("%d updates for three changes: the table was not whole in between", w.updates)
	}
}

// The fullest table fits the quotas.
func TestTheFullestTableIsTaken(t *testing.T) {
	w := newWorld(t)
	var table []string
	for range 8 {
		table = append(table, strings.Repeat("x", 1000))
	}
	w.publish(1, table...)
	w.bring(w.rollouts(), cdn.TableWritten)
	w.has(table...)
	w.publish(2, strings.Repeat("x", 1025))
	if _, err := w.rollouts().Bring(t.Context()); err == nil {
		t.Fatal("the store took a value that is too long")
	}
	w.has(table...)
}

// A table that is right is not written, and the plans of an hour look at it once.
func TestATableThatIsRightCostsNothing(t *testing.T) {
	w := newWorld(t)
	w.publish(1, "a\n")
	r := w.rollouts()
	w.bring(r, cdn.TableWritten)
	w.calls = nil
	for range 3 {
		w.now = w.now.Add(15 * time.Minute)
		w.bring(r, cdn.TableKept)
	}
	if len(w.calls) != 0 {
		t.Errorf("calls %v within the hour", w.calls)
	}
	w.items["rollouts.0"] = "changed by hand\n"
	w.now = w.now.Add(15 * time.Minute)
	w.bring(r, cdn.TableWritten)
	w.has("a\n")
	w.calls = nil
	w.bring(w.rollouts(), cdn.TableKept) // another builder
	if fmt.Sprint(w.calls) != "[list]" {
		t.Errorf("calls %v, want one look", w.calls)
	}
}

// Two builders that publish one after the other leave the table of the later one, wherever the second
// one's publish and its table come among the first one's calls, or after them.
func TestTheNewestPublishWins(t *testing.T) {
	const most = 5 // more calls than the first one makes when nobody disturbs it
	for publishAt := range most {
		for bringAt := publishAt; bringAt < most; bringAt++ {
			w := newWorld(t)
			w.publish(1, "old\n")
			w.bring(w.rollouts(), cdn.TableWritten)
			w.publish(2, "first\n+\n", "of two\n")
			w.calls = nil
			published, brought := false, false
			second := func(n int) {
				if n >= publishAt && !published {
					published = true
					w.publish(3, "second\n")
				}
				if n >= bringAt && !brought {
					brought = true
					calls := w.calls
					if _, err := w.rollouts().Bring(t.Context()); err != nil {
						t.Fatal(err)
					}
					w.calls = calls
				}
			}
			w.before = func(n int) error {
				if !brought {
					second(n)
				}
				return nil
			}
			if _, err := w.rollouts().Bring(t.Context()); err != nil {
				t.Fatalf("published at call %d, table at call %d: %v", publishAt, bringAt, err)
			}
			second(most)
			w.has("second\n")
		}
	}
}

// Every call fails once, before anything was done and after everything was: the table is the old one or the
// new one, whole, and the next plan's is right.
func TestEveryCallFailsBothWays(t *testing.T) {
	old, next := []string{"a\n+\n", "b\n+\n", "c\n"}, []string{"a\n+\n", "d\n"}
	for n := range 4 {
		for _, done := range []bool{false, true} {
			w := newWorld(t)
			w.publish(1, old...)
			r := w.rollouts()
			w.bring(r, cdn.TableWritten)
			w.publish(2, next...)
			w.calls = nil
			fail := func(call int) error {
				if call == n {
					return errStore
				}
				return nil
			}
			if w.before = fail; done {
				w.before, w.after = nil, fail
			}
			got, err := r.Bring(t.Context())
			if !errors.Is(err, errStore) || got != cdn.TableUnknown || !strings.Contains(err.Error(), "RequestID: 7f2c") {
				t.Fatalf("call %d failed, done %v: %v, %v", n, done, got, err)
			}
			if w.calls[n] == "update" && done {
				w.has(next...)
			} else {
				w.has(old...)
			}
			w.before, w.after = nil, nil
			if _, err := r.Bring(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.has(next...)
		}
	}
}

// Somebody who writes the store all the time keeps the table from being written; that is an error in the end.
func TestItIsGivenUpAtLast(t *testing.T) {
	w := newWorld(t)
	w.publish(1, "a\n")
	w.before = func(n int) error {
		w.version++
		return nil
	}
	if _, err := w.rollouts().Bring(t.Context()); err == nil || !strings.Contains(err.Error(), "somebody else wrote the store") {
		t.Fatal(err)
	}
	w.before = nil
	w.bring(w.rollouts(), cdn.TableWritten)
}

func TestWithoutAnIndexTheTableIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.items["rollouts.0"] = "a\n"
	if _, err := w.rollouts().Bring(t.Context()); err == nil {
		t.Fatal("there is no index")
	}
	w.has("a\n")
}
