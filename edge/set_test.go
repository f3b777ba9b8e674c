package edge_test

import (
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

// wholeSet is the set of all items of an index.
func wholeSet(ix *index.Index) edge.Set {
	s := edge.Set{Index: ix}
	for i := range ix.Items {
		s.Positions = append(s.Positions, int32(i))
	}
	return s
}

// The ID of a set changes with what decides the bytes of its bundles, and with nothing else.
func TestSetID(t *testing.T) {
	base := func() index.Index {
		return index.Index{Format: "f", BaseURL: "https://x", Items: []index.Item{item("a", "prod", "1", "x"), item("b", "prod", "1")}}
	}
	id := func(change func(*index.Index)) string {
		ix := base()
		change(&ix)
		return wholeSet(index.New(ix)).ID()
	}
	same := id(func(*index.Index) {})
	for name, change := range map[string]func(*index.Index){
		"generation": func(ix *index.Index) { ix.Generation = 9 },
		"sequence":   func(ix *index.Index) { ix.Sequence = 9 },
		"limits":     func(ix *index.Index) { ix.Params.MaxBundles = 9 },
		"track":      func(ix *index.Index) { ix.Items[0].Track = "beta" },
		"tracks":     func(ix *index.Index) { ix.Items[0].Track, ix.Items[1].Track = "z", "beta" },
		"attributes": func(ix *index.Index) { ix.Items[0].Attrs = []string{"y", "z"} },
		"no attrs":   func(ix *index.Index) { ix.Items[0].Attrs = nil },
	} {
		if id(change) != same {
			t.Errorf("the ID changes with: %s", name)
		}
	}
	seen := map[string]string{same: "the base"}
	for name, change := range map[string]func(*index.Index){
		"format":         func(ix *index.Index) { ix.Format = "g" },
		"base URL":       func(ix *index.Index) { ix.BaseURL = "https://y" },
		"no base URL":    func(ix *index.Index) { ix.BaseURL = "" },
		"run together":   func(ix *index.Index) { ix.Format, ix.BaseURL = "fh", "ttps://x" },
		"app":            func(ix *index.Index) { ix.Items[0].App = "A" },
		"version":        func(ix *index.Index) { ix.Items[0].Version = "2" },
		"other version":  func(ix *index.Index) { ix.Items[1].Version = "2" },
		"size":           func(ix *index.Index) { ix.Items[0].Size++ },
		"large size":     func(ix *index.Index) { ix.Items[0].Size += 1 << 56 },
		"md5":            func(ix *index.Index) { ix.Items[0].MD5[15] ^= 1 },
		"sha256":         func(ix *index.Index) { ix.Items[0].SHA256[0] ^= 0x80 },
		"one item less":  func(ix *index.Index) { ix.Items = ix.Items[:1] },
		"one item more":  func(ix *index.Index) { ix.Items = append(ix.Items, item("c", "prod", "1")) },
		"items exchange": func(ix *index.Index) { ix.Items[0].App, ix.Items[1].App = "b", "a" },
	} {
		got := id(change)
		if other, ok := seen[got]; ok {
			t.Errorf("%s has the ID of %s", name, other)
		}
		seen[got] = name
	}
}

// The ID is part of object keys: this one changes only together with the format.
func TestSetIDGolden(t *testing.T) {
	set := wholeSet(indexOf(item("a", "prod", "1"), item("b", "prod", "2.0")))
	const want = "16133b929322c2a33a8d9db3000f713d82c61ba816de5bc8953e8c139aa809f6"
	if got := set.ID(); got != want {
		t.Errorf("ID %s, want %s", got, want)
	}
}

// Where an item stands in the index does not matter to the sets that it is in.
func TestSetIDIgnoresTheRestOfTheIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := catalogs().Draw(t, "catalog")
		s, err := edge.ParseSelection(spellQuery(t, pairs().Draw(t, "params")))
		if err != nil {
			t.Fatalf("parse: %v", err)
		}
		before, err := edge.Resolve(indexOf(items...), edge.Device{Selection: s})
		if err != nil {
			t.Fatalf("resolve: %v", err)
		}
		more := append(slices.Clone(items), item("0 first", "other track", "9", "other"), item("~last", "other track", "9"))
		after, err := edge.Resolve(indexOf(more...), edge.Device{Selection: s})
		if err != nil {
			t.Fatalf("resolve: %v", err)
		}
		if before.ID() != after.ID() {
			t.Fatalf("the ID of %q changes with items that it does not have", files(before))
		}
	})
}

