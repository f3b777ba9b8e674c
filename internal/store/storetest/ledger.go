package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/precast-ota/precast/builder"
)

// Ledger checks a driver of builder.Ledger. Each call of open returns an empty ledger.
func Ledger(t *testing.T, open func(t *testing.T) builder.Ledger) {
	for _, test := range []struct {
		name string
		run  func(ledgers, *testing.T)
	}{
		{"Next", ledgers.next},
		{"ConcurrentNext", ledgers.concurrentNext},
		{"Done", ledgers.done},
		{"ManyParts", ledgers.manyParts},
		{"OpenAgain", ledgers.openAgain},
		{"NotOpen", ledgers.notOpen},
		{"Refused", ledgers.refused},
		{"IDs", ledgers.ids},
		{"Cancelled", ledgers.cancelled},
		{"FanIn", ledgers.fanIn},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(ledgers{open(t)}, t) })
	}
}

type ledgers struct{ builder.Ledger }

func (l ledgers) start(t *testing.T, id string, parts int) {
	t.Helper()
	if err := l.Open(t.Context(), id, parts); err != nil {
		t.Fatalf("Open(%q, %d): %v", id, parts, err)
	}
}

func (l ledgers) end(t *testing.T, id string) {
	t.Helper()
	if err := l.Close(t.Context(), id); err != nil {
		t.Fatalf("Close(%q): %v", id, err)
	}
}

func (l ledgers) want(t *testing.T, id string, part, want int) {
	t.Helper()
	if left, err := l.Done(t.Context(), id, part); err != nil || left != want {
		t.Fatalf("Done(%q, %d) = %d, %v, want %d", id, part, left, err, want)
	}
}

func (l ledgers) wantNotOpen(t *testing.T, id string) {
	t.Helper()
	if left, err := l.Done(t.Context(), id, 0); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("Done(%q) = %d, %v, want ErrNotExist", id, left, err)
	}
}

func (l ledgers) next(t *testing.T) {
	var last uint64
	for range 20 {
		n, err := l.Next(t.Context())
		if err != nil || n <= last {
			t.Fatalf("Next = %d, %v after %d", n, err, last)
		}
		last = n
	}
}

// A caller that asks after a number was returned, to anyone, gets a greater one.
func (l ledgers) concurrentNext(t *testing.T) {
	var highest atomic.Uint64
	seen := make([][]uint64, 8)
	together(8, func(w int) {
		for range 15 {
			before := highest.Load()
			n, err := l.Next(t.Context())
			if err != nil {
				t.Errorf("Next: %v", err)
				return
			}
			if n <= before {
				t.Errorf("Next = %d, though %d was returned before", n, before)
			}
			for h := highest.Load(); h < n && !highest.CompareAndSwap(h, n); h = highest.Load() {
			}
			seen[w] = append(seen[w], n)
		}
	})
	all := make(map[uint64]bool)
	for _, ns := range seen {
		for _, n := range ns {
			if all[n] {
				t.Errorf("Next returned %d twice", n)
			}
			all[n] = true
		}
	}
}

func (l ledgers) done(t *testing.T) {
	l.start(t, "a", 3)
	l.start(t, "b", 1)
	l.want(t, "a", 2, 2)
	l.want(t, "a", 2, 2)
	l.want(t, "a", 0, 1)
	l.want(t, "a", 2, 1)
	l.want(t, "b", 0, 0)
	l.want(t, "a", 1, 0)
	for part := range 3 { // a caller that crashes on the way gets 0 again
		l.want(t, "a", part, 0)
	}
	l.end(t, "a")
	l.wantNotOpen(t, "a")
	l.want(t, "b", 0, 0)
	l.start(t, "a", 2)
	l.want(t, "a", 0, 1)
}

func (l ledgers) manyParts(t *testing.T) {
	const parts = 130
	l.start(t, "many", parts)
	for i := range parts {
		l.want(t, "many", i*7%parts, parts-1-i)
	}
	l.want(t, "many", 0, 0)
}

