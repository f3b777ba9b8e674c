package gc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/gc"
	"github.com/precast-ota/precast/internal/operate/history"
	rel "github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// shelf is a store with one generation for every release, with a clock that a test moves.
type shelf struct {
	t testing.TB
	*story
	now time.Time
}

func newShelf(t *testing.T, releases int) *shelf {
	s := &shelf{t: t, now: time.Now()}
	s.story = &story{t: t, memory: storetest.NewMemory(func() time.Time { return s.now }, 5), tally: &outcomes{}}
	for v := 1; v <= releases; v++ {
		s.publish(v)
	}
	return s
}

func (s *shelf) publish(v int) {
	s.t.Helper()
	im := &rel.Importer{Objects: s.memory.Objects, Catalog: s.memory.Catalog}
	_, err := im.Import(s.t.Context(), []rel.Release{release("os_a", 1), release("b", v)}, true)
	must(s.t, err)
	s.build(builder.PlanOptions{})
	s.now = s.now.Add(time.Hour)
}

func (s *shelf) clock() builder.Clock {
	return builder.Clock{Time: func() time.Time { return s.now }, Pass: func(_ context.Context, d time.Duration) { s.now = s.now.Add(d) }}
}

func (s *shelf) collector(opt gc.Options) *gc.Collector {
	opt.Clock = s.clock()
	return gc.New(s.memory.Objects, s.memory.Objects, s.memory.Catalog, opt)
}

func (s *shelf) keys(prefix string) []string {
	s.t.Helper()
	var keys []string
	must(s.t, s.memory.Objects.List(s.t.Context(), prefix, func(o builder.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	}))
	return keys
}

func count(rep *gc.Report) map[string]int {
	n := make(map[string]int)
	for _, k := range rep.Kinds {
		if k.Objects > 0 {
			n[k.Kind] = k.Objects
		}
	}
	return n
}

// A new kind of object is removed by sweeps when nothing needs it, or kept for ever on purpose.
func TestEveryKindIsSweptOrKept(t *testing.T) {
	rep, err := newShelf(t, 1).collector(gc.Options{}).Look(t.Context())
	must(t, err)
	kept := []layout.Kind{layout.Index, layout.Sweep, layout.Statement, layout.Keyring, layout.KeyringHistory}
	for _, k := range layout.Kinds() {
		name := strings.TrimSuffix(layout.PrefixOf(k), "/")
		if slices.ContainsFunc(rep.Kinds, func(r gc.Kind) bool { return r.Kind == name }) == slices.Contains(kept, k) {
			t.Errorf("%s: list it in swept (gc.go), with what needs it in marks.go, or here among the kept", layout.PrefixOf(k))
		}
	}
}

func TestWhatIsRemoved(t *testing.T) {
	s := newShelf(t, 8)
	// What one generation has of its own: one set, with a full bundle and one for each of its items held.
	own := map[string]int{"bundles": 3, "manifests": 3, "pieces": 1, "binaries": 1}
	before := s.keys("")
	rep, err := s.collector(gc.Options{Keep: 3, Grace: time.Minute, Keys: 2}).Look(t.Context())
	must(t, err)
	want := map[string]int{"index.d": 4, "plans": 8}
	for kind, n := range own {
		want[kind] = 4 * n
	}
	if got := count(rep); !maps.Equal(got, want) || rep.Deleted || rep.Generation != 8 || rep.Oldest != 5 || rep.Rounds != 0 {
		t.Fatalf("would remove %v, want %v: %+v", got, want, rep)
	}
	if got := s.keys(""); !slices.Equal(got, before) {
		t.Fatal("a dry run changed something")
	}
	for _, k := range rep.Kinds {
		if len(k.Keys) > 2 {
			t.Fatalf("%d keys are named", len(k.Keys))
		}
	}
	all := rep.Removed()
	if all.Objects+rep.Kept.Objects != len(before)-1 { // all but the index
		t.Fatalf("%+v and %+v of %d objects", all, rep.Kept, len(before))
	}
	swept, err := s.collector(gc.Options{Keep: 3, Grace: time.Minute}).Sweep(t.Context())
	must(t, err)
	if got := count(swept); !maps.Equal(got, want) || !swept.Deleted || swept.Rounds != 1 || swept.Removed() != all {
		t.Fatalf("removed %v, want %v: %+v", got, want, swept)
	}
	if left := s.keys(""); len(left) != len(before)-all.Objects+1 { // and the fence
		t.Fatalf("%d objects are left of %d", len(left), len(before))
	}
	s.check("a sweep")
	for g := uint64(5); g <= 7; g++ {
		k := &history.Keeper{Objects: s.memory.Objects, Ledger: s.memory.Ledger, Clock: s.clock()}
		if _, err := k.Rollback(t.Context(), history.Request{Generation: g}); err != nil {
			t.Fatalf("generation %d: %v", g, err)
		}
		s.check(fmt.Sprint("going back to ", g))
	}
	f, _, err := builder.ReadFence(t.Context(), s.memory.Objects)
	if err != nil || f.Running || f.Epoch != 1 {
		t.Fatalf("the fence is %+v, %v", f, err)
	}
	// Again: nothing but plans that are done with, and no fence for nothing.
	again, err := s.collector(gc.Options{Keep: 16, Grace: time.Minute}).Sweep(t.Context())
	must(t, err)
	if again.Removed().Objects != 0 || again.Rounds != 0 {
		t.Fatalf("again: %+v", again)
	}
}

