package rig_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// share puts a rollout of the gamers' scoreboard, to so many percent, into the catalog, and builds.
func (s *site) share(version string, percent float64) {
	s.t.Helper()
	s.put(catalog.Item{App: "scoreboard", Track: "prod", Version: version, DeviceAttr: map[string]bool{"gamer": true},
		Rollout: &catalog.Rollout{Percent: percent, Salt: "spring"}})
	s.build()
}

// slots asks as devices of many slots, and returns the scoreboard that each gets.
func (s *site) slots(device string) map[int]string {
	s.t.Helper()
	got := make(map[int]string)
	for slot := 0; slot < 10_000; slot += 97 {
		target := fmt.Sprintf("%s&slot=%d", device, slot)
		a := s.get(target)
		s.expect(a, target)
		brought, _ := files(s.t, a.body)
		i := slices.IndexFunc(brought, func(name string) bool { return strings.HasPrefix(name, "scoreboard_") })
		got[slot] = strings.TrimPrefix(brought[i], "scoreboard_")
	}
	return got
}

// A rollout reaches the slots of its share through the whole edge, as two entries of the cache; it grows, and ends.
func TestARolloutReachesItsShare(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	for _, percent := range []float64{5, 25, 99.99} {
		s.share("2.0.0", percent)
		fetched := len(s.fetched())
		for slot, version := range s.slots(gamer) {
			if in := edge.Place("spring", slot) < int(percent*100); in != (version == "2.0.0") {
				t.Fatalf("%v %%: slot %d, of place %d, gets %s", percent, slot, edge.Place("spring", slot), version)
			}
		}
		if keys := s.fetched()[fetched:]; len(keys) > 2 {
			t.Errorf("%v %%: the slots are %d entries of the cache", percent, len(keys))
		}
		if a := s.get(gamer); a.xcache() == "Miss" && percent < 99 {
			t.Errorf("a device without a slot is an entry of its own: %v", a)
		}
		// Who does not meet the rollout is not told apart by it.
		fetched = len(s.fetched())
		for _, slot := range []int{7, 0, 1} {
			s.get(fmt.Sprintf("/package?cpuArch=armv7&slot=%d", slot))
		}
		if keys := s.fetched()[fetched:]; len(keys) > 1 {
			t.Errorf("%v %%: devices that do not meet it are %d entries", percent, len(keys))
		}
	}
	s.share("2.0.0", 100)
	for slot, version := range s.slots(gamer) {
		if version != "2.0.0" {
			t.Fatalf("it has ended, and slot %d gets %s", slot, version)
		}
	}
	if items := s.Store.Items(); len(items) > 0 {
		t.Errorf("it has ended, and the table is %v", items)
	}
}

// Without a table, or with an old one, devices get the release before, and nobody gets what is not for them.
func TestARolloutWithoutItsTable(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	s.share("2.0.0", 25)
	before := s.slots(gamer)
	s.Store.SetDown(true)
	for slot := 0; slot < 10_000; slot += 997 {
		s.expect(s.get(fmt.Sprintf("%s&slot=%d", gamer, slot)), gamer)
	}
	s.Store.SetDown(false)
	table := s.Store.Items()
	// The table of 25 % with the index of 60: who was in stays in.
	s.share("2.0.0", 60)
	newest := s.Store.Items()
	if err := s.Store.Replace(table); err != nil {
		t.Fatal(err)
	}
	s.Invalidate("/package*")
	for slot := range before {
		a := s.get(fmt.Sprintf("%s&slot=%d", gamer, slot))
		brought, _ := files(t, a.body)
		if in := edge.Place("spring", slot) < 2500; in != slices.Contains(brought, "scoreboard_2.0.0") {
			t.Fatalf("slot %d gets %v", slot, brought)
		}
	}
	// The table of 60 % with the index of 25: nobody is in who is not to be.
	s.share("2.0.0", 25)
	if err := s.Store.Replace(newest); err != nil {
		t.Fatal(err)
	}
	s.Invalidate("/package*")
	for slot := range before {
		a := s.get(fmt.Sprintf("%s&slot=%d", gamer, slot))
		if brought, _ := files(t, a.body); slices.Contains(brought, "scoreboard_2.0.0") {
			t.Fatalf("slot %d, of place %d, gets %v", slot, edge.Place("spring", slot), brought)
		}
	}
	if maps.Equal(table, newest) {
		t.Fatal("both tables are one")
	}
}

// A device that has not passed a floor gets it first, through the edge, prebuilt or composed.
func TestAFloorThroughTheEdge(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]builder.Options{"prebuilt": few(), "composed": nothingPrebuilt()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, opt)
			s.put(catalog.Item{App: "os_armv8", Track: "prod", Version: "3.0.0", Floors: []catalog.Item{{Version: "1.1.0"}}})
			s.build()
			const target = "/package?cpuArch=armv8"
			var holds []string
			for _, want := range []string{"os_armv8_1.1.0", "os_armv8_3.0.0"} {
				a := s.get(target, held(holds)...)
				s.expect(a, target, held(holds)...)
				if brought, _ := files(t, a.body); !slices.Equal(brought, []string{want}) {
					t.Fatalf("holding %q it gets %v, want %s", holds, brought, want)
				}
				d := edge.Decide(s.index(), strings.TrimPrefix(target, "/package?"), strings.Join(holds, ","))
				holds = []string{edge.Hex(d.Set.Item(0).SHA256[:])}
			}
			if a := s.get(target, held(holds)...); a.status != 304 {
				t.Fatalf("it has everything: %v", a)
			}
		})
	}
}