func (l ledgers) openAgain(t *testing.T) {
	l.start(t, "a", 3)
	l.want(t, "a", 1, 2)
	l.start(t, "a", 3)
	l.start(t, "a", 5)
	l.start(t, "a", 1)
	l.want(t, "a", 1, 2)
	l.want(t, "a", 0, 1)
	l.want(t, "a", 2, 0)
	l.start(t, "a", 3)
	l.want(t, "a", 2, 0)
}

func (l ledgers) notOpen(t *testing.T) {
	l.wantNotOpen(t, "never")
	l.end(t, "never")
	l.wantNotOpen(t, "never")
	l.start(t, "a", 2)
	l.end(t, "a")
	l.end(t, "a")
	l.wantNotOpen(t, "a")
}

func (l ledgers) refused(t *testing.T) {
	for _, parts := range []int{0, -1} {
		if err := l.Open(t.Context(), "a", parts); err == nil {
			t.Errorf("Open accepted %d parts", parts)
		}
	}
	l.wantNotOpen(t, "a")
	l.start(t, "a", 2)
	for _, part := range []int{-1, 2, 1000} {
		if left, err := l.Done(t.Context(), "a", part); err == nil {
			t.Errorf("Done of part %d of 2 = %d", part, left)
		}
	}
	l.want(t, "a", 0, 1)
}

func (l ledgers) ids(t *testing.T) {
	ids := []string{"a", "A", "a/b", "a#b", "ünï 🙂", strings.Repeat("x", 500), sha0, "0"}
	for i, id := range ids {
		l.start(t, id, i+1)
	}
	for i, id := range ids {
		l.want(t, id, 0, i)
	}
}

func (l ledgers) cancelled(t *testing.T) {
	l.start(t, "a", 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Next(ctx); err == nil {
		t.Error("Next with an ended context succeeded")
	}
	if _, err := l.Done(ctx, "a", 0); err == nil {
		t.Error("Done with an ended context succeeded")
	}
	l.want(t, "a", 1, 1)
}

// Workers finish parts at once, each part more than once: somebody is told 0, and nobody before every
// part was begun to be marked.
func (l ledgers) fanIn(t *testing.T) {
	const parts, workers = 24, 6
	for round := range 3 {
		id := fmt.Sprint("build ", round)
		var begun [parts]atomic.Bool
		var zeros atomic.Int64
		together(workers, func(w int) {
			if err := l.Open(t.Context(), id, parts); err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			for i := range parts / 2 { // each part is marked by three workers
				part := (w*parts/workers + i) % parts
				begun[part].Store(true)
				left, err := l.Done(t.Context(), id, part)
				if err != nil || left < 0 || left >= parts {
					t.Errorf("Done(%d) = %d, %v", part, left, err)
					return
				}
				if left > 0 {
					continue
				}
				zeros.Add(1)
				for p := range begun {
					if !begun[p].Load() {
						t.Errorf("told 0 before part %d was marked", p)
					}
				}
			}
		})
		if zeros.Load() == 0 {
			t.Error("every part is done, and nobody was told 0")
		}
		l.want(t, id, 0, 0)
	}
}

// LedgerStore is a ledger whose numbers can be made to begin later.
type LedgerStore interface {
	builder.Ledger
	// Advance makes every number that Next returns from now on greater than n.
	Advance(ctx context.Context, n uint64) error
}

// Numbers checks a LedgerStore. Each call of open returns an empty one.
func Numbers(t *testing.T, open func(t *testing.T) LedgerStore) {
	const far = 1 << 40 // later than any time in seconds
	advance := func(l LedgerStore, n uint64) {
		t.Helper()
		if err := l.Advance(t.Context(), n); err != nil {
			t.Fatalf("Advance(%d): %v", n, err)
		}
	}
	next := func(l LedgerStore, after uint64) uint64 {
		t.Helper()
		n, err := l.Next(t.Context())
		if err != nil || n <= after {
			t.Fatalf("Next = %d, %v after %d", n, err, after)
		}
		return n
	}
	l := open(t)
	advance(l, 41)
	last := next(l, 41)
	advance(l, far)
	last = next(l, max(last, far))
	for _, back := range []uint64{0, 41, far} { // it never goes back
		advance(l, back)
		last = next(l, last)
	}
}