func TestGraceAndKeep(t *testing.T) {
	s := newShelf(t, 8)
	for _, c := range []struct {
		keep        uint64
		grace       time.Duration
		generations int
	}{
		{3, time.Minute, 4}, {1, time.Minute, 4}, {5, time.Minute, 2}, {0, time.Minute, 0}, {7, time.Minute, 0},
		{3, 150 * time.Hour, 0},
		// Written 8 to 1 hours ago, generations 1 to 3 are older than 5 hours and a half.
		{3, 5*time.Hour + time.Minute, 3},
	} {
		rep, err := s.collector(gc.Options{Keep: c.keep, Grace: c.grace}).Look(t.Context())
		must(t, err)
		if got := count(rep)["index.d"]; got != c.generations {
			t.Errorf("keep %d, grace %s: %d generations would go, want %d", c.keep, c.grace, got, c.generations)
		}
		if got := count(rep)["binaries"]; got != c.generations {
			t.Errorf("keep %d, grace %s: %d binaries would go, want %d", c.keep, c.grace, got, c.generations)
		}
	}
}

// A waiting plan, the catalog and a composed bundle of a kept generation keep what they need.
func TestWhatElseIsKept(t *testing.T) {
	s := newShelf(t, 8)
	ctx := t.Context()
	k := &history.Keeper{Objects: s.memory.Objects, Ledger: s.memory.Ledger, Clock: s.clock()}
	_, err := k.Pin(ctx, "fair")
	must(t, err)
	// Release 1 comes back: built, waiting for the pin to be taken off.
	im := &rel.Importer{Objects: s.memory.Objects, Catalog: s.memory.Catalog, Clock: s.clock()}
	_, err = im.Import(ctx, []rel.Release{release("b", 1)}, false)
	must(t, err)
	s.build(builder.PlanOptions{})
	// Release 2 is in the catalog only.
	_, err = im.Import(ctx, []rel.Release{release("b", 2)}, false)
	must(t, err)
	s.now = s.now.Add(time.Hour)
	rep, err := s.collector(gc.Options{Keep: 3, Grace: time.Minute}).Sweep(ctx)
	must(t, err)
	// Generations 1 to 4 go: their releases 3 and 4 with all that they have, of release 2 all but its binary.
	if got, want := count(rep), map[string]int{"index.d": 4, "plans": 8, "bundles": 9, "manifests": 9, "pieces": 3, "binaries": 2}; !maps.Equal(got, want) {
		t.Fatalf("removed %v, want %v", got, want)
	}
	_, err = k.Unpin(ctx)
	must(t, err)
	s.build(builder.PlanOptions{})
	s.check("the pin was taken off")
}

func TestRefusals(t *testing.T) {
	s := newShelf(t, 0)
	if _, err := s.collector(gc.Options{}).Sweep(t.Context()); !errors.Is(err, gc.ErrNothing) {
		t.Fatalf("of nothing published: %v", err)
	}
	s = newShelf(t, 5)
	write := func(f builder.Fence) {
		t.Helper()
		data, err := f.Encode()
		must(t, err)
		_, err = s.memory.Objects.Put(t.Context(), layout.SweepKey, builder.Body{Reader: strings.NewReader(string(data)), Size: int64(len(data))}, builder.PutOptions{})
		must(t, err)
	}
	sweep := func() error {
		_, err := s.collector(gc.Options{Keep: 3, Grace: time.Minute}).Sweep(t.Context())
		return err
	}
	write(builder.Fence{Epoch: 7, Running: true, Until: s.now.Add(-time.Second)})
	if err := sweep(); !errors.Is(err, gc.ErrBusy) {
		t.Fatalf("another's lease, ended by our clock, perhaps not by its: %v", err)
	}
	s.now = s.now.Add(time.Minute)
	// A generation that is kept and cannot be read might need anything.
	good, err := io.ReadAll(get(t, s.memory.Objects, layout.HistoryKey(4)))
	must(t, err)
	put := func(data string) {
		_, err := s.memory.Objects.Put(t.Context(), layout.HistoryKey(4), builder.Body{Reader: strings.NewReader(data), Size: int64(len(data))}, builder.PutOptions{})
		must(t, err)
	}
	put("PCX, but not quite")
	before := s.keys("")
	if err := sweep(); err == nil || !strings.Contains(err.Error(), "precast fsck") || len(s.keys("")) != len(before) {
		t.Fatalf("with a damaged generation: %v", err)
	}
	put(string(good))
	s.now = s.now.Add(time.Hour)
	must(t, sweep())
	if f, _, err := builder.ReadFence(t.Context(), s.memory.Objects); err != nil || f.Epoch != 8 || f.Running {
		t.Fatalf("fence %+v, %v", f, err)
	}
}

