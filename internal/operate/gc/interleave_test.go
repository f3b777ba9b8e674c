package gc_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/gc"
	"github.com/precast-ota/precast/internal/operate/history"
	rel "github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/store/source"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// A scheduler lets one call to the store happen at a time, and decides which. Everything runs in a
// synctest bubble: when all goroutines are blocked, those that wait for the scheduler are known, in
// whatever order they came; a seed gives one history.
type scheduler struct {
	rand  *rand.Rand
	hurry [2]float64 // how much the sweep is preferred before its fence is up, and while it is

	sweeping bool

	mu      sync.Mutex
	waiting []*call
	steps   int
	over    bool // nobody waits any more
}

type call struct {
	actor, op, key string
	turn           chan struct{}
}

// turn waits until the caller may go on.
func (s *scheduler) turn(actor, op, key string) {
	c := &call{actor, op, key, make(chan struct{})}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.waiting = append(s.waiting, c)
	s.mu.Unlock()
	<-c.turn
}

// end lets everybody go on.
func (s *scheduler) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, c := range s.waiting {
		close(c.turn)
	}
	s.waiting = nil
}

// next chooses who goes on, nil if nobody waits.
func (s *scheduler) next() *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	slices.SortFunc(s.waiting, func(a, b *call) int {
		return cmp.Or(cmp.Compare(a.actor, b.actor), cmp.Compare(a.op, b.op), cmp.Compare(a.key, b.key))
	})
	i := s.rand.IntN(len(s.waiting))
	// A sweep has many more steps than the others: most of its histories would be dull.
	hurry := s.hurry[0]
	if s.sweeping {
		hurry = s.hurry[1]
	}
	if at := slices.IndexFunc(s.waiting, func(c *call) bool { return c.actor == "gc" }); at >= 0 && s.rand.Float64() < hurry {
		i = at
	}
	c := s.waiting[i]
	if c.actor == "gc" && c.op == "put" {
		s.sweeping = !s.sweeping
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	s.steps++
	return c
}

// scheduled are objects whose every call waits for its turn.
type scheduled struct {
	*scheduler
	actor   string
	objects storetest.DeletingObjects
	crashed func() bool // from then on nothing succeeds; nil: never
}

var errCrash = errors.New("crashed")

func (o scheduled) step(op, key string) error {
	o.turn(o.actor, op, key)
	if o.crashed != nil && o.crashed() {
		return errCrash
	}
	return nil
}

func (o scheduled) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if err := o.step("stat", key); err != nil {
		return builder.ObjectInfo{}, err
	}
	return o.objects.Stat(ctx, key)
}

func (o scheduled) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if err := o.step("get", key); err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	return o.objects.Get(ctx, key, off, n)
}

func (o scheduled) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if err := o.step("put", key); err != nil {
		return builder.ObjectInfo{}, err
	}
	return o.objects.Put(ctx, key, body, opt)
}

func (o scheduled) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	if err := o.step("list", prefix); err != nil {
		return err
	}
	return o.objects.List(ctx, prefix, func(i builder.ObjectInfo) error {
		if err := o.step("listed", i.Key); err != nil {
			return err
		}
		return yield(i)
	})
}

func (o scheduled) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys { // a batch is not one instant
		if err := o.step("delete", key); err != nil {
			return err
		}
		if err := o.objects.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

type scheduledCatalog struct {
	*scheduler
	actor   string
	catalog storetest.CatalogStore
}

func (c scheduledCatalog) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	c.turn(c.actor, "snapshot", "")
	return c.catalog.Snapshot(ctx)
}

func (c scheduledCatalog) Head(ctx context.Context) (catalog.Head, error) {
	c.turn(c.actor, "head", "")
	return c.catalog.Head(ctx)
}

func (c scheduledCatalog) Apply(ctx context.Context, edit catalog.Edit) error {
	c.turn(c.actor, "apply", "")
	return c.catalog.Apply(ctx, edit)
}

