package faults_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/store/local"
)

// services are an object store and tables, each of which can fail for everybody.
type services struct {
	builder.Objects
	builder.Catalog
	builder.Ledger

	mu   sync.Mutex
	left int           // operations until it begins
	what string        // fails: "objects", "tables"; empty: nothing does
	hang chan struct{} // operations that fail do not answer before this is closed; nil: they do at once
}

// after begins an outage with the operation number n from now.
func (s *services) after(n int, what string, hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.what, s.hang = n, what, nil
	if hangs {
		s.hang = make(chan struct{})
	}
}

// end ends the outage.
func (s *services) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.what = ""
	if s.hang != nil {
		close(s.hang)
	}
}

// fails decides about one operation.
func (s *services) fails(ctx context.Context, of string) error {
	s.mu.Lock()
	s.left--
	out, hang := s.left < 0 && s.what == of, s.hang
	s.mu.Unlock()
	if !out {
		return nil
	}
	if hang != nil {
		select {
		case <-ctx.Done():
			return ctx.Err() // as the SDK, of which nobody knows then what it waited for
		case <-hang:
		}
	}
	return fmt.Errorf("reach the %s: %w", of, builder.ErrOutage)
}

func (s *services) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if err := s.fails(ctx, "objects"); err != nil {
		return builder.ObjectInfo{}, err
	}
	return s.Objects.Stat(ctx, key)
}

func (s *services) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if err := s.fails(ctx, "objects"); err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	return s.Objects.Get(ctx, key, off, n)
}

func (s *services) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if err := s.fails(ctx, "objects"); err != nil {
		return builder.ObjectInfo{}, err
	}
	return s.Objects.Put(ctx, key, body, opt)
}

func (s *services) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	if err := s.fails(ctx, "objects"); err != nil {
		return err
	}
	return s.Objects.List(ctx, prefix, yield)
}

func (s *services) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	if err := s.fails(ctx, "tables"); err != nil {
		return nil, err
	}
	return s.Catalog.Snapshot(ctx)
}

func (s *services) Next(ctx context.Context) (uint64, error) {
	if err := s.fails(ctx, "tables"); err != nil {
		return 0, err
	}
	return s.Ledger.Next(ctx)
}

func (s *services) Open(ctx context.Context, id string, parts int) error {
	if err := s.fails(ctx, "tables"); err != nil {
		return err
	}
	return s.Ledger.Open(ctx, id, parts)
}

func (s *services) Done(ctx context.Context, id string, part int) (int, error) {
	if err := s.fails(ctx, "tables"); err != nil {
		return 0, err
	}
	return s.Ledger.Done(ctx, id, part)
}

func (s *services) Close(ctx context.Context, id string) error {
	if err := s.fails(ctx, "tables"); err != nil {
		return err
	}
	return s.Ledger.Close(ctx, id)
}

// failures counts deliveries that came to nothing.
func (w *world) failures() int { return w.log.count("job failed") + w.log.count("job stopped") }

// outlast waits for as many more failed deliveries. No job becomes a dead letter of it, and what is published stays
// complete.
func (w *world) outlast(failures int, within, look time.Duration) {
	w.t.Helper()
	ctx := w.t.Context()
	failures += w.failures()
	for end := time.Now().Add(within); w.failures() < failures; pause(ctx, look) {
		_, _, dead, err := w.base.DeadLetters.Depth(ctx)
		must(w.t, err)
		if dead > 0 || time.Now().After(end) {
			w.t.Fatalf("%d dead letters, %d failed deliveries of %d", dead, w.failures(), failures)
		}
	}
	w.complete()
}

// The object store or the tables fail at any moment of a build, for much longer than all receives of a job take. The
// worker in one process and the one on Lambda both survive that.
func TestOutage(t *testing.T) {
	seeds, failures := fewer(4), 150
	for _, c := range []struct {
		what          string
		lambda, hangs bool
	}{
		{"objects", false, false}, {"tables", false, false},
		{"objects", true, false}, {"tables", true, false}, {"objects", true, true}, {"tables", true, true},
	} {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprintf("%s lambda=%v hangs=%v %d", c.what, c.lambda, c.hangs, seed), func(t *testing.T) {
				dir := folder(t)
				synctest.Test(t, func(t *testing.T) { outage(t, dir, seed, failures, c.what, c.lambda, c.hangs) })
			})
		}
	}
	counted(t, "%d seeds of 2 outages of each worker, and 2 of Lambda's in which nothing answers; %d failed deliveries each", seeds, failures)
}

func outage(t *testing.T, dir string, seed uint64, failures int, what string, lambda, hangs bool) {
	store, base := openLocal(t, dir, local.Options{})
	defer store.Close()
	w := newWorld(t, base)
	s := &services{Objects: base.Objects, Catalog: base.Catalog, Ledger: base.Ledger}
	w.drivers.Objects, w.drivers.Catalog, w.drivers.Ledger = s, s, s
	if lambda {
		w.onLambda(time.Minute, rand.New(rand.NewPCG(seed, 1)))
	}
	w.faulty.Store(true) // nothing is published at first
	w.begin()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	st := w.pipeline()
	f := w.serve(ctx, s, st)
	all.Go(func() { must(t, w.work(ctx, st)) })
	all.Go(func() { w.device(ctx, f, rand.New(rand.NewPCG(seed, 2)), 10*time.Second) })
	w.settle(time.Hour, time.Second)

	r := rand.New(rand.NewPCG(seed, 3))
	calls := 60
	if !copies() { // a build of pieces alone makes few
		calls = 10
	}
	s.after(r.IntN(calls), what, hangs)
	w.step(r, 1)
	w.step(r, 2)
	_, err := builder.RequestPlan(ctx, base.Ledger, base.Queue, builder.Request{}) // which the tables' outage does not keep out
	must(t, err)
	w.outlast(failures, 12*time.Hour, 5*time.Second)
	s.end()
	w.settle(time.Hour, time.Second)
	pause(ctx, 6*time.Second) // the server looks at the index again, after an outage too
	w.faulty.Store(false)
	w.everybody(f)
	if got := w.log.count("outage=false"); got > 0 {
		t.Errorf("%d failures are not taken for the outage's: %s", got, strings.ReplaceAll(w.log.tail(), "\n", "\n\t"))
	}
	cancel()
	all.Wait()
	w.judge()
}