func get(t *testing.T, objects builder.Objects, key string) io.Reader {
	t.Helper()
	body, _, err := objects.Get(t.Context(), key, 0, -1)
	must(t, err)
	return body
}

// slow removes one object a second, and counts requests.
type slow struct {
	storetest.DeletingObjects
	s       *shelf
	batches []int
	fail    int
}

func (d *slow) Delete(ctx context.Context, keys ...string) error {
	d.batches = append(d.batches, len(keys))
	if len(d.batches) == d.fail {
		return errCrash
	}
	d.s.now = d.s.now.Add(time.Duration(len(keys)) * time.Second)
	return d.DeletingObjects.Delete(ctx, keys...)
}

// A sweep that takes long lets builds in between its leases, and removes nothing after the end of one.
func TestLeases(t *testing.T) {
	s := newShelf(t, 8)
	d := &slow{DeletingObjects: s.memory.Objects, s: s}
	var progress []int
	opt := gc.Options{Keep: 3, Grace: time.Minute, Lease: 15 * time.Second, Margin: 5 * time.Second, Batch: 3, Clock: s.clock(),
		Candidates: 20, Progress: func(done, _ int) { progress = append(progress, done) }}
	start := s.now
	rep, err := gc.New(s.memory.Objects, d, s.memory.Catalog, opt).Sweep(t.Context())
	must(t, err)
	// After 12 objects a lease is over.
	if rep.Removed().Objects != 44 || rep.Rounds < 5 || slices.Max(d.batches) > 3 || len(progress) != rep.Rounds {
		t.Fatalf("%+v, batches %v", rep, d.batches)
	}
	t.Logf("%d rounds, %s", rep.Rounds, s.now.Sub(start))
	s.check("a long sweep")

	s = newShelf(t, 8)
	d = &slow{DeletingObjects: s.memory.Objects, s: s}
	opt.Clock, opt.Lease, opt.Margin, opt.Candidates = s.clock(), time.Second, time.Second, 0
	if _, err := gc.New(s.memory.Objects, d, s.memory.Catalog, opt).Sweep(t.Context()); !errors.Is(err, gc.ErrLease) || len(d.batches) > 0 {
		t.Fatalf("a lease that is all margin: %v, %v", err, d.batches)
	}
}

// timed looks at how long a request may take.
type timed struct {
	gc.Deleter
	s     *shelf
	most  time.Duration // beyond the time at which the margin begins
	asked int
}

func (d *timed) Delete(ctx context.Context, keys ...string) error {
	f, _, err := builder.ReadFence(ctx, d.s.memory.Objects)
	if err != nil {
		return err
	}
	end, ok := ctx.Deadline()
	if !ok {
		return errors.New("a request without an end")
	}
	// The shelf's clock stands still: what is left by it is as much of the real time.
	left := f.Until.Add(-5 * time.Second).Sub(d.s.now)
	d.most = max(d.most, time.Until(end)-left)
	d.asked++
	return d.Deleter.Delete(ctx, keys...)
}

// The margin is whole: requests have ended, or been given up, before it begins.
func TestRequestsEndBeforeTheMargin(t *testing.T) {
	s := newShelf(t, 8)
	d := &timed{Deleter: s.memory.Objects, s: s, most: -time.Hour}
	opt := gc.Options{Keep: 3, Grace: time.Minute, Lease: 15 * time.Second, Margin: 5 * time.Second, Clock: s.clock()}
	_, err := gc.New(s.memory.Objects, d, s.memory.Catalog, opt).Sweep(t.Context())
	must(t, err)
	if d.asked == 0 || d.most > 0 {
		t.Errorf("%d requests, which may take %s of the margin", d.asked, d.most)
	}
}

