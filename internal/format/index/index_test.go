package index_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

func indexes() *rapid.Generator[*index.Index] {
	name := rapid.OneOf(rapid.StringMatching(`[a-c]{1,2}`), rapid.StringN(1, 10, 40), rapid.SampledFrom([]string{"", "größe", "\xff"}))
	number := rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64())
	return rapid.Custom(func(t *rapid.T) *index.Index {
		ix := index.Index{
			Generation: number.Draw(t, "generation"), Sequence: number.Draw(t, "sequence"),
			Format: name.Draw(t, "format"), BaseURL: name.Draw(t, "base URL"),
			Params: index.Params{
				MaxBundles: number.Draw(t, "p1"), MaxBytes: number.Draw(t, "p2"), MaxCombinations: number.Draw(t, "p3"),
				SubsetItems: number.Draw(t, "p4"), Retain: number.Draw(t, "p5"),
			},
			Pin: name.Draw(t, "pin"),
		}
		type key struct{ app, track string }
		keys := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) key {
			return key{name.Draw(t, "app"), name.Draw(t, "track")}
		}), 0, 12, rapid.ID).Draw(t, "keys")
		for _, k := range keys {
			it := index.Item{App: k.app, Track: k.track, Version: name.Draw(t, "version"),
				Size: rapid.Int64Min(0).Draw(t, "size")}
			copy(it.MD5[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "md5"))
			copy(it.SHA256[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "sha256"))
			if attrs := rapid.SliceOfNDistinct(name, 0, 4, rapid.ID).Draw(t, "attrs"); len(attrs) > 0 {
				slices.Sort(attrs)
				it.Attrs = attrs
			}
			ix.Items = append(ix.Items, releases(t, it)...)
		}
		return index.New(ix)
	})
}

// releases makes an item one of several releases, some of the time.
func releases(t *rapid.T, it index.Item) []index.Item {
	all := []index.Item{it}
	for more := rapid.IntRange(-3, 3).Draw(t, "floors or previous releases"); more > 0; more-- {
		next := it
		if rapid.Bool().Draw(t, "floor") {
			next.Role, next.Attrs = index.Floor, nil
			for range rapid.IntRange(0, 2).Draw(t, "passed") {
				next.Passed = append(next.Passed, index.Digests{MD5: it.MD5, SHA256: it.SHA256})
			}
		} else {
			next.Role = index.Previous
			for i := len(all) - 1; ; i-- { // what it comes after is being rolled out
				if all[i].Role != index.Floor {
					all[i].Salt, all[i].Share = rapid.StringMatching(`[a-z0-9_-]{1,32}`).Draw(t, "salt"), uint16(rapid.IntRange(0, index.Slots-1).Draw(t, "share"))
					break
				}
			}
		}
		all = append(all, next)
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ix := indexes().Draw(t, "index")
		data := ix.Encode()
		back, err := index.Parse(data)
		if err != nil {
			t.Fatalf("parse: %v", err)
		}
		if len(ix.Items) == 0 {
			back.Items, ix.Items = nil, nil
		}
		if !reflect.DeepEqual(back, ix) { // the lookups too
			t.Fatalf("got  %+v\nwant %+v", back, ix)
		}
		if !bytes.Equal(back.Encode(), data) {
			t.Fatalf("it encodes to other bytes after it was parsed")
		}
	})
}

// The order in which New gets the items does not matter.
func TestEncodeIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ix := indexes().Draw(t, "index")
		want := ix.Encode()
		other := *ix
		var groups [][]index.Item // the releases of an item stay together
		for i := int32(0); int(i) < len(ix.Items); i = ix.Next(i) {
			groups = append(groups, ix.Items[i:ix.Next(i)])
		}
		if ix.Len() != len(groups) {
			t.Fatalf("%d items in %d groups", ix.Len(), len(groups))
		}
		other.Items = slices.Concat(rapid.Permutation(groups).Draw(t, "order")...)
		if !bytes.Equal(index.New(other).Encode(), want) {
			t.Fatalf("it encodes to other bytes in another order")
		}
	})
}

func TestWith(t *testing.T) {
	ix := golden()
	next := ix.With(8)
	if ix.Generation != 7 || next.Generation != 8 {
		t.Errorf("generations %d and %d, want 7 and 8", ix.Generation, next.Generation)
	}
	if !bytes.Equal(next.With(7).Encode(), ix.Encode()) {
		t.Error("With changes more than the generation")
	}
	if len(next.Apps("scoreboard")) != 2 {
		t.Error("a copy finds nothing")
	}
}

