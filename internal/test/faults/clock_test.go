package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/store/local"
)

// jumping is a clock that is set now and then.
type jumping struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *jumping) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *jumping) set(offset time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = offset
}

// keeping is the builder's clock.
func (c *jumping) keeping() builder.Clock { return builder.Clock{Time: c.now} }

// clocked starts a pipeline by a clock, with a server and a device, and returns what ends them.
func clocked(w *world, c *jumping) (front, func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.opt.Clock = c.keeping()
	st := w.pipeline()
	f := w.serve(ctx, w.drivers.Objects, st)
	var all sync.WaitGroup
	all.Go(func() { must(w.t, st.Run(ctx)) })
	all.Go(func() { w.device(ctx, f, rand.New(rand.NewPCG(5, 5)), 5*time.Minute) })
	return f, func() {
		cancel()
		all.Wait()
	}
}

// The clock of queue, ledger and builder is set hours forward and back while builds run.
func TestClockJumps(t *testing.T) {
	seeds, jumps := fewer(6), 12
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) { clockJumps(t, dir, seed, jumps) })
		})
	}
	for name, play := range map[string]func(*testing.T, string){"lease": clockLease, "ledger": clockLedger} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) { play(t, dir) })
		})
	}
	counted(t, "%d seeds, %d jumps each; a dead sweep's lease; the ledger's end", seeds, jumps)
}

// slow makes every write take a while, so that a clock can be set in the midst of a build.
type slow struct {
	builder.Objects
	before func(ctx context.Context, key string)
}

func (s slow) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	s.before(ctx, key)
	return s.Objects.Put(ctx, key, body, opt)
}

func clockJumps(t *testing.T, dir string, seed uint64, jumps int) {
	c := &jumping{}
	store, base := openLocal(t, dir, local.Options{Now: c.now})
	defer store.Close()
	w := newWorld(t, base)
	w.visibility = 9 * time.Second
	w.drivers.Objects = slow{base.Objects, func(ctx context.Context, _ string) { pause(ctx, 700*time.Millisecond) }}
	w.faulty.Store(true)
	w.begin()
	f, end := clocked(w, c)
	defer end()
	r := rand.New(rand.NewPCG(seed, 7))
	for n := range jumps {
		w.step(r, n+1)
		pause(t.Context(), time.Duration(r.IntN(20))*time.Second)
		// No more than a day in all: so long the ledger remembers for certain.
		c.set(time.Duration(r.IntN(24*60)-12*60) * time.Minute)
		w.complete()
	}
	w.settle(30*time.Hour, time.Minute)
	w.faulty.Store(false)
	pause(t.Context(), time.Minute)
	w.everybody(f)
}

// A sweep has died, and its lease ends hours from now, by a clock that was set back. What may be removed at
// any moment must not be relied on: builds wait, and are not given up.
func clockLease(t *testing.T, dir string) {
	c := &jumping{}
	store, base := openLocal(t, dir, local.Options{})
	defer store.Close()
	w := newWorld(t, base)
	w.begin()
	_, end := clocked(w, c)
	defer end()
	w.faulty.Store(true)
	w.settle(time.Minute, time.Second)
	w.faulty.Store(false)
	fence := builder.Fence{Epoch: 1, Running: true, Until: c.now().Add(30 * time.Second), By: "a sweep that died"}
	data, err := fence.Encode()
	must(t, err)
	_, err = base.Objects.Put(t.Context(), layout.SweepKey, builder.Body{Reader: strings.NewReader(string(data)), Size: int64(len(data))}, builder.PutOptions{})
	must(t, err)
	c.set(-6 * time.Hour)
	before, err := published(t.Context(), base.Objects)
	must(t, err)
	w.step(rand.New(rand.NewPCG(1, 1)), 1)
	for range 5 {
		pause(t.Context(), time.Hour)
		got, err := published(t.Context(), base.Objects)
		must(t, err)
		if !slices.Equal(got, before) {
			t.Fatal("published while a sweep may remove what was found")
		}
	}
	w.settle(2*time.Hour, time.Minute)
}

// The clock is set so far ahead that the ledger forgets the parts of a build that is under way: nobody is told
// any more that they are all done.
func clockLedger(t *testing.T, dir string) {
	c := &jumping{}
	store, base := openLocal(t, dir, local.Options{Now: c.now})
	defer store.Close()
	w := newWorld(t, base)
	var once sync.Once
	w.drivers.Objects = slow{base.Objects, func(ctx context.Context, key string) {
		if strings.HasPrefix(key, layout.BundlePrefix) {
			once.Do(func() {
				c.set(100 * time.Hour)
				must(t, base.Ledger.Open(ctx, "another", 1)) // which is when it forgets
			})
		}
	}}
	w.faulty.Store(true)
	w.begin()
	_, end := clocked(w, c)
	defer end()
	w.settle(2*time.Hour, time.Minute)
}
