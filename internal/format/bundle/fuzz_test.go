package bundle_test

import (
	"io/fs"
	"maps"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/layout"
)

// What ParseMeta accepts, Meta writes in the same way, and Compose takes.
func FuzzParseMeta(f *testing.F) {
	f.Add("300", "0000000a", "200", "000000000000000b")
	f.Fuzz(func(t *testing.T, rawSize, rawCRC32, size, crc64nvme string) {
		m := map[string]string{"raw-size": rawSize, "raw-crc32": rawCRC32, "size": size, "crc64nvme": crc64nvme}
		p, err := bundle.ParseMeta(m)
		if err != nil {
			if p != (bundle.Piece{}) {
				t.Errorf("an error and a piece: %+v", p)
			}
			return
		}
		if got := p.Meta(); !maps.Equal(got, m) {
			t.Errorf("%v is accepted, but is written as %v", m, got)
		}
		if p.Raw < 0 || p.Len <= 0 {
			t.Errorf("%v is accepted as %+v", m, p)
		}
		b, err := bundle.Compose(nil, []bundle.File{{Name: "a", Piece: p}})
		if err != nil {
			t.Fatalf("Compose refuses it: %v", err)
		}
		if b.Size() <= p.Len {
			t.Errorf("a bundle of %d bytes holds a piece of %d", b.Size(), p.Len)
		}
	})
}

// Compose takes exactly the names that are safe, and readers find them unchanged.
func FuzzComposeNames(f *testing.F) {
	f.Add("scoreboard_1.0.0", "gamer_2.0.0")
	f.Fuzz(func(t *testing.T, a, b string) {
		piece, z := compress(t, []byte("content"))
		plan, err := bundle.Compose([]byte("[]"), []bundle.File{{Name: a, Piece: piece}, {Name: b, Piece: piece}})
		if safe := safeName(a) && safeName(b) && a != b; safe != (err == nil) {
			t.Fatalf("%q and %q: error %v, want one: %t", a, b, err, !safe)
		}
		if err != nil {
			return
		}
		p := packed{plan, [][]byte{z, z}}
		wantContents(t, p.bytes(t), []byte("[]"), []binary{{a, []byte("content")}, {b, []byte("content")}})
	})
}

func safeName(name string) bool {
	return fs.ValidPath(name) && utf8.ValidString(name) && len(name) <= 255 &&
		name != "." && name != layout.ManifestName &&
		!strings.ContainsAny(name, `/\`) && !strings.ContainsFunc(name, unicode.IsControl)
}
