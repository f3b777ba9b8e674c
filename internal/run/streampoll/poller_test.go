package streampoll

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
)

// world is all that outlives a Poller.
type world struct {
	table *fakeTable
	jobs  *jobs
	marks *memory
	log   *slog.Logger
	every time.Duration
}

func newWorld() *world {
	return &world{newFake(), &jobs{}, &memory{}, slog.New(slog.NewTextHandler(io.Discard, nil)), 0}
}

// fail has every call fail as f says, until it is told otherwise; nil is as it should be.
func (w *world) fail(f func(call string) error) {
	for mu, fault := range map[sync.Locker]*func(string) error{
		&w.table.mu: &w.table.fault, &w.jobs.mu: &w.jobs.fault, &w.marks.mu: &w.marks.fault,
	} {
		mu.Lock()
		*fault = f
		mu.Unlock()
	}
}

// only has some calls fail.
func only(calls ...string) func(string) error {
	return func(call string) error {
		if slices.Contains(calls, call) {
			return errNetwork
		}
		return nil
	}
}

const window = 2 * time.Second

func (w *world) poller(t testing.TB) *Poller {
	t.Helper()
	p, err := New(Config{Client: w.table, Stream: w.table.latest, Checkpoints: w.marks, Ledger: w.jobs, Queue: w.jobs,
		Window: window, Every: w.every, Logger: w.log, Random: func() float64 { return 0.5 }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start runs a Poller until the function returned is called.
func (w *world) start(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	p := w.poller(t)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
}

// during runs a Poller while f sleeps and changes things, and checks that the reader kept the rules.
func (w *world) during(t *testing.T, f func()) {
	t.Helper()
	stop := w.start(t)
	f()
	stop()
	w.check(t)
}

func (w *world) check(t *testing.T) {
	t.Helper()
	if len(w.table.broken) > 0 {
		t.Errorf("%d rules broken: %s", len(w.table.broken), w.table.broken[0])
	}
}

// wantSeen fails unless every record has been read exactly n times.
func (w *world) wantSeen(t *testing.T, records, n int) {
	t.Helper()
	if len(w.table.seen) != records {
		t.Errorf("%d records were read, want %d", len(w.table.seen), records)
	}
	for seq, got := range w.table.seen {
		if got != n {
			t.Fatalf("record %s was read %d times, want %d", seq, got, n)
		}
	}
}

func (w *world) wantPlans(t *testing.T, want int) plan {
	t.Helper()
	n, p := w.jobs.last()
	if n != want {
		t.Errorf("%d plans, want %d: %+v", n, want, w.jobs.plans)
	}
	return p
}

func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		start := time.Now()
		w.during(t, func() { time.Sleep(time.Hour) })
		if p := w.wantPlans(t, 1); !p.at.Equal(start) || p.Since != 0 {
			t.Errorf("the plan at the start: %+v, want it at %v", p, start)
		}
		// Idle: the shard once a second, the list every ten, and nothing else.
		if c := w.table.calls; c["GetRecords"] > 3601 || c["DescribeStream"] > 361 || c["GetShardIterator"] != 1 || c["Stream"] != 1 {
			t.Errorf("calls in an hour: %v", c)
		}
	})
}

func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var first time.Time
		w.during(t, func() {
			time.Sleep(5300 * time.Millisecond)
			first = time.Now()
			for range 100 { // 1,000 changes in a second
				w.table.change(0, 10)
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(time.Minute)
		})
		p := w.wantPlans(t, 2)
		if p.Since != first.UnixMilli() {
			t.Errorf("since %d, want %d", p.Since, first.UnixMilli())
		}
		if late := p.at.Sub(first); late > time.Second+window+pagePace {
			t.Errorf("the plan came %v after the first change", late)
		}
		w.wantSeen(t, 1000, 1)
		if w.marks.saved != 1 {
			t.Errorf("%d checkpoints, want 1", w.marks.saved)
		}
	})
}

