package local

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/builder"
)

func send(t *testing.T, q *Queue, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		if err := q.Send(t.Context(), []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
}

// receive takes one message within wait, "" if there is none.
func receive(t *testing.T, q *Queue, visibility, wait time.Duration) (body string, msg builder.Message) {
	t.Helper()
	msgs, err := q.Receive(t.Context(), 1, visibility, wait)
	if err != nil {
		t.Fatal(err)
	}
	if len(msgs) == 0 {
		return "", msg
	}
	return string(msgs[0].Body), msgs[0]
}

func wantReceive(t *testing.T, q *Queue, visibility time.Duration, body string, receives int) builder.Message {
	t.Helper()
	got, msg := receive(t, q, visibility, 0)
	if got != body || msg.Receives != receives {
		t.Fatalf("received %q for the %d. time, want %q for the %d.", got, msg.Receives, body, receives)
	}
	return msg
}

func TestReceiveWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openTemp(t, Options{})
		q := s.Queue()
		begin := time.Now()
		took := func(want time.Duration) {
			t.Helper()
			if d := time.Since(begin); d != want {
				t.Errorf("it took %v, want %v", d, want)
			}
			begin = time.Now()
		}
		if body, _ := receive(t, q, time.Hour, 20*time.Second); body != "" {
			t.Errorf("received %q from nothing", body)
		}
		took(20 * time.Second)

		time.AfterFunc(3*time.Second, func() { send(t, q, "sent") })
		if body, _ := receive(t, q, 7*time.Second, time.Hour); body != "sent" {
			t.Errorf("received %q", body)
		}
		took(3 * time.Second)

		body, msg := receive(t, q, 7*time.Second, time.Hour)
		if body != "sent" || msg.Receives != 2 {
			t.Errorf("received %q for the %d. time", body, msg.Receives)
		}
		took(7 * time.Second) // it became visible

		time.AfterFunc(time.Second, func() {
			if err := q.Extend(t.Context(), msg.Receipt, 30*time.Second); err != nil {
				t.Error(err)
			}
		})
		if body, msg = receive(t, q, time.Hour, time.Hour); body != "sent" {
			t.Errorf("received %q", body)
		}
		took(31 * time.Second) // later than was announced

		time.AfterFunc(2*time.Second, func() {
			if err := q.Extend(t.Context(), msg.Receipt, 0); err != nil {
				t.Error(err)
			}
		})
		if body, msg = receive(t, q, time.Hour, time.Hour); body != "sent" {
			t.Errorf("received %q", body)
		}
		took(2 * time.Second) // earlier than was announced

		// It becomes visible for the last time, but only as a dead letter: that is nothing to receive.
		if err := q.Extend(t.Context(), msg.Receipt, 0); err != nil {
			t.Fatal(err)
		}
		wantReceive(t, q, time.Second, "sent", 5)
		if body, _ = receive(t, q, time.Hour, 10*time.Second); body != "" {
			t.Errorf("received %q, which is dead", body)
		}
		took(10 * time.Second)

		time.AfterFunc(4*time.Second, func() {
			if n, err := q.Redrive(t.Context()); n != 1 || err != nil {
				t.Errorf("Redrive = %d, %v", n, err)
			}
		})
		if body, _ = receive(t, q, time.Hour, time.Hour); body != "sent" {
			t.Errorf("received %q", body)
		}
		took(4 * time.Second)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Receive(ctx, 1, 0, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Receive = %v", err)
		}
		took(time.Second)
		time.AfterFunc(time.Second, func() { s.Close() })
		if _, err := q.Receive(t.Context(), 1, 0, time.Hour); !errors.Is(err, errClosed) {
			t.Errorf("Receive of a store that closes = %v", err)
		}
		took(time.Second)
	})
}

// Of several that wait, each message wakes one in the end.
func TestReceiversShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := openTemp(t, Options{}).Queue()
		got := make(chan string, 3)
		for range 3 {
			go func() {
				body, _ := receive(t, q, time.Hour, time.Hour)
				got <- body
			}()
		}
		synctest.Wait()
		seen := make(map[string]bool)
		for i := range 3 {
			send(t, q, fmt.Sprint(i))
			seen[<-got] = true
		}
		if len(seen) != 3 || seen[""] {
			t.Errorf("received %v", seen)
		}
	})
}

// Setting the system's clock neither hides messages nor shows them.
func TestQueueOnItsOwnClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		offset := time.Duration(0)
		now := func() time.Time { return time.Now().Add(offset) } // moves the wall clock and, alas, the monotonic one
		q := openTemp(t, Options{Now: now}).Queue()
		offset = -time.Hour // as a clock that runs backwards without a monotonic reading
		send(t, q, "a")
		wantReceive(t, q, time.Minute, "a", 1)
		if body, _ := receive(t, q, 0, 0); body != "" {
			t.Errorf("received %q, which is hidden", body)
		}
	})
}

