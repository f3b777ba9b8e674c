package seed_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"reflect"
	"testing"
	"testing/iotest"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/seed"
)

// The sample's data, as its documentation lists it.
func TestSampleItems(t *testing.T) {
	attrs := func(names ...string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	want := []catalog.Item{
		{App: "modemFW", Track: "prod", Version: "1.0", DeviceAttr: attrs("cellular")},
		{App: "os_armv7", Track: "beta", Version: "2.0.0", CPUArch: "armv7"},
		{App: "os_armv7", Track: "prod", Version: "1.0.0", CPUArch: "armv7"},
		{App: "os_armv8", Track: "beta", Version: "2.0.0", CPUArch: "armv8"},
		{App: "os_armv8", Track: "prod", Version: "1.1.0", CPUArch: "armv8"},
		{App: "scoreboard", Track: "beta", Version: "2.0.0", DeviceAttr: attrs("gamer")},
		{App: "scoreboard", Track: "prod", Version: "1.0.0", DeviceAttr: attrs("gamer")},
		{App: "videoStreamer", Track: "beta", Version: "0.1.2", DeviceAttr: attrs("camera")},
		{App: "videoStreamer", Track: "prod", Version: "0.0.1", DeviceAttr: attrs("camera", "gamer")},
	}
	got := catalog.Apply(seed.SampleItems(), nil)
	for i := range got {
		if got[i].Ident == "" {
			t.Errorf("%s has no ident", got[i].Key())
		}
		got[i].Ident = ""
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func readContent(t *testing.T, number uint64, it catalog.Item, size int64) []byte {
	t.Helper()
	data, err := io.ReadAll(seed.Content(number, it, size))
	if err != nil || int64(len(data)) != size {
		t.Fatalf("%d bytes of %d, error %v", len(data), size, err)
	}
	return data
}

func TestContent(t *testing.T) {
	it := catalog.Item{App: "scoreboard", Track: "prod", Version: "1.0.0"}
	const size = 200_000 // four blocks
	data := readContent(t, 1, it, size)
	// The same on every machine, in every release of this program: documents quote digests.
	sum := sha256.Sum256(data)
	if got, want := hex.EncodeToString(sum[:]), "f94f1bd4076fcebebde9b0670524bd0a08098d128494de65c1893fdf215490df"; got != want {
		t.Errorf("SHA-256 %s, want %s", got, want)
	}
	beta := it
	beta.Track, beta.Ident = "beta", "x"
	if !bytes.Equal(readContent(t, 1, beta, size), data) {
		t.Error("it changes with the track")
	}
	if short := readContent(t, 1, it, 70_000); !bytes.Equal(short, data[:70_000]) {
		t.Error("a shorter one is not the beginning of a longer one")
	}
	for name, other := range map[string][]byte{
		"number":  readContent(t, 2, it, size),
		"app":     readContent(t, 1, catalog.Item{App: "score", Version: "1.0.0"}, size),
		"version": readContent(t, 1, catalog.Item{App: "scoreboard", Version: "1.0.1"}, size),
		"border":  readContent(t, 1, catalog.Item{App: "scoreboard1", Version: ".0.0"}, size),
	} {
		if bytes.Equal(other[:100], data[:100]) {
			t.Errorf("it does not change with the %s", name)
		}
	}
	const block = 64 << 10
	if bytes.Equal(data[:100], data[block:block+100]) {
		t.Error("two blocks are equal")
	}
}

func TestContentSeeks(t *testing.T) {
	it := catalog.Item{App: "a", Version: "1"}
	const block = 64 << 10
	all := readContent(t, 1, it, 2*block+1)
	for _, size := range []int64{0, 1, block - 1, block, block + 1, 2*block + 1} {
		if err := iotest.TestReader(seed.Content(1, it, size), all[:size]); err != nil {
			t.Errorf("of %d bytes: %v", size, err)
		}
	}
	c := seed.Content(1, it, 10)
	if n, err := c.Seek(20, io.SeekStart); n != 20 || err != nil {
		t.Errorf("beyond the end: %d, error %v", n, err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("beyond the end: read %d, error %v", n, err)
	}
	for _, bad := range []struct {
		off    int64
		whence int
	}{{-1, io.SeekStart}, {-11, io.SeekEnd}, {0, 3}} {
		if n, err := c.Seek(bad.off, bad.whence); err == nil {
			t.Errorf("seek to %d from %d: %d", bad.off, bad.whence, n)
		}
	}
}

func TestSample(t *testing.T) {
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	im := &release.Importer{Objects: store.Objects(), Catalog: store.Catalog()}
	var last []catalog.Item
	for range 2 { // again: nothing changes
		res, err := im.Import(t.Context(), seed.Releases(1000, 1), false)
		if err != nil || len(res.Items) != 9 {
			t.Fatalf("%d items, error %v", len(res.Items), err)
		}
		items, err := store.Catalog().Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		items = catalog.Apply(items, nil)
		if last != nil && !reflect.DeepEqual(items, last) {
			t.Errorf("the second time it makes %v of %v", items, last)
		}
		last = items
	}
	for _, it := range last {
		want := readContent(t, 1, it, 1000)
		body, _, err := store.Objects().Get(t.Context(), layout.BinaryKey(it.SHA256, it.App, it.Version), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other content is stored, error %v", it.Key(), err)
		}
	}
	if problems := catalog.Check(last); len(problems) != 0 {
		t.Errorf("problems %v", problems)
	}
	n := 0
	if err := store.Objects().List(t.Context(), "", func(builder.ObjectInfo) error { n++; return nil }); err != nil || n != 9 {
		t.Errorf("%d objects, want 9, error %v", n, err)
	}
}
