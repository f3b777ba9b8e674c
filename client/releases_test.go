package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// fileSize is that of every binary, large enough for a download to break off in the middle.
const fileSize = 40_000

// generations is how many releases the tests have.
const generations = 4

// apps are the catalog of the tests; the first three are for the device.
var apps = []catalog.Item{
	{App: "os_armv8", Track: "prod"},
	{App: "scoreboard", Track: "prod", DeviceAttr: map[string]bool{"gamer": true}},
	{App: "game+level é", Track: "prod", DeviceAttr: map[string]bool{"gamer": true}},
	{App: "os_armv7", Track: "prod"},
	{App: "modemFW", Track: "prod", DeviceAttr: map[string]bool{"cellular": true}},
}

// released is what the device is to have of a release.
func released(release int) map[string]string {
	want := make(map[string]string)
	for _, it := range apps[:3] {
		want[layout.FileName(it.App, versionOf(release))] = contentOf(it.App, release)
	}
	return want
}

func versionOf(release int) string { return fmt.Sprintf("1.%d", release) }

// contentOf is what compression cannot shrink to nothing.
func contentOf(app string, release int) string {
	var b strings.Builder
	for i := 0; b.Len() < fileSize; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", app, release, i))
		b.Write(sum[:])
	}
	return b.String()[:fileSize]
}

// kind is a kind of installation. staged: its releases are those of the operating system alone, one for a quarter of the
// fleet, one for all who have had that, and another one. composed: it has no copies.
type kind struct{ staged, composed bool }

// builds builds every release once for all tests, by the real builder, and keeps what was in the object
// store after each.
var builds = map[kind]func() ([]memory, error){
	{}:               buildOnce(whole, 1), // the other bundles are composed when they are asked for
	{composed: true}: buildOnce(whole, 0),
	{staged: true}:   buildOnce(staged, 1),
	{true, true}:     buildOnce(staged, 0),
}

// whole makes a release of everything.
func whole(release int, it catalog.Item) catalog.Item {
	it.Version = versionOf(release)
	return it
}

func staged(release int, it catalog.Item) catalog.Item {
	if it.App != "os_armv8" {
		release = 1
	}
	it.Version = versionOf(release)
	switch release {
	case 2:
		it.Rollout = &catalog.Rollout{Percent: 25, Salt: "spring"}
	case 3:
		it.Floors = []catalog.Item{{Version: versionOf(2)}}
	}
	return it
}

func buildOnce(of func(release int, it catalog.Item) catalog.Item, bundles uint64) func() ([]memory, error) {
	return sync.OnceValues(func() ([]memory, error) { return buildAll(of, bundles) })
}

func buildAll(of func(release int, it catalog.Item) catalog.Item, bundles uint64) ([]memory, error) {
	dir, err := os.MkdirTemp("", "precast-client-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	var all []memory
	for release := 1; release <= generations; release++ {
		if err := build(store, release, of, bundles); err != nil {
			return nil, err
		}
		m, err := snapshot(store.Objects())
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func build(store *local.Store, number int, of func(int, catalog.Item) catalog.Item, bundles uint64) error {
	ctx := context.Background()
	var releases []release.Release
	for _, it := range apps {
		it = of(number, it)
		version := 0
		if _, err := fmt.Sscanf(it.Version, "1.%d", &version); err != nil {
			return err
		}
		content := contentOf(it.App, version)
		releases = append(releases, release.Release{Item: it, Open: func() (io.ReadSeekCloser, error) {
			return builder.NopCloser{ReadSeeker: strings.NewReader(content)}, nil
		}})
	}
	im := &release.Importer{Objects: store.Objects(), Catalog: store.Catalog(), Now: time.Now}
	if _, err := im.Import(ctx, releases, true); err != nil {
		return err
	}
	params := builder.DefaultParams()
	params.MaxBundles = bundles
	st := pipeline.New(pipeline.Local(store), pipeline.Config{Builder: builder.Options{Params: params}})
	return st.Build(ctx, builder.PlanOptions{}, nil)
}

// memory is an object store for one test: by key.
type memory map[string]object

type object struct {
	data []byte
	meta map[string]string
}

func snapshot(from builder.Objects) (memory, error) {
	m := make(memory)
	ctx := context.Background()
	err := from.List(ctx, "", func(info builder.ObjectInfo) error {
		body, info, err := from.Get(ctx, info.Key, 0, -1)
		if err != nil {
			return err
		}
		defer body.Close()
		data, err := io.ReadAll(body)
		m[info.Key] = object{data, info.Meta}
		return err
	})
	return m, err
}

// objects is memory behind a lock. It is all of builder.Objects that serving needs.
type objects struct {
	builder.Objects // nil: nothing else is called
	mu              sync.Mutex
	m               memory
}

func (o *objects) find(key string) (object, builder.ObjectInfo, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	found, ok := o.m[key]
	if !ok {
		return found, builder.ObjectInfo{}, fmt.Errorf("%s: %w", key, builder.ErrNotExist)
	}
	sum := sha256.Sum256(found.data)
	kind, err := layout.KindOf(key)
	return found, builder.ObjectInfo{Key: key, Size: int64(len(found.data)), ETag: hex.EncodeToString(sum[:8]), Meta: found.meta, Headers: layout.HeadersOf(kind)}, err
}

func (o *objects) Stat(_ context.Context, key string) (builder.ObjectInfo, error) {
	_, info, err := o.find(key)
	return info, err
}

func (o *objects) Get(_ context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	found, info, err := o.find(key)
	if err != nil {
		return nil, info, err
	}
	off = min(off, info.Size)
	if n < 0 || off+n > info.Size {
		n = info.Size - off
	}
	return builder.NopCloser{ReadSeeker: bytes.NewReader(found.data[off : off+n])}, info, nil
}

// Put keeps nothing: what the composer makes, it makes again.
func (o *objects) Put(context.Context, string, builder.Body, builder.PutOptions) (builder.ObjectInfo, error) {
	return builder.ObjectInfo{}, errors.New("there is no room")
}

// set replaces what is there, but for keyrings.
func (o *objects) set(m memory) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := maps.Clone(m)
	for key, kept := range o.m {
		if kind, _ := layout.KindOf(key); slices.Contains([]layout.Kind{layout.Keyring, layout.KeyringHistory}, kind) {
			next[key] = kept
		}
	}
	o.m = next
}

func (o *objects) put(key string, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.m[key] = object{data: data}
}

// load has the world serve a release.
func (w *world) load(release int) {
	w.t.Helper()
	all, err := builds[w.kind]()
	if err != nil {
		w.t.Fatal(err)
	}
	w.objects.set(all[release-1])
	if err := w.pub.Refresh(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}