// golden is the index of the golden file.
func golden() *index.Index {
	digest := func(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }
	item := func(app, track, version string, size int64, b byte, attrs ...string) index.Item {
		return index.Item{App: app, Track: track, Version: version, Size: size,
			MD5: [16]byte(digest(16, b)), SHA256: [32]byte(digest(32, b+1)), Attrs: attrs}
	}
	return index.New(index.Index{
		Generation: 7, Sequence: 1 << 40, Format: "1.f1.test", BaseURL: "https://packages.example",
		Params: index.Params{MaxBundles: 10_000, MaxBytes: 16 << 30, MaxCombinations: 100_000, SubsetItems: 4, Retain: 3},
		Items: []index.Item{
			item("videoStreamer", "prod", "0.0.1", 10<<20, 0x30, "camera", "gamer"),
			item("scoreboard", "prod", "1.0.0", 0, 0x10, "gamer"),
			item("scoreboard", "beta", "2.0.0", 1<<62, 0x20, "gamer"),
			item("os_armv8", "prod", "1.1.0", 127, 0x40),
			item("größe", "prod", "1", 128, 0x50, "cellular"),
		},
	})
}

// staged is the golden index with an item that is rolled out in two steps, and has floors.
func staged() *index.Index {
	ix := *golden()
	one := ix.Items[1] // os_armv8
	step := func(version string, b byte, role index.Role) index.Item {
		it := one
		it.Version, it.Role, it.MD5[0], it.SHA256[0] = version, role, b, b
		return it
	}
	newest, floor, old, oldest := step("3.0", 0x60, index.Current), step("2.0", 0x61, index.Floor), step("2.5", 0x62, index.Previous), step("1.1", 0x63, index.Previous)
	newest.Salt, newest.Share = "spring", 500
	floor.Passed = []index.Digests{{MD5: old.MD5, SHA256: old.SHA256}}
	old.Salt, old.Share = "winter", 9999
	ix.Items = slices.Concat(ix.Items[:1], []index.Item{newest, floor, old, oldest}, ix.Items[2:])
	return index.New(ix)
}

// Published indexes are read by other versions of this program: these bytes change only together
// with the format's version number.
func TestGolden(t *testing.T) {
	name := filepath.Join("testdata", "index.hex")
	got := hex.Dump(staged().Encode())
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("encoding changed:\n%s\nwant\n%s", got, want)
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	data := golden().Encode()
	for n := range data {
		if ix, err := index.Parse(data[:n]); ix != nil || !errors.Is(err, index.ErrCorrupt) {
			t.Errorf("the first %d of %d bytes: %v", n, len(data), err)
		}
	}
	if _, err := index.Parse(append(slices.Clone(data), 0)); !errors.Is(err, index.ErrCorrupt) {
		t.Errorf("a byte more: %v", err)
	}
}

func TestEveryChangedByteIsRefused(t *testing.T) {
	data := golden().Encode()
	for i := range data {
		for x := 1; x < 256; x++ {
			damaged := slices.Clone(data)
			damaged[i] ^= byte(x)
			if ix, err := index.Parse(damaged); ix != nil || !errors.Is(err, index.ErrCorrupt) {
				t.Fatalf("byte %d changed by %#x: %v", i, x, err)
			}
		}
	}
}

// seal puts the right checksum behind a body.
func seal(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(slices.Clone(body), crc32.ChecksumIEEE(body))
}

func TestOtherVersions(t *testing.T) {
	body := golden().Encode()
	body = body[:len(body)-4]
	for _, v := range []byte{0, 1, 4, 255} {
		body[3] = v
		if _, err := index.Parse(seal(body)); !errors.Is(err, index.ErrVersion) {
			t.Errorf("version %d: %v", v, err)
		}
		// What a later version holds is not known.
		if _, err := index.Parse(seal([]byte{'P', 'C', 'X', v, 0xff, 0xff})); !errors.Is(err, index.ErrVersion) {
			t.Errorf("version %d with other content: %v", v, err)
		}
	}
}

// What versions before this one published goes on being read.
func TestVersion2(t *testing.T) {
	dump, err := os.ReadFile(filepath.Join("testdata", "index.v2.hex"))
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	for line := range strings.Lines(string(dump)) {
		if len(line) < 60 {
			continue // the dump's length
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line[10:58], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, b...)
	}
	ix, err := index.Parse(data)
	if err != nil || data[3] != 2 {
		t.Fatalf("version %d: %v", data[3], err)
	}
	if !reflect.DeepEqual(ix, golden()) {
		t.Errorf("got  %+v\nwant %+v", ix, golden())
	}
	if data[3] = 3; bytes.Equal(ix.Encode(), data) {
		t.Error("it is written as it was")
	}
}