// A flood is many pages, and still few plans.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.table.change(0, 20_000)
		w.during(t, func() { time.Sleep(time.Minute) })
		w.wantSeen(t, 20_000, 1)
		if n, _ := w.jobs.last(); n > 5 { // 20 pages take 5 s
			t.Errorf("%d plans", n)
		}
	})
}

// Shards are closed and split while they are read, and all are read, parents first.
func TestLineage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.table.empty = 3
		n := 0
		change := func(shard, records int) { w.table.change(shard, records); n += records }
		change(0, 2500)
		w.table.roll(0, 2)
		change(0, 1200)
		change(1, 10)
		w.table.roll(0, 1)
		w.during(t, func() {
			for i := range 20 {
				change(i, 50)
				w.table.roll(i, 1+i%2)
				change(i+1, 5)
				time.Sleep(time.Duration(i) * time.Second)
			}
			time.Sleep(time.Minute)
		})
		w.wantSeen(t, n, 1)
		// By the reads themselves, too: nothing of a child before "parent end".
		parents := make(map[string]string)
		for _, sh := range w.table.current().shards {
			parents[sh.id] = sh.parent
		}
		for i, read := range w.table.reads {
			id, _, _ := strings.Cut(read, " ")
			if parent := parents[id]; parent != "" && !slices.Contains(w.table.reads[:i], parent+" end") {
				t.Fatalf("read %d is %q, before the end of %s", i, read, parent)
			}
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.table.change(0, 1500)
		w.during(t, func() { time.Sleep(10 * time.Second) })
		w.wantSeen(t, 1500, 1)
		plans, _ := w.jobs.last()

		// While nobody reads: more records, a split, more records.
		time.Sleep(time.Hour)
		down := time.Now()
		w.table.change(0, 7)
		w.table.roll(0, 2)
		w.table.change(0, 1)
		w.table.change(1, 1)
		time.Sleep(time.Hour)
		w.during(t, func() { time.Sleep(10 * time.Second) })
		w.wantSeen(t, 1509, 1)
		if p := w.wantPlans(t, plans+1); p.Since != down.UnixMilli() {
			t.Errorf("since %d, want the oldest change that nobody had read, %d", p.Since, down.UnixMilli())
		}

		// And with nothing new, nothing is read again.
		w.during(t, func() { time.Sleep(10 * time.Second) })
		w.wantSeen(t, 1509, 1)
	})
}

// Between the plan and the checkpoint: the plan is asked for again.
func TestCrashBeforeSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.during(t, func() { time.Sleep(10 * time.Second) })
		w.fail(only("Save"))
		w.during(t, func() {
			w.table.change(0, 3)
			time.Sleep(10 * time.Second)
		})
		plans, p := w.jobs.last()
		if p.Since == 0 || w.marks.saved != 0 {
			t.Fatalf("no plan before the crash: %+v, %d saved", p, w.marks.saved)
		}
		w.fail(nil)
		w.during(t, func() { time.Sleep(10 * time.Second) })
		w.wantPlans(t, plans+1)
		if again := w.jobs.plans[plans]; again.Since != p.Since {
			t.Errorf("the plan after the crash: %+v, before it: %+v", again, p)
		}
		w.wantSeen(t, 3, 2)
		w.during(t, func() { time.Sleep(10 * time.Second) })
		w.wantSeen(t, 3, 2)
	})
}

// Without a plan there is no checkpoint.
func TestNoPlanNoCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fail(only("Next"))
		w.during(t, func() {
			w.table.change(0, 3)
			w.table.roll(0, 1)
			time.Sleep(time.Hour)
		})
		if w.marks.saved != 0 {
			t.Errorf("%d checkpoints without a plan", w.marks.saved)
		}
		w.fail(nil)
		w.during(t, func() { time.Sleep(10 * time.Second) })
		w.wantSeen(t, 3, 2)
	})
}

