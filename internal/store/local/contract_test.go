package local

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/store/storetest"
)

func openTemp(t *testing.T, opt Options) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestObjects(t *testing.T) {
	t.Parallel()
	storetest.Objects(t, func(t *testing.T) builder.Objects { return openTemp(t, Options{}).Objects() })
}

func TestDeletes(t *testing.T) {
	t.Parallel()
	storetest.Deletes(t, func(t *testing.T) storetest.DeletingObjects { return openTemp(t, Options{}).Objects() })
}

func TestCatalog(t *testing.T) {
	t.Parallel()
	storetest.Catalog(t, func(t *testing.T) storetest.CatalogStore { return openTemp(t, Options{}).Catalog() })
}

func TestQueue(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	opt := storetest.QueueOptions{Clock: builder.Clock{Pass: clock.Pass}, Visibility: 200 * time.Millisecond, MaxReceives: 4, Exact: true}
	storetest.Queue(t, func(t *testing.T) builder.Queue {
		return openTemp(t, Options{Now: clock.Now, MaxReceives: 4}).Queue()
	}, opt)
	storetest.DeadLetters(t, func(t *testing.T) storetest.DeadQueue {
		return openTemp(t, Options{Now: clock.Now, MaxReceives: 4}).Queue()
	}, opt)
}

func TestQueueInRealTime(t *testing.T) {
	t.Parallel()
	opt := storetest.QueueOptions{Visibility: 500 * time.Millisecond, MaxReceives: 5, Exact: true}
	storetest.Queue(t, func(t *testing.T) builder.Queue { return openTemp(t, Options{}).Queue() }, opt)
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	storetest.Numbers(t, func(t *testing.T) storetest.LedgerStore { return openTemp(t, Options{}).Ledger() })
}

func TestLedger(t *testing.T) {
	t.Parallel()
	storetest.Ledger(t, func(t *testing.T) builder.Ledger { return openTemp(t, Options{}).Ledger() })
}

// fakeClock stands still until it is advanced.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Pass is for a builder.Clock.
func (c *fakeClock) Pass(_ context.Context, d time.Duration) { c.Advance(d) }
