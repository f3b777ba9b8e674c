package edge_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

// smallCatalogs generates catalogs of few apps, tracks and attributes: all combinations of them can
// be written down.
func smallCatalogs() *rapid.Generator[[]index.Item] {
	return rapid.Custom(func(t *rapid.T) []index.Item {
		var items []index.Item
		for _, app := range []string{"os_armv8", "OS_Armv7", "os_", "os_other", "app", "tool"} {
			for _, track := range []string{"prod", "beta", "Stage"} {
				if !rapid.Bool().Draw(t, "has") {
					continue
				}
				var attrs []string
				for _, a := range []string{"gamer", "Camera", "c"} {
					if rapid.IntRange(0, 2).Draw(t, "attr") == 0 {
						attrs = append(attrs, a)
					}
				}
				items = append(items, item(app, track, fmt.Sprint(rapid.IntRange(1, 2).Draw(t, "version")), attrs...))
			}
		}
		return items
	})
}

// bruteForce returns the canonical query of every combination, and how many names it has.
func bruteForce(items []index.Item) map[string]int {
	archs := map[string]bool{}
	osTracks := map[string]bool{"prod": true}
	attrs := map[string]map[string]bool{}
	for _, it := range items {
		if app := lower(it.App); len(app) > 3 && app[:3] == "os_" {
			archs[app[3:]] = true
			osTracks[lower(it.Track)] = true
		}
		for _, a := range it.Attrs {
			if attrs[lower(a)] == nil {
				attrs[lower(a)] = map[string]bool{}
			}
			attrs[lower(a)][lower(it.Track)] = true
		}
	}
	other := "other"
	for archs[other] {
		other += "-"
	}
	archs[other] = true
	all := map[string]int{}
	var extend func(s edge.Selection, left []string, named int)
	extend = func(s edge.Selection, left []string, named int) {
		if len(left) == 0 {
			all[s.String()] = named
			return
		}
		extend(s, left[1:], named)
		for track := range attrs[left[0]] {
			next := s
			next.Attrs = append(slices.Clone(s.Attrs), edge.Param{Name: left[0], Track: track})
			extend(next, left[1:], named+1)
		}
	}
	var names []string
	for name := range attrs {
		names = append(names, name)
	}
	for arch := range archs {
		for track := range osTracks {
			named := 1
			if track == "prod" {
				named = 0
			}
			extend(edge.Selection{Arch: arch, OS: track}, names, named)
		}
	}
	return all
}

// Each yields every combination once, those with few names first, and what a device with any
// attributes gets is the set of one of them.
func TestCombinations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := smallCatalogs().Draw(t, "catalog")
		ix := indexOf(items...)
		want := bruteForce(items)
		dims := edge.DimensionsOf(ix)
		if dims.Count() != float64(len(want)) {
			t.Fatalf("%v combinations, want %d", dims.Count(), len(want))
		}
		last := 0
		seen := map[string]bool{}
		sets := map[string]bool{"[]": true}
		dims.Each(func(named int, s edge.Selection) bool {
			query := s.String()
			if n, ok := want[query]; !ok || n != named || seen[query] || named < last {
				t.Fatalf("%q after %d others: named %d after %d, want %d (exists: %t), seen: %t", query, len(seen), named, last, n, ok, seen[query])
			}
			seen[query], last = true, named
			set, err := edge.Resolve(ix, edge.Device{Selection: s})
			if err != nil {
				t.Fatalf("resolve %q: %v", query, err)
			}
			sets[fmt.Sprint(set.Positions)] = true
			return true
		})
		if len(seen) != len(want) {
			t.Fatalf("%d combinations, want %d", len(seen), len(want))
		}
		for range 20 {
			s := edge.Selection{
				Arch: rapid.SampledFrom([]string{"armv8", "armv7", "other", "riscv"}).Draw(t, "arch"),
				OS:   rapid.SampledFrom([]string{"prod", "beta", "stage", "nightly"}).Draw(t, "os"),
			}
			for _, a := range []string{"camera", "gamer", "c", "unknown"} {
				if track := rapid.SampledFrom([]string{"", "prod", "beta", "stage", "nightly"}).Draw(t, a); track != "" {
					s.Attrs = append(s.Attrs, edge.Param{Name: a, Track: track})
				}
			}
			set, err := edge.Resolve(ix, edge.Device{Selection: s})
			if err != nil {
				t.Fatalf("resolve %q: %v", s, err)
			}
			if !sets[fmt.Sprint(set.Positions)] {
				t.Fatalf("%q gets %q, which no combination gets", s, files(set))
			}
		}
	})
}

func TestSampleDimensions(t *testing.T) {
	got := edge.DimensionsOf(sampleIndex())
	want := edge.Dimensions{
		Archs:    []string{"armv7", "armv8", "other"},
		OSTracks: []string{"prod", "beta"},
		Attrs: []edge.Attribute{
			{Name: "camera", Tracks: []string{"prod", "beta"}},
			{Name: "cellular", Tracks: []string{"prod"}},
			{Name: "gamer", Tracks: []string{"prod", "beta"}},
		},
	}
	if !reflect.DeepEqual(got.Archs, want.Archs) || !reflect.DeepEqual(got.OSTracks, want.OSTracks) || !reflect.DeepEqual(got.Attrs, want.Attrs) {
		t.Errorf("%v, want %v", got, want)
	}
	if got.Count() != 3*2*3*2*3 {
		t.Errorf("%v combinations, want 108", got.Count())
	}
}

// 40 attributes on three tracks have 10^24 combinations: the first ones come at once, in memory that
// does not grow with their number.
func TestManyAttributes(t *testing.T) {
	var items []index.Item
	for i := range 40 {
		for _, track := range []string{"prod", "beta", "stage"} {
			items = append(items, item(fmt.Sprint("app", i), track, "1", fmt.Sprint("attr", i)))
		}
	}
	dims := edge.DimensionsOf(indexOf(items...))
	if n := dims.Count(); n < 1e24 {
		t.Errorf("%g combinations", n)
	}
	const first = 100_000
	calls, named := 0, 0
	allocs := testing.AllocsPerRun(1, func() {
		calls, named = 0, 0
		dims.Each(func(n int, s edge.Selection) bool {
			if n < named || len(s.Attrs) != n {
				t.Fatalf("combination %d names %d after %d, and has %d attributes", calls, n, named, len(s.Attrs))
			}
			named = n
			calls++
			return calls < first
		})
	})
	if calls != first {
		t.Errorf("%d calls, want %d: the last one returned false", calls, first)
	}
	// 1 + 40*3 + C(40,2)*9 + C(40,3)*27 = 273,901 combinations have at most three.
	if named != 3 {
		t.Errorf("the last combination names %d attributes", named)
	}
	if allocs > first/100 {
		t.Errorf("%v allocations for %d combinations", allocs, first)
	}
	calls = 0
	dims.Each(func(int, edge.Selection) bool { calls++; return false })
	if calls != 1 {
		t.Errorf("%d calls after the first returned false", calls-1)
	}
}
