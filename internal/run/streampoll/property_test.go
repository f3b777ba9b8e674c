package streampoll

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"pgregory.net/rapid"
)

// step is one thing that happens to a table, its reader or what lies between them.
type step struct {
	Do      string
	N       int // which shard, how many children
	Records int
	Sleep   time.Duration // afterwards
	Percent int           // of calls that fail
}

func drawSteps(t *rapid.T) []step {
	sleeps := rapid.OneOf(
		rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, 16 * time.Minute, 5 * time.Hour, 25 * time.Hour}),
		rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(0, 90_000).Draw(t, "ms")) * time.Millisecond
		}))
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			Do: rapid.SampledFrom([]string{"change", "change", "change", "roll", "roll", "stop", "start", "restart",
				"faults", "faults", "no faults", "disable", "enable", "calm", "calm"}).Draw(t, "do"),
			N:       rapid.IntRange(0, 5).Draw(t, "n"),
			Records: rapid.SampledFrom([]int{1, 2, 30, 1000, 2100}).Draw(t, "records"),
			Sleep:   sleeps.Draw(t, "sleep"),
			Percent: rapid.SampledFrom([]int{5, 50, 100}).Draw(t, "percent"),
		}
	}), 1, 25).Draw(t, "steps")
}

// play plays steps, and says what went wrong. After each calm every change that was ever in the stream
// must have been followed by a plan: one whose number was taken after the change was there.
func play(t *testing.T, steps []step, seed uint64, sabotage func(*world, *Config)) (problem string) {
	w := newWorld()
	w.table.empty = 3
	random := rand.New(rand.NewPCG(seed, 1))
	newest := uint64(0) // the ledger's number when the last change was made
	began := time.Now()

	stop := func() {}
	running := false
	start := func() {
		c := w.poller(t).Config
		c.Every = 10 * time.Second // days are long
		c.Random = rand.New(rand.NewPCG(seed, 2)).Float64
		if sabotage != nil {
			sabotage(w, &c)
		}
		p, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		running, stop = true, func() {
			running, stop = false, func() {}
			cancel()
			if err := <-done; err != nil {
				problem = fmt.Sprintf("Run = %v", err)
			}
		}
	}
	var mu sync.Mutex // for random
	faults := func(percent int) {
		f := func(string) error {
			if random.IntN(100) >= percent {
				return nil
			}
			return []error{errNetwork, errAnswer, errHang, &types.LimitExceededException{}, &types.InternalServerError{}}[random.IntN(5)]
		}
		w.fail(func(call string) error {
			mu.Lock()
			defer mu.Unlock()
			return f(call)
		})
	}
	defer func() { stop() }()
	for _, s := range append(steps, step{Do: "calm"}) {
		switch s.Do {
		case "change":
			if w.table.change(s.N, s.Records) {
				newest = w.jobs.taken()
			}
		case "roll":
			w.table.roll(s.N, 1+s.N%2)
		case "stop", "restart":
			stop()
			time.Sleep(time.Second)
			if s.Do == "restart" {
				start()
			}
		case "start":
			if !running {
				start()
			}
		case "faults":
			faults(s.Percent)
		case "no faults":
			faults(0)
		case "disable":
			w.table.disable()
		case "enable":
			w.table.enable()
		case "calm":
			faults(0)
			if !running {
				start()
			}
			time.Sleep(5 * time.Minute)
			if _, p := w.jobs.last(); p.After <= newest {
				return fmt.Sprintf("the last change was made at %d, the last plan is of %d", newest, p.After)
			}
		}
		time.Sleep(s.Sleep)
	}
	stop()
	if len(w.table.broken) > 0 {
		return w.table.broken[0]
	}
	calls := 0
	for _, n := range w.table.calls {
		calls += n
	}
	shards := len(w.table.current().shards) + 4
	if elapsed := time.Since(began); calls > shards*(int(elapsed/(5*time.Second))+200*len(steps)+200) {
		return fmt.Sprintf("%d calls in %v", calls, elapsed)
	}
	return ""
}

func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		steps := drawSteps(rt)
		seed := rapid.Uint64().Draw(rt, "seed")
		var problem string
		synctest.Test(t, func(t *testing.T) { problem = play(t, steps, seed, nil) })
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// The property finds readers, stores and services that lose changes or break the rules.
func TestLossIsFound(t *testing.T) {
	t.Parallel()
	for name, sabotage := range map[string]func(*world, *Config){
		"records are dropped":   func(w *world, c *Config) { c.Client = deaf{w.table} },
		"parents are hidden":    func(w *world, c *Config) { c.Client = orphans{w.table} },
		"shards are overlooked": func(w *world, c *Config) { c.Client = &hasty{fakeTable: w.table} },
		"the queue loses jobs":  func(w *world, c *Config) { c.Queue = &leaky{jobs: w.jobs} },
		"numbers are stale":     func(w *world, c *Config) { c.Ledger = &stale{jobs: w.jobs} },
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 200 {
				steps := rapid.Custom(drawSteps).Example(i)
				var problem string
				synctest.Test(t, func(t *testing.T) { problem = play(t, steps, uint64(i), sabotage) })
				if problem != "" {
					t.Logf("found in case %d: %s", i, problem)
					return
				}
			}
			t.Error("not found")
		})
	}
}

type deaf struct{ *fakeTable }

func (d deaf) GetRecords(ctx context.Context, in *dynamodbstreams.GetRecordsInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetRecordsOutput, error) {
	out, err := d.fakeTable.GetRecords(ctx, in)
	if err == nil {
		out.Records = nil
	}
	return out, err
}

type orphans struct{ *fakeTable }

func (o orphans) DescribeStream(ctx context.Context, in *dynamodbstreams.DescribeStreamInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.DescribeStreamOutput, error) {
	out, err := o.fakeTable.DescribeStream(ctx, in)
	if err == nil {
		for i := range out.StreamDescription.Shards {
			out.StreamDescription.Shards[i].ParentShardId = nil
		}
	}
	return out, err
}

// hasty shows the shards of its first call only.
type hasty struct {
	*fakeTable
	first *dynamodbstreams.DescribeStreamOutput
}

func (h *hasty) DescribeStream(ctx context.Context, in *dynamodbstreams.DescribeStreamInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.DescribeStreamOutput, error) {
	if h.first != nil {
		return h.first, nil
	}
	out, err := h.fakeTable.DescribeStream(ctx, in)
	if err == nil {
		out.StreamDescription.LastEvaluatedShardId = nil
		h.first = out
	}
	return out, err
}

// leaky loses every third job.
type leaky struct {
	*jobs
	sent int
}

func (l *leaky) Send(ctx context.Context, bodies ...[]byte) error {
	if l.sent++; l.sent%3 == 0 {
		return nil
	}
	return l.jobs.Send(ctx, bodies...)
}

// stale gives every number twice.
type stale struct {
	*jobs
	calls int
	n     uint64
}

func (s *stale) Next(ctx context.Context) (uint64, error) {
	if s.calls++; s.calls%2 == 0 {
		return s.n, nil
	}
	var err error
	s.n, err = s.jobs.Next(ctx)
	return s.n, err
}
