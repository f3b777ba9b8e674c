package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/settings"
	"github.com/precast-ota/precast/internal/store/local"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fullDisk is a folder's disk with as many bytes free as a test says.
type fullDisk struct {
	pipeline.Disk
	free atomic.Int64
}

func (d *fullDisk) Free() (free, total int64, err error) { return d.free.Load(), 100 << 30, nil }

func open(t testing.TB, opt local.Options) pipeline.Drivers {
	t.Helper()
	store, err := local.Open(t.TempDir(), opt)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return pipeline.Local(store)
}

// without are the settings of an installation without copies.
func without(t testing.TB) builder.Options {
	opt, err := settings.Default().Options(false)
	must(t, err)
	return opt
}

func minFree(t testing.TB, text string) (m settings.MinFree) {
	must(t, m.UnmarshalText([]byte(text)))
	return m
}

// put brings a release in, of content that only it has.
func put(t testing.TB, d pipeline.Drivers, app, version string, size int, seed uint64) {
	t.Helper()
	it := catalog.Item{App: app, Track: "prod", Version: version}
	if !strings.HasPrefix(app, "os_") {
		it.DeviceAttr = map[string]bool{"x": true}
	}
	bring(t, d, it, content(size, seed))
}

// content is half compressible.
func content(size int, seed uint64) []byte {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range data[:size/2] {
		data[i] = byte(r.Uint32() >> 24)
	}
	return data
}

func bring(t testing.TB, d pipeline.Drivers, it catalog.Item, data []byte) {
	t.Helper()
	im := &release.Importer{Objects: d.Objects, Catalog: struct {
		builder.Catalog
		builder.CatalogWriter
	}{d.Catalog, d.Writer}}
	_, err := im.Import(t.Context(), []release.Release{{Item: it, Open: opener(data)}}, false)
	must(t, err)
}

// said keeps what a log says.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), what)
}

// C20: below the threshold builds pause; status, log and the command that builds name the cause. What needs no room is
// published, and builds go on by themselves.
func TestC20BuildsPauseBeforeTheDiskIsFull(t *testing.T) {
	d := open(t, local.Options{})
	disk := &fullDisk{Disk: d.Disk}
	disk.free.Store(50 << 30)
	d.Disk = disk
	opt, log := without(t), &said{}
	opt.Log = slog.New(slog.NewTextHandler(log, nil))
	p := pipeline.New(d, pipeline.Config{Builder: opt, MinFree: minFree(t, "5%,1GiB"), Window: time.Millisecond})
	ctx := t.Context()
	put(t, d, "os_a", "1", 1000, 1)
	put(t, d, "b", "1", 1000, 2)
	must(t, p.Build(ctx, builder.PlanOptions{}, nil))

	disk.free.Store(1<<30 - 1)
	put(t, d, "b", "2", 1000, 3)
	err := p.Build(ctx, builder.PlanOptions{}, nil)
	for _, want := range []string{"1.0 GiB free", "1.0 GiB free (--min-free)"} {
		if !errors.Is(err, builder.ErrPaused) || !strings.Contains(err.Error(), want) {
			t.Fatalf("a build: %v; want %s", err, want)
		}
	}
	st, err := p.Status(ctx)
	must(t, err)
	if st.Disk.Free != 1<<30-1 || st.Disk.MinFree != 1<<30 || !strings.Contains(st.Disk.Paused, "builds are paused: the disk has") || st.UpToDate || st.Dead > 0 {
		t.Fatalf("status: %+v, %+v", st, st.Disk)
	}
	if st.Disk.Binaries != 3000 || st.Disk.Pieces == 0 || st.Disk.Bundles+st.Disk.Manifests != 0 || st.Disk.Other == 0 {
		t.Fatalf("by kind: %+v", st.Disk)
	}

	// A promotion needs no room.
	run, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { must(t, p.Run(run)) })
	if err := p.Follow(ctx, builder.PlanOptions{}, nil); !errors.Is(err, builder.ErrPaused) {
		t.Fatalf("a build that the server does: %v", err)
	}
	items, err := d.Catalog.Snapshot(ctx)
	must(t, err)
	var changes []catalog.Change
	for _, it := range items {
		if it.App == "os_a" {
			it.Track = "beta"
			changes = append(changes, catalog.Put(it))
		} else {
			changes = append(changes, catalog.Remove(it.Key()))
		}
	}
	must(t, d.Writer.Apply(ctx, catalog.Edit{Changes: changes}))
	published := func(until func(*index.Index) bool) {
		t.Helper()
		for {
			ix, _, err := builder.ReadIndex(ctx, d.Objects)
			must(t, err)
			if until(ix) {
				return
			}
			must(t, builder.Pause(ctx, 5*time.Millisecond))
		}
	}
	published(func(ix *index.Index) bool { return ix.Len() == 2 && ix.Items[0].App == ix.Items[1].App })

	put(t, d, "c", "1", 1000, 4)
	for log.count("builds are paused") < 3 { // in vain, again and again
		must(t, builder.Pause(ctx, 5*time.Millisecond))
	}
	disk.free.Store(2 << 30)
	published(func(ix *index.Index) bool { return ix.Len() == 3 })
	if st, err = p.Status(ctx); err != nil || st.Disk.Paused != "" || st.Dead > 0 {
		t.Fatalf("with room again: %+v, %v", st.Disk, err)
	}
	if log.count("builds go on") == 0 {
		t.Fatal("the log does not say that builds go on")
	}
}