// Whatever fails, generations that are left in the history have all they need.
func TestAFailedSweepLeavesNothingTorn(t *testing.T) {
	for fail := 1; ; fail++ {
		s := newShelf(t, 8)
		d := &slow{DeletingObjects: s.memory.Objects, s: s, fail: fail}
		rep, err := gc.New(s.memory.Objects, d, s.memory.Catalog, gc.Options{Keep: 3, Grace: time.Minute, Batch: 3, Lease: time.Hour, Clock: s.clock()}).Sweep(t.Context())
		if err == nil {
			if fail < 10 {
				t.Fatalf("no request failed, %d", fail)
			}
			return
		}
		if !errors.Is(err, errCrash) || rep.Removed().Objects > 3*(fail-1) {
			t.Fatalf("%+v, %v", rep, err)
		}
		s.check("a failed sweep")
		kept, err := history.Kept(t.Context(), s.memory.Objects)
		must(t, err)
		for _, e := range kept {
			ix, err := builder.ReadGeneration(t.Context(), s.memory.Objects, e.Generation)
			must(t, err)
			absent, err := history.Absent(t.Context(), s.memory.Objects, builder.Cover(ix, nil).Keys())
			if err != nil || len(absent) > 0 {
				t.Fatalf("generation %d is left without %v, %v", e.Generation, absent, err)
			}
		}
		if f, _, err := builder.ReadFence(t.Context(), s.memory.Objects); err != nil || f.Running {
			t.Fatalf("the fence is left up: %+v, %v", f, err)
		}
	}
}

// While a lease holds, a plan's job waits, then fails, and is done when it comes again.
func TestABuildWaitsForASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &story{t: t, memory: storetest.NewMemory(time.Now, 5), tally: &outcomes{}}
		im := &rel.Importer{Objects: s.memory.Objects, Catalog: s.memory.Catalog}
		_, err := im.Import(t.Context(), []rel.Release{release("b", 1)}, true)
		must(t, err)
		data, err := builder.Fence{Epoch: 1, Running: true, Until: time.Now().Add(40 * time.Second)}.Encode()
		must(t, err)
		_, err = s.memory.Objects.Put(t.Context(), layout.SweepKey, builder.Body{Reader: strings.NewReader(string(data)), Size: int64(len(data))}, builder.PutOptions{})
		must(t, err)
		_, err = builder.RequestPlan(t.Context(), s.memory.Ledger, s.memory.Queue, builder.Request{})
		must(t, err)
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		w := &builder.Worker{DeliveryPolicy: builder.DeliveryPolicy{Builder: builder.New(s.plain(), builder.Options{}), Visibility: 30 * time.Second}, Wait: time.Second}
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		for {
			time.Sleep(time.Second)
			ix, _, err := builder.ReadIndex(t.Context(), s.memory.Objects)
			must(t, err)
			if ix != nil {
				break
			}
		}
		cancel()
		must(t, <-done)
		_, _, dead, err := s.memory.Queue.Depth(t.Context())
		if took := time.Since(start); err != nil || dead > 0 || took < 40*time.Second || took > 50*time.Second {
			t.Fatalf("published after %s, %d dead letters, %v", took, dead, err)
		}
	})
}

// What is removed is what nothing needs: whatever the catalog's history, what is left is complete, what is
// kept can be gone back to, and a second sweep finds nothing.
func TestSweepsOfRandomHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newShelf(t, 0)
		versions := rapid.SliceOfN(rapid.IntRange(1, 5), 1, 8).Draw(rt, "releases")
		for _, v := range versions {
			s.publish(v)
			if rapid.IntRange(0, 4).Draw(rt, "step") == 0 {
				must(t, s.memory.Catalog.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Remove(catalog.Key{App: "b", Track: "prod"})}}))
			}
		}
		keep := uint64(rapid.IntRange(0, 6).Draw(rt, "keep"))
		opt := gc.Options{Keep: keep, Grace: time.Minute, Batch: rapid.IntRange(1, 9).Draw(rt, "batch"), Candidates: rapid.IntRange(1, 40).Draw(rt, "candidates")}
		look, err := s.collector(opt).Look(t.Context())
		must(t, err)
		rep, err := s.collector(opt).Sweep(t.Context())
		must(t, err)
		if rep.Removed() != look.Removed() {
			rt.Fatalf("removed %+v, would have removed %+v", rep.Removed(), look.Removed())
		}
		checked, err := fsck.Store(t.Context(), s.memory.Objects, fsck.Options{Deep: true})
		must(t, err)
		if len(checked.Problems) > 0 {
			rt.Fatalf("%+v", checked.Problems)
		}
		kept, err := history.Kept(t.Context(), s.memory.Objects)
		must(t, err)
		for _, e := range kept {
			ix, err := builder.ReadGeneration(t.Context(), s.memory.Objects, e.Generation)
			must(t, err)
			if absent, err := history.Absent(t.Context(), s.memory.Objects, builder.Cover(ix, nil).Keys()); err != nil || len(absent) > 0 {
				rt.Fatalf("generation %d without %v, %v", e.Generation, absent, err)
			}
		}
		again, err := s.collector(opt).Sweep(t.Context())
		must(t, err)
		if again.Removed().Objects > 0 {
			rt.Fatalf("a second sweep removed %+v", again)
		}
	})
}
