package layout_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"

	"pgregory.net/rapid"
)

var (
	sum  = strings.Repeat("0123456789abcdef", 4)
	full = strings.Repeat("f", 64) // the longest mask
)

// Keys are in buckets and caches all over: they change only together with a format's version.
func TestKeys(t *testing.T) {
	for _, c := range []struct {
		got, want string
		kind      layout.Kind
	}{
		{layout.PieceKey(sum, "klauspost6-v1.20.3"), "pieces/" + sum + "/klauspost6-v1.20.3", layout.Piece},
		{layout.BundleKey(sum, "0"), "bundles/" + sum + "/0.tar.gz", layout.Bundle},
		{layout.BundleKey(sum, full), "bundles/" + sum + "/" + full + ".tar.gz", layout.Bundle},
		{layout.ManifestKey(sum, "1f"), "manifests/" + sum + "/1f.json", layout.Manifest},
		{layout.BinaryKey(sum, "os_armv8", "1.1.0"), "binaries/" + sum + "/os_armv8_1.1.0", layout.Binary},
		{layout.BinaryKey(sum, "größe %2f?#", "1 0"), "binaries/" + sum + "/größe %2f?#_1 0", layout.Binary},
		{layout.IndexKey, "index", layout.Index},
		{layout.HistoryKey(0), "index.d/00000000000000000000", layout.IndexHistory},
		{layout.HistoryKey(42), "index.d/00000000000000000042", layout.IndexHistory},
		{layout.HistoryKey(1<<64 - 1), "index.d/18446744073709551615", layout.IndexHistory},
		{layout.PlanKey(7), "plans/00000000000000000007", layout.Plan},
		{layout.RejectKey(sum), "rejects/" + sum + ".json", layout.Reject},
		{layout.SweepKey, "sweep", layout.Sweep},
	} {
		if c.got != c.want {
			t.Errorf("key %s, want %s", c.got, c.want)
		}
		if kind, err := layout.KindOf(c.got); err != nil || kind != c.kind {
			t.Errorf("%s is of kind %d, error %v; want %d", c.got, kind, err, c.kind)
		}
	}
	if got := layout.FileName("os_armv8", "1.1.0"); got != "os_armv8_1.1.0" {
		t.Errorf("file name %s", got)
	}
	if layout.ManifestName != "package_details.json" {
		t.Errorf("manifest name %s", layout.ManifestName)
	}
}

// Whatever sets, masks, generations and names there are, their keys are of their kinds.
func TestKindOfWhatIsMade(t *testing.T) {
	hex64 := rapid.StringMatching(`[0-9a-f]{64}`)
	name := rapid.StringMatching(`[A-Za-z0-9äß%?#&+ ~][A-Za-z0-9äß%?#&+ ._~-]{0,60}`)
	rapid.Check(t, func(t *rapid.T) {
		var mask edge.Mask
		for _, i := range rapid.SliceOf(rapid.IntRange(0, edge.MaxSet-1)).Draw(t, "held") {
			mask = mask.With(i)
		}
		id, n := hex64.Draw(t, "id"), rapid.Uint64().Draw(t, "number")
		for key, want := range map[string]layout.Kind{
			layout.PieceKey(id, name.Draw(t, "encoder")):                       layout.Piece,
			layout.BundleKey(id, mask.String()):                                layout.Bundle,
			layout.ManifestKey(id, mask.String()):                              layout.Manifest,
			layout.BinaryKey(id, name.Draw(t, "app"), name.Draw(t, "version")): layout.Binary,
			layout.HistoryKey(n):                                               layout.IndexHistory,
			layout.PlanKey(n):                                                  layout.Plan,
			layout.RejectKey(id):                                               layout.Reject,
		} {
			if got, err := layout.KindOf(key); err != nil || got != want {
				t.Fatalf("%s is of kind %d, error %v; want %d", key, got, err, want)
			}
		}
		if back, err := layout.HistoryGeneration(layout.HistoryKey(n)); err != nil || back != n {
			t.Fatalf("generation %d comes back as %d, error %v", n, back, err)
		}
		if back, err := layout.PlanSequence(layout.PlanKey(n)); err != nil || back != n {
			t.Fatalf("sequence %d comes back as %d, error %v", n, back, err)
		}
	})
}

func TestHistoryKeysSortByGeneration(t *testing.T) {
	var keys []string
	for _, n := range []uint64{0, 1, 9, 10, 99, 100, 1 << 32, 1<<64 - 1} {
		keys = append(keys, layout.HistoryKey(n))
	}
	if !slices.IsSorted(keys) {
		t.Errorf("%q are not in order", keys)
	}
}

