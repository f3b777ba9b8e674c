package builder_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

var errFault = errors.New("injected fault")

// gate lets one operation fail: the at-th, before it takes effect or after.
type gate struct {
	mu    sync.Mutex
	n     int
	at    int
	after bool
}

func (g *gate) do(op func() error) error {
	g.mu.Lock()
	g.n++
	hit := g.n == g.at
	g.mu.Unlock()
	if hit && !g.after {
		return errFault
	}
	if err := op(); err != nil {
		return err
	}
	if hit {
		return errFault
	}
	return nil
}

// install puts the gate before every operation that writes.
func (g *gate) install(d *pipeline.Drivers) {
	d.Objects = faultyObjects{d.Objects, g}
	d.Queue = faultyQueue{d.Queue, g}
	d.Ledger = faultyLedger{d.Ledger, g}
}

type faultyObjects struct {
	builder.Objects
	gate *gate
}

func (f faultyObjects) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (info builder.ObjectInfo, err error) {
	err = f.gate.do(func() error {
		info, err = f.Objects.Put(ctx, key, body, opt)
		return err
	})
	return info, err
}

type faultyQueue struct {
	builder.Queue
	gate *gate
}

func (f faultyQueue) Send(ctx context.Context, bodies ...[]byte) error {
	// Half of a batch may be sent by the time it fails.
	for _, b := range bodies {
		if err := f.gate.do(func() error { return f.Queue.Send(ctx, b) }); err != nil {
			return err
		}
	}
	return nil
}

type faultyLedger struct {
	builder.Ledger
	gate *gate
}

func (f faultyLedger) Next(ctx context.Context) (n uint64, err error) {
	err = f.gate.do(func() error {
		n, err = f.Ledger.Next(ctx)
		return err
	})
	return n, err
}

func (f faultyLedger) Open(ctx context.Context, id string, parts int) error {
	return f.gate.do(func() error { return f.Ledger.Open(ctx, id, parts) })
}

func (f faultyLedger) Done(ctx context.Context, id string, part int) (left int, err error) {
	err = f.gate.do(func() error {
		left, err = f.Ledger.Done(ctx, id, part)
		return err
	})
	return left, err
}

func (f faultyLedger) Close(ctx context.Context, id string) error {
	return f.gate.do(func() error { return f.Ledger.Close(ctx, id) })
}

// pump does the queue's jobs one after the other until there are none; failed ones again at once.
func (w *world) pump(b *builder.Builder, each func()) {
	w.t.Helper()
	ctx := context.Background()
	for {
		waiting, _, dead, err := w.base.DeadLetters.Depth(ctx)
		if err != nil || dead > 0 {
			w.t.Fatalf("%d dead letters, %v", dead, err)
		}
		if waiting == 0 { // what is in flight is somebody else's
			return
		}
		messages, err := w.base.Queue.Receive(ctx, 1, time.Minute, w.wait)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(messages) == 0 {
			w.t.Fatalf("%d jobs are waiting, none is to be had", waiting)
		}
		m := messages[0]
		if err := b.Handle(ctx, m); err == nil {
			err = w.base.Queue.Delete(ctx, m.Receipt)
			if err != nil {
				w.t.Fatal(err)
			}
		} else if !errors.Is(err, errFault) {
			w.t.Fatalf("job failed by itself: %v", err)
		} else if err := w.base.Queue.Extend(ctx, m.Receipt, 0); err != nil {
			w.t.Fatal(err)
		}
		if each != nil {
			each()
		}
	}
}

// request asks for a plan until the asking succeeds, as the trigger does.
func (w *world) request() {
	w.t.Helper()
	for range 3 {
		_, err := builder.RequestPlan(context.Background(), w.drivers.Ledger, w.drivers.Queue, builder.Request{})
		if err == nil {
			return
		}
		if !errors.Is(err, errFault) {
			w.t.Fatal(err)
		}
	}
	w.t.Fatal("a plan could not be asked for")
}

// Every write of a build, of a first one and of an incremental one, fails in both ways: not done, and
// done but reported as failed. Whatever is published in between is complete, and retries finish.
func TestEveryWriteFailsBothWays(t *testing.T) {
	everyWriteFails(t, func(t *testing.T, opt builder.Options, g *gate) *world {
		return newWorld(t, t.TempDir(), opt, g.install)
	})
}