// Bodies with the right checksum that Encode does not write.
func TestMalformed(t *testing.T) {
	const head = "PCX\x02" + "\x01\x01" + "\x00\x00" + "\x00\x00\x00\x00\x00" + "\x00" // up to the attributes
	digests := strings.Repeat("\x11", 48)
	item := func(app, track string, attrs string) string {
		return string(rune(len(app))) + app + string(rune(len(track))) + track + "\x011" + "\x05" + digests + attrs
	}
	if _, err := index.Parse(seal([]byte(head + "\x01\x01a" + "\x01" + item("x", "prod", "\x01\x00")))); err != nil {
		t.Fatalf("the well-formed one is refused: %v", err)
	}
	const head3 = "PCX\x03" + "\x01\x01" + "\x00\x00" + "\x00\x00\x00\x00\x00" + "\x00" + "\x00" // up to the items
	current := func(salt string) string { return item("x", "prod", "\x00\x00") + salt }
	previous := func(salt string) string { return item("x", "prod", "\x00\x01") + salt }
	floor := func(passed string) string { return item("x", "prod", "\x00\x02") + passed }
	const spring, none = "\x06spring\x05", "\x00"
	if _, err := index.Parse(seal([]byte(head3 + "\x05" + current(spring) + floor("\x01"+digests) + previous(spring) + floor("\x00") + previous(none)))); err != nil {
		t.Fatalf("the well-formed one with releases is refused: %v", err)
	}
	for name, body := range map[string]string{
		"nothing":                        "",
		"no role":                        head3 + "\x01" + item("x", "prod", "\x00"),
		"unknown role":                   head3 + "\x01" + item("x", "prod", "\x00\x03\x00"),
		"previous release first":         head3 + "\x01" + previous(none),
		"floor first":                    head3 + "\x01" + floor("\x00"),
		"floor of another track":         head3 + "\x02" + item("x", "beta", "\x00\x00") + none + floor("\x00"),
		"floor of another app":           head3 + "\x02" + item("w", "prod", "\x00\x00") + none + floor("\x00"),
		"previous release of no rollout": head3 + "\x02" + current(none) + previous(none),
		"two after one rollout":          head3 + "\x03" + current(spring) + previous(none) + previous(none),
		"current release twice":          head3 + "\x02" + current(spring) + current(none),
		"floor with an attribute":        head3[:len(head3)-1] + "\x01\x01a" + "\x02" + item("x", "prod", "\x01\x00\x00") + none + item("x", "prod", "\x01\x00\x02") + "\x00",
		"share of everybody":             head3 + "\x01" + current("\x01s\x90\x4e"),
		"unsound salt":                   head3 + "\x01" + current("\x01S\x05"),
		"long salt":                      head3 + "\x01" + current("\x21"+strings.Repeat("s", 33)+"\x05"),
		"more passed than bytes":         head3 + "\x02" + current(none) + floor("\x02"+digests),
		"no items":                       head + "\x00",
		"something after the items":      head + "\x00\x00\x00",
		"number longer than need be":     "PCX\x02" + "\x81\x00" + head[5:] + "\x00\x00",
		"number of 11 bytes":             "PCX\x02" + strings.Repeat("\xff", 10) + "\x01" + head[5:] + "\x00\x00",
		"number beyond 64 bits":          "PCX\x02" + strings.Repeat("\xff", 9) + "\x02" + head[5:] + "\x00\x00",
		"string longer than the rest":    "PCX\x02\x01\x01\x7fx",
		"attributes out of order":        head + "\x02\x01b\x01a" + "\x01" + item("x", "prod", "\x02\x00\x01"),
		"attribute twice in the table":   head + "\x02\x01a\x01a" + "\x01" + item("x", "prod", "\x02\x00\x01"),
		"attribute of no item":           head + "\x02\x01a\x01b" + "\x01" + item("x", "prod", "\x01\x00"),
		"attribute not in the table":     head + "\x01\x01a" + "\x01" + item("x", "prod", "\x01\x01"),
		"attribute twice":                head + "\x01\x01a" + "\x01" + item("x", "prod", "\x02\x00\x00"),
		"item's attributes unordered":    head + "\x02\x01a\x01b" + "\x01" + item("x", "prod", "\x02\x01\x00"),
		"items out of order":             head + "\x00" + "\x02" + item("y", "prod", "\x00") + item("x", "prod", "\x00"),
		"tracks out of order":            head + "\x00" + "\x02" + item("x", "prod", "\x00") + item("x", "beta", "\x00"),
		"item twice":                     head + "\x00" + "\x02" + item("x", "prod", "\x00") + item("x", "prod", "\x00"),
		"more items than bytes":          head + "\x00" + "\x7f" + item("x", "prod", "\x00"),
		"negative size":                  head + "\x00" + "\x01" + "\x01x\x04prod\x011" + strings.Repeat("\xff", 9) + "\x01" + digests + "\x00",
		"other magic":                    "PCY\x02" + head[4:] + "\x00\x00",
	} {
		if _, err := index.Parse(seal([]byte(body))); !errors.Is(err, index.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A false count, under a right checksum, must not cost much more memory than the input is long.
func TestFalseCountsCostNoMemory(t *testing.T) {
	const head = "PCX\x02" + "\x01\x01" + "\x00\x00" + "\x00\x00\x00\x00\x00" + "\x00"
	const size = 8 << 20
	count := string(binary.AppendUvarint(nil, size))
	fill := strings.Repeat("\x00", size)
	for name, body := range map[string]string{
		"attributes":       head + count + fill,
		"items":            head + "\x00" + string(binary.AppendUvarint(nil, size/53)) + fill,
		"item's attribute": head + "\x01\x01a" + "\x01" + "\x01x\x04prod\x011\x05" + strings.Repeat("\x11", 48) + count + fill,
	} {
		data := seal([]byte(body))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := index.Parse(data)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, index.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 5*size {
			t.Errorf("%s: %d bytes allocated for an input of %d", name, n, len(data))
		}
	}
	if _, err := index.Parse(append([]byte(head), make([]byte, index.MaxEncoded)...)); !errors.Is(err, index.ErrCorrupt) {
		t.Errorf("beyond the longest encoding: %v", err)
	}
}

func TestLookups(t *testing.T) {
	ix := golden()
	for _, it := range []struct {
		what string
		got  any
		want any
	}{
		{"apps", ix.AppNames(), []string{"größe", "os_armv8", "scoreboard", "videostreamer"}},
		{"attributes", ix.AttrNames(), []string{"camera", "cellular", "gamer"}},
		{"an app", ix.Apps("scoreboard"), []int32{2, 3}},
		{"an app in other case", ix.Apps("videostreamer"), []int32{4}},
		{"an app not folded", ix.Apps("videoStreamer"), []int32(nil)},
		{"an attribute", ix.WithAttr("gamer"), []int32{2, 3, 4}},
		{"no attribute", ix.WithAttr(""), []int32(nil)},
	} {
		if !reflect.DeepEqual(it.got, it.want) {
			t.Errorf("%s: %v, want %v", it.what, it.got, it.want)
		}
	}
}

func TestFold(t *testing.T) {
	for s, want := range map[string]string{"": "", "abc": "abc", "AbZ@[": "abz@[", "ÄÉß": "ÄÉß", "\xc3A\xff": "\xc3a\xff", "\u212a": "\u212a"} {
		if got := index.Fold(s); got != want {
			t.Errorf("%q folds to %q, want %q", s, got, want)
		}
	}
}

// What Parse accepts is the one encoding of an index.
func FuzzParse(f *testing.F) {
	f.Add(golden().Encode(), false)
	f.Add(staged().Encode(), false)
	f.Add(index.New(index.Index{}).Encode(), false)
	body := golden().Encode()
	f.Add(body[:len(body)-4], true)
	f.Add([]byte("PCX\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x7f"), true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed { // or the checksum would keep all the rest from being reached
			data = seal(data)
		}
		ix, err := index.Parse(data)
		if err != nil {
			if ix != nil || !errors.Is(err, index.ErrCorrupt) && !errors.Is(err, index.ErrVersion) {
				t.Fatalf("index %v, error %v", ix, err)
			}
			return
		}
		if data[3] == 2 { // has another encoding now
			data = ix.Encode()
			if again, err := index.Parse(data); err != nil || !reflect.DeepEqual(again, ix) {
				t.Fatalf("%+v is %+v, %v after it was written anew", ix, again, err)
			}
		}
		if !bytes.Equal(ix.Encode(), data) {
			t.Fatalf("%x is accepted, and encodes to %x", data, ix.Encode())
		}
	})
}

// large is an index of n items: apps on three tracks, with three of 40 attributes each.
func large(n int) *index.Index {
	ix := index.Index{Generation: 1, Sequence: 1, Format: "bench"}
	for i := range n {
		it := index.Item{App: fmt.Sprintf("app%05d", i/3), Track: []string{"beta", "prod", "stage"}[i%3], Version: fmt.Sprintf("1.%d.0", i), Size: int64(i)}
		binary.LittleEndian.PutUint64(it.SHA256[:], uint64(i))
		for a := range 3 {
			it.Attrs = append(it.Attrs, fmt.Sprintf("attr%02d", (i/3*7+a*11)%40))
		}
		slices.Sort(it.Attrs)
		it.Attrs = slices.Compact(it.Attrs)
		ix.Items = append(ix.Items, it)
	}
	return index.New(ix)
}

func BenchmarkParse10000(b *testing.B) {
	data := large(10_000).Encode()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := index.Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
