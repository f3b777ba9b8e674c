package builder_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/inspect"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/store/source"
	"github.com/precast-ota/precast/seed"
)

// testing.TB without the parts that rapid.T lacks.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world is a set of drivers with a pipeline over it.
type world struct {
	t       fataler
	base    pipeline.Drivers // what is really there
	drivers pipeline.Drivers // what the builders see: base, or faulty wrappings of it
	opt     builder.Options
	events  *recorder
	wait    time.Duration // how long to look for a message before there is none
	close   func()
}

// newWorld opens a data folder; wrap may replace drivers by faulty ones.
func newWorld(t fataler, dir string, opt builder.Options, wrap ...func(*pipeline.Drivers)) *world {
	t.Helper()
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := worldOf(t, pipeline.Local(store), opt, wrap...)
	w.close = func() { store.Close() }
	return w
}

// worldOf makes a world of any drivers.
func worldOf(t fataler, base pipeline.Drivers, opt builder.Options, wrap ...func(*pipeline.Drivers)) *world {
	w := &world{t: t, base: base, drivers: base, opt: opt, events: &recorder{}, close: func() {}}
	for _, f := range wrap {
		f(&w.drivers)
	}
	w.opt.Observer = w.events
	if w.opt.Log == nil {
		w.opt.Log = slog.New(slog.DiscardHandler)
	}
	return w
}

func (w *world) pipeline() *pipeline.Pipeline {
	return pipeline.New(w.drivers, pipeline.Config{Builder: w.opt, Workers: 2})
}

// build builds to the end.
func (w *world) build(opt builder.PlanOptions) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := w.pipeline().Build(ctx, opt, nil); err != nil {
		w.t.Fatal(err)
	}
}

// put releases content.
func (w *world) put(app, track, version string, content string, attrs ...string) catalog.Item {
	w.t.Helper()
	return w.release(itemOf(app, track, version, attrs...), content)
}

func itemOf(app, track, version string, attrs ...string) catalog.Item {
	it := catalog.Item{App: app, Track: track, Version: version}
	for _, a := range attrs {
		if it.DeviceAttr == nil {
			it.DeviceAttr = make(map[string]bool)
		}
		it.DeviceAttr[a] = true
	}
	return it
}