func everyWriteFails(t *testing.T, open func(t *testing.T, opt builder.Options, g *gate) *world) {
	small := builder.Options{PartBytes: 20, Concurrency: 1}
	story := func(w *world, each func()) {
		b := builder.New(w.drivers.Ports, w.opt)
		w.put("os_a", "prod", "1", "operating system")
		w.put("b", "prod", "1", "application b", "x")
		w.request()
		w.pump(b, each)
		w.put("b", "prod", "2", "application b, second release", "x")
		w.request()
		w.pump(b, each)
	}
	free := &gate{}
	w := open(t, small, free)
	story(w, nil)
	want := w.objects(served...)
	if got := w.versions(); !slices.Equal(got, []string{"b/prod 2", "os_a/prod 1"}) {
		t.Fatalf("without faults %v is published", got)
	}
	w.close()
	t.Logf("%d writes, each failing in 2 ways", free.n)
	for at := 1; at <= free.n; at++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d after=%v", at, after), func(t *testing.T) {
				g := &gate{at: at, after: after}
				w := open(t, small, g)
				defer w.close()
				var last uint64
				story(w, func() {
					if now := w.generation(); now < last {
						t.Fatalf("generation went from %d to %d", last, now)
					} else if now != last {
						last = now
						w.checkComplete()
					}
				})
				if g.n < at {
					t.Fatalf("the fault never happened: %d writes", g.n)
				}
				if got := w.objects(served...); !maps.Equal(got, want) {
					t.Fatalf("other objects than without faults: %v, want %v", sortedKeys(got), sortedKeys(want))
				}
				if got := w.versions(); !slices.Equal(got, []string{"b/prod 2", "os_a/prod 1"}) {
					t.Fatalf("published %v", got)
				}
			})
		}
	}
}

// A plan of an older catalog that is finished late must not undo a newer one, even one that had
// nothing to do.
func TestALatePlanDoesNotUndoANewerOne(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	ctx := context.Background()
	first := w.put("b", "prod", "1", "first", "x")
	w.build(builder.PlanOptions{})

	late, current := builder.New(w.drivers.Ports, w.opt), builder.New(w.drivers.Ports, w.opt)
	w.put("b", "prod", "2", "second", "x")
	w.request()
	plan, err := w.base.Queue.Receive(ctx, 1, time.Minute, w.wait)
	must(t, err)
	must(t, late.Handle(ctx, plan[0])) // its jobs are in the queue
	must(t, w.base.Queue.Delete(ctx, plan[0].Receipt))
	old, err := w.base.Queue.Receive(ctx, 10, time.Minute, w.wait)
	must(t, err)
	if len(old) == 0 {
		t.Fatal("the late plan has no jobs")
	}

	w.apply(catalog.Put(first)) // the second release is withdrawn: the catalog is what is published
	w.request()
	w.pump(current, nil)

	for _, m := range old {
		must(t, late.Handle(ctx, m))
	}
	w.pump(late, nil)
	if got := w.versions(); !slices.Equal(got, []string{"b/prod 1"}) {
		t.Fatalf("published %v: the late plan undid the newer one", got)
	}
}

// torn is a queue that delivers messages up to three times and in any order.
type torn struct {
	mu   sync.Mutex
	rand *rand.Rand
	jobs [][]byte
}

func (q *torn) Send(_ context.Context, bodies ...[]byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range bodies {
		for range 1 + q.rand.IntN(3) {
			at := q.rand.IntN(len(q.jobs) + 1)
			q.jobs = slices.Insert(q.jobs, at, b)
		}
	}
	return nil
}

func (q *torn) Receive(context.Context, int, time.Duration, time.Duration) ([]builder.Message, error) {
	panic("the test takes the jobs itself")
}
func (q *torn) Extend(context.Context, string, time.Duration) error { return nil }
func (q *torn) Delete(context.Context, string) error                { return nil }

func (q *torn) take() ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs) == 0 {
		return nil, false
	}
	b := q.jobs[0]
	q.jobs = q.jobs[1:]
	return b, true
}

// killing ends a job's context at a random write, as a killed worker would; it is delivered again.
type killing struct {
	builder.Objects
	mu   sync.Mutex
	rand *rand.Rand
}

func (k *killing) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	k.mu.Lock()
	kill, before := k.rand.IntN(12) == 0, k.rand.IntN(2) == 0
	k.mu.Unlock()
	if kill && before {
		return builder.ObjectInfo{}, errFault
	}
	info, err := k.Objects.Put(ctx, key, body, opt)
	if kill {
		return builder.ObjectInfo{}, errFault
	}
	return info, err
}

func TestDeliveryTorture(t *testing.T) {
	composed := builder.DefaultParams()
	composed.MaxBundles = 0
	for name, params := range map[string]index.Params{"copies": builder.DefaultParams(), "composed": composed} {
		t.Run(name, func(t *testing.T) {
			deliveryTorture(t, 20, params, func(t *testing.T, opt builder.Options, wrap func(*pipeline.Drivers)) *world {
				return newWorld(t, t.TempDir(), opt, wrap)
			})
		})
	}
}

