package fsck_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/store/source"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// world is a published sample.
type world struct {
	t        testing.TB
	memory   storetest.Memory
	pipeline *pipeline.Pipeline
	remote   map[string]string // binaries by URL
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, memory: storetest.NewMemory(time.Now, 5), remote: make(map[string]string)}
	m := w.memory
	w.pipeline = pipeline.New(pipeline.Drivers{
		Ports: builder.Ports{Objects: m.Objects, Catalog: m.Catalog, Queue: m.Queue, Ledger: m.Ledger,
			Sources: &source.Sources{Objects: m.Objects, Other: map[string]builder.Sources{"http": w}}},
		Writer: m.Catalog, DeadLetters: m.Queue,
	}, pipeline.Config{})
	for _, version := range []string{"1", "2"} {
		w.release("os_a", "prod", "1", strings.Repeat("operating system ", 200))
		w.release("game", "prod", version, strings.Repeat("game "+version, 300), "gamer")
		w.release("game", "beta", "3", strings.Repeat("game 3", 300), "gamer")
		w.release("cam", "prod", "1", "", "camera", "gamer") // an empty binary
		content := "from elsewhere"
		w.remote["http://host/far"] = content
		md, sha := md5.Sum([]byte(content)), sha256.Sum256([]byte(content))
		must(t, m.Catalog.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(catalog.Item{
			App: "far", Track: "prod", Version: "1+0 x", URL: "http://host/far", MD5: hex.EncodeToString(md[:]), SHA256: hex.EncodeToString(sha[:]),
			Size: int64(len(content)), DeviceAttr: map[string]bool{"camera": true},
		})}}))
		must(t, w.pipeline.Build(t.Context(), builder.PlanOptions{}, nil))
	}
	return w
}

