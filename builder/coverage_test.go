package builder_test

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// wide is a catalog of n attributes at three tracks each.
func wide(n int, params index.Params) *index.Index {
	ix := index.Index{Format: "test", Params: params}
	add := func(app, track string, attrs ...string) {
		ix.Items = append(ix.Items, index.Item{App: app, Track: track, Version: "1-" + track, Size: 1 << 20,
			SHA256: sha256.Sum256([]byte(app + track)), Attrs: attrs})
	}
	for _, track := range []string{"prod", "beta", "nightly"} {
		add("os_armv8", track)
		for i := range n {
			add(fmt.Sprintf("app%02d", i), track, fmt.Sprintf("attr%02d", i))
		}
	}
	return index.New(ix)
}

// 40 attributes with 3 tracks each: 4^40 combinations of them alone. Planning stays within its limits
// and says what it leaves out.
func TestAHugeCatalogIsPlannedWithinItsBudget(t *testing.T) {
	params := builder.DefaultParams()
	ix := wide(40, params)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := builder.Cover(ix, []*index.Index{wide(39, params)})
	runtime.ReadMemStats(&after)
	if uint64(c.Considered) != params.MaxCombinations {
		t.Fatalf("%d combinations considered, want %d", c.Considered, params.MaxCombinations)
	}
	if c.Combinations < 1e24 || c.LeftOut.Combinations < 1e24 {
		t.Fatalf("%g combinations, %g left out: 2 x 3 x 4^40 are %g", c.Combinations, c.LeftOut.Combinations, 2.0*3*1.2089258196146292e24)
	}
	if uint64(c.Bundles) > params.MaxBundles || uint64(c.Bytes) > params.MaxBytes || c.LeftOut.Bundles == 0 {
		t.Fatalf("%d bundles, %d bytes, %d left out", c.Bundles, c.Bytes, c.LeftOut.Bundles)
	}
	if live := after.HeapAlloc; live > before.HeapAlloc+256<<20 {
		t.Fatalf("planning holds %d MiB", (live-before.HeapAlloc)>>20)
	}
	// What few attributes name comes first.
	for i := 1; i < len(c.Sets); i++ {
		if c.Sets[i-1].Named > c.Sets[i].Named {
			t.Fatalf("set %d is named by %d attributes, the one before by %d", i, c.Sets[i].Named, c.Sets[i-1].Named)
		}
	}
	// Every device that names at most one attribute is served from a prebuilt bundle.
	prebuilt := make(map[string]bool)
	for _, s := range c.Sets {
		prebuilt[s.ID] = s.Masks[0].Empty()
	}
	for i := range 40 {
		sel, err := edge.ParseSelection(fmt.Sprintf("cpuArch=armv8&attrATTR%02d=nightly", i))
		must(t, err)
		set, err := edge.Resolve(ix, edge.Device{Selection: sel})
		must(t, err)
		if set.Len() != 2 || !prebuilt[set.ID()] {
			t.Fatalf("attribute %d alone is not prebuilt (%d items)", i, set.Len())
		}
	}
}

func TestBudgetsAreKept(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*index.Params)
	}{
		{"bundles", func(p *index.Params) { p.MaxBundles = 7 }},
		{"bytes", func(p *index.Params) { p.MaxBytes = 11 << 20 }},
		{"combinations", func(p *index.Params) { p.MaxCombinations = 5 }},
		{"no subsets", func(p *index.Params) { p.SubsetItems = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			params := builder.DefaultParams()
			c.change(&params)
			cover := builder.Cover(wide(4, params), nil)
			n, bytes := 0, int64(0)
			for _, s := range cover.Sets {
				if !s.Masks[0].Empty() {
					t.Fatalf("set %s has no full bundle", s.ID)
				}
				if params.SubsetItems == 0 && len(s.Masks) > 1 {
					t.Fatalf("set %s has subsets", s.ID)
				}
				for _, m := range s.Masks {
					if m.Full(s.Set.Len()) {
						t.Fatalf("set %s has a bundle of nothing", s.ID)
					}
					n++
					for i := range s.Set.Len() {
						if !m.Has(i) {
							bytes += s.Set.Item(i).Size
						}
					}
				}
			}
			if n != cover.Bundles || bytes != cover.Bytes {
				t.Fatalf("says %d bundles and %d bytes, has %d and %d", cover.Bundles, cover.Bytes, n, bytes)
			}
			if uint64(n) > params.MaxBundles || uint64(bytes) > params.MaxBytes || uint64(cover.Considered+cover.Variants) > params.MaxCombinations {
				t.Fatalf("limits not kept: %+v", cover)
			}
			left := cover.LeftOut
			if c.name != "no subsets" && left.Bundles == 0 && left.Combinations == 0 {
				t.Fatal("nothing is said to be left out")
			}
		})
	}
}

// Beyond the small sets, devices that come from a retained generation find their upgrade prebuilt.
func TestUpgradePathsOfLargeSets(t *testing.T) {
	params := builder.DefaultParams()
	params.SubsetItems = 0
	index1 := func(version string) *index.Index {
		ix := index.Index{Format: "test", Params: params}
		for i := range 6 {
			v := "1"
			if i == 3 {
				v = version
			}
			ix.Items = append(ix.Items, index.Item{App: fmt.Sprint("app", i), Track: "prod", Version: v, Size: 1,
				SHA256: sha256.Sum256([]byte(fmt.Sprint(i, v))), Attrs: []string{"all"}})
		}
		return index.New(ix)
	}
	old, now := index1("1"), index1("2")
	c := builder.Cover(now, []*index.Index{old})
	if len(c.Sets) != 1 {
		t.Fatalf("%d sets, want 1", len(c.Sets))
	}
	var want edge.Mask
	for i := range 6 {
		if i != 3 {
			want = want.With(i)
		}
	}
	if !slices.Equal(c.Sets[0].Masks, []edge.Mask{{}, want}) {
		t.Fatalf("masks %v, want the full bundle and %v", c.Sets[0].Masks, want)
	}
	if !slices.Equal(c.Keys(), builder.Cover(now, []*index.Index{old}).Keys()) {
		t.Fatal("coverage is not a function of its input")
	}
}

func BenchmarkCoverOf40Attributes(b *testing.B) {
	ix := wide(40, builder.DefaultParams())
	b.ReportAllocs()
	for b.Loop() {
		builder.Cover(ix, nil)
	}
}