func deliveryTorture(t *testing.T, seeds uint64, params index.Params, open func(*testing.T, builder.Options, func(*pipeline.Drivers)) *world) {
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			q := &torn{rand: rand.New(rand.NewPCG(seed, 2))}
			w := open(t, builder.Options{Params: params, PartBytes: 60}, func(d *pipeline.Drivers) {
				d.Queue = q
				d.Objects = &killing{Objects: d.Objects, rand: rand.New(rand.NewPCG(seed, 3))}
			})
			defer w.close()
			ctx := context.Background()
			builders := []*builder.Builder{builder.New(w.drivers.Ports, w.opt), builder.New(w.drivers.Ports, w.opt)}
			// The stream's records come one to three times, in any order.
			var stream []string
			enqueuer := &lambdas.Enqueuer{Ledger: w.drivers.Ledger, Queue: q, Log: slog.New(slog.DiscardHandler)}
			deliver := func() {
				var records []string
				for _, record := range stream {
					records = append(records, slices.Repeat([]string{record}, 1+r.IntN(3))...)
				}
				r.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
				for len(records) > 0 {
					n := 1 + r.IntN(len(records))
					resp, err := enqueuer.Handle(ctx, json.RawMessage(`{"Records": [`+strings.Join(records[:n], ",")+`]}`))
					must(t, err)
					if len(resp.BatchItemFailures) > 0 {
						t.Fatalf("%+v", resp)
					}
					records = records[n:]
				}
				stream = nil
			}
			for version := range 6 {
				app := []string{"os_a", "b", "c"}[r.IntN(3)]
				w.put(app, "prod", fmt.Sprint(version), fmt.Sprintf("%s release %d", app, version), "x")
				stream = append(stream, fmt.Sprintf(`{"dynamodb": {"SequenceNumber": "%d", "Keys": {"app": {"S": %q}}}}`, version, app))
				if r.IntN(2) == 0 {
					continue // more changes before anybody looks
				}
				deliver()
				var workers sync.WaitGroup
				for _, b := range builders {
					workers.Go(func() {
						for range 8 {
							body, ok := q.take()
							if !ok {
								return
							}
							if err := b.Handle(ctx, builder.Message{ID: "m", Body: body, Receives: 1}); err != nil {
								_ = q.Send(ctx, body) // the torn queue never fails
							}
						}
					})
				}
				workers.Wait()
				w.checkComplete()
			}
			if len(stream) > 0 {
				deliver()
			}
			for range 100_000 {
				body, ok := q.take()
				if !ok {
					break
				}
				if err := builders[r.IntN(2)].Handle(ctx, builder.Message{ID: "m", Body: body, Receives: 1}); err != nil {
					if !errors.Is(err, errFault) {
						t.Fatal(err)
					}
					_ = q.Send(ctx, body)
				}
			}
			if _, ok := q.take(); ok {
				t.Fatal("the jobs never end")
			}
			w.checkComplete()
			items, err := w.base.Catalog.Snapshot(ctx)
			must(t, err)
			var want []string
			for _, it := range catalog.Apply(items, nil) {
				want = append(want, it.App+"/prod "+it.Version)
			}
			if got := w.versions(); !slices.Equal(got, want) {
				t.Fatalf("published %v, the catalog says %v", got, want)
			}
			// Two builders' observers may be told in another order than
			// their indexes were written in: the sequence has the order.
			published := slices.SortedFunc(slices.Values(w.events.published), func(a, b builder.Published) int {
				return cmp.Compare(a.Sequence, b.Sequence)
			})
			var last builder.Published
			for _, p := range published {
				if p.Generation < last.Generation || p.Sequence <= last.Sequence {
					t.Fatalf("published %+v after %+v", p, last)
				}
				last = p
			}
			w.checkEqualsFromScratch(newWorld(t, t.TempDir(), builder.Options{Params: params}))
		})
	}
}

// meanwhile calls a function before its first write of a bundle.
type meanwhile struct {
	builder.Objects
	once sync.Once
	do   func()
}

func (m *meanwhile) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if strings.HasPrefix(key, layout.BundlePrefix) {
		m.once.Do(m.do)
	}
	return m.Objects.Put(ctx, key, body, opt)
}

// The same, with the newer plan finishing between the older one's looks at the index.
func TestANewerPlanThatFinishesMeanwhileWins(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	first := w.put("b", "prod", "1", "first", "x")
	w.build(builder.PlanOptions{})

	slow := w.drivers.Ports
	slow.Objects = &meanwhile{Objects: slow.Objects, do: func() {
		w.apply(catalog.Put(first))
		w.request()
		w.pump(builder.New(w.drivers.Ports, w.opt), nil)
	}}
	w.put("b", "prod", "2", "second", "x")
	w.request()
	w.pump(builder.New(slow, w.opt), nil)
	if got := w.versions(); !slices.Equal(got, []string{"b/prod 1"}) {
		t.Fatalf("published %v: the slower plan undid the newer one", got)
	}
}
