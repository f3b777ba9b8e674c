package faults_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	releases "github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// crash kills this process at its nth write: when it has been done, or when half of its bytes have been read.
type crash struct {
	mu   sync.Mutex
	n    int
	at   int
	half bool
	puts []int // which of the writes have bytes to be half-way in
}

// begin counts a write. It tells whether this is the one.
func (c *crash) begin(put bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if put {
		c.puts = append(c.puts, c.n)
	}
	return c.n == c.at
}

// install puts the crash behind everything that writes. A receive is a write too: it hides and counts.
func (c *crash) install(d *pipeline.Drivers) {
	d.Objects = crashingObjects{d.Objects, c}
	d.Queue = crashingQueue{d.Queue, c}
	d.Ledger = crashingLedger{d.Ledger, c}
	d.Writer = crashingWriter{d.Writer, c}
}

func (c *crash) did(hit bool) {
	if hit {
		killSelf()
	}
}

type crashingObjects struct {
	builder.Objects
	c *crash
}

func (o crashingObjects) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	hit := o.c.begin(true)
	if hit && o.c.half {
		body.Reader = &killingReader{body.Reader, body.Size / 2}
	}
	defer o.c.did(hit)
	return o.Objects.Put(ctx, key, body, opt)
}

type crashingQueue struct {
	builder.Queue
	c *crash
}

func (q crashingQueue) Send(ctx context.Context, bodies ...[]byte) error {
	for _, b := range bodies { // other drivers may have sent some of them
		hit := q.c.begin(false)
		if err := q.Queue.Send(ctx, b); err != nil {
			return err
		}
		q.c.did(hit)
	}
	return nil
}

func (q crashingQueue) Receive(ctx context.Context, most int, visibility, wait time.Duration) ([]builder.Message, error) {
	messages, err := q.Queue.Receive(ctx, most, visibility, wait)
	if len(messages) > 0 {
		q.c.did(q.c.begin(false))
	}
	return messages, err
}

func (q crashingQueue) Delete(ctx context.Context, receipt string) error {
	defer q.c.did(q.c.begin(false))
	return q.Queue.Delete(ctx, receipt)
}

type crashingLedger struct {
	builder.Ledger
	c *crash
}

func (l crashingLedger) Next(ctx context.Context) (uint64, error) {
	defer l.c.did(l.c.begin(false))
	return l.Ledger.Next(ctx)
}

func (l crashingLedger) Open(ctx context.Context, id string, parts int) error {
	defer l.c.did(l.c.begin(false))
	return l.Ledger.Open(ctx, id, parts)
}

func (l crashingLedger) Done(ctx context.Context, id string, part int) (int, error) {
	defer l.c.did(l.c.begin(false))
	return l.Ledger.Done(ctx, id, part)
}

func (l crashingLedger) Close(ctx context.Context, id string) error {
	defer l.c.did(l.c.begin(false))
	return l.Ledger.Close(ctx, id)
}

type crashingWriter struct {
	builder.CatalogWriter
	c *crash
}

func (w crashingWriter) Apply(ctx context.Context, edit catalog.Edit) error {
	defer w.c.did(w.c.begin(false))
	return w.CatalogWriter.Apply(ctx, edit)
}

// chapters of the story that is interrupted: some releases, then one more of what is there already.
func chapters() [][]releases.Release {
	return [][]releases.Release{{release(0, 0, 900), release(2, 0, 1200)}, {release(2, 1, 1500)}}
}

// playPipeline plays the story in a data folder. arg is the crash.
func playPipeline(dir, arg string) error {
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	c, err := parseCrash(arg)
	if err != nil {
		return err
	}
	return playStory(context.Background(), pipeline.Local(store), c, 0)
}

func parseCrash(arg string) (*crash, error) {
	c := &crash{}
	if _, err := fmt.Sscan(arg, &c.at, &c.half); err != nil {
		return nil, fmt.Errorf("parse crash %q: %w", arg, err)
	}
	return c, nil
}

// told prints how many writes there were, and which of them were objects'.
func (c *crash) told() {
	fmt.Println(c.n)
	for _, n := range c.puts {
		fmt.Println(n)
	}
}

// counts is what told has printed.
func counts(t *testing.T, out string) (writes int, puts []int) {
	t.Helper()
	for i, line := range lines(out) {
		var n int
		_, err := fmt.Sscan(line, &n)
		must(t, err)
		if i == 0 {
			writes = n
		} else {
			puts = append(puts, n)
		}
	}
	return writes, puts
}

