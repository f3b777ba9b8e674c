package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
)

// Queue checks a driver of builder.Queue. Each call of open returns an empty queue.
func Queue(t *testing.T, open func(t *testing.T) builder.Queue, opt QueueOptions) {
	opt = opt.withDefaults(t)
	for _, test := range []struct {
		name string
		run  func(queues, *testing.T)
	}{
		{"Empty", queues.empty},
		{"RoundTrip", queues.roundTrip},
		{"Sizes", queues.sizes},
		{"AtMostTen", queues.atMostTen},
		{"Hidden", queues.hidden},
		{"Redelivered", queues.redelivered},
		{"Extend", queues.extend},
		{"ExtendToNothing", queues.extendToNothing},
		{"ExtendInvalid", queues.extendInvalid},
		{"Delete", queues.delete},
		{"DeleteExpired", queues.deleteExpired},
		{"Wakes", queues.wakes},
		{"Cancelled", queues.cancelled},
		{"Concurrent", queues.concurrent},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(queues{open(t), opt}, t) })
	}
}

type queues struct {
	builder.Queue
	QueueOptions
}

func (q queues) send(t *testing.T, bodies ...string) {
	t.Helper()
	var bs [][]byte
	for _, b := range bodies {
		bs = append(bs, []byte(b))
	}
	if err := q.Send(t.Context(), bs...); err != nil {
		t.Fatalf("Send: %v", err)
	}
}

// receive waits for n messages, which are invisible for the duration visibility.
func (q queues) receive(t *testing.T, n int, visibility time.Duration) []builder.Message {
	t.Helper()
	var all []builder.Message
	for len(all) < n {
		msgs, err := q.Receive(t.Context(), n-len(all), visibility, q.Patience)
		if err != nil {
			t.Fatalf("Receive: %v", err)
		}
		if len(msgs) == 0 {
			t.Fatalf("received %d messages within %v, want %d", len(all), q.Patience, n)
		}
		all = append(all, msgs...)
	}
	return all
}

// one is receive of one message, with what it must be.
func (q queues) one(t *testing.T, visibility time.Duration, body string, receives int) builder.Message {
	t.Helper()
	msg := q.receive(t, 1, visibility)[0]
	if string(msg.Body) != body || msg.Receives != receives || msg.Receipt == "" || msg.ID == "" {
		t.Fatalf("received %+v (body %q), want body %q, receive %d", msg, msg.Body, body, receives)
	}
	return msg
}

// wantNone checks that nothing is visible.
func (q queues) wantNone(t *testing.T) {
	t.Helper()
	msgs, err := q.Receive(t.Context(), 10, q.Visibility, 0)
	if err != nil || len(msgs) != 0 {
		t.Fatalf("Receive = %+v, %v, want nothing", msgs, err)
	}
}

// expire lets a visibility timeout pass.
func (q queues) expire() { q.pass(q.Visibility + q.Visibility/2) }

func (q queues) pass(d time.Duration) { _ = q.Clock.Wait(context.Background(), d) }

func (q queues) empty(t *testing.T) {
	q.wantNone(t)
	if err := q.Send(t.Context()); err != nil {
		t.Errorf("Send of nothing: %v", err)
	}
	q.wantNone(t)
	// Waiting is what spares a receiver from asking all the time. (Half: clocks differ.)
	start := time.Now()
	msgs, err := q.Receive(t.Context(), 10, q.Visibility, q.Visibility)
	if err != nil || len(msgs) != 0 {
		t.Errorf("Receive = %+v, %v, want nothing", msgs, err)
	}
	if took := time.Since(start); took < q.Visibility/2 {
		t.Errorf("Receive waited %v of %v", took, q.Visibility)
	}
}

