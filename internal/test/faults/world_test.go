// Package faults_test breaks the services under a running pipeline, and then lets them recover.
// While the fault lasts, whatever is published is complete, and devices get answers that follow from one of
// the catalogs that can be live, or are told to come back. After it, and without anybody's help, everything
// that a build from scratch would write is there, byte for byte, with no job and no dead letter left.
//
// Package suite lists the tests, with what each breaks and what must hold; docs/reliability.md is made from that and
// from a run.
package faults_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	releases "github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/test/faults/suite"
)

// counted says, for the table of docs/reliability.md, how many cases a test has played. It must be the same in every
// run: what is not goes to t.Log.
func counted(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Attr(suite.Cases, fmt.Sprintf(format, args...))
}

// world is a pipeline under faults, and what is known of it.
type world struct {
	t          testing.TB
	base       pipeline.Drivers // what is really there
	drivers    pipeline.Drivers // what the pipeline sees
	opt        builder.Options
	visibility time.Duration
	log        *logged

	// run does the work in the place of the pipeline, changed is called after every change of the catalog; nil: not.
	run     func(context.Context) error
	changed func()

	// faulty: devices may be told to come back, and downloads may break off.
	faulty atomic.Bool

	mu sync.Mutex
	// states are all that the catalog has been, oldest first.
	states [][]catalog.Item
	// floor is the newest state that is known to have been published.
	floor    int
	answers  map[int]int // by status
	broken   int         // downloads that broke off
	problems []string
}

// envCopies is the switch of both kinds of installations: "false" runs a test without copies, as the program does that it
// starts. TestWithoutCopies sets it.
const envCopies = "PRECAST_COPIES"

func copies() bool { return os.Getenv(envCopies) != "false" }

// fewer is how many seeds a test plays: most of it is the same without copies.
func fewer(seeds int) int {
	if copies() {
		return seeds
	}
	return 1
}

// small keeps builds to some dozens of objects.
func small() builder.Options {
	bundles := uint64(60)
	if !copies() {
		bundles = 0
	}
	return builder.Options{
		Params:    index.Params{MaxBundles: bundles, MaxBytes: 1 << 30, MaxCombinations: 200, SubsetItems: 1, Retain: 1},
		PartBytes: 4 << 10, Concurrency: 2,
	}
}

func newWorld(t testing.TB, base pipeline.Drivers) *world {
	l := &logged{}
	w := &world{t: t, base: base, drivers: base, opt: small(), log: l, answers: make(map[int]int)}
	w.opt.Log = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last of the log:\n%s", l.tail())
		}
	})
	return w
}

// openLocal opens a data folder.
func openLocal(t testing.TB, dir string, opt local.Options) (*local.Store, pipeline.Drivers) {
	t.Helper()
	store, err := local.Open(dir, opt)
	must(t, err)
	return store, pipeline.Local(store)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logged keeps what a pipeline said.
type logged struct {
	mu   sync.Mutex
	text []byte
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	return len(b), nil
}

func (l *logged) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text[max(0, len(l.text)-6000):])
}

func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text, []byte(what))
}

// The catalog's items, with the attributes that devices of selections have.
var kinds = [...]struct {
	app, track string
	attrs      []string
}{
	{"os_a", "prod", nil}, {"os_a", "beta", nil}, {"b", "prod", []string{"x"}}, {"b", "beta", []string{"x"}},
	{"c", "prod", []string{"x", "y"}}, {"d", "prod", []string{"y"}},
}

// release is the release number n of an item, with content that only it has.
func release(kind, n, size int) releases.Release {
	k := kinds[kind]
	it := catalog.Item{App: k.app, Track: k.track, Version: fmt.Sprintf("%d.%d", n, kind)}
	for _, a := range k.attrs {
		if it.DeviceAttr == nil {
			it.DeviceAttr = make(map[string]bool)
		}
		it.DeviceAttr[a] = true
	}
	content := make([]byte, size)
	r := rand.New(rand.NewPCG(uint64(kind), uint64(n)))
	for i := range content {
		content[i] = byte(r.Uint32() >> 26) // compresses by a quarter
	}
	return releases.Release{Item: it, Open: func() (io.ReadSeekCloser, error) { return builder.NopCloser{ReadSeeker: bytes.NewReader(content)}, nil }}
}

