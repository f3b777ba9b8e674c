package edge_test

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/seed"

	"pgregory.net/rapid"
)

// tb is what testing.TB and *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// item makes an item whose digests follow from its app and version, as those of a sound catalog do.
func item(app, track, version string, attrs ...string) index.Item {
	content := app + " " + version
	slices.Sort(attrs)
	return index.Item{App: app, Track: track, Version: version, Size: int64(len(content)),
		MD5: md5.Sum([]byte(content)), SHA256: sha256.Sum256([]byte(content)), Attrs: attrs}
}

func indexOf(items ...index.Item) *index.Index {
	return index.New(index.Index{Generation: 1, Sequence: 1, Format: "test", Items: slices.Clone(items)})
}

func sampleIndexItems() []index.Item {
	var items []index.Item
	for _, it := range seed.SampleItems() {
		items = append(items, item(it.App, it.Track, it.Version, it.Attrs()...))
	}
	return items
}

func sampleIndex() *index.Index { return indexOf(sampleIndexItems()...) }

// files lists a set as the names that its files have, in order.
func files(set edge.Set) string {
	var names []string
	for i := range set.Len() {
		names = append(names, set.Item(i).App+"_"+set.Item(i).Version)
	}
	return strings.Join(names, " ")
}

// md5Of is the MD5 of a release made by item, in hex.
func md5Of(app, version string) string {
	it := item(app, "", version)
	return edge.Hex(it.MD5[:])
}

func sha256Of(app, version string) string {
	it := item(app, "", version)
	return edge.Hex(it.SHA256[:])
}

// equalsReference fails unless a decision is the reference's answer.
func equalsReference(t tb, items []index.Item, query, held string) {
	t.Helper()
	want := reference(items, query, held)
	got := edge.Decide(indexOf(items...), query, held)
	if got.Status != want.status {
		t.Fatalf("status %d (%q), want %d, for query %.300q, held %.300q", got.Status, got.Error, want.status, query, held)
	}
	if (got.Error != "") != (got.Status >= 400) {
		t.Fatalf("status %d with the error %q", got.Status, got.Error)
	}
	if got.Status >= 400 {
		return
	}
	if got.Selection.Payload != want.payload {
		t.Fatalf("payload %d, want %d, for query %q", got.Selection.Payload, want.payload, query)
	}
	if got.Set.Len() != len(want.items) {
		t.Fatalf("set %s, want %d items, for query %q", files(got.Set), len(want.items), query)
	}
	for i, it := range want.items {
		if g := got.Set.Item(i); g.App != it.App || g.Track != it.Track || g.Version != it.Version || g.SHA256 != it.SHA256 {
			t.Fatalf("item %d is %s/%s %s, want %s/%s %s, for query %q", i, g.App, g.Track, g.Version, it.App, it.Track, it.Version, query)
		}
		if got.Mask.Has(i) != want.held[i] {
			t.Fatalf("item %d held: %t, want %t, for query %q, held %q", i, got.Mask.Has(i), want.held[i], query, held)
		}
	}
	for i := len(want.items); i < edge.MaxSet; i++ {
		if got.Mask.Has(i) {
			t.Fatalf("item %d is held, of a set of %d", i, len(want.items))
		}
	}
}

// Names that a catalog may well have, and some that make a query awkward.
var (
	someApps   = []string{"os_armv8", "os_armv7", "os_x 86", "scoreboard", "videoStreamer", "modemFW", "a b", "x+y=1&2", "größe", "50%", "Ÿ"}
	someTracks = []string{"prod", "beta", "Stage", "canary 2", "ß"}
	someAttrs  = []string{"gamer", "Camera", "cellular", "a+b"}
)

// catalogs generates sound catalogs, small enough for tracks and releases to meet.
func catalogs() *rapid.Generator[[]index.Item] {
	return rapid.Custom(func(t *rapid.T) []index.Item {
		var items []index.Item
		for _, app := range someApps {
			for _, track := range someTracks {
				if !rapid.Bool().Draw(t, "has") {
					continue
				}
				var attrs []string
				for _, a := range someAttrs {
					if rapid.IntRange(0, 2).Draw(t, "attr") == 0 {
						attrs = append(attrs, a)
					}
				}
				version := fmt.Sprint(rapid.IntRange(1, 3).Draw(t, "version"))
				items = append(items, item(app, track, version, attrs...))
			}
		}
		return items
	})
}

