package bundle_test

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/internal/format/bundle"
)

func genPiece() *rapid.Generator[bundle.Piece] {
	return rapid.Custom(func(t *rapid.T) bundle.Piece {
		p := bundle.Piece{
			Raw:       rapid.Int64Range(1, 1<<40).Draw(t, "raw"),
			CRC32:     rapid.Uint32().Draw(t, "crc32"),
			CRC64NVME: rapid.Uint64().Draw(t, "crc64"),
		}
		p.Len = rapid.Int64Range(p.Raw/1032+5, p.Raw+64).Draw(t, "len")
		return p
	})
}

func TestMetaRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := genPiece().Draw(t, "piece")
		m := p.Meta()
		total := 0
		for k, v := range m {
			total += len(k) + len(v)
			if k != strings.ToLower(k) || strings.Trim(k+v, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				t.Fatalf("%q: %q is not fit for the metadata of any store", k, v)
			}
		}
		if total > 200 {
			t.Fatalf("the metadata has %d bytes", total)
		}
		m["another"] = "name" // stores and other programs add theirs
		if got, err := bundle.ParseMeta(m); err != nil || got != p {
			t.Fatalf("ParseMeta gives %+v, error %v; want %+v", got, err, p)
		}
	})
}

func TestParseMetaRefusesOtherThanMeta(t *testing.T) {
	t.Parallel()
	piece, _ := compress(t, program(1, 10_000))
	good := piece.Meta()
	for name, value := range good {
		without := maps.Clone(good)
		delete(without, name)
		if _, err := bundle.ParseMeta(without); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: error %v", name, err)
		}
		for _, bad := range []string{
			"", " ", "-1", "+1", "x", "0x1", "1_0", "1e3", "-" + value, "+" + value, " " + value, value + " ", "0" + value, value + "0000000000000000000",
			"99999999999999999999", "9223372036854775808", "ABCDEF01", "ABCDEF0123456789", "١",
		} {
			m := maps.Clone(good)
			m[name] = bad
			if got, err := bundle.ParseMeta(m); err == nil {
				t.Errorf("%s %q is accepted as %+v", name, bad, got)
			} else if got != (bundle.Piece{}) {
				t.Errorf("%s %q gives an error and a piece", name, bad)
			}
		}
	}
	if _, err := bundle.ParseMeta(nil); err == nil {
		t.Error("no metadata at all is accepted")
	}
}

// Pieces are cached for good: the names of their metadata must not change.
func TestMetaIsStable(t *testing.T) {
	t.Parallel()
	want := map[string]string{"raw-size": "300", "raw-crc32": "0000000a", "size": "200", "crc64nvme": "000000000000000b"}
	if got := (bundle.Piece{Raw: 300, CRC32: 10, Len: 200, CRC64NVME: 11}).Meta(); !reflect.DeepEqual(got, want) {
		t.Errorf("Meta gives %v, want %v", got, want)
	}
}