// A release that is promoted is the same file: nothing has to be built again for it.
func TestPromotion(t *testing.T) {
	before := indexOf(item("os_armv8", "prod", "1"), item("app", "beta", "2", "gamer"), item("app", "prod", "1", "gamer"))
	after := indexOf(item("os_armv8", "prod", "1"), item("app", "beta", "2", "gamer"), item("app", "prod", "2", "gamer"))
	beta := edge.Decide(before, "cpuArch=armv8&attrGamer=beta", "")
	for _, query := range []string{
		"cpuArch=armv8&attrGamer=prod", "cpuArch=armv8&attrGamer=beta", "cpuArch=armv8&app=prod",
		"cpuArch=armv8&attrGamer=beta&app=prod", // both tracks have it: one file
	} {
		got := edge.Decide(after, query, "")
		if got.Status != edge.StatusOK || got.Set.ID() != beta.Set.ID() {
			t.Errorf("%s: %s has another ID than %s had on beta", query, files(got.Set), files(beta.Set))
		}
	}
	if prod := edge.Decide(before, "cpuArch=armv8&attrGamer=prod", ""); prod.Set.ID() == beta.Set.ID() {
		t.Error("two releases have one ID")
	}
}

func TestMask(t *testing.T) {
	for _, c := range []struct {
		bits []int
		want string
	}{
		{nil, "0"},
		{[]int{0}, "1"},
		{[]int{0, 1, 2, 3}, "f"},
		{[]int{4}, "10"},
		{[]int{63}, "8000000000000000"},
		{[]int{64}, "10000000000000000"},
		{[]int{0, 255}, "8000000000000000000000000000000000000000000000000000000000000001"},
	} {
		var m edge.Mask
		for _, i := range c.bits {
			m = m.With(i)
		}
		if m.String() != c.want || m.Empty() != (len(c.bits) == 0) {
			t.Errorf("%v: %s, empty %t; want %s", c.bits, m, m.Empty(), c.want)
		}
	}
	for _, s := range []string{"", "00", "01", "-1", "+1", "0x1", "A", "1F", "g", " 1", "1 ", "1\x00", "１",
		"10000000000000000000000000000000000000000000000000000000000000000"} {
		if m, ok := edge.ParseMask(s); ok {
			t.Errorf("%q is read as the mask %s", s, m)
		}
	}
}

func TestMaskRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m edge.Mask
		number := new(big.Int)
		most := rapid.IntRange(1, edge.MaxSet).Draw(t, "bits")
		set := rapid.SliceOf(rapid.IntRange(0, most-1)).Draw(t, "set")
		for _, i := range set {
			m = m.With(i)
			number.SetBit(number, i, 1)
		}
		if m.String() != number.Text(16) {
			t.Fatalf("%v is written %s, want %s", set, m, number.Text(16))
		}
		if back, ok := edge.ParseMask(m.String()); !ok || back != m {
			t.Fatalf("%s is read as %s, %t", m, back, ok)
		}
		full := true
		for i := range edge.MaxSet {
			if m.Has(i) != slices.Contains(set, i) {
				t.Fatalf("bit %d of %s is %t", i, m, m.Has(i))
			}
			full = full && (i >= most || m.Has(i))
		}
		if m.Full(most) != full {
			t.Fatalf("%s has all %d bits: %t", m, most, m.Full(most))
		}
	})
}

func TestHex(t *testing.T) {
	for _, b := range [][]byte{nil, {0}, {0x0f, 0xf0, 0xab}} {
		if got, want := edge.Hex(b), fmt.Sprintf("%x", b); got != want {
			t.Errorf("%v: %s, want %s", b, got, want)
		}
	}
}
