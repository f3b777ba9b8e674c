package history_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/source"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// world is a pipeline over drivers in memory.
type world struct {
	t       testing.TB
	drivers pipeline.Drivers
	memory  storetest.Memory
	log     strings.Builder
	told    []builder.Published
	wrap    func(builder.Objects) builder.Objects // what the keeper sees; nil: the objects themselves
	bundles uint64                                // prebuilt, at most; 0: an installation without copies
}

// onBothKinds plays a test on an installation with copies, and on one that composes bundles while they are sent.
func onBothKinds(t *testing.T, play func(t *testing.T, newWorld func(testing.TB) *world)) {
	for name, bundles := range map[string]uint64{"copies": builder.DefaultParams().MaxBundles, "composed": 0} {
		t.Run(name, func(t *testing.T) {
			play(t, func(t testing.TB) *world {
				w := newWorld(t)
				w.bundles = bundles
				return w
			})
		})
	}
}

func newWorld(t testing.TB) *world {
	m := storetest.NewMemory(time.Now, 5)
	w := &world{t: t, memory: m, bundles: builder.DefaultParams().MaxBundles}
	w.drivers = pipeline.Drivers{
		Ports: builder.Ports{
			Objects: m.Objects, Catalog: m.Catalog, Queue: m.Queue, Ledger: m.Ledger, Sources: &source.Sources{Objects: m.Objects},
		},
		Writer: m.Catalog, DeadLetters: m.Queue,
	}
	return w
}

type told struct {
	builder.Silent
	mu sync.Mutex
	w  *world
}

func (o *told) Published(_ context.Context, p builder.Published) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.w.told = append(o.w.told, p)
}

func (w *world) pipeline() *pipeline.Pipeline {
	d := w.drivers
	if w.wrap != nil {
		d.Objects = w.wrap(d.Objects)
	}
	params := builder.DefaultParams()
	params.MaxBundles = w.bundles
	return pipeline.New(d, pipeline.Config{Builder: builder.Options{
		Params: params, Log: slog.New(slog.NewTextHandler(&w.log, nil)), Observer: &told{w: w},
	}})
}

func (w *world) put(app, track, version, content string, attrs ...string) {
	w.t.Helper()
	it := catalog.Item{App: app, Track: track, Version: version, DeviceAttr: map[string]bool{}}
	for _, a := range attrs {
		it.DeviceAttr[a] = true
	}
	im := &release.Importer{Objects: w.memory.Objects, Catalog: w.memory.Catalog}
	_, err := im.Import(w.t.Context(), []release.Release{{Item: it, Open: func() (io.ReadSeekCloser, error) {
		return builder.NopCloser{ReadSeeker: strings.NewReader(content)}, nil
	}}}, false)
	must(w.t, err)
}

func (w *world) build() error {
	w.t.Helper()
	return w.pipeline().Build(w.t.Context(), builder.PlanOptions{}, nil)
}

// publish makes a generation: release n of an app.
func (w *world) publish(versions ...string) {
	w.t.Helper()
	for _, v := range versions {
		w.put("os_a", "prod", "1", "operating system")
		w.put("app", "prod", v, "release "+v+" of the app", "x")
		must(w.t, w.build())
	}
}

func (w *world) index() *index.Index {
	w.t.Helper()
	ix, _, err := builder.ReadIndex(w.t.Context(), w.memory.Objects)
	must(w.t, err)
	return ix
}

// version is what is published of the app.
func (w *world) version() string {
	w.t.Helper()
	for _, it := range w.index().Items {
		if it.App == "app" {
			return it.Version
		}
	}
	return ""
}

// complete fails unless everything that is published exists.
func (w *world) complete() {
	w.t.Helper()
	ix := w.index()
	if ix.Params.Copies() != (w.bundles > 0) {
		w.t.Fatalf("generation %d says that there are copies: %v", ix.Generation, ix.Params.Copies())
	}
	coverage, err := builder.CoverPublished(w.t.Context(), w.memory.Objects, ix)
	must(w.t, err)
	keys := coverage.Keys()
	for i := range ix.Items {
		keys = append(keys, builder.BinaryKey(&ix.Items[i]), builder.PieceKey(&ix.Items[i]))
	}
	absent, err := history.Absent(w.t.Context(), w.memory.Objects, keys)
	must(w.t, err)
	if len(absent) > 0 {
		w.t.Fatalf("generation %d is published without %v", ix.Generation, absent)
	}
}

// counting counts writes by key.
type counting struct {
	builder.Objects
	mu     sync.Mutex
	writes map[string]int
	last   builder.PutOptions
}

func (c *counting) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	c.mu.Lock()
	c.writes[key]++
	c.last = opt
	c.mu.Unlock()
	return c.Objects.Put(ctx, key, body, opt)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
