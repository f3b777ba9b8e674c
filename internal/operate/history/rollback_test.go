package history_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

func TestRollbackIsOneWrite(t *testing.T) { onBothKinds(t, rollbackIsOneWrite) }

func rollbackIsOneWrite(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	w.publish("1", "2")
	c := &counting{Objects: w.memory.Objects, writes: make(map[string]int)}
	w.wrap = func(builder.Objects) builder.Objects { return c }
	w.told = nil
	before := w.index()
	res, err := w.pipeline().Rollback(t.Context(), history.Request{By: catalog.Author{Claim: "eve", Message: "2 does not start"}})
	must(t, err)
	t.Logf("%.6f s until the index was written, %.6f s altogether; writes: %v", res.Seconds, res.Checked, c.writes)
	if !maps.Equal(c.writes, map[string]int{layout.IndexKey: 1}) || c.last.IfMatch == "" {
		t.Fatalf("writes %v, the last with %+v; want one conditional write of the index", c.writes, c.last)
	}
	ix := w.index()
	if ix.Generation != 3 || ix.Sequence != before.Sequence || w.version() != "1" || ix.Pin != "rolled back to generation 1: 2 does not start" {
		t.Fatalf("published %+v", ix)
	}
	if res.Of != 1 || res.Replaced != 2 || res.Generation != 3 || res.Writes != 1 || len(res.Missing) != 0 || res.Problem != "" {
		t.Fatalf("result %+v", res)
	}
	if len(w.told) != 1 || !w.told[0].Changed || w.told[0].Generation != 3 {
		t.Fatalf("told %+v: want one publish, for one invalidation", w.told)
	}
	w.complete()
	for g := uint64(1); g <= 2; g++ {
		if _, err := builder.ReadGeneration(t.Context(), w.memory.Objects, g); err != nil {
			t.Fatalf("generation %d is lost: %v", g, err)
		}
	}
}

// A pin survives every event of the pipeline; what was built meanwhile is there when it is taken off.
func TestNothingIsPublishedOverAPin(t *testing.T) { onBothKinds(t, nothingIsPublishedOverAPin) }

func nothingIsPublishedOverAPin(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	w.publish("1", "2")
	_, err := w.pipeline().Rollback(t.Context(), history.Request{})
	must(t, err)
	pinned := w.index()

	st, err := w.pipeline().Status(t.Context())
	must(t, err)
	if st.Pin != pinned.Pin || st.UpToDate || !st.Ready {
		t.Fatalf("status %+v: the catalog still says 2, which is built", st)
	}
	w.put("app", "prod", "3", "release 3 of the app", "x")
	if st, err = w.pipeline().Status(t.Context()); err != nil || st.Ready || st.UpToDate {
		t.Fatalf("status %+v, %v: 3 is not built", st, err)
	}
	var stays *pipeline.PinnedError
	for range 2 {
		if err := w.build(); !errors.As(err, &stays) || stays.Generation != 3 || stays.Reason != pinned.Pin {
			t.Fatalf("a build over a pin ended with %v", err)
		}
	}
	if _, _, dead, err := w.memory.Queue.Depth(t.Context()); err != nil || dead > 0 {
		t.Fatalf("%d dead letters, %v", dead, err)
	}
	if got := w.index(); got.Generation != 3 || got.Sequence != pinned.Sequence || got.Pin != pinned.Pin {
		t.Fatalf("published %+v over the pin", got)
	}
	if !strings.Contains(w.log.String(), "msg=pinned") {
		t.Fatalf("the log does not say it:\n%s", &w.log)
	}
	if st, err = w.pipeline().Status(t.Context()); err != nil || !st.Ready {
		t.Fatalf("status %+v, %v: 3 is built", st, err)
	}

	c := &counting{Objects: w.memory.Objects, writes: make(map[string]int)}
	w.wrap = func(builder.Objects) builder.Objects { return c }
	p, err := w.pipeline().Unpin(t.Context(), catalog.Author{})
	must(t, err)
	if p.Generation != 3 || p.Pin != "" || c.writes[layout.IndexKey] != 1 || len(c.writes) != 1 {
		t.Fatalf("unpin %+v wrote %v", p, c.writes)
	}
	must(t, w.build())
	w.complete()
	if w.version() != "3" || w.index().Generation != 4 {
		t.Fatalf("published %s, generation %d", w.version(), w.index().Generation)
	}
	for key := range c.writes {
		if strings.HasPrefix(key, layout.BundlePrefix) || strings.HasPrefix(key, layout.PiecePrefix) {
			t.Fatalf("%s was written: it should have been built under the pin", key)
		}
	}
	for g, want := range map[uint64]string{1: "1", 2: "2", 3: "1", 4: "3"} {
		ix, err := builder.ReadGeneration(t.Context(), w.memory.Objects, g)
		must(t, err)
		if ix.Items[0].Version != want || ix.Pin != "" {
			t.Fatalf("the history has generation %d as %+v", g, ix)
		}
	}
}