func (w *world) Open(_ context.Context, url string) (io.ReadCloser, error) {
	content, ok := w.remote[url]
	if !ok {
		return nil, builder.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

func (w *world) release(app, track, version, content string, attrs ...string) {
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

func (w *world) index() *index.Index {
	w.t.Helper()
	ix, _, err := builder.ReadIndex(w.t.Context(), w.memory.Objects)
	must(w.t, err)
	return ix
}

func (w *world) check(opt fsck.Options) *fsck.Report {
	w.t.Helper()
	rep, err := fsck.Store(w.t.Context(), w.memory.Objects, opt)
	must(w.t, err)
	return rep
}

func (w *world) read(key string) (string, builder.ObjectInfo) {
	w.t.Helper()
	body, info, err := w.memory.Objects.Get(w.t.Context(), key, 0, -1)
	must(w.t, err)
	data, err := io.ReadAll(body)
	must(w.t, err)
	return string(data), info
}

func (w *world) write(key, data string, meta map[string]string) {
	w.t.Helper()
	_, err := w.memory.Objects.Put(w.t.Context(), key, builder.Body{Reader: strings.NewReader(data), Size: int64(len(data))}, builder.PutOptions{Meta: meta})
	must(w.t, err)
}

func (w *world) keys() []string {
	w.t.Helper()
	var keys []string
	must(w.t, w.memory.Objects.List(w.t.Context(), "", func(o builder.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	}))
	return keys
}

// needed are the keys of everything that devices can be sent.
func (w *world) needed() []string {
	w.t.Helper()
	coverage, err := builder.CoverPublished(w.t.Context(), w.memory.Objects, w.index())
	must(w.t, err)
	keys := coverage.Keys()
	ix := w.index()
	for i := range ix.Items {
		keys = append(keys, builder.PieceKey(&ix.Items[i]), builder.BinaryKey(&ix.Items[i]))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (w *world) repairer() *fsck.Repairer {
	return &fsck.Repairer{Objects: w.memory.Objects, Sources: w, URL: func(sha string) string {
		items, err := w.memory.Catalog.Snapshot(w.t.Context())
		must(w.t, err)
		for _, it := range items {
			if it.SHA256 == sha && !strings.HasPrefix(it.URL, catalog.StorePrefix) {
				return it.URL
			}
		}
		return ""
	}}
}

func TestAComplete(t *testing.T) {
	w := newWorld(t)
	for _, deep := range []bool{false, true} {
		var last, most atomic.Int64
		rep := w.check(fsck.Options{Deep: deep, Progress: func(done, total int) {
			last.Store(max(last.Load(), int64(done)))
			most.Store(max(most.Load(), int64(total)))
		}})
		if len(rep.Problems) > 0 || !rep.Complete() || rep.Generation != 2 || rep.Deep != deep || rep.Rest != 0 {
			t.Fatalf("%+v", rep)
		}
		if want := len(w.keys()) - 1; rep.Objects < len(w.needed()) || rep.Objects > want || int(most.Load()) != rep.Objects {
			t.Fatalf("%d objects looked at, of %d there are; progress of %d", rep.Objects, want, most.Load())
		}
		if deep != (rep.Bytes > 10_000) {
			t.Fatalf("deep=%v: %d bytes read", deep, rep.Bytes)
		}
	}
	if _, err := fsck.Store(t.Context(), storetest.NewMemory(time.Now, 1).Objects, fsck.Options{}); !errors.Is(err, fsck.ErrNothing) {
		t.Fatalf("of nothing: %v", err)
	}
}

// Every object that devices can be sent, lost or damaged in every way, is found, named, and repaired to the
// very bytes that were there.
func TestEveryObjectDamagedInEveryWay(t *testing.T) {
	w := newWorld(t)
	problems := make(map[fsck.Kind]int)
	for i, key := range w.needed() {
		kind, err := layout.KindOf(key)
		must(t, err)
		if (kind == layout.Bundle || kind == layout.Manifest) && i%5 > 0 {
			continue // there are many of them, all alike
		}
		data, info := w.read(key)
		damages := map[string]func(){
			"removed":   func() { must(t, w.memory.Objects.Delete(t.Context(), key)) },
			"truncated": func() { w.write(key, data[:max(0, len(data)-1)], info.Meta) },
			"longer":    func() { w.write(key, data+"x", info.Meta) },
			"flipped": func() {
				b := []byte(data)
				b[len(b)/2] ^= 0x10
				w.write(key, string(b), info.Meta)
			},
			"without meta": func() { w.write(key, data, nil) },
		}
		if kind != layout.Piece {
			delete(damages, "without meta")
		}
		if len(data) == 0 {
			delete(damages, "flipped")
			delete(damages, "truncated")
		}
		for _, name := range slices.Sorted(maps.Keys(damages)) {
			damages[name]()
			shallow := w.check(fsck.Options{})
			deep := w.check(fsck.Options{Deep: true})
			for _, rep := range []*fsck.Report{shallow, deep} {
				if rep == shallow && name == "flipped" {
					if len(rep.Problems) > 0 {
						t.Fatalf("%s %s: found without reading? %+v", key, name, rep.Problems)
					}
					continue
				}
				if len(rep.Problems) != 1 || rep.Problems[0].Key != key || rep.Problems[0].Devices == "" || rep.Complete() {
					t.Fatalf("%s %s: deep=%v found %+v", key, name, rep.Deep, rep.Problems)
				}
				want := map[string]fsck.Kind{"removed": fsck.Missing, "truncated": fsck.WrongLength, "longer": fsck.WrongLength,
					"flipped": fsck.WrongBytes, "without meta": fsck.Unreadable}[name]
				if got := rep.Problems[0].Kind; got != want {
					t.Fatalf("%s %s is called %s: %+v", key, name, got, rep.Problems)
				}
			}
			problems[deep.Problems[0].Kind]++
			must(t, w.repairer().Repair(t.Context(), deep))
			if !deep.Complete() || !deep.Problems[0].Repaired {
				t.Fatalf("%s %s: not repaired: %+v", key, name, deep.Problems)
			}
			if again, meta := w.read(key); again != data || !maps.Equal(meta.Meta, info.Meta) {
				t.Fatalf("%s %s: repaired to other bytes or metadata %v", key, name, meta.Meta)
			}
		}
	}
	if rep := w.check(fsck.Options{Deep: true}); len(rep.Problems) > 0 {
		t.Fatalf("in the end: %+v", rep.Problems)
	}
	t.Logf("%v", problems)
}

// Much at once: what is made from what is made in order; what cannot be made again is said.
func TestRepairOfMuch(t *testing.T) {
	w := newWorld(t)
	want := make(map[string]string)
	for _, key := range w.needed() {
		want[key], _ = w.read(key)
	}
	// Every bundle and manifest, every other piece, and the binaries of the other half.
	ix := w.index()
	for key := range want {
		if strings.HasPrefix(key, layout.BundlePrefix) || strings.HasPrefix(key, layout.ManifestPrefix) {
			must(t, w.memory.Objects.Delete(t.Context(), key))
		}
	}
	for i := range ix.Items {
		lost := builder.PieceKey(&ix.Items[i])
		if i%2 == 0 {
			lost = builder.BinaryKey(&ix.Items[i])
		}
		must(t, w.memory.Objects.Delete(t.Context(), lost))
	}
	rep := w.check(fsck.Options{})
	must(t, w.repairer().Repair(t.Context(), rep))
	if !rep.Complete() || rep.Repaired == 0 {
		t.Fatalf("%+v", rep)
	}
	for key, data := range want {
		if got, _ := w.read(key); got != data {
			t.Fatalf("%s was repaired to other bytes", key)
		}
	}
	// Piece and binary: one that the catalog knows a source of comes back, the other does not.
	for i := range ix.Items {
		if app := ix.Items[i].App; app == "far" || app == "os_a" {
			must(t, w.memory.Objects.Delete(t.Context(), builder.PieceKey(&ix.Items[i]), builder.BinaryKey(&ix.Items[i])))
		}
	}
	rep = w.check(fsck.Options{Deep: true}) // bundles are read as a device reads them
	must(t, w.repairer().Repair(t.Context(), rep))
	if rep.Complete() || rep.Repaired != 2 || len(rep.Problems) != 4 {
		t.Fatalf("%+v", rep.Problems)
	}
	for _, p := range rep.Problems {
		isOS := strings.Contains(p.Key, "os_a") || p.Key == builder.PieceKey(&ix.Items[slices.IndexFunc(ix.Items, func(it index.Item) bool { return it.App == "os_a" })])
		if p.Repaired == isOS || isOS && p.Unrepaired == "" {
			t.Fatalf("%+v", p)
		}
	}
}

// With a piece gone, bundles are unpacked to be checked.
func TestBundlesWithoutTheirPieces(t *testing.T) {
	w := newWorld(t)
	ix := w.index()
	for i := range ix.Items {
		must(t, w.memory.Objects.Delete(t.Context(), builder.PieceKey(&ix.Items[i])))
	}
	pieces := len(w.check(fsck.Options{Deep: true}).Problems)
	for i, key := range w.needed() {
		if !strings.HasPrefix(key, layout.BundlePrefix) || i%6 > 0 {
			continue
		}
		data, _ := w.read(key)
		for at := 0; at < len(data); at += 1 + len(data)/7 {
			b := []byte(data)
			b[at] ^= 1
			w.write(key, string(b), nil)
			rep := w.check(fsck.Options{Deep: true})
			found := slices.ContainsFunc(rep.Problems, func(p fsck.Problem) bool { return p.Key == key && p.Kind == fsck.WrongBytes })
			// Some bits of the gzip header mean nothing: time, flags for humans, the system.
			if !found && at >= 10 {
				t.Fatalf("byte %d of %d of %s was flipped: %+v", at, len(data), key, rep.Problems)
			}
		}
		w.write(key, data, nil)
	}
	if got := len(w.check(fsck.Options{Deep: true}).Problems); got != pieces {
		t.Fatalf("%d problems, %d before", got, pieces)
	}
}

func TestRecords(t *testing.T) {
	w := newWorld(t)
	plan := &index.Index{Sequence: 1000}
	for key, c := range map[string]struct {
		data string
		kind fsck.Kind
	}{
		layout.HistoryKey(1):                      {"torn", fsck.Unreadable},
		layout.HistoryKey(3):                      {string((&index.Index{Generation: 3, Sequence: 1000}).Encode()), fsck.Unexpected},
		layout.HistoryKey(2):                      {string((&index.Index{Generation: 7, Sequence: 1000}).Encode()), fsck.Unexpected},
		layout.PlanKey(1000):                      {"torn", fsck.Unreadable},
		layout.PlanKey(1001):                      {string(plan.Encode()), fsck.Unexpected},
		layout.RejectKey(strings.Repeat("0", 64)): {"{", fsck.Unreadable},
	} {
		before, existed := "", slices.Contains(w.keys(), key)
		if existed {
			before, _ = w.read(key)
		}
		w.write(key, c.data, nil)
		rep := w.check(fsck.Options{})
		if len(rep.Problems) != 1 || rep.Problems[0].Key != key || rep.Problems[0].Kind != c.kind {
			t.Errorf("%s: %+v", key, rep.Problems)
		}
		must(t, w.repairer().Repair(t.Context(), rep))
		if rep.Complete() || rep.Problems[0].Unrepaired == "" {
			t.Errorf("%s: repaired by magic: %+v", key, rep.Problems)
		}
		if existed {
			w.write(key, before, nil)
		} else {
			must(t, w.memory.Objects.Delete(t.Context(), key))
		}
	}
	good, _ := w.read(layout.IndexKey)
	w.write(layout.IndexKey, good[:20], nil)
	if rep := w.check(fsck.Options{}); len(rep.Problems) != 1 || rep.Problems[0].Key != layout.IndexKey || rep.Problems[0].Kind != fsck.Unreadable {
		t.Fatalf("a torn index: %+v", rep)
	} else if !strings.Contains(rep.Problems[0].Detail, "a pin (rollback, precast pin) is lost with it") {
		t.Errorf("a torn index: %q says nothing of a pin", rep.Problems[0].Detail)
	}
	must(t, w.memory.Objects.Delete(t.Context(), layout.IndexKey))
	_, err := fsck.Store(t.Context(), w.memory.Objects, fsck.Options{})
	if !errors.Is(err, fsck.ErrNothing) || !strings.Contains(err.Error(), layout.HistoryKey(2)) || !strings.Contains(err.Error(), "a pin") {
		t.Errorf("a lost index: %v", err)
	}
}

// failing fails reads of some keys.
type failing struct {
	builder.Objects
	fails func(key string) bool
}

var errFault = errors.New("injected fault")

func (f failing) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if f.fails(key) {
		return builder.ObjectInfo{}, errFault
	}
	return f.Objects.Stat(ctx, key)
}

func (f failing) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if f.fails(key) {
		return nil, builder.ObjectInfo{}, errFault
	}
	return f.Objects.Get(ctx, key, off, n)
}

// An object that cannot be read is a problem; a store that cannot be read is no answer.
func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	key := w.needed()[0]
	rep, err := fsck.Store(t.Context(), failing{w.memory.Objects, func(k string) bool { return k == key }}, fsck.Options{})
	must(t, err)
	if len(rep.Problems) != 1 || rep.Problems[0].Kind != fsck.Unreadable || rep.Problems[0].Key != key {
		t.Fatalf("%+v", rep.Problems)
	}
	var n atomic.Int64
	for _, deep := range []bool{false, true} {
		n.Store(0)
		_, err = fsck.Store(t.Context(), failing{w.memory.Objects, func(string) bool { return n.Add(1) > 20 }}, fsck.Options{Deep: deep})
		if !errors.Is(err, errFault) {
			t.Fatalf("a store that fails: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fsck.Store(ctx, w.memory.Objects, fsck.Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
}

// serve answers devices from the world, through a middle that may change answers.
func (w *world) serve(middle func(http.Handler) http.Handler) string {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	published := server.NewPublished(w.memory.Objects, log)
	must(w.t, published.Refresh(w.t.Context()))
	h := server.New(w.memory.Objects, published, server.NewMetrics(), log).Handler()
	if middle != nil {
		h = middle(h)
	}
	s := httptest.NewServer(h)
	w.t.Cleanup(s.Close)
	return s.URL
}

func (w *world) ask(url string, opt fsck.Options) *fsck.Report {
	w.t.Helper()
	rep, err := fsck.Device{URL: url}.Check(w.t.Context(), w.index(), opt)
	must(w.t, err)
	return rep
}

func TestAsADevice(t *testing.T) {
	w := newWorld(t)
	url := w.serve(nil)
	for _, deep := range []bool{false, true} {
		rep := w.ask(url, fsck.Options{Deep: deep})
		// 2 architectures, camera or not, gamer at prod, at beta or not.
		if len(rep.Problems) > 0 || rep.Combinations != 12 || rep.Objects < 4*11 || rep.URL != url {
			t.Fatalf("%+v", rep)
		}
	}
	rep, err := fsck.Device{URL: url + "/", MaxCombinations: 5}.Check(t.Context(), w.index(), fsck.Options{})
	if err != nil || rep.Combinations != 5 || rep.Rest != 7 || len(rep.Problems) > 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	for _, wrong := range []string{"host", "ftp://host", "http://", "http://127.0.0.1:1"} {
		if _, err := (fsck.Device{URL: wrong}).Check(t.Context(), w.index(), fsck.Options{}); err == nil {
			t.Errorf("%s could be asked", wrong)
		}
	}
}

// S12: a check of a URL reads one bundle with each release, also if it is not deep: it finds damaged bytes of any.
func TestS12AURLShowsDamage(t *testing.T) {
	for i := range newWorld(t).index().Items {
		for _, prefix := range []string{layout.PiecePrefix, layout.BundlePrefix} {
			w := newWorld(t)
			url := w.serve(nil)
			piece, wrong := builder.PieceKey(&w.index().Items[i]), 0
			for _, key := range w.keys() {
				if !strings.HasPrefix(key, prefix) || prefix == layout.PiecePrefix && key != piece {
					continue
				}
				data, info := w.read(key)
				flipped := []byte(data)
				flipped[len(data)/2] ^= 1
				w.write(key, string(flipped), info.Meta)
			}
			if prefix == layout.PiecePrefix { // what it is in is composed
				for _, key := range w.keys() {
					if strings.HasPrefix(key, layout.BundlePrefix) {
						must(t, w.memory.Objects.Delete(t.Context(), key))
					}
				}
			}
			for _, p := range w.ask(url, fsck.Options{}).Problems {
				if p.Kind == fsck.WrongBytes || p.Kind == fsck.Unreadable {
					wrong++
				}
			}
			if wrong == 0 {
				t.Errorf("item %d: damaged %s are not found", i, prefix)
			}
		}
	}
}

// What a server, a CDN or a mirror does wrong is found.
func TestWrongAnswers(t *testing.T) {
	w := newWorld(t)
	body := func(change func(r *http.Request, header http.Header, status *int, body *[]byte)) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r.Clone(r.Context()))
				status, data := rec.Code, rec.Body.Bytes()
				change(r, rec.Header(), &status, &data)
				maps.Copy(rw.Header(), rec.Header())
				if len(data) > 0 {
					rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
				}
				rw.WriteHeader(status)
				_, _ = rw.Write(data)
			})
		}
	}
	isPackage := func(r *http.Request) bool { return r.URL.Path == "/package" }
	for name, c := range map[string]struct {
		deep   bool
		kind   fsck.Kind
		change func(r *http.Request, h http.Header, status *int, body *[]byte)
	}{
		"404 for a selection": {false, fsck.Unexpected, func(r *http.Request, _ http.Header, status *int, _ *[]byte) {
			if isPackage(r) && strings.Contains(r.URL.RawQuery, "attrgamer=beta") {
				*status = 404
			}
		}},
		"never 304": {false, fsck.Unexpected, func(r *http.Request, _ http.Header, status *int, _ *[]byte) {
			if *status == 304 {
				*status = 200
			}
		}},
		"held tags ignored": {false, fsck.Unexpected, func(r *http.Request, _ http.Header, status *int, _ *[]byte) {
			if isPackage(r) && r.Header.Get("If-None-Match") != "" {
				*status = 304
			}
		}},
		"another answer to whoever holds another than the first package": {false, fsck.Unexpected, func(r *http.Request, _ http.Header, status *int, _ *[]byte) {
			sum := sha256.Sum256([]byte("from elsewhere")) // os_a is the first of every set
			if isPackage(r) && r.Header.Get("If-None-Match") == hex.EncodeToString(sum[:]) {
				*status = 404
			}
		}},
		"a content encoding": {false, fsck.Unexpected, func(r *http.Request, h http.Header, _ *int, _ *[]byte) {
			if isPackage(r) {
				h.Set("Content-Encoding", "gzip")
			}
		}},
		"no disposition": {false, fsck.Unexpected, func(r *http.Request, h http.Header, _ *int, _ *[]byte) { h.Del("Content-Disposition") }},
		"another manifest": {false, fsck.WrongBytes, func(r *http.Request, h http.Header, _ *int, b *[]byte) {
			if h.Get("Content-Type") == "application/json" {
				*b = bytes.ReplaceAll(*b, []byte("status_code"), []byte("statuscode_"))
			}
		}},
		"a bundle with a flipped bit": {true, fsck.WrongBytes, func(r *http.Request, h http.Header, _ *int, b *[]byte) {
			if h.Get("Content-Type") == "application/gzip" && len(*b) > 0 {
				(*b)[len(*b)*3/4] ^= 4
			}
		}},
		"a bundle of another selection": {true, fsck.WrongBytes, nil},
		"no binaries": {false, fsck.Missing, func(r *http.Request, _ http.Header, status *int, b *[]byte) {
			if strings.HasPrefix(r.URL.Path, "/binaries/") {
				*status, *b = 404, nil
			}
		}},
		"cut binaries": {false, fsck.WrongLength, func(r *http.Request, h http.Header, _ *int, b *[]byte) {
			if strings.HasPrefix(r.URL.Path, "/binaries/") {
				h.Set("Content-Length", "3")
				*b = (*b)[:min(3, len(*b))]
			}
		}},
		"other binaries": {true, fsck.WrongBytes, func(r *http.Request, _ http.Header, _ *int, b *[]byte) {
			if strings.HasPrefix(r.URL.Path, "/binaries/") && len(*b) > 0 {
				(*b)[0]++
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, memory: w.memory}
			middle := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if isPackage(r) {
						r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "attrcamera=prod&", "")
					}
					next.ServeHTTP(rw, r)
				})
			}
			if c.change != nil {
				middle = body(c.change)
			}
			rep := w.ask(w.serve(middle), fsck.Options{Deep: c.deep})
			if !slices.ContainsFunc(rep.Problems, func(p fsck.Problem) bool { return p.Kind == c.kind }) || rep.Complete() {
				t.Fatalf("%+v", rep.Problems)
			}
		})
	}
}