func importer(d pipeline.Drivers) *releases.Importer {
	return &releases.Importer{Objects: d.Objects, Catalog: struct {
		builder.Catalog
		builder.CatalogWriter
	}{d.Catalog, d.Writer}}
}

// begin brings the first releases in.
func (w *world) begin() {
	w.t.Helper()
	var all []releases.Release
	for k := range kinds {
		all = append(all, release(k, 0, 700+300*k))
	}
	w.change(func() error {
		_, err := importer(w.base).Import(w.t.Context(), all, false)
		return err
	})
}

// step changes the catalog at random, as change number n: mostly it is a release, sometimes an app goes.
func (w *world) step(r *rand.Rand, n int) {
	w.t.Helper()
	kind, size, remove := r.IntN(len(kinds)), 200+r.IntN(4000), r.IntN(5) == 0
	w.change(func() error {
		if k := kinds[kind]; remove && k.attrs != nil {
			return w.base.Writer.Apply(w.t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Remove(catalog.Key{App: k.app, Track: k.track})}})
		}
		_, err := importer(w.base).Import(w.t.Context(), []releases.Release{release(kind, n, size)}, false)
		return err
	})
}

// change changes the catalog. A device that gets what follows from the change before this has noted it waits
// in check for the note.
func (w *world) change(do func() error) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	must(w.t, do())
	items, err := w.base.Catalog.Snapshot(w.t.Context())
	must(w.t, err)
	w.states = append(w.states, items)
	if w.changed != nil {
		w.changed()
	}
}

// pipeline is a pipeline over what the world lets it see.
func (w *world) pipeline() *pipeline.Pipeline {
	return pipeline.New(w.drivers, pipeline.Config{Builder: w.opt, Workers: 2, Window: 20 * time.Millisecond, Visibility: w.visibility})
}

// work builds until ctx is done: in a pipeline's process, unless there is something in its place.
func (w *world) work(ctx context.Context, st *pipeline.Pipeline) error {
	if w.run != nil {
		return w.run(ctx)
	}
	return st.Run(ctx)
}

// complete fails unless everything that is published is there and sound, to the last byte.
func (w *world) complete() {
	w.t.Helper()
	if err := complete(w.t.Context(), w.base.Objects); err != nil {
		w.t.Fatal(err)
	}
}

func complete(ctx context.Context, objects builder.Objects) error {
	for {
		before, _, err := builder.ReadIndex(ctx, objects)
		if err != nil || before == nil {
			return err
		}
		rep, err := fsck.Store(ctx, objects, fsck.Options{Deep: true})
		if err != nil {
			return err
		}
		if rep.Complete() {
			return nil
		}
		// What was published meanwhile need not be what was checked.
		if after, _, err := builder.ReadIndex(ctx, objects); err == nil && after != nil && after.Generation != before.Generation {
			continue
		}
		var all []string
		for _, p := range rep.Problems {
			all = append(all, fmt.Sprintf("%s: %s: %s", p.Kind, p.Key, p.Detail))
		}
		return fmt.Errorf("generation %d is published, and not complete:\n%s", rep.Generation, strings.Join(all[:min(5, len(all))], "\n"))
	}
}

// settle waits until the pipeline, by itself, has published what the catalog says and has nothing left to do.
func (w *world) settle(within, look time.Duration) {
	w.t.Helper()
	ctx := w.t.Context()
	for end := time.Now().Add(within); ; {
		st, err := pipeline.New(w.base, pipeline.Config{Builder: small()}).Status(ctx)
		must(w.t, err)
		if st.Dead > 0 {
			w.t.Fatalf("%d dead letters: %s", st.Dead, st.DeadLetters[0].Job)
		}
		if st.UpToDate && st.Waiting+st.InFlight == 0 {
			if len(st.Rejected) > 0 {
				w.t.Fatalf("rejected: %+v", st.Rejected)
			}
			break
		}
		if time.Now().After(end) {
			w.t.Fatalf("%v after the fault it is not done: %+v", within, st)
		}
		pause(ctx, look)
	}
	if w.run != nil {
		pause(ctx, 6*time.Second) // nobody pokes the server, which looks for a newer index every 5 s
	}
	w.mu.Lock()
	w.floor = len(w.states) - 1
	w.mu.Unlock()
	w.complete()
	w.fromScratch()
}