// The catalog may be told as well: then what is pinned is what it says.
func TestRollbackAndCorrectedCatalog(t *testing.T) { onBothKinds(t, rollbackAndCorrectedCatalog) }

func rollbackAndCorrectedCatalog(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	w.publish("1", "2")
	_, err := w.pipeline().Rollback(t.Context(), history.Request{})
	must(t, err)
	w.put("app", "prod", "1", "release 1 of the app", "x")
	st, err := w.pipeline().Status(t.Context())
	must(t, err)
	if !st.UpToDate || st.Pin == "" || st.Ready {
		t.Fatalf("status %+v", st)
	}
	_, err = w.pipeline().Unpin(t.Context(), catalog.Author{})
	must(t, err)
	must(t, w.build())
	if ix := w.index(); ix.Generation != 3 || ix.Pin != "" || w.version() != "1" {
		t.Fatalf("published %+v: the content is the same, so is the generation", ix)
	}
}

func TestRefusals(t *testing.T) { onBothKinds(t, refusals) }

func refusals(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	k := &history.Keeper{Objects: w.memory.Objects, Ledger: w.memory.Ledger}
	refused := func(want string, err error) {
		t.Helper()
		if !errors.Is(err, history.ErrRefused) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v; want a refusal with %q", err, want)
		}
	}
	rollback := func(r history.Request) error { _, err := k.Rollback(t.Context(), r); return err }
	pin := func(reason string) error { _, err := k.Pin(t.Context(), reason); return err }
	unpin := func() error { _, err := k.Unpin(t.Context()); return err }
	refused("nothing is published", rollback(history.Request{}))
	refused("nothing is published", pin(""))
	w.publish("1")
	refused("there is none to go back to", rollback(history.Request{}))
	w.publish("2", "3", "4", "5")
	refused("that is what is published: generation 5 is published, and there are 1-4 to go back to", rollback(history.Request{Generation: 5}))
	refused("there is no generation 6: generation 5 is published, and there are 1-4", rollback(history.Request{Generation: 6}))
	refused("longer than", rollback(history.Request{By: catalog.Author{Message: strings.Repeat("x", 301)}}))
	refused("control characters", pin("two\nlines"))
	refused("generation 5 is not pinned", unpin())
	must(t, w.memory.Objects.Delete(t.Context(), layout.HistoryKey(2)))
	refused("there are 1, 3-4 to go back to", rollback(history.Request{Generation: 2}))

	ix, err := builder.ReadGeneration(t.Context(), w.memory.Objects, 3)
	must(t, err)
	binary, piece := builder.BinaryKey(&ix.Items[0]), builder.PieceKey(&ix.Items[0])
	must(t, w.memory.Objects.Delete(t.Context(), binary, piece))
	refused("needs what is gone and cannot be composed: "+binary+", "+piece, rollback(history.Request{Generation: 3}))
	if got := w.index(); got.Generation != 5 || got.Pin != "" {
		t.Fatalf("a refusal changed what is published: %+v", got)
	}
	must(t, rollback(history.Request{Generation: 3, Force: true}))
	refused("generation 6 is pinned (rolled back to generation 3): name the generation to go back to", rollback(history.Request{}))
	must(t, pin("another reason"))
	if got := w.index().Pin; got != "another reason" {
		t.Fatalf("pinned: %q", got)
	}
	must(t, rollback(history.Request{Generation: 4}))
	if w.version() != "4" {
		t.Fatalf("published %s", w.version())
	}
}