// release releases an item of this content.
func (w *world) release(it catalog.Item, content string) catalog.Item {
	w.t.Helper()
	im := w.importer()
	res, err := im.Import(context.Background(), []release.Release{{Item: it, Open: func() (io.ReadSeekCloser, error) {
		return builder.NopCloser{ReadSeeker: strings.NewReader(content)}, nil
	}}}, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.Items[0]
}

func (w *world) importer() *release.Importer {
	return &release.Importer{Objects: w.base.Objects, Catalog: struct {
		builder.Catalog
		builder.CatalogWriter
	}{w.base.Catalog, w.base.Writer}}
}

func (w *world) apply(changes ...catalog.Change) {
	w.t.Helper()
	if err := w.base.Writer.Apply(context.Background(), catalog.Edit{Changes: changes}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) seed(size int64) {
	w.t.Helper()
	im := w.importer()
	if _, err := im.Import(context.Background(), seed.Releases(size, 1), false); err != nil {
		w.t.Fatal(err)
	}
}

// objects reads every object below the prefixes.
func (w *world) objects(prefixes ...string) map[string]string {
	w.t.Helper()
	ctx := context.Background()
	all := make(map[string]string)
	for _, p := range prefixes {
		err := w.base.Objects.List(ctx, p, func(o builder.ObjectInfo) error {
			all[o.Key] = w.read(o.Key)
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return all
}

func (w *world) read(key string) string {
	w.t.Helper()
	body, _, err := w.base.Objects.Get(context.Background(), key, 0, -1)
	if err != nil {
		w.t.Fatalf("read %s: %v", key, err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		w.t.Fatalf("read %s: %v", key, err)
	}
	return string(data)
}

// delete removes an object, as no builder would.
func (w *world) delete(key string) error {
	return w.base.Objects.(interface {
		Delete(ctx context.Context, keys ...string) error
	}).Delete(context.Background(), key)
}

// served is everything that devices can be sent.
var served = []string{layout.BundlePrefix, layout.ManifestPrefix, layout.BinaryPrefix}

// checkComplete fails unless every object that the published index needs exists and is sound.
func (w *world) checkComplete() {
	w.t.Helper()
	ctx := context.Background()
	ix, _, err := builder.ReadIndex(ctx, w.base.Objects)
	if err != nil {
		w.t.Fatal(err)
	}
	if ix == nil {
		return
	}
	for _, key := range builder.Cover(ix, nil).Keys() {
		data := w.read(key)
		if !strings.HasSuffix(key, ".tar.gz") {
			continue
		}
		rep, err := inspect.Bundle(ctx, bytes.NewReader([]byte(data)))
		if err != nil || len(rep.Problems) > 0 {
			w.t.Fatalf("%s is not sound: %v %v", key, err, rep)
		}
	}
	for _, it := range ix.Items {
		if got := w.read(layout.BinaryKey(hex.EncodeToString(it.SHA256[:]), it.App, it.Version)); int64(len(got)) != it.Size {
			w.t.Fatalf("binary of %s has %d bytes, not %d", it.App, len(got), it.Size)
		}
	}
}

// checkEqualsFromScratch builds the same catalog in a fresh world, and fails unless everything that is
// there is here, byte for byte, and the same is published.
func (w *world) checkEqualsFromScratch(fresh *world) {
	w.t.Helper()
	defer fresh.close()
	ctx := context.Background()
	items, err := w.base.Catalog.Snapshot(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	for key, data := range w.objects(layout.BinaryPrefix) {
		body := builder.Body{Reader: strings.NewReader(data), Size: int64(len(data))}
		if _, err := fresh.base.Objects.Put(ctx, key, body, builder.PutOptions{IfAbsent: true}); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, it := range items {
		fresh.apply(catalog.Put(it))
	}
	fresh.build(builder.PlanOptions{})
	here := w.objects(append(served, layout.PiecePrefix)...)
	for key, data := range fresh.objects(append(served, layout.PiecePrefix)...) {
		if got, ok := here[key]; !ok || got != data {
			w.t.Fatalf("%s: here %d bytes (there: %v), from scratch %d", key, len(got), ok, len(data))
		}
	}
	if got, want := w.versions(), fresh.versions(); !slices.Equal(got, want) {
		w.t.Fatalf("published %v, from scratch %v", got, want)
	}
}

// versions returns what is published: "app/track version".
func (w *world) versions() []string {
	w.t.Helper()
	ix, _, err := builder.ReadIndex(context.Background(), w.base.Objects)
	if err != nil || ix == nil {
		w.t.Fatalf("read index: %v %v", ix, err)
	}
	var all []string
	for _, it := range ix.Items {
		all = append(all, it.App+"/"+it.Track+" "+it.Version)
	}
	return all
}

func (w *world) generation() uint64 {
	w.t.Helper()
	ix, _, err := builder.ReadIndex(context.Background(), w.base.Objects)
	if err != nil {
		w.t.Fatal(err)
	}
	if ix == nil {
		return 0
	}
	return ix.Generation
}

// recorder remembers what builders did.
type recorder struct {
	mu        sync.Mutex
	plans     []builder.Report
	written   []string
	mended    []string
	rejected  []builder.Rejection
	published []builder.Published
}

func (r *recorder) Planned(_ context.Context, p builder.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plans = append(r.plans, p)
}

func (r *recorder) Stored(_ context.Context, s builder.Stored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !s.Existed {
		r.written = append(r.written, s.Key)
	}
	if s.Mended {
		r.mended = append(r.mended, s.Key)
	}
}

func (r *recorder) Rejected(_ context.Context, x builder.Rejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rejected = append(r.rejected, x)
}

func (r *recorder) Published(_ context.Context, p builder.Published) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.published = append(r.published, p)
}

func (r *recorder) reset() {
	r.plans, r.written, r.mended, r.rejected, r.published = nil, nil, nil, nil, nil
}

// writtenUnder counts the written keys with a prefix.
func (r *recorder) writtenUnder(prefix string) int {
	n := 0
	for _, k := range r.written {
		if strings.HasPrefix(k, prefix) {
			n++
		}
	}
	return n
}

func sums(content string) (md, sha string) {
	m, s := md5.Sum([]byte(content)), sha256.Sum256([]byte(content))
	return hex.EncodeToString(m[:]), hex.EncodeToString(s[:])
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// memorySources serves binaries from memory.
type memorySources map[string]string

func (m memorySources) Open(_ context.Context, url string) (io.ReadCloser, error) {
	content, ok := m[url]
	if !ok {
		return nil, builder.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

// withSources adds a scheme "http" that reads from m.
func withSources(m memorySources) func(*pipeline.Drivers) {
	return func(d *pipeline.Drivers) {
		d.Sources = &source.Sources{Objects: d.Objects, Other: map[string]builder.Sources{"http": m}}
	}
}

// remote is an item whose binary is in memorySources.
func remote(app, version, url, content string) catalog.Item {
	md, sha := sums(content)
	return catalog.Item{App: app, Track: "prod", Version: version, URL: url, MD5: md, SHA256: sha, Size: int64(len(content)),
		DeviceAttr: map[string]bool{"x": true}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