// What nobody has read in a day is gone, and sometimes nothing tells: a plan makes up for it.
func TestTrimmed(t *testing.T) {
	for name, missed := range map[string]struct {
		change func(*fakeTable)
		left   int // records that are still there after a day
	}{
		"some":              {func(f *fakeTable) { f.change(0, 5); time.Sleep(20 * time.Hour); f.change(0, 2) }, 2},
		"all":               {func(f *fakeTable) { f.change(0, 5) }, 0},
		"shards":            {func(f *fakeTable) { f.change(0, 5); f.roll(0, 2); f.change(1, 5); f.roll(0, 1) }, 0},
		"streams":           {func(f *fakeTable) { f.change(0, 5); f.enable(); f.change(0, 5); f.enable() }, 0},
		"enabled, disabled": {func(f *fakeTable) { f.change(0, 5); f.enable(); f.disable() }, 0},
		"the end":           {func(f *fakeTable) { f.change(0, 5); f.disable() }, 0},
	} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", down ", down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					w.table.change(0, 1)
					stop := w.start(t)
					time.Sleep(time.Minute)
					if down {
						stop()
					}
					w.fail(only("Stream", "DescribeStream", "GetShardIterator", "GetRecords"))
					missed.change(w.table)
					time.Sleep(25*time.Hour - time.Duration(missed.left)*10*time.Hour)
					w.fail(nil)
					plans, _ := w.jobs.last()
					if down {
						stop = w.start(t)
					}
					time.Sleep(2 * time.Minute)
					stop()
					w.check(t)
					if n, _ := w.jobs.last(); n <= plans {
						t.Error("no plan after records were trimmed")
					}
					w.wantSeen(t, 1+missed.left, 1)
				})
			})
		}
	}
}

// An iterator that has expired is replaced by another at the same place.
func TestExpiredIterator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.during(t, func() {
			w.table.change(0, 5)
			time.Sleep(time.Minute)
			w.fail(only("GetRecords"))
			time.Sleep(20 * time.Minute)
			w.table.change(0, 6)
			w.fail(nil)
			plans, _ := w.jobs.last()
			time.Sleep(time.Minute)
			w.wantPlans(t, plans+1)
		})
		w.wantSeen(t, 11, 1)
		if n := w.table.calls["GetShardIterator"]; n != 2 {
			t.Errorf("%d iterators, want 2", n)
		}
	})
}

func TestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, call := range []string{"", "Load", "Stream", "DescribeStream", "GetShardIterator", "GetRecords", "Send"} {
			fault := func(c string) error {
				if call == "" || c == call {
					return &types.LimitExceededException{}
				}
				return nil
			}
			w.fail(fault)
			clear(w.table.calls)
			w.during(t, func() {
				w.table.change(0, 1)
				time.Sleep(time.Hour)
				if n := w.table.count(call); n > 170 { // every 22.5 s, at last
					t.Errorf("%s failed %d times in an hour", call, n)
				}
				w.fail(nil)
				w.table.change(0, 1)
				changed := time.Now()
				time.Sleep(time.Minute)
				if _, p := w.jobs.last(); p.at.Before(changed) {
					t.Errorf("no plan in the minute after %s worked again", call)
				}
			})
		}
	})
}

// A shard's children are found when it ends, not when the list is due.
func TestPromptChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.during(t, func() {
			time.Sleep(61500 * time.Millisecond) // the list is due in 8.5 s
			w.table.roll(0, 2)
			w.table.change(1, 1)
			changed := time.Now()
			time.Sleep(time.Minute)
			if _, p := w.jobs.last(); p.Since != changed.UnixMilli() || p.at.Sub(changed) > time.Second+window+pagePace {
				t.Errorf("the plan came %v after the change", p.at.Sub(changed))
			}
		})
		// The end of a shard is remembered, with or without records.
		if root := w.table.current().shards[0].id; !w.marks.c.Shards[root].Ended {
			t.Errorf("checkpoint: %+v", w.marks.c)
		}
	})
}