// playStory brings releases in and builds them, as often as there are chapters left.
func playStory(ctx context.Context, d pipeline.Drivers, c *crash, visibility time.Duration) error {
	c.install(&d)
	opt := small()
	opt.Concurrency, opt.PartBytes = 1, 1500
	for n, releases := range chapters() {
		done, err := reached(ctx, d, n)
		if err != nil {
			return err
		}
		if done {
			continue
		}
		if _, err := importer(d).Import(ctx, releases, false); err != nil {
			return err
		}
		if err := pipeline.New(d, pipeline.Config{Builder: opt, Workers: 1, Visibility: visibility}).Build(ctx, builder.PlanOptions{}, nil); err != nil {
			return err
		}
	}
	c.told()
	return nil
}

// reached tells whether the catalog is beyond chapter n.
func reached(ctx context.Context, d pipeline.Drivers, n int) (bool, error) {
	items, err := d.Catalog.Snapshot(ctx)
	if err != nil {
		return false, err
	}
	for _, it := range items {
		for _, later := range chapters()[n+1:] {
			if it.Version == later[0].Version {
				return true, nil
			}
		}
	}
	return false, nil
}

// A process that runs a whole pipeline is killed at every single write, after it and in the midst of it, and
// started again.
func TestKilledAtEveryWrite(t *testing.T) {
	t.Parallel()
	want := folder(t)
	out, err := child("pipeline", want, "0 false")
	must(t, err)
	writes, halves := counts(t, out)
	if writes < 30 || len(halves) < 10 {
		t.Fatalf("the story has only %d writes, %d of objects", writes, len(halves))
	}
	reference, err := contentsOfFolder(t.Context(), want)
	must(t, err)
	scratch := folder(t)
	type point struct {
		at   int
		half bool
	}
	points := make(chan point, writes+len(halves))
	for n := range writes {
		points <- point{n + 1, false}
	}
	for _, n := range halves {
		points <- point{n, true}
	}
	close(points)
	var mid atomic.Int64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for p := range points {
				if published, err := killedAt(t.Context(), scratch, p.at, p.half, reference); err != nil {
					t.Errorf("killed at write %d of %d (half-way: %v): %v", p.at, writes, p.half, err)
				} else if published {
					mid.Add(1)
				}
			}
		})
	}
	all.Wait()
	if mid.Load() == 0 {
		t.Error("nothing was published at any crash: the oracle saw nothing")
	}
	t.Logf("something was published at %d of the crashes", mid.Load())
	counted(t, "%d kills: %d writes, %d of them also half-way", writes+len(halves), writes, len(halves))
}

// killedAt plays one crash and the restart. It tells whether anything was published at the crash.
func killedAt(ctx context.Context, scratch string, at int, half bool, want map[string]string) (published bool, err error) {
	dir := filepath.Join(scratch, fmt.Sprint(at, half))
	if _, err := child("pipeline", dir, fmt.Sprint(at, " ", half)); !errors.Is(err, errKilled) {
		return false, fmt.Errorf("the process was not killed: %w", err)
	}
	objects, err := local.OpenObjects(dir)
	if err != nil {
		return false, err
	}
	ix, _, err := builder.ReadIndex(ctx, objects)
	if err != nil {
		return false, err
	}
	if err := complete(ctx, objects); err != nil {
		return false, err
	}
	if _, err := child("pipeline", dir, "0 false"); err != nil {
		return false, fmt.Errorf("started again: %w", err)
	}
	if err := complete(ctx, objects); err != nil {
		return false, fmt.Errorf("after the restart: %w", err)
	}
	got, err := contentsOfFolder(ctx, dir)
	if err != nil {
		return false, err
	}
	if !maps.Equal(got, want) {
		return false, fmt.Errorf("%d objects, %d without a crash, or others", len(got), len(want))
	}
	left, err := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	if err != nil || len(left) > 0 {
		return false, fmt.Errorf("left behind: %v, %w", left, err)
	}
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		return false, err
	}
	defer store.Close()
	if waiting, inFlight, dead, err := store.Queue().Depth(ctx); err != nil || waiting+inFlight+dead > 0 {
		return false, fmt.Errorf("%d jobs wait, %d are in flight, %d dead: %w", waiting, inFlight, dead, err)
	}
	return ix != nil, nil
}

func contentsOfFolder(ctx context.Context, dir string) (map[string]string, error) {
	objects, err := local.OpenObjects(dir)
	if err != nil {
		return nil, err
	}
	return contentsOf(ctx, objects)
}

// contentsOf is what devices can be sent and what is published, whatever its numbers.
func contentsOf(ctx context.Context, objects builder.Objects) (map[string]string, error) {
	all, err := stored(ctx, objects)
	if err != nil {
		return nil, err
	}
	items, err := published(ctx, objects)
	all["published"] = fmt.Sprint(items)
	return all, err
}
