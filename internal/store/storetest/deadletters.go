package storetest

import (
	"fmt"
	"testing"

	"github.com/precast-ota/precast/builder"
)

// DeadQueue is a queue with its dead letters.
type DeadQueue interface {
	builder.Queue
	builder.DeadLetters
}

// DeadLetters checks a driver of builder.DeadLetters. Each call of open returns an empty queue
// without dead letters.
func DeadLetters(t *testing.T, open func(t *testing.T) DeadQueue, opt QueueOptions) {
	opt = opt.withDefaults(t)
	for _, test := range []struct {
		name string
		run  func(deadLetters, *testing.T)
	}{
		{"None", deadLetters.none},
		{"TooOften", deadLetters.tooOften},
		{"Expired", deadLetters.expired},
		{"DeletedInTime", deadLetters.deletedInTime},
		{"Redrive", deadLetters.redrive},
		{"Several", deadLetters.several},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := open(t)
			test.run(deadLetters{queues{q, opt}, q}, t)
		})
	}
}

type deadLetters struct {
	queues
	builder.DeadLetters
}

// kill receives a message as often as it may be, and once more.
func (q deadLetters) kill(t *testing.T, body string) {
	t.Helper()
	for n := range q.MaxReceives {
		msg := q.one(t, 100*q.Visibility, body, n+1)
		if err := q.Extend(t.Context(), msg.Receipt, 0); err != nil {
			t.Fatalf("Extend(0): %v", err)
		}
	}
	q.wantNone(t)
}

func (q deadLetters) wantDead(t *testing.T, bodies ...string) {
	t.Helper()
	dead, err := q.Dead(t.Context(), 100)
	if err != nil {
		t.Fatalf("Dead: %v", err)
	}
	left := make(map[string]int)
	for _, b := range bodies {
		left[b]++
	}
	for i, msg := range dead {
		left[string(msg.Body)]--
		if msg.ID == "" {
			t.Errorf("dead letter %q has no ID", msg.Body)
		}
		if q.Exact && i < len(bodies) && string(msg.Body) != bodies[i] {
			t.Errorf("dead letter %d is %q, want %q", i, msg.Body, bodies[i])
		}
	}
	for b, n := range left {
		if n != 0 {
			t.Errorf("%d dead letters, want %q: %d too few of %q", len(dead), bodies, n, b)
		}
	}
}

func (q deadLetters) wantDepth(t *testing.T, waiting, inFlight, dead int) {
	t.Helper()
	w, f, d, err := q.Depth(t.Context())
	if err != nil {
		t.Fatalf("Depth: %v", err)
	}
	if q.Exact && (w != waiting || f != inFlight || d != dead) {
		t.Errorf("Depth = %d waiting, %d in flight, %d dead, want %d, %d, %d", w, f, d, waiting, inFlight, dead)
	}
}

func (q deadLetters) wantRedriven(t *testing.T, want int) {
	t.Helper()
	if n, err := q.DeadLetters.Redrive(t.Context()); err != nil || n != want {
		t.Fatalf("Redrive = %d, %v, want %d", n, err, want)
	}
}

func (q deadLetters) none(t *testing.T) {
	q.wantDead(t)
	q.wantDepth(t, 0, 0, 0)
	q.wantRedriven(t, 0)
	q.send(t, "a", "b", "c")
	q.wantDepth(t, 3, 0, 0)
	q.receive(t, 1, 100*q.Visibility)
	q.wantDepth(t, 2, 1, 0)
	q.wantDead(t)
}

func (q deadLetters) tooOften(t *testing.T) {
	q.send(t, "a")
	q.kill(t, "a")
	q.wantDead(t, "a")
	q.wantDead(t, "a") // looking changes nothing
	q.wantDepth(t, 0, 0, 1)
	q.send(t, "b")
	q.one(t, 100*q.Visibility, "b", 1)
	q.wantDead(t, "a")
}

// A worker that dies on a message does not give it back.
func (q deadLetters) expired(t *testing.T) {
	q.send(t, "a")
	for n := range q.MaxReceives {
		q.one(t, q.Visibility, "a", n+1)
		q.wantDead(t)
		q.expire()
	}
	q.wantNone(t)
	q.wantDead(t, "a")
}

func (q deadLetters) deletedInTime(t *testing.T) {
	q.send(t, "a")
	for n := range q.MaxReceives {
		msg := q.one(t, 100*q.Visibility, "a", n+1)
		if n+1 < q.MaxReceives {
			if err := q.Extend(t.Context(), msg.Receipt, 0); err != nil {
				t.Fatalf("Extend(0): %v", err)
			}
		} else if err := q.Delete(t.Context(), msg.Receipt); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	q.wantNone(t)
	q.wantDead(t)
	q.wantDepth(t, 0, 0, 0)
}

func (q deadLetters) redrive(t *testing.T) {
	q.send(t, "a")
	for range 2 {
		q.kill(t, "a")
		q.wantRedriven(t, 1)
		q.wantDead(t)
		q.wantDepth(t, 1, 0, 0)
	}
	msg := q.one(t, q.Visibility, "a", 1)
	if err := q.Delete(t.Context(), msg.Receipt); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	q.wantNone(t)
	q.wantRedriven(t, 0)
}

func (q deadLetters) several(t *testing.T) {
	var bodies []string
	for i := range 12 { // more than SQS gives at once
		bodies = append(bodies, fmt.Sprint("message ", i))
		q.send(t, bodies[i])
		q.kill(t, bodies[i])
	}
	q.wantDead(t, bodies...)
	q.wantDepth(t, 0, 0, len(bodies))
	if dead, err := q.Dead(t.Context(), 2); err != nil || len(dead) > 2 || q.Exact && len(dead) != 2 {
		t.Errorf("Dead(2) returned %d, %v", len(dead), err)
	}
	q.wantRedriven(t, len(bodies))
	q.wantDead(t)
	left := make(map[string]bool)
	for _, b := range bodies {
		left[b] = true
	}
	for _, msg := range q.receive(t, len(bodies), 100*q.Visibility) {
		delete(left, string(msg.Body))
		if msg.Receives != 1 {
			t.Errorf("a redriven message comes as %+v", msg)
		}
	}
	if len(left) != 0 {
		t.Errorf("redriven, but not received: %v", left)
	}
}
