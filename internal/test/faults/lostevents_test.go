package faults_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// deaf is a trigger that hears of nothing.
type deaf struct{}

func (deaf) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// A day long no change is told of.
func TestLostEvents(t *testing.T) {
	const changes = 24
	for _, c := range []struct {
		name   string
		deaf   bool
		trim   bool
		within time.Duration // of a change it is published
	}{
		{"no trigger", true, false, 61 * time.Minute},
		{"trimmed log", false, true, 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) { lostEvents(t, dir, changes, c.deaf, c.trim, c.within) })
		})
	}
	t.Run("trigger starts late", func(t *testing.T) {
		dir := folder(t)
		synctest.Test(t, func(t *testing.T) { lateTrigger(t, dir, changes) })
	})
	counted(t, "3 ways, %d changes in 24 h each", changes)
}

func lostEvents(t *testing.T, dir string, changes int, mute, trim bool, within time.Duration) {
	store, base := openLocal(t, dir, local.Options{})
	defer store.Close()
	w := newWorld(t, base)
	if mute {
		w.drivers.NewTrigger = func(time.Duration, *slog.Logger) (pipeline.Trigger, error) { return deaf{}, nil }
	}
	w.faulty.Store(true)
	w.begin()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	st := w.pipeline()
	f := w.serve(ctx, w.drivers.Objects, st)
	all.Go(func() { must(t, st.Run(ctx)) })
	w.settle(within, time.Second)
	w.faulty.Store(false)
	all.Go(func() { w.device(ctx, f, rand.New(rand.NewPCG(3, 3)), 3*time.Minute) })
	r := rand.New(rand.NewPCG(3, 4))
	for n := range changes {
		w.step(r, n+1)
		if trim {
			last, err := store.Catalog().LastChange(ctx)
			must(t, err)
			must(t, store.Catalog().TrimChanges(ctx, last))
		}
		if n%6 == 0 {
			w.settle(within, 10*time.Second)
		}
		pause(ctx, time.Hour-2*time.Minute)
		w.complete()
	}
	w.settle(within, 10*time.Second)
	pause(ctx, 10*time.Second)
	w.everybody(f)
}

// The whole day nothing runs, and the log forgets it all.
func lateTrigger(t *testing.T, dir string, changes int) {
	store, base := openLocal(t, dir, local.Options{})
	defer store.Close()
	w := newWorld(t, base)
	w.begin()
	run := func(during func()) {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		st := w.pipeline()
		all.Go(func() { must(t, st.Run(ctx)) })
		during()
		cancel()
		all.Wait()
	}
	run(func() { w.settle(time.Minute, time.Second) })
	r := rand.New(rand.NewPCG(4, 4))
	for n := range changes {
		w.step(r, n+1)
		pause(t.Context(), time.Hour)
	}
	last, err := store.Catalog().LastChange(t.Context())
	must(t, err)
	must(t, store.Catalog().TrimChanges(t.Context(), last))
	run(func() { w.settle(time.Minute, time.Second) })
	w.everybody(w.fresh(base.Objects))
}