// Whatever is damaged at random is found, all of it and nothing else.
func TestRandomDamage(t *testing.T) {
	w := newWorld(t)
	needed := w.needed()
	content, metas := make(map[string]string), make(map[string]map[string]string)
	for _, key := range needed {
		data, info := w.read(key)
		content[key], metas[key] = data, info.Meta
	}
	rapid.Check(t, func(rt *rapid.T) {
		damaged := make(map[string]bool)
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom(needed), 1, 4, rapid.ID[string]).Draw(rt, "keys") {
			data := []byte(content[key])
			if len(data) == 0 || rapid.Bool().Draw(rt, "lost") {
				must(t, w.memory.Objects.Delete(t.Context(), key))
			} else {
				data[rapid.IntRange(0, len(data)-1).Draw(rt, "at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "flip"))
				w.write(key, string(data), metas[key])
			}
			damaged[key] = true
		}
		rep := w.check(fsck.Options{Deep: true})
		found := make(map[string]bool)
		for _, p := range rep.Problems {
			found[p.Key] = true
		}
		// The gzip header of a bundle that cannot be composed says things that nobody reads.
		for key := range damaged {
			if !found[key] && !(strings.HasPrefix(key, layout.BundlePrefix) && anyPiece(damaged)) {
				rt.Fatalf("%s was damaged and is not among %+v", key, rep.Problems)
			}
		}
		for key := range found {
			if !damaged[key] {
				rt.Fatalf("%s was not damaged: %+v", key, rep.Problems)
			}
		}
		for key := range damaged {
			w.write(key, content[key], metas[key])
		}
	})
}

func anyPiece(keys map[string]bool) bool {
	for key := range keys {
		if strings.HasPrefix(key, layout.PiecePrefix) {
			return true
		}
	}
	return false
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