// To go far back, it announces what it needs: one more write.
func TestFarRollbackIsAnnounced(t *testing.T) { onBothKinds(t, farRollbackIsAnnounced) }

func farRollbackIsAnnounced(t *testing.T, newWorld func(testing.TB) *world) {
	for _, back := range []uint64{history.Near, history.Near + 1} {
		w := newWorld(t)
		w.publish("1", "2", "3", "4", "5", "6")
		c := &counting{Objects: w.memory.Objects, writes: make(map[string]int)}
		k := &history.Keeper{Objects: c, Ledger: w.memory.Ledger}
		res, err := k.Rollback(t.Context(), history.Request{Generation: 6 - back})
		must(t, err)
		announced := 0
		for key := range c.writes {
			if strings.HasPrefix(key, layout.PlanPrefix) {
				announced++
			}
		}
		if far := back > history.Near; far != (announced == 1) || res.Writes != 1+announced || len(c.writes) != res.Writes {
			t.Fatalf("%d generations back: writes %v, result %+v", back, c.writes, res)
		}
	}
}

// Every write of a rollback fails in both ways: not done, and done but reported as failed. Either the old
// index is published or the new one, nothing is lost, and asking again does it.
func TestEveryWriteOfARollbackFailsBothWays(t *testing.T) {
	onBothKinds(t, everyWriteOfARollbackFailsBothWays)
}

func everyWriteOfARollbackFailsBothWays(t *testing.T, newWorld func(testing.TB) *world) {
	story := func(t *testing.T, at int, after bool) (writes int) {
		w := newWorld(t)
		w.publish("1", "2", "3", "4", "5")
		// Whoever published 5 died before copying it.
		must(t, w.memory.Objects.Delete(t.Context(), layout.HistoryKey(5)))
		g := &gate{Objects: w.memory.Objects, at: at, after: after}
		w.wrap = func(builder.Objects) builder.Objects { return g }
		for try := range 2 {
			res, err := w.pipeline().Rollback(t.Context(), history.Request{Generation: 1})
			w.complete()
			for n := uint64(1); n <= w.index().Generation-1; n++ {
				if _, readErr := builder.ReadGeneration(t.Context(), w.memory.Objects, n); readErr != nil && (n < 5 || w.index().Generation > 5) {
					t.Fatalf("generation %d is lost: %v", n, readErr)
				}
			}
			switch now := w.index(); {
			case err == nil && now.Generation == 6 && w.version() == "1" && now.Pin != "" && res.Generation == 6:
				return g.n
			case err == nil || try > 0:
				t.Fatalf("try %d: %+v, %v; published %+v", try, res, err, now)
			case now.Generation == 6: // done, and reported as failed: it would be refused now
				t.Fatalf("the write was done, and Rollback said %v", err)
			case now.Generation != 5 || now.Pin != "":
				t.Fatalf("published %+v", now)
			}
		}
		return 0
	}
	n := story(t, 0, false)
	if n != 3 {
		t.Fatalf("%d writes, want 3: the announcement, the copy and the index", n)
	}
	for at := 1; at <= n; at++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d after=%v", at, after), func(t *testing.T) { story(t, at, after) })
		}
	}
}