// story is one history of everything at once.
type story struct {
	t      *testing.T
	memory storetest.Memory
	sched  *scheduler
	opt    builder.Options
	said   strings.Builder
	tally  *outcomes
}

type outcomes struct{ steps, removed, spared, published, rollbacks, far, waits, crashes, checks int }

func (s *story) ports(actor string) builder.Ports {
	objects := scheduled{s.sched, actor, s.memory.Objects, nil}
	return builder.Ports{
		Objects: objects, Catalog: scheduledCatalog{s.sched, actor, s.memory.Catalog}, Queue: s.memory.Queue,
		Ledger: s.memory.Ledger, Sources: &source.Sources{Objects: objects},
	}
}

// plain are the ports without a scheduler.
func (s *story) plain() builder.Ports {
	return builder.Ports{
		Objects: s.memory.Objects, Catalog: s.memory.Catalog, Queue: s.memory.Queue, Ledger: s.memory.Ledger,
		Sources: &source.Sources{Objects: s.memory.Objects},
	}
}

func release(app string, n int) rel.Release {
	it := catalog.Item{App: app, Track: "prod", Version: fmt.Sprint(n), DeviceAttr: map[string]bool{"x": true}}
	return rel.Release{Item: it, Open: func() (io.ReadSeekCloser, error) {
		return nopCloser{strings.NewReader(fmt.Sprintf("release %d of %s", n, app))}, nil
	}}
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// build does all jobs there are.
func (s *story) build(opt builder.PlanOptions) {
	s.t.Helper()
	ctx := s.t.Context()
	b := builder.New(s.plain(), s.opt)
	_, err := builder.RequestPlan(ctx, s.memory.Ledger, s.memory.Queue, builder.Request{PlanOptions: opt})
	must(s.t, err)
	for {
		messages, err := s.memory.Queue.Receive(ctx, 10, time.Minute, 0)
		must(s.t, err)
		if len(messages) == 0 {
			return
		}
		for _, m := range messages {
			if err := b.Handle(ctx, m); err != nil {
				s.t.Fatal(err)
			}
			must(s.t, s.memory.Queue.Delete(ctx, m.Receipt))
		}
	}
}

// check fails if anything that is published is missing.
func (s *story) check(after string) {
	s.t.Helper()
	rep, err := fsck.Store(s.t.Context(), s.memory.Objects, fsck.Options{Concurrency: 1})
	must(s.t, err)
	s.tally.checks++
	if len(rep.Problems) > 0 {
		s.t.Fatalf("after %s, generation %d is published without:\n%+v\n%s", after, rep.Generation, rep.Problems, &s.said)
	}
}

const releases = 7

// Builds, imports, rollbacks and sweeps, every call of each in every order that a few hundred seeds make:
// at no time is anything published that is not there, and in the end what the catalog says is.
func TestSweepsAmongEverythingElse(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() || race {
		seeds = 60
	}
	var total outcomes
	for n := range seeds {
		synctest.Test(t, func(t *testing.T) { interleave(t, n, &total) })
		if t.Failed() {
			t.Fatalf("seed %d", n)
		}
	}
	t.Logf("%d histories: %+v", seeds, total)
	if total.removed == 0 || total.spared == 0 || total.published == 0 || total.rollbacks == 0 || total.far == 0 || total.waits == 0 || total.crashes == 0 {
		t.Fatalf("something never happened: %+v", total)
	}
}

// lost tells whether somebody else published first. Whoever finds that out looks for seconds only at what it was, and
// here its turn may come later than that.
func lost(err error) bool {
	return errors.Is(err, history.ErrRace) || errors.Is(err, builder.ErrPrecondition)
}

func interleave(t *testing.T, n uint64, total *outcomes) {
	r := rand.New(rand.NewPCG(n, 1))
	s := &story{
		t: t, memory: storetest.NewMemory(time.Now, 100), tally: total,
		sched: &scheduler{rand: rand.New(rand.NewPCG(n, 2))},
		opt:   builder.Options{Concurrency: 2, PartBytes: 1 << uint(r.IntN(8)), SweepWait: 3 * time.Second},
	}
	s.sched.hurry = [2]float64{[]float64{0, 0.5, 0.9, 0.97, 0.99}[r.IntN(5)], []float64{0, 0.5, 0.9, 0.97}[r.IntN(4)]}
	s.opt.Params = builder.DefaultParams()
	s.opt.Params.Retain = uint64(r.IntN(3))
	s.opt.Log = slog.New(slog.NewTextHandler(&s.said, &slog.HandlerOptions{Level: slog.LevelError}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	im := &rel.Importer{Objects: s.memory.Objects, Catalog: s.memory.Catalog}
	for v := 1; v <= releases; v++ {
		_, err := im.Import(ctx, []rel.Release{release("os_a", 1), release("b", v), release("c", (v+1)/2)}, true)
		must(t, err)
		s.build(builder.PlanOptions{})
	}
	time.Sleep(100 * time.Hour) // everything is old now
	s.check("the beginning")

	var acting, working sync.WaitGroup
	end := func() {
		cancel()
		s.sched.end()
		acting.Wait()
		working.Wait()
	}
	defer end()
	actor := func(name string, act func(rand *rand.Rand)) {
		own := rand.New(rand.NewPCG(n, uint64(len(name))))
		acting.Go(func() { act(own) })
	}
	for i := range 2 {
		w := &builder.Worker{DeliveryPolicy: builder.DeliveryPolicy{Builder: builder.New(s.ports(fmt.Sprint("worker", i)), s.opt), Visibility: 30 * time.Second}, Wait: time.Second}
		working.Go(func() { _ = w.Run(ctx) })
	}
	request := func() {
		if _, err := builder.RequestPlan(ctx, s.memory.Ledger, s.memory.Queue, builder.Request{}); err != nil {
			t.Errorf("request: %v", err)
		}
	}
	actor("import", func(r *rand.Rand) {
		p := s.ports("import")
		im := &rel.Importer{Objects: p.Objects.(scheduled), Catalog: scheduledCatalog{s.sched, "import", s.memory.Catalog}}
		for range 1 + r.IntN(3) {
			v := 1 + r.IntN(releases)
			if _, err := im.Import(ctx, []rel.Release{release("b", v), release("c", (v+1)/2)}, false); err != nil {
				t.Errorf("import: %v", err)
			}
			request()
		}
	})
	actor("rollback", func(r *rand.Rand) {
		k := &history.Keeper{Objects: s.ports("rollback").Objects, Ledger: s.memory.Ledger, SweepWait: 20 * time.Second}
		for range 1 + r.IntN(2) {
			generation := uint64(1 + r.IntN(releases))
			res, err := k.Rollback(ctx, history.Request{Generation: generation})
			switch {
			case err == nil:
				total.rollbacks++
				if res.Replaced-generation > history.Near {
					total.far++
				}
			case !errors.Is(err, history.ErrRefused) && !lost(err) && !errors.Is(err, builder.ErrSweeping):
				t.Errorf("roll back: %v", err)
			}
			if _, err := k.Unpin(ctx); err != nil && !errors.Is(err, history.ErrRefused) && !errors.Is(err, builder.ErrPrecondition) {
				t.Errorf("unpin: %v", err)
			}
			request()
		}
	})
	crash := -1
	if r.IntN(3) == 0 {
		crash = r.IntN(300)
	}
	actor("gc", func(r *rand.Rand) {
		for sweep := range 2 {
			o := scheduled{s.sched, "gc", s.memory.Objects, nil}
			steps := 0
			if sweep == 0 && crash >= 0 {
				o.crashed = func() bool { steps++; return steps > crash }
			}
			opt := gc.Options{
				Keep: 1, Grace: time.Hour, Lease: 12 * time.Second, Pause: 2 * time.Second, Batch: 1 + r.IntN(6), ID: fmt.Sprint(sweep),
			}
			if r.IntN(2) == 0 { // as precast serve does by itself
				opt.Rebuilt = time.Nanosecond
			}
			c := gc.New(o, o, scheduledCatalog{s.sched, "gc", s.memory.Catalog}, opt)
			rep, err := c.Sweep(ctx)
			total.removed += rep.Removed().Objects
			total.spared += rep.Spared
			switch {
			case errors.Is(err, errCrash):
				total.crashes++
			case err != nil && !errors.Is(err, gc.ErrLease) && !errors.Is(err, gc.ErrBusy):
				t.Errorf("sweep: %v", err)
			}
		}
	})

	done := make(chan struct{})
	go func() { acting.Wait(); close(done) }()
	ended := false
	for idle := 0; ; {
		synctest.Wait()
		select {
		case <-done:
			ended = true
		default:
		}
		c := s.sched.next()
		if c == nil {
			waiting, inFlight, dead, err := s.memory.Queue.Depth(ctx)
			must(t, err)
			if dead > 0 {
				t.Fatalf("%d dead letters\n%s", dead, &s.said)
			}
			if ended && waiting+inFlight == 0 {
				break
			}
			if idle++; idle > 10_000 {
				t.Fatalf("it never ends: %d jobs waiting, %d in flight\n%s", waiting, inFlight, &s.said)
			}
			time.Sleep(200 * time.Millisecond)
			continue
		}
		idle = 0
		if s.sched.rand.IntN(100) == 0 { // somebody is slow
			time.Sleep(time.Duration(s.sched.rand.IntN(4000)) * time.Millisecond)
		}
		if s.sched.rand.IntN(300) == 0 { // or hangs
			time.Sleep(time.Duration(s.sched.rand.IntN(30)) * time.Second)
		}
		if c.op == "get" && c.key == layout.SweepKey && c.actor != "gc" {
			if f, _, err := builder.ReadFence(ctx, s.memory.Objects); err == nil && f.Holds(time.Now()) {
				total.waits++
			}
		}
		close(c.turn)
		synctest.Wait()
		if c.op == "put" && c.key == layout.IndexKey || c.op == "delete" {
			s.check(fmt.Sprintf("%s of %s by %s", c.op, c.key, c.actor))
			if c.op == "put" {
				total.published++
			}
		}
	}
	total.steps += s.sched.steps
	end()
	if t.Failed() {
		return
	}
	// Whatever happened, the system ends at the right bytes.
	s.build(builder.PlanOptions{Retry: true})
	items, err := s.memory.Catalog.Snapshot(t.Context())
	must(t, err)
	ix, _, err := builder.ReadIndex(t.Context(), s.memory.Objects)
	must(t, err)
	for i, it := range catalog.Apply(items, nil) {
		if len(ix.Items) != len(items) || ix.Items[i].Version != it.Version {
			t.Fatalf("published %+v\nthe catalog says %+v\n%s", ix.Items, items, &s.said)
		}
	}
	rep, err := fsck.Store(t.Context(), s.memory.Objects, fsck.Options{Deep: true})
	must(t, err)
	if len(rep.Problems) > 0 {
		t.Fatalf("in the end: %+v", rep.Problems)
	}
	// Generations that are kept can be gone back to.
	all, err := history.Kept(t.Context(), s.memory.Objects)
	must(t, err)
	for _, e := range all {
		old, err := builder.ReadGeneration(t.Context(), s.memory.Objects, e.Generation)
		must(t, err)
		var keys []string
		for i := range old.Items {
			keys = append(keys, builder.BinaryKey(&old.Items[i]), builder.PieceKey(&old.Items[i]))
		}
		if absent, err := history.Absent(t.Context(), s.memory.Objects, keys); err != nil || len(absent) > 0 {
			t.Fatalf("generation %d is in the history without %v, %v", e.Generation, absent, err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