// A pair is one parameter of a query, not escaped.
type pair struct{ key, value string }

// pairs generates the parameters of a query of a device, each key once.
func pairs() *rapid.Generator[[]pair] {
	return rapid.Custom(func(t *rapid.T) []pair {
		tracks := append([]string{"nightly"}, someTracks...)
		archs := []string{"armv8", "armv7", "x 86", "riscv"}
		out := []pair{{"cpuArch", rapid.SampledFrom(archs).Draw(t, "arch")}}
		maybe := func(key string, values []string) {
			if rapid.Bool().Draw(t, "names "+key) {
				out = append(out, pair{key, rapid.SampledFrom(values).Draw(t, key)})
			}
		}
		maybe("os", tracks)
		maybe("payloadType", []string{"fullPayload", "metadataOnly", "statement"})
		for _, a := range append([]string{"unknown"}, someAttrs...) {
			maybe("attr"+a, tracks)
		}
		for _, a := range append([]string{"unknown", "utm_source"}, someApps...) {
			maybe(a, tracks)
		}
		return out
	})
}

// spell writes a key or value in one of the ways in which a device may.
func spell(t *rapid.T, s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if letter && rapid.Bool().Draw(t, "other case") {
			c ^= 0x20
		}
		safe := letter || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.' || c >= 0x80
		switch {
		case c == ' ' && rapid.Bool().Draw(t, "plus"):
			b.WriteByte('+')
		case safe && rapid.IntRange(0, 3).Draw(t, "plain") > 0:
			b.WriteByte(c)
		case rapid.Bool().Draw(t, "upper hex"):
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// spellQuery writes a query: its parameters in any order, with repetitions that come too late and
// parameters without a value that say nothing.
func spellQuery(t *rapid.T, params []pair) string {
	var parts []string
	for _, p := range rapid.Permutation(params).Draw(t, "order") {
		if rapid.IntRange(0, 9).Draw(t, "blank before") == 0 {
			parts = append(parts, rapid.SampledFrom([]string{"", "=", "&", "x=", "=x", spell(t, p.key) + "=", spell(t, p.key)}).Draw(t, "blank"))
		}
		parts = append(parts, spell(t, p.key)+"="+spell(t, p.value))
		if rapid.IntRange(0, 9).Draw(t, "again") == 0 {
			parts = append(parts, spell(t, p.key)+"=late")
		}
	}
	return strings.Join(parts, "&")
}

// spellTags writes digests as an If-None-Match header.
func spellTags(t *rapid.T, digests []string) string {
	var b strings.Builder
	sep := func() {
		b.WriteString(rapid.SampledFrom([]string{",", ", ", " ,", ",,", ", \t, "}).Draw(t, "separator"))
	}
	for _, d := range digests {
		for range rapid.IntRange(1, 2).Draw(t, "times") {
			if rapid.Bool().Draw(t, "upper") {
				d = strings.ToUpper(d)
			}
			b.WriteString(fmt.Sprintf(rapid.SampledFrom([]string{"%s", `"%s"`, `W/"%s"`, ` "%s" `, "\tw/%s"}).Draw(t, "form"), d))
			sep()
		}
		if rapid.IntRange(0, 4).Draw(t, "noise") == 0 {
			b.WriteString(rapid.SampledFrom([]string{"*", `"*"`, `W/""`, "W/", `"`, "abc", d[1:], d + "0", "g" + d[1:]}).Draw(t, "what"))
			sep()
		}
	}
	return b.String()
}

func mustParse(t testing.TB, query string) edge.Selection {
	t.Helper()
	s, err := edge.ParseSelection(query)
	if err != nil {
		t.Fatalf("parse %q: %v", query, err)
	}
	return s
}

// equalsJSON fails unless a text is the JSON of a value.
func equalsJSON(t tb, text string, want map[string]string) {
	t.Helper()
	var got map[string]string
	if err := json.Unmarshal([]byte(text), &got); err != nil || !maps.Equal(got, want) {
		t.Fatalf("%q is not the JSON of %v (%v)", text, want, err)
	}
}
