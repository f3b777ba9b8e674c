package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/store/local"
)

// disk is one whose reads fail at random, while it is bad: nothing is read, or some of it and then no more.
type disk struct {
	builder.Objects
	catalog builder.Catalog

	mu     sync.Mutex
	rand   *rand.Rand
	bad    bool
	one    int // in so many reads fails
	failed map[string]int
}

// errRead is how Linux says that a sector cannot be read, as it comes out of package os.
func errRead(what string) error {
	return fmt.Errorf("read %s: %w", what, syscall.EIO)
}

func (d *disk) set(bad bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bad = bad
}

// fails decides about one operation.
func (d *disk) fails(op string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.bad || d.rand.IntN(d.one) != 0 {
		return false
	}
	d.failed[op]++
	return true
}

func (d *disk) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if d.fails("stat") {
		return builder.ObjectInfo{}, errRead(key)
	}
	return d.Objects.Stat(ctx, key)
}

func (d *disk) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if d.fails("get") {
		return nil, builder.ObjectInfo{}, errRead(key)
	}
	body, info, err := d.Objects.Get(ctx, key, off, n)
	if err == nil && d.fails("half") {
		left := max(0, info.Size-off)
		if n >= 0 {
			left = min(left, n)
		}
		return &torn{body, left / 2, errRead(key)}, info, nil
	}
	return body, info, err
}

func (d *disk) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	if d.fails("list") {
		return errRead(prefix)
	}
	half := d.fails("half list")
	n := 0
	err := d.Objects.List(ctx, prefix, func(o builder.ObjectInfo) error {
		if n++; half && n == 2 {
			return errRead(prefix)
		}
		return yield(o)
	})
	return err
}

func (d *disk) Head(ctx context.Context) (catalog.Head, error) {
	if d.fails("head") {
		return catalog.Head{}, errRead("catalog")
	}
	return d.catalog.Head(ctx)
}

func (d *disk) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	if d.fails("snapshot") {
		return nil, errRead("catalog")
	}
	return d.catalog.Snapshot(ctx)
}

// torn is a body of which the first bytes can be read.
type torn struct {
	io.ReadCloser
	left int64
	err  error
}

func (b *torn) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		return n, b.err
	}
	return n, err
}

// Reads of objects and of the catalog fail at random, under a pipeline at work and a server.
func TestReadErrors(t *testing.T) {
	seeds, changes := fewer(6), 8
	failed, seen := make(map[string]int), make(map[string]int)
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) { readErrors(t, dir, seed, changes, failed, seen) })
		})
	}
	// Which device meets which fault is chance.
	for _, what := range []string{"answered", "told to come again", "broken off"} {
		if seen[what] == 0 {
			t.Errorf("no device was %s: %v", what, seen)
		}
	}
	t.Logf("failed: %v; devices: %v", failed, seen)
	counted(t, "%d seeds, %d changes each", seeds, changes)
}

func readErrors(t *testing.T, dir string, seed uint64, changes int, failed, seen map[string]int) {
	store, base := openLocal(t, dir, local.Options{})
	defer store.Close()
	w := newWorld(t, base)
	d := &disk{Objects: base.Objects, catalog: base.Catalog, rand: rand.New(rand.NewPCG(seed, 1)), one: 40, failed: failed}
	w.drivers.Objects, w.drivers.Catalog = d, d
	w.begin()

	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	st := w.pipeline()
	w.faulty.Store(true) // nothing is published at first
	f := w.serve(ctx, d, st)
	all.Go(func() { must(t, st.Run(ctx)) })
	for n := range uint64(3) {
		all.Go(func() { w.device(ctx, f, rand.New(rand.NewPCG(seed, 10+n)), 200*time.Millisecond) })
	}
	d.set(true)
	r := rand.New(rand.NewPCG(seed, 2))
	for n := range changes {
		w.step(r, n+1)
		pause(ctx, time.Duration(r.IntN(3000))*time.Millisecond)
		w.complete()
	}
	// Then nothing at all can be read, for longer than it takes to give a job up.
	d.mu.Lock()
	d.one = 1
	d.mu.Unlock()
	w.step(r, changes+1)
	for range 6 {
		pause(ctx, 15*time.Second)
		w.complete()
	}
	d.set(false)
	pause(ctx, 5*time.Second) // the server looks at the index again
	w.settle(2*time.Minute, 100*time.Millisecond)
	pause(ctx, 6*time.Second)
	w.faulty.Store(false)
	w.everybody(f)
	cancel()
	all.Wait()
	w.judge()
	seen["answered"] += w.answers[200]
	seen["told to come again"] += w.answers[503]
	seen["broken off"] += w.broken
}
