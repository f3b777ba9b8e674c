package pipeline

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/precast-ota/precast/builder"
)

// Event is one thing that a builder did; exactly one field is set.
type Event struct {
	Planned   *builder.Report    `json:"planned,omitempty"`
	Stored    *builder.Stored    `json:"stored,omitempty"`
	Rejected  *builder.Rejection `json:"rejected,omitempty"`
	Published *builder.Published `json:"published,omitempty"`
}

// events is an Observer that passes what it is told to another and to subscribers.
type events struct {
	next builder.Observer

	mu    sync.Mutex
	subs  map[int]func(Event)
	last  int
	retry time.Time // when the first of the items that the last plan left out is tried again; zero: none is
}

// subscribe adds a subscriber, which is called by one goroutine at a time until the function
// returned has been called.
func (e *events) subscribe(f func(Event)) (unsubscribe func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.subs == nil {
		e.subs = make(map[int]func(Event))
	}
	e.last++
	id := e.last
	e.subs[id] = f
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subs, id)
	}
}

func (e *events) tell(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(e.subs)) {
		e.subs[id](ev)
	}
}

func (e *events) Planned(ctx context.Context, r builder.Report) {
	e.next.Planned(ctx, r)
	e.mu.Lock()
	e.retry = time.Time{}
	for _, left := range r.Rejected {
		if !left.Retry.IsZero() && (e.retry.IsZero() || left.Retry.Before(e.retry)) {
			e.retry = left.Retry
		}
	}
	e.mu.Unlock()
	e.tell(Event{Planned: &r})
}

// retryDue tells whether an item that the last plan left out is to be tried again by now.
func (e *events) retryDue(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.retry.IsZero() && !now.Before(e.retry)
}

func (e *events) Stored(ctx context.Context, s builder.Stored) {
	e.next.Stored(ctx, s)
	e.tell(Event{Stored: &s})
}

func (e *events) Rejected(ctx context.Context, r builder.Rejection) {
	e.next.Rejected(ctx, r)
	e.tell(Event{Rejected: &r})
}

func (e *events) Published(ctx context.Context, p builder.Published) {
	e.tell(Event{Published: &p}) // first: a CDN's invalidation takes its time
	e.next.Published(ctx, p)
}

// Subscribe passes every event to f until the function returned is called.
func (p *Pipeline) Subscribe(f func(Event)) (unsubscribe func()) { return p.events.subscribe(f) }