func (q queues) roundTrip(t *testing.T) {
	bodies := []string{`{"job":1}`, "plain", "ünï 日本語 🙂", "<xml>&amp;</xml>\n\ttabs", `{"job":1}`}
	q.send(t, bodies[:3]...)
	q.send(t, bodies[3])
	q.send(t, bodies[4])
	left := make(map[string]int)
	for _, b := range bodies {
		left[b]++
	}
	ids := make(map[string]bool)
	for _, msg := range q.receive(t, len(bodies), 10*q.Visibility) {
		left[string(msg.Body)]--
		ids[msg.ID] = true
		if msg.Receives != 1 || msg.Receipt == "" {
			t.Errorf("first delivery is %+v", msg)
		}
	}
	for b, n := range left {
		if n != 0 {
			t.Errorf("body %q: %d of %d were not received", b, n, len(bodies))
		}
	}
	if len(ids) != len(bodies) {
		t.Errorf("%d messages have %d IDs", len(bodies), len(ids))
	}
}

func (q queues) sizes(t *testing.T) {
	const limit = 1 << 20
	if err := q.Send(t.Context(), bytes.Repeat([]byte("x"), limit+1)); err == nil {
		t.Errorf("Send accepted %d bytes", limit+1)
	}
	q.wantNone(t)
	// Together they are more than one request to SQS may hold.
	big := bytes.Repeat([]byte("y"), limit)
	if err := q.Send(t.Context(), big, []byte("small"), big); err != nil {
		t.Fatalf("Send of %d bytes: %v", limit, err)
	}
	total := 0
	for _, msg := range q.receive(t, 3, 10*q.Visibility) {
		total += len(msg.Body)
	}
	if total != 2*limit+5 {
		t.Errorf("received %d bytes, want %d", total, 2*limit+5)
	}
}

func (q queues) atMostTen(t *testing.T) {
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprint("message ", i))
	}
	q.send(t, want...)
	seen := make(map[string]bool)
	for _, ask := range []int{1, 3, 10, 20, 20, 20, 20, 20} {
		msgs, err := q.Receive(t.Context(), ask, 100*q.Visibility, q.Patience*time.Duration(min(1, 25-len(seen))))
		if err != nil {
			t.Fatalf("Receive(%d): %v", ask, err)
		}
		if len(msgs) > min(ask, 10) {
			t.Errorf("Receive(%d) returned %d messages", ask, len(msgs))
		}
		for _, msg := range msgs {
			seen[string(msg.Body)] = true
		}
	}
	for len(seen) < 25 { // a queue may give fewer than it has
		seen[string(q.receive(t, 1, 100*q.Visibility)[0].Body)] = true
	}
	for _, b := range want {
		if !seen[b] {
			t.Errorf("%q was not received", b)
		}
	}
}

func (q queues) hidden(t *testing.T) {
	q.send(t, "a")
	q.one(t, 10*q.Visibility, "a", 1)
	q.wantNone(t)
	q.pass(q.Visibility)
	q.wantNone(t)
	q.send(t, "b")
	q.one(t, 10*q.Visibility, "b", 1)
	q.wantNone(t)
}

func (q queues) redelivered(t *testing.T) {
	q.send(t, "a")
	first := q.one(t, q.Visibility, "a", 1)
	q.expire()
	second := q.one(t, q.Visibility, "a", 2)
	if second.ID != first.ID {
		t.Errorf("the second delivery has the ID %q, the first %q", second.ID, first.ID)
	}
	if second.Receipt == first.Receipt {
		t.Errorf("two deliveries have the receipt %q", first.Receipt)
	}
	q.expire()
	q.one(t, q.Visibility, "a", 3)
}

func (q queues) extend(t *testing.T) {
	q.send(t, "a")
	msg := q.one(t, 2*q.Visibility, "a", 1)
	q.pass(q.Visibility)
	if err := q.Extend(t.Context(), msg.Receipt, 3*q.Visibility); err != nil {
		t.Fatalf("Extend: %v", err)
	}
	q.pass(q.Visibility + q.Visibility/2) // beyond the first timeout
	q.wantNone(t)
	if err := q.Extend(t.Context(), msg.Receipt, q.Visibility); err != nil { // shorter is possible too
		t.Fatalf("Extend again: %v", err)
	}
	q.expire()
	q.one(t, q.Visibility, "a", 2)
}

func (q queues) extendToNothing(t *testing.T) {
	q.send(t, "a")
	msg := q.one(t, 100*q.Visibility, "a", 1)
	if err := q.Extend(t.Context(), msg.Receipt, 0); err != nil {
		t.Fatalf("Extend(0): %v", err)
	}
	q.one(t, 100*q.Visibility, "a", 2)
}

