package gc_test

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/gc"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// indexes generates indexes with tracks, attributes, rollouts and floors, and with any limits.
func indexes(generation uint64) *rapid.Generator[*index.Index] {
	return rapid.Custom(func(t *rapid.T) *index.Index {
		ix := index.Index{Generation: generation, Sequence: generation, Format: builder.FormatID, Params: index.Params{
			MaxBundles:      rapid.SampledFrom([]uint64{0, 1, 5, math.MaxInt64}).Draw(t, "bundles"),
			MaxBytes:        rapid.SampledFrom([]uint64{0, 50, math.MaxInt64}).Draw(t, "bytes"),
			MaxCombinations: rapid.OneOf(rapid.Uint64Range(0, 60), rapid.Just[uint64](1000)).Draw(t, "combinations"),
			SubsetItems:     rapid.Uint64Range(0, 2).Draw(t, "subsets"),
			Retain:          rapid.Uint64Range(0, 2).Draw(t, "retain"),
		}}
		for _, app := range []string{"os_a", "game", "cam"} {
			for _, track := range []string{"prod", "beta"} {
				add := func(role index.Role) *index.Item {
					version := fmt.Sprint(generation, ".", len(ix.Items))
					content := app + " " + version
					ix.Items = append(ix.Items, index.Item{App: app, Track: track, Version: version, Size: int64(len(content)),
						MD5: md5.Sum([]byte(content)), SHA256: sha256.Sum256([]byte(content)), Role: role})
					return &ix.Items[len(ix.Items)-1]
				}
				releases := rapid.IntRange(0, 3).Draw(t, "releases")
				for n := range releases {
					role := index.Previous
					if n == 0 {
						role = index.Current
					}
					it := add(role)
					it.Attrs = slices.DeleteFunc([]string{"camera", "gamer"}, func(string) bool { return rapid.Bool().Draw(t, "no attr") })
					if n < releases-1 || rapid.IntRange(0, 5).Draw(t, "over nothing") == 0 {
						it.Salt = rapid.SampledFrom([]string{"spring", "winter", "z9"}).Draw(t, "salt")
						it.Share = rapid.SampledFrom([]uint16{0, 100, 5000, 9999}).Draw(t, "share")
					}
					for range rapid.IntRange(-2, 2).Draw(t, "floors") {
						add(index.Floor)
					}
				}
			}
		}
		return index.New(ix)
	})
}

// walked is an account of a walk that shares nothing with it but what it goes through: how many devices there are
// within a limit, how many combinations, and the sets that they get.
func walked(ix *index.Index, most uint64) (devices, combinations int, sets map[string]bool) {
	sets = make(map[string]bool)
	dims := edge.DimensionsOf(ix)
	dims.Each(func(_ int, s edge.Selection) bool {
		all, _ := dims.Devices(s)
		for i, d := range all {
			if uint64(devices) == most {
				return false
			}
			if devices++; i == 0 {
				combinations++
			}
			if set, err := edge.Resolve(ix, d); err == nil && set.Len() > 0 {
				sets[set.ID()] = true
			}
		}
		return true
	})
	return devices, combinations, sets
}

// responder answers what devices ask, and notes the sets of those that ask for a manifest.
type responder struct {
	table edge.Table

	mu   sync.Mutex
	sets map[string]bool
}

func (r *responder) RoundTrip(req *http.Request) (*http.Response, error) {
	answer := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
	if req.URL.Path != "/package" {
		return answer(http.StatusNotFound, "")
	}
	d := r.table.Decide(req.URL.RawQuery, req.Header.Get("If-None-Match"))
	switch {
	case d.Status == edge.StatusOK && d.Selection.Payload == edge.Statement:
		return answer(http.StatusNotFound, edge.ErrNotSigned)
	case d.Status == edge.StatusOK && d.Selection.Payload == edge.MetadataOnly:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sets[d.Set.ID()] = true
	}
	return answer(d.Status, "")
}