// A disk that has less than a binary needs is no disk to fill, even if it is above the threshold.
func TestC20ABinaryThatDoesNotFitPauses(t *testing.T) {
	d := open(t, local.Options{})
	disk := &fullDisk{Disk: d.Disk}
	d.Disk = disk
	p := pipeline.New(d, pipeline.Config{Builder: without(t), MinFree: minFree(t, "1KiB")})
	put(t, d, "os_a", "1", 10_000, 1)
	disk.free.Store(10_000)
	if err := p.Build(t.Context(), builder.PlanOptions{}, nil); !errors.Is(err, builder.ErrPaused) || !strings.Contains(err.Error(), "9.8 KiB more are to be written") {
		t.Fatal(err)
	}
	disk.free.Store(12_000)
	must(t, p.Build(t.Context(), builder.PlanOptions{}, nil))
}

// What runs by itself waits for jobs to end, unless they wait for room.
func TestC19CollectingWaitsForJobs(t *testing.T) {
	d := open(t, local.Options{})
	disk := &fullDisk{Disk: d.Disk}
	disk.free.Store(50 << 30)
	d.Disk = disk
	var now atomic.Int64
	opt := without(t)
	opt.Clock.Time = func() time.Time { return time.Now().Add(time.Duration(now.Load())) }
	p := pipeline.New(d, pipeline.Config{Builder: opt, MinFree: minFree(t, "1GiB"), History: 90 * 24 * time.Hour})
	for i := range 6 {
		put(t, d, "os_a", string(rune('1'+i)), 1000, uint64(i))
		must(t, p.Build(t.Context(), builder.PlanOptions{}, nil))
	}
	now.Store(int64(time.Hour))
	_, err := builder.RequestPlan(t.Context(), d.Ledger, d.Queue, builder.Request{})
	must(t, err)
	if rep, err := p.Collect(t.Context()); rep != nil || err != nil {
		t.Fatalf("while a plan waits: %+v, %v", rep, err)
	}
	disk.free.Store(0)
	rep, err := p.Collect(t.Context())
	must(t, err)
	if rep == nil || rep.Removed().Objects == 0 {
		t.Fatalf("while builds are paused for want of room, nothing was removed: %+v", rep)
	}
}

// By the clock: the first time after a minute, then every ten.
func TestC19CollectingGoesByTheClock(t *testing.T) {
	d := open(t, local.Options{})
	put(t, d, "os_a", "1", 1000, 1)
	must(t, pipeline.New(d, pipeline.Config{Builder: without(t)}).Build(t.Context(), builder.PlanOptions{}, nil))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var waits []time.Duration
		opt, log := without(t), &said{}
		opt.Log = slog.New(slog.NewTextHandler(log, nil))
		opt.Clock.Pass = func(_ context.Context, d time.Duration) {
			if waits = append(waits, d); len(waits) == 3 {
				cancel()
			}
		}
		p := pipeline.New(d, pipeline.Config{Builder: opt, History: time.Hour})
		p.CollectUntilDone(ctx)
		if len(waits) != 3 || waits[0] != time.Minute || waits[1] != 10*time.Minute {
			t.Fatalf("it waited %v", waits)
		}
	})
}