func pause(ctx context.Context, d time.Duration) { _ = builder.Pause(ctx, d) }

// await looks until something is so.
func await(t *testing.T, within time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !so(); pause(t.Context(), 50*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v have passed, and not: %s", within, what)
		}
	}
}

// built is what a build writes for devices, and what it makes that from.
var built = [...]string{layout.BundlePrefix, layout.ManifestPrefix, layout.BinaryPrefix, layout.PiecePrefix}

// stored reads all that a build writes.
func stored(ctx context.Context, objects builder.Objects) (map[string]string, error) {
	all := make(map[string]string)
	for _, prefix := range built {
		var keys []string
		err := objects.List(ctx, prefix, func(o builder.ObjectInfo) error {
			keys = append(keys, o.Key)
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			if all[key], err = read(ctx, objects, key); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func read(ctx context.Context, objects builder.Objects, key string) (string, error) {
	body, info, err := objects.Get(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err == nil && int64(len(data)) != info.Size {
		err = fmt.Errorf("%s has %d bytes, not %d", key, len(data), info.Size)
	}
	return string(data), err
}

// fromScratch builds the catalog as it is now in an empty folder, and fails unless everything that is written
// there is here, byte for byte, and nothing else is published.
func (w *world) fromScratch() {
	w.t.Helper()
	w.mu.Lock()
	items := w.states[len(w.states)-1]
	w.mu.Unlock()
	ctx := w.t.Context()
	store, fresh := openLocal(w.t, folder(w.t), local.Options{})
	defer store.Close()
	here, err := stored(ctx, w.base.Objects)
	must(w.t, err)
	must(w.t, copyCatalog(ctx, fresh, items, here))
	must(w.t, pipeline.New(fresh, pipeline.Config{Builder: small()}).Build(ctx, builder.PlanOptions{}, nil))
	there, err := stored(ctx, fresh.Objects)
	must(w.t, err)
	must(w.t, contains(here, there))
	got, err := published(ctx, w.base.Objects)
	must(w.t, err)
	want, err := published(ctx, fresh.Objects)
	must(w.t, err)
	if !slices.Equal(got, want) {
		w.t.Fatalf("published %v, from scratch %v", got, want)
	}
}

// copyCatalog brings items, and their binaries among objects, into other drivers.
func copyCatalog(ctx context.Context, to pipeline.Drivers, items []catalog.Item, objects map[string]string) error {
	for key, data := range objects {
		if strings.HasPrefix(key, layout.BinaryPrefix) {
			body := builder.Body{Reader: strings.NewReader(data), Size: int64(len(data))}
			if _, err := to.Objects.Put(ctx, key, body, builder.PutOptions{}); err != nil {
				return err
			}
		}
	}
	var changes []catalog.Change
	for _, it := range items {
		changes = append(changes, catalog.Put(it))
	}
	return to.Writer.Apply(ctx, catalog.Edit{Changes: changes})
}

// contains fails unless all that is wanted is here, byte for byte. (Of earlier catalogs there is more.)
func contains(here, want map[string]string) error {
	for key, data := range want {
		if got, ok := here[key]; !ok || got != data {
			return fmt.Errorf("%s has %d bytes (it exists: %v), from scratch %d", key, len(got), ok, len(data))
		}
	}
	return nil
}

// published lists what the index says, all of it.
func published(ctx context.Context, objects builder.Objects) ([]string, error) {
	ix, _, err := builder.ReadIndex(ctx, objects)
	if err != nil || ix == nil {
		return nil, err
	}
	return itemsOf(ix), nil
}

func itemsOf(ix *index.Index) []string {
	var all []string
	for _, it := range ix.Items {
		all = append(all, fmt.Sprint(it.App, "/", it.Track, " ", it.Version, " ", it.Size, " ", hex.EncodeToString(it.SHA256[:]), " ", it.Attrs))
	}
	return all
}