func (q queues) wantInvalid(t *testing.T, what, receipt string) {
	t.Helper()
	for _, visibility := range []time.Duration{q.Visibility, 0} {
		if err := q.Extend(t.Context(), receipt, visibility); !errors.Is(err, builder.ErrNotExist) {
			t.Errorf("Extend(%v) %s = %v, want ErrNotExist", visibility, what, err)
		}
	}
}

func (q queues) extendInvalid(t *testing.T) {
	q.send(t, "a", "b")
	msgs := q.receive(t, 2, q.Visibility)
	if err := q.Delete(t.Context(), msgs[0].Receipt); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	q.wantInvalid(t, "of a deleted message", msgs[0].Receipt)
	q.expire()
	q.wantInvalid(t, "with an expired receipt", msgs[1].Receipt)
	q.one(t, q.Visibility, string(msgs[1].Body), 2)
}

func (q queues) delete(t *testing.T) {
	q.send(t, "a", "b")
	msgs := q.receive(t, 2, q.Visibility)
	for range 2 {
		if err := q.Delete(t.Context(), msgs[0].Receipt); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	q.expire()
	q.one(t, 10*q.Visibility, string(msgs[1].Body), 2)
	q.wantNone(t)
}

func (q queues) deleteExpired(t *testing.T) {
	q.send(t, "a")
	msg := q.one(t, q.Visibility, "a", 1)
	q.expire()
	if err := q.Delete(t.Context(), msg.Receipt); err != nil {
		t.Fatalf("Delete with an expired receipt: %v", err)
	}
	q.wantNone(t)
}

// A receiver that waits gets what is sent meanwhile.
func (q queues) wakes(t *testing.T) {
	for _, body := range []string{"a", "b", "c"} {
		got := make(chan []builder.Message, 1)
		go func() {
			msgs, err := q.Receive(t.Context(), 1, 100*q.Visibility, q.Patience)
			if err != nil {
				t.Errorf("Receive: %v", err)
			}
			got <- msgs
		}()
		q.send(t, body)
		if msgs := <-got; len(msgs) != 1 || string(msgs[0].Body) != body {
			t.Fatalf("a waiting receiver got %+v, want %q", msgs, body)
		}
	}
}

func (q queues) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := q.Receive(ctx, 1, q.Visibility, time.Hour)
		done <- err
	}()
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("Receive whose context ended returned no error")
		}
	case <-time.After(q.Patience):
		t.Fatal("Receive goes on though its context has ended")
	}
	if err := q.Send(ctx, []byte("x")); err == nil {
		t.Error("Send with an ended context succeeded")
	}
	q.wantNone(t)
}

// No message is delivered twice while it is hidden, and none is lost.
func (q queues) concurrent(t *testing.T) {
	const senders, each = 4, 12
	var mu sync.Mutex
	seen := make(map[string]int)
	deleted := 0
	together(2*senders, func(w int) {
		if w < senders {
			for i := range each {
				if err := q.Send(t.Context(), fmt.Appendf(nil, "%d.%d", w, i)); err != nil {
					t.Errorf("Send: %v", err)
					return
				}
			}
			return
		}
		giveUp := time.Now().Add(q.Patience)
		for {
			msgs, err := q.Receive(t.Context(), 3, 1000*q.Visibility, q.Visibility)
			if err != nil {
				t.Errorf("Receive: %v", err)
				return
			}
			for _, msg := range msgs {
				if err := q.Delete(t.Context(), msg.Receipt); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
			mu.Lock()
			for _, msg := range msgs {
				seen[string(msg.Body)]++
			}
			deleted += len(msgs)
			finished := deleted >= senders*each
			mu.Unlock()
			if finished || len(msgs) == 0 && time.Now().After(giveUp) {
				return
			}
		}
	})
	for w := range senders {
		for i := range each {
			if n := seen[fmt.Sprintf("%d.%d", w, i)]; n != 1 {
				t.Errorf("message %d.%d was received %d times", w, i, n)
			}
		}
	}
	q.wantNone(t)
}