// What is prebuilt, what a sweep keeps and what a check asks for are the same sets, wherever the limit falls: of each
// index that stays, all that its walk meets, and nothing else. A sweep keeps no bundles where there are no copies.
func TestEveryWalkIsTheSame(t *testing.T) {
	limited, total := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		before, ix := indexes(1).Draw(rt, "before"), indexes(2).Draw(rt, "published")
		most := ix.Params.MaxCombinations
		devices, combinations, walk := walked(ix, most)
		every, _, beyond := walked(ix, math.MaxUint64)
		if total++; devices < every {
			limited++
		}

		cover := builder.Cover(ix, []*index.Index{before})
		if cover.Considered != combinations || cover.Considered+cover.Variants != devices {
			rt.Fatalf("coverage looked at %d combinations and %d devices beside, want %d and %d", cover.Considered, cover.Variants, combinations, devices-combinations)
		}
		covered := make(map[string]bool)
		for _, s := range cover.Sets {
			covered[s.ID] = true
		}
		if len(covered)+cover.LeftOut.Sets != len(walk) {
			rt.Fatalf("%d sets are covered, %d are left out, of %d", len(covered), cover.LeftOut.Sets, len(walk))
		}
		for id := range covered {
			if !walk[id] {
				rt.Fatalf("set %s is covered, which no device within the limit gets", id)
			}
		}

		// A bundle of every set that anybody gets, all of them old.
		now := time.Now()
		memory := storetest.NewMemory(func() time.Time { return now }, 5)
		write := func(key string, data []byte) {
			_, err := memory.Objects.Put(t.Context(), key, builder.Body{Reader: strings.NewReader(string(data)), Size: int64(len(data))}, builder.PutOptions{})
			must(t, err)
		}
		write(layout.IndexKey, ix.Encode())
		write(layout.HistoryKey(1), before.Encode())
		kept := make(map[string]bool) // without copies, none is
		if ix.Params.Copies() {
			maps.Copy(kept, walk)
		}
		if ix.Params.Copies() && before.Params.Copies() {
			_, _, sets := walked(before, before.Params.MaxCombinations)
			maps.Copy(kept, sets)
		}
		_, _, all := walked(before, math.MaxUint64)
		maps.Copy(all, beyond)
		for id := range all {
			write(layout.BundleKey(id, "0"), []byte("bundle"))
		}
		now = now.Add(time.Hour)
		rep, err := gc.New(memory.Objects, memory.Objects, memory.Catalog, gc.Options{
			Grace: time.Minute, Keys: math.MaxInt, Clock: builder.Clock{Time: func() time.Time { return now }},
		}).Look(t.Context())
		must(t, err)
		for _, kind := range rep.Kinds {
			for _, key := range kind.Keys {
				id, _, _ := strings.Cut(strings.TrimPrefix(key, layout.BundlePrefix), "/")
				if !all[id] || kept[id] {
					rt.Fatalf("a sweep would remove %s", key)
				}
				delete(all, id)
			}
		}
		if !maps.Equal(all, kept) {
			rt.Fatalf("a sweep keeps bundles of %d sets, %d are needed", len(all), len(kept))
		}

		device := &responder{table: edge.TableOf(ix), sets: make(map[string]bool)}
		checked, err := fsck.Device{URL: "http://precast", Client: &http.Client{Transport: device}}.Check(t.Context(), ix, fsck.Options{})
		must(t, err)
		if checked.Combinations != combinations || checked.Combinations+checked.Variants != devices || !maps.Equal(device.sets, walk) {
			rt.Fatalf("a check asked for %d combinations and %d devices beside, which get %d sets, want %d, %d and %d",
				checked.Combinations, checked.Variants, len(device.sets), combinations, devices-combinations, len(walk))
		}
	})
	if limited == 0 || limited == total {
		t.Errorf("the limit cuts %d of %d walks short", limited, total)
	}
}