// The same of a publish: the copy after it can be lost, the one before the next makes up for it.
func TestTheCopyOfAGenerationMayBeLost(t *testing.T) { onBothKinds(t, theCopyOfAGenerationMayBeLost) }

func theCopyOfAGenerationMayBeLost(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	w.publish("1")
	w.wrap = func(o builder.Objects) builder.Objects { return failing{o, layout.HistoryKey(2)} }
	w.publish("2")
	if _, err := builder.ReadGeneration(t.Context(), w.memory.Objects, 2); !errors.Is(err, builder.ErrNotExist) {
		t.Fatalf("generation 2 was copied: %v", err)
	}
	if w.version() != "2" || len(w.told) != 2 {
		t.Fatalf("published %s, told %v", w.version(), w.told)
	}
	w.wrap = nil
	w.publish("3")
	if ix, err := builder.ReadGeneration(t.Context(), w.memory.Objects, 2); err != nil || ix.Items[0].Version != "2" {
		t.Fatalf("generation 2 is lost: %v", err)
	}
}

// Publishers and a rollback at once: the rollback ends up published, or is told that it lost.
func TestRollbackAgainstPublishers(t *testing.T) { onBothKinds(t, rollbackAgainstPublishers) }

func rollbackAgainstPublishers(t *testing.T, newWorld func(testing.TB) *world) {
	lost, won := 0, 0
	for seed := range 20 {
		w := newWorld(t)
		w.publish("1", "2", "3")
		w.put("app", "prod", "4", "release 4 of the app", "x")
		r := &interrupting{Objects: w.memory.Objects, at: seed % 12}
		r.do = func() { _ = w.build() } // may be refused by the pin
		k := &history.Keeper{Objects: r, Ledger: w.memory.Ledger}
		request := history.Request{Generation: uint64(seed % 2 * 2)} // 2, or the one before
		res, err := k.Rollback(t.Context(), request)
		w.complete()
		ix := w.index()
		switch {
		case errors.Is(err, history.ErrRace) && request.Generation == 0 && ix.Generation == 4 && ix.Pin == "" && w.version() == "4":
			lost++
		case err == nil && ix.Generation == res.Generation && ix.Pin != "":
			won++
			if request.Generation == 2 && w.version() != "2" {
				t.Fatalf("seed %d: rolled back to %+v, published %s", seed, res, w.version())
			}
		default:
			t.Fatalf("seed %d: %+v, %v, published generation %d %q", seed, res, err, ix.Generation, ix.Pin)
		}
	}
	if lost == 0 || won == 0 {
		t.Fatalf("%d lost, %d won: the races did not happen", lost, won)
	}
}

func TestPinLostAnswers(t *testing.T) { onBothKinds(t, pinLostAnswers) }

func pinLostAnswers(t *testing.T, newWorld func(testing.TB) *world) {
	for _, after := range []bool{false, true} {
		w := newWorld(t)
		w.publish("1")
		k := &history.Keeper{Objects: &gate{Objects: w.memory.Objects, at: 1, after: after}}
		_, err := k.Pin(t.Context(), "why")
		if (err == nil) != after || (w.index().Pin != "") != after {
			t.Fatalf("after=%v: %v, pinned %q", after, err, w.index().Pin)
		}
	}
}

// A command that is interrupted while it writes the index says what it did.
func TestAnInterruptedRollbackIsFoundOut(t *testing.T) {
	onBothKinds(t, anInterruptedRollbackIsFoundOut)
}

func anInterruptedRollbackIsFoundOut(t *testing.T, newWorld func(testing.TB) *world) {
	for _, written := range []bool{false, true} {
		w := newWorld(t)
		w.publish("1", "2")
		ctx, interrupt := context.WithCancel(t.Context())
		k := &history.Keeper{Objects: &interrupted{Objects: w.memory.Objects, interrupt: interrupt, written: written}, Ledger: w.memory.Ledger}
		res, err := k.Rollback(ctx, history.Request{})
		if (err == nil) != written || (w.version() == "1") != written {
			t.Fatalf("written=%v: %+v, %v, published %s", written, res, err, w.version())
		}
		if written && res.Generation != 3 {
			t.Fatalf("%+v", res)
		}
	}
}