// A shard that ends without a record is not read again, either.
func TestQuietEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.during(t, func() {
			time.Sleep(time.Minute)
			w.table.roll(0, 1)
			time.Sleep(time.Minute)
		})
		if root := w.table.current().shards[0].id; !w.marks.c.Shards[root].Ended {
			t.Errorf("checkpoint: %+v", w.marks.c)
		}
	})
}

// A call that hangs ends, and the rest goes on.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		start := time.Now()
		w.fail(func(call string) error {
			if call == "DescribeStream" {
				return errHang
			}
			return nil
		})
		w.during(t, func() {
			time.Sleep(time.Hour)
			if n, p := w.jobs.last(); n != 1 || p.at.Sub(start) > callTimeout {
				t.Errorf("%d plans, at %v", n, p.at)
			}
			w.fail(nil)
			w.table.change(0, 1)
			time.Sleep(2 * time.Minute)
			w.wantPlans(t, 2)
		})
	})
}

// The starting plan does not wait for a stream that cannot be read.
func TestStartWithoutStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fail(only("Stream"))
		w.during(t, func() { time.Sleep(time.Minute) })
		w.wantPlans(t, 1)
	})
}

func TestEnabledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.during(t, func() {
			w.table.change(0, 2)
			time.Sleep(time.Minute)
			w.table.disable()
			time.Sleep(time.Hour)
			plans, _ := w.jobs.last()
			// Something changes that is in no stream; then the stream is enabled.
			w.table.enable()
			time.Sleep(time.Minute)
			w.wantPlans(t, plans+1)
			w.table.change(0, 3)
			time.Sleep(time.Minute)
			w.wantPlans(t, plans+2)
		})
		w.wantSeen(t, 5, 1)
		if w.marks.c.Stream != w.table.current().arn {
			t.Errorf("the checkpoint is of %s, not of %s", w.marks.c.Stream, w.table.current().arn)
		}
		// The same while nobody reads.
		w.table.enable()
		w.table.change(0, 1)
		time.Sleep(48 * time.Hour)
		w.table.change(0, 4)
		plans, _ := w.jobs.last()
		w.during(t, func() { time.Sleep(time.Minute) })
		w.wantSeen(t, 9, 1)
		w.wantPlans(t, plans+1)
	})
}

// Checkpoints that are of no use: a number that is not of its shard, and another stream's.
func TestOddCheckpoint(t *testing.T) {
	for name, odd := range map[string]func(*fakeStream) Checkpoint{
		"number": func(s *fakeStream) Checkpoint {
			return Checkpoint{Stream: s.arn, Shards: map[string]Position{s.shards[0].id: {After: "none"}, "gone": {Ended: true}}}
		},
		"stream": func(s *fakeStream) Checkpoint {
			return Checkpoint{Stream: "another", Shards: map[string]Position{s.shards[0].id: {Ended: true}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.table.change(0, 3)
				w.marks.c = odd(w.table.current())
				w.during(t, func() { time.Sleep(time.Minute) })
				w.wantSeen(t, 3, 1)
				if len(w.marks.c.Shards) != 1 {
					t.Errorf("checkpoint: %+v", w.marks.c)
				}
			})
		})
	}
}

// In a week of rollovers nothing piles up: neither shards nor plans.
func TestWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.every = 20 * time.Second
		w.during(t, func() {
			for range 7 * 6 {
				time.Sleep(4 * time.Hour)
				w.table.change(0, 2)
				time.Sleep(time.Minute)
				w.table.roll(0, 1)
			}
			time.Sleep(time.Hour)
		})
		w.wantSeen(t, 7*6*2, 1)
		w.wantPlans(t, 1+2*7*6) // for each shard's records, and for its end: the next one's beginning
		if n := len(w.marks.c.Shards); n > 8 {
			t.Errorf("the checkpoint has %d shards", n)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("New took an empty Config")
	}
}