// Opening finds every earlier receiver dead.
func TestReopenedQueue(t *testing.T) {
	t.Parallel()
	dir, clock := t.TempDir(), newFakeClock()
	reopen := func() *Store {
		t.Helper()
		s, err := Open(dir, Options{Now: clock.Now, MaxReceives: 3})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := reopen()
	send(t, s.Queue(), "in flight", "deleted")
	first := wantReceive(t, s.Queue(), 12*time.Hour, "in flight", 1)
	done := wantReceive(t, s.Queue(), time.Hour, "deleted", 1)
	if err := s.Queue().Delete(t.Context(), done.Receipt); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"dead", "dead too"} {
		send(t, s.Queue(), body)
		for n := range 3 {
			wantReceive(t, s.Queue(), 0, body, n+1)
		}
		if body, _ := receive(t, s.Queue(), 0, 0); body != "" {
			t.Fatalf("received %q, which is dead", body)
		}
	}
	send(t, s.Queue(), "waiting")
	wantReceive(t, s.Queue(), 0, "waiting", 1)
	s.Close()

	clock.Advance(-10 * time.Hour) // the clock was wrong, too
	s = reopen()
	send(t, s.Queue(), "new")
	wantReceive(t, s.Queue(), time.Hour, "waiting", 2)
	second := wantReceive(t, s.Queue(), time.Hour, "in flight", 2)
	if first.ID != second.ID {
		t.Errorf("the message's ID changed from %q to %q", first.ID, second.ID)
	}
	if err := s.Queue().Extend(t.Context(), first.Receipt, time.Hour); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("Extend with a receipt of a dead receiver = %v", err)
	}
	if err := s.Queue().Delete(t.Context(), first.Receipt); err != nil { // not its message any more
		t.Error(err)
	}
	wantReceive(t, s.Queue(), time.Hour, "new", 1)
	if body, _ := receive(t, s.Queue(), 0, 0); body != "" {
		t.Errorf("received %q", body)
	}
	waiting, inFlight, dead, err := s.Queue().Depth(t.Context())
	if waiting != 0 || inFlight != 3 || dead != 2 || err != nil {
		t.Errorf("%d wait, %d in flight, %d dead, %v", waiting, inFlight, dead, err)
	}
	s.Close()
	s = reopen()
	defer s.Close()
	if msgs, err := s.Queue().Receive(t.Context(), 10, time.Hour, 0); err != nil || len(msgs) != 3 {
		t.Errorf("Receive = %+v, %v", msgs, err)
	}
	if n, err := s.Queue().Redrive(t.Context()); err != nil || n != 2 {
		t.Errorf("Redrive = %d, %v", n, err)
	}
	checkBuckets(t, s.db)
}

// A receipt is good for its own delivery, not for a later one, even after a redrive.
func TestOldReceipts(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	q := openTemp(t, Options{Now: clock.Now, MaxReceives: 1}).Queue()
	send(t, q, "a")
	old := wantReceive(t, q, 0, "a", 1)
	if body, _ := receive(t, q, 0, 0); body != "" {
		t.Fatalf("received %q, which is dead", body)
	}
	if err := q.Extend(t.Context(), old.Receipt, time.Hour); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("Extend of a dead letter = %v", err)
	}
	if n, err := q.Redrive(t.Context()); n != 1 || err != nil {
		t.Fatalf("Redrive = %d, %v", n, err)
	}
	msg := wantReceive(t, q, time.Hour, "a", 1)
	if err := q.Extend(t.Context(), old.Receipt, 0); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("Extend with an old receipt = %v", err)
	}
	if err := q.Delete(t.Context(), old.Receipt); err != nil {
		t.Errorf("Delete with an old receipt = %v", err)
	}
	if err := q.Extend(t.Context(), msg.Receipt, 0); err != nil {
		t.Errorf("the message is gone: %v", err)
	}
	// A worker that was late, but did its work, takes the dead letter away.
	if body, _ := receive(t, q, 0, 0); body != "" {
		t.Fatalf("received %q, which is dead", body)
	}
	if err := q.Delete(t.Context(), msg.Receipt); err != nil {
		t.Fatal(err)
	}
	if dead, err := q.Dead(t.Context(), 10); err != nil || len(dead) != 0 {
		t.Errorf("dead letters are %+v, %v", dead, err)
	}
	checkBuckets(t, q.db)
}

func TestQueueRefuses(t *testing.T) {
	t.Parallel()
	q := openTemp(t, Options{}).Queue()
	send(t, q, "a")
	for _, visibility := range []time.Duration{-1, 13 * time.Hour} {
		if _, err := q.Receive(t.Context(), 1, visibility, 0); err == nil {
			t.Errorf("Receive accepted %v", visibility)
		}
		if err := q.Extend(t.Context(), "", visibility); err == nil || errors.Is(err, builder.ErrNotExist) {
			t.Errorf("Extend(%v) = %v", visibility, err)
		}
	}
	if _, err := q.Receive(t.Context(), 0, 0, 0); err == nil {
		t.Error("Receive accepted a max of 0")
	}
	for _, r := range []string{"", "x", "0-0", "0000000000000001-000000000000000g", receipt{1, 2}.String() + "0", receipt{1, 0}.String()} {
		if err := q.Extend(t.Context(), r, 0); !errors.Is(err, builder.ErrNotExist) {
			t.Errorf("Extend(%q) = %v", r, err)
		}
		if err := q.Delete(t.Context(), r); err == nil {
			t.Errorf("Delete accepted %q", r)
		}
	}
	// A delivery that never was does not delete anything.
	if err := q.Delete(t.Context(), receipt{1, 7}.String()); err != nil {
		t.Error(err)
	}
	wantReceive(t, q, time.Hour, "a", 1)
}
