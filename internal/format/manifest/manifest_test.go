package manifest_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/seed"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

func item(app, track, version string, attrs ...string) index.Item {
	content := []byte(app + " " + version)
	return index.Item{App: app, Track: track, Version: version, Size: 10 << 20,
		MD5: md5.Sum(content), SHA256: sha256.Sum256(content), Attrs: attrs}
}

func sampleIndex(baseURL string) *index.Index {
	ix := index.Index{BaseURL: baseURL}
	for _, it := range seed.SampleItems() {
		ix.Items = append(ix.Items, item(it.App, it.Track, it.Version, it.Attrs()...))
	}
	return index.New(ix)
}

// answer encodes the manifest of a request.
func answer(t *testing.T, ix *index.Index, query, held string) []byte {
	t.Helper()
	d := edge.Decide(ix, query, held)
	if d.Error != "" {
		t.Fatalf("%s: status %d: %s", query, d.Status, d.Error)
	}
	data, err := manifest.New(d.Set, d.Mask).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func md5Hex(app, version string) string {
	it := item(app, "", version)
	return edge.Hex(it.MD5[:])
}

// The bytes of manifests are what devices have, and are named by set IDs: they change only together
// with the format.
func TestGolden(t *testing.T) {
	held := `"` + md5Hex("os_armv8", "1.1.0") + `"`
	for name, c := range map[string]struct {
		ix    *index.Index
		query string
		held  string
	}{
		// The device holds its operating system: 304 there, 200 elsewhere.
		"held.json":         {sampleIndex(""), "cpuArch=armv8&attrGamer=prod", held},
		"alternatives.json": {sampleIndex("https://packages.example/"), "cpuArch=armv8&attrGamer=prod&attrCamera=beta", held},
		"names.json":        {index.New(index.Index{Items: []index.Item{item("a b%?#&<>", "prod", "größe+1")}}), "cpuArch=x&a+b%25%3F%23%26%3C%3E=prod", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := answer(t, c.ix, c.query, c.held)
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// sampleReader reads a manifest as the sample's devices do: every app has a latestVersion, a url and
// a status_code, whatever else there is.
func sampleReader(t *testing.T, data []byte) (versions, urls map[string]string, statuses map[string]float64) {
	t.Helper()
	var details map[string]map[string]any
	if err := json.Unmarshal(data, &details); err != nil {
		t.Fatalf("json.load(package_details.json): %v", err)
	}
	versions, urls, statuses = map[string]string{}, map[string]string{}, map[string]float64{}
	for app, d := range details {
		var ok [3]bool
		versions[app], ok[0] = d["latestVersion"].(string)
		urls[app], ok[1] = d["url"].(string)
		statuses[app], ok[2] = d["status_code"].(float64)
		if ok != [3]bool{true, true, true} {
			t.Fatalf("details[%q] has no latestVersion, url or status_code: %v", app, d)
		}
	}
	return versions, urls, statuses
}

func TestSampleReaders(t *testing.T) {
	held := md5Hex("os_armv8", "1.1.0") + "," + md5Hex("videoStreamer", "0.1.2")
	versions, urls, statuses := sampleReader(t, answer(t, sampleIndex(""), "cpuArch=armv8&attrGamer=prod&attrCamera=beta", held))
	// Of two versions of one app the sample's answer is the one that comes last.
	if want := map[string]string{"os_armv8": "1.1.0", "scoreboard": "1.0.0", "videoStreamer": "0.0.1"}; !maps.Equal(versions, want) {
		t.Errorf("versions %v, want %v", versions, want)
	}
	if want := map[string]float64{"os_armv8": 304, "scoreboard": 200, "videoStreamer": 200}; !maps.Equal(statuses, want) {
		t.Errorf("status codes %v, want %v", statuses, want)
	}
	for app, u := range urls {
		if !strings.HasPrefix(u, "/binaries/") || !strings.HasSuffix(u, "/"+app+"_"+versions[app]) {
			t.Errorf("%s: url %s", app, u)
		}
	}
}

func TestAlternatives(t *testing.T) {
	ix := index.New(index.Index{Items: []index.Item{
		item("app", "a", "1"), item("app", "b", "2", "x"), item("app", "c", "3", "y"), item("app", "d", "1", "z"),
	}})
	d := edge.Decide(ix, "cpuArch=x&app=a&attrX=b&attrY=c&attrZ=d", md5Hex("app", "2"))
	m := manifest.New(d.Set, d.Mask)
	e := m["app"]
	if len(m) != 1 || e.LatestVersion != "3" || e.StatusCode != 200 || len(e.Alternatives) != 2 {
		t.Fatalf("%+v", m)
	}
	for i, want := range []struct {
		version string
		status  int
	}{{"1", 200}, {"2", 304}} {
		if a := e.Alternatives[i]; a.LatestVersion != want.version || a.StatusCode != want.status || a.Alternatives != nil {
			t.Errorf("alternative %d: %+v", i, a)
		}
	}
	files := m.Files()
	if names := slices.Sorted(maps.Keys(files)); !slices.Equal(names, []string{"app_1", "app_2", "app_3"}) {
		t.Errorf("files %q", names)
	}
	if files["app_2"].StatusCode != 304 || files["app_2"].MD5 != md5Hex("app", "2") {
		t.Errorf("app_2: %+v", files["app_2"])
	}
}

// A manifest says of every item of a set what it is, once; and decoding undoes encoding.
func TestManifests(t *testing.T) {
	name := rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "a b", "50%", "größe", "x?y#z"}), rapid.StringMatching(`[a-z0-9%&?#+;=@:~ ]{1,12}`))
	rapid.Check(t, func(t *rapid.T) {
		ix := index.Index{BaseURL: rapid.SampledFrom([]string{"", "https://x", "https://x/y/"}).Draw(t, "base")}
		type key struct{ app, version string }
		for i, k := range rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) key {
			return key{name.Draw(t, "app"), name.Draw(t, "version")}
		}), 1, 8, func(k key) string { return layout.FileName(k.app, k.version) }).Draw(t, "items") {
			ix.Items = append(ix.Items, item(k.app, string(rune('a'+i)), k.version))
		}
		set := edge.Set{Index: index.New(ix)}
		var held edge.Mask
		for i := range ix.Items {
			set.Positions = append(set.Positions, int32(i))
			if rapid.Bool().Draw(t, "held") {
				held = held.With(i)
			}
		}
		m := manifest.New(set, held)
		data, err := m.Encode()
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		back, err := manifest.Decode(bytes.NewReader(data))
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%s is decoded to %+v, error %v", data, back, err)
		}
		files := m.Files()
		if len(files) != set.Len() {
			t.Fatalf("%d files of %d items: %s", len(files), set.Len(), data)
		}
		for i := range set.Len() {
			it := set.Item(i)
			e := files[layout.FileName(it.App, it.Version)]
			wantStatus := manifest.StatusIncluded
			if held.Has(i) {
				wantStatus = manifest.StatusHeld
			}
			if e.LatestVersion != it.Version || e.Size != it.Size || e.StatusCode != wantStatus ||
				e.MD5 != edge.Hex(it.MD5[:]) || e.SHA256 != edge.Hex(it.SHA256[:]) {
				t.Fatalf("%+v is described as %+v", it, e)
			}
			// Whoever resolves the URL asks for the binary's key, at whatever base.
			u, err := url.Parse(e.URL)
			if err != nil {
				t.Fatalf("URL %q: %v", e.URL, err)
			}
			key := layout.BinaryKey(e.SHA256, it.App, it.Version)
			if strings.Contains(e.URL, "+") {
				t.Fatalf("URL %q has a plus, which S3 takes for a space", e.URL)
			}
			if !strings.HasSuffix(u.Path, "/"+key) || u.RawQuery != "" || u.Fragment != "" ||
				u.Path != strings.TrimSuffix(strings.TrimPrefix(ix.BaseURL, "https://x"), "/")+"/"+key {
				t.Fatalf("URL %q has the path %q, want %q at its end", e.URL, u.Path, key)
			}
		}
	})
}

func TestDecode(t *testing.T) {
	// A newer version's fields are passed over.
	m, err := manifest.Decode(strings.NewReader(`{"a":{"latestVersion":"1","status_code":200,"signature":"x"}}` + "\n"))
	if err != nil || m["a"].LatestVersion != "1" {
		t.Errorf("%+v, error %v", m, err)
	}
	for data, want := range map[string]string{
		``:                          "decode manifest: EOF",
		`[]`:                        "decode manifest: json: cannot unmarshal array into",
		`{"a":1}`:                   "decode manifest: json: cannot unmarshal number into",
		`{"a":{"size":"x"}}`:        "decode manifest: json: cannot unmarshal string into",
		`{} {}`:                     "decode manifest: something follows the object",
		`{}}`:                       "decode manifest: something follows the object",
		`{"a":{"latestVersion":"1"`: "decode manifest: unexpected EOF",
	} {
		if _, err := manifest.Decode(strings.NewReader(data)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: error %v, want %s...", data, err, want)
		}
	}
	broken := errors.New("broken")
	if _, err := manifest.Decode(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("from a broken reader: %v", err)
	}
}