// interrupted is a store whose user interrupts the write of the index: nothing more is answered.
type interrupted struct {
	builder.Objects
	interrupt func()
	written   bool
}

func (i *interrupted) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if i.written {
		if _, err := i.Objects.Put(ctx, key, body, opt); err != nil {
			return builder.ObjectInfo{}, err
		}
	}
	i.interrupt()
	return builder.ObjectInfo{}, ctx.Err()
}

func (i *interrupted) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	return i.Objects.Get(ctx, key, off, n)
}

var errFault = errors.New("injected fault")

// gate lets the at-th write fail, before it takes effect or after.
type gate struct {
	builder.Objects
	mu    sync.Mutex
	n, at int
	after bool
}

func (g *gate) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	g.mu.Lock()
	g.n++
	hit := g.n == g.at
	g.mu.Unlock()
	if hit && !g.after {
		return builder.ObjectInfo{}, errFault
	}
	info, err := g.Objects.Put(ctx, key, body, opt)
	if hit && err == nil {
		err = errFault
	}
	return info, err
}

// failing cannot write one key.
type failing struct {
	builder.Objects
	key string
}

func (f failing) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if key == f.key {
		return builder.ObjectInfo{}, errFault
	}
	return f.Objects.Put(ctx, key, body, opt)
}

// interrupting does something before the at-th operation.
type interrupting struct {
	builder.Objects
	mu    sync.Mutex
	n, at int
	do    func()
}

func (i *interrupting) step() {
	i.mu.Lock()
	hit := i.n == i.at
	i.n++
	i.mu.Unlock()
	if hit {
		i.do()
	}
}

func (i *interrupting) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	i.step()
	return i.Objects.Stat(ctx, key)
}

func (i *interrupting) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	i.step()
	return i.Objects.Put(ctx, key, body, opt)
}

func (i *interrupting) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	i.step()
	return i.Objects.List(ctx, prefix, yield)
}

// A sweep holds nobody up who goes back to what no sweep gives up; further back, one waits for its end.
func TestRollbackDuringASweep(t *testing.T) { onBothKinds(t, rollbackDuringASweep) }

func rollbackDuringASweep(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	w.publish("1", "2", "3", "4", "5", "6")
	now := time.Now()
	fence, err := builder.Fence{Epoch: 1, Running: true, Until: now.Add(10 * time.Second)}.Encode()
	must(t, err)
	_, err = w.memory.Objects.Put(t.Context(), layout.SweepKey, builder.Body{Reader: strings.NewReader(string(fence)), Size: int64(len(fence))}, builder.PutOptions{})
	must(t, err)
	waited := time.Duration(0)
	clock := builder.Clock{Time: func() time.Time { return now.Add(waited) }, Pass: func(_ context.Context, d time.Duration) { waited += d }}
	k := &history.Keeper{Objects: w.memory.Objects, Ledger: w.memory.Ledger, Clock: clock, SweepWait: 5 * time.Second}
	res, err := k.Rollback(t.Context(), history.Request{Generation: 3})
	if err != nil || waited != 0 || res.Writes != 1 || w.version() != "3" {
		t.Fatalf("to one of the last three: %+v, %v, after %s", res, err, waited)
	}
	if _, err := k.Rollback(t.Context(), history.Request{Generation: 1}); !errors.Is(err, builder.ErrSweeping) || waited != 5*time.Second {
		t.Fatalf("further back: %v, after %s", err, waited)
	}
	k.SweepWait = 0
	if _, err := k.Rollback(t.Context(), history.Request{Generation: 1}); err != nil || waited < 10*time.Second || w.version() != "1" {
		t.Fatalf("further back: %v, after %s", err, waited)
	}
}