// No key from outside names anything but what this package would name.
func TestHostileKeys(t *testing.T) {
	upper := strings.ToUpper(sum)
	for _, key := range []string{
		"", ".", "..", "/", "//", "x", "Index", "index ", "index/", "/index", "index/x", "index.d", "index.d/", "plans/", "pieces/",
		"../index", "./index", "pieces/../index", "bundles/" + sum + "/../../index", "binaries/" + sum + "/..", "binaries/" + sum + "/.",
		"binaries/" + sum + "/", "binaries/" + sum, "binaries//" + sum + "/a_1", "binaries/" + sum + "//a_1", "/binaries/" + sum + "/a_1",
		"binaries/" + sum + "/a_1/", "binaries/" + sum + "/a/b_1", "pieces/" + sum + "/a/b", "Binaries/" + sum + "/a_1",
		"binaries/" + sum + "/a\x00b", "binaries/" + sum + "/a\nb", "binaries/" + sum + "/a\x1fb", "binaries/" + sum + "/a\x7fb",
		"binaries/" + sum + `/a\b`, `binaries\` + sum + `\a_1`, "binaries/" + sum + `/..\..\x`,
		"binaries/" + sum + "/\xff", "binaries/" + sum + "/a\xc3", "binaries/" + sum + "/\xc0\xaf", "binaries/" + sum + "/\xed\xa0\x80",
		"binaries/" + upper + "/a_1", "pieces/" + upper + "/x", "bundles/" + upper + "/0.tar.gz", "rejects/" + upper + ".json",
		"binaries/" + sum[1:] + "/a_1", "binaries/" + sum + "0/a_1", "binaries/" + sum[1:] + "g/a_1",
		"bundles/" + sum + "/.tar.gz", "bundles/" + sum + "/00.tar.gz", "bundles/" + sum + "/01.tar.gz", "bundles/" + sum + "/F.tar.gz",
		"bundles/" + sum + "/1" + full + ".tar.gz", "bundles/" + sum + "/g.tar.gz", "bundles/" + sum + "/1.json", "bundles/" + sum + "/1",
		"bundles/" + sum + "/1.tar.gz/x", "bundles/1.tar.gz", "bundles/" + sum + "/-1.tar.gz", "bundles/" + sum + "/1.tar.gz ",
		"manifests/" + sum + "/01.json", "manifests/" + sum + "/1.tar.gz", "manifests/" + sum + "/1.JSON",
		"index.d/1", "index.d/0000000000000000000", "index.d/000000000000000000001", "index.d/-0000000000000000001",
		"index.d/+0000000000000000001", "index.d/18446744073709551616", "index.d/0000000000000000000x", "index.d/1_000_000_000_000_000",
		"plans/1", "plans/00000000000000000001/x", "plans/0x000000000000000001",
		"rejects/" + sum, "rejects/" + sum + ".JSON", "rejects/" + sum + "/x.json",
		"binaries/" + sum + "/" + strings.Repeat("a", 1024), strings.Repeat("\xff", 2000), "index\x00", "unknown/" + sum + "/a",
	} {
		kind, err := layout.KindOf(key)
		if err == nil || kind != layout.Unknown {
			t.Errorf("%q is of kind %d, error %v", key, kind, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), "parse object key ") {
			t.Errorf("%q: error %q", key, err)
		}
	}
	// The longest key that S3 stores.
	key := "binaries/" + sum + "/"
	key += strings.Repeat("a", 1024-len(key))
	if _, err := layout.KindOf(key); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"", "index", "index.d/1", "plans/00000000000000000001", "index.d/18446744073709551616", "index.d/0000000000000000001x"} {
		if n, err := layout.HistoryGeneration(key); err == nil {
			t.Errorf("%q is the key of generation %d", key, n)
		}
	}
}

// What KindOf accepts can be a path below a folder, and a key that S3 takes.
func FuzzKindOf(f *testing.F) {
	for _, key := range []string{"index", "binaries/" + sum + "/a_1", "bundles/" + sum + "/1f.tar.gz", "index.d/00000000000000000042",
		"binaries/" + sum + "/\xff", "binaries/" + sum + "/../x", "plans/00000000000000000042", "rejects/" + sum + ".json"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		kind, err := layout.KindOf(key)
		if (err == nil) != (kind != layout.Unknown) {
			t.Fatalf("%q: kind %d, error %v", key, kind, err)
		}
		if err != nil {
			return
		}
		valid := strings.ToValidUTF8(key, "") == key && len(key) <= 1024 && !strings.ContainsAny(key, "\\\x00\n\x7f")
		for part := range strings.SplitSeq(key, "/") {
			valid = valid && part != "" && part != "." && part != ".."
		}
		if !valid {
			t.Fatalf("%q is accepted", key)
		}
	})
}

func TestHeaders(t *testing.T) {
	const year = "public, max-age=31536000, immutable"
	const octets = "application/octet-stream"
	for kind, want := range map[layout.Kind]layout.Headers{
		layout.Piece:        {ContentType: octets, CacheControl: year},
		layout.Bundle:       {ContentType: "application/gzip", CacheControl: layout.PackageCacheControl, ContentDisposition: `attachment; filename="ota-package.tar.gz"`},
		layout.Manifest:     {ContentType: "application/json", CacheControl: layout.PackageCacheControl},
		layout.Binary:       {ContentType: octets, CacheControl: year},
		layout.Index:        {ContentType: octets, CacheControl: "public, max-age=5"},
		layout.IndexHistory: {ContentType: octets, CacheControl: year},
		layout.Plan:         {ContentType: octets, CacheControl: year},
		layout.Reject:       {ContentType: "application/json", CacheControl: "no-cache"},
		layout.Sweep:        {ContentType: "application/json", CacheControl: "no-cache"},
	} {
		if got := layout.HeadersOf(kind); got != want {
			t.Errorf("kind %d: %+v, want %+v", kind, got, want)
		}
	}
	for got, want := range map[string]string{
		layout.PackageCacheControl:     "public, max-age=30, stale-while-revalidate=30",
		layout.ErrorCacheControl:       "public, max-age=10",
		layout.UnavailableCacheControl: "no-store",
	} {
		if got != want {
			t.Errorf("Cache-Control %q, want %q", got, want)
		}
	}
}

// The edge imports this package: these cost hundreds of kilobytes there.
func TestStaysLight(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list dependencies: %v", err)
	}
	for _, heavy := range []string{"fmt", "reflect", "net/url", "encoding/json", "time", "os", "regexp"} {
		if slices.Contains(strings.Fields(string(out)), heavy) {
			t.Errorf("it depends on %s", heavy)
		}
	}
}
