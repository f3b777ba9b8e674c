package release_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/source"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// fleetDevice is a device of a fleet, and what it holds.
type fleetDevice struct {
	selection edge.Selection
	slot      int
	late      bool                         // it skips generations
	holds     map[string][32]byte          // by app
	left      map[string]map[[32]byte]bool // by app: releases that it had and that were replaced
}

// poll has the device install what an index has for it. It fails if that takes a package away, or brings back a release
// that was replaced.
func (d *fleetDevice) poll(t *rapid.T, ix *index.Index, after string) {
	var held edge.Tags
	for _, sum := range d.holds {
		held = append(held, edge.Hex(sum[:]))
	}
	slices.Sort(held)
	set, err := edge.Resolve(ix, edge.Device{Selection: d.selection, Cohort: edge.TableOf(ix).Cohort(d.selection, d.slot), Held: held})
	if err != nil {
		set = edge.Set{Index: ix}
	}
	got := make(map[string][32]byte)
	for i := range set.Len() {
		got[set.Item(i).App] = set.Item(i).SHA256
	}
	for app := range d.holds {
		if _, ok := got[app]; !ok {
			t.Fatalf("%s: a device (%+v, slot %d) that has %s gets nothing instead", after, d.selection, d.slot, app)
		}
	}
	for app, sum := range got {
		was, had := d.holds[app]
		if had && was != sum {
			if d.left[app][sum] {
				t.Fatalf("%s: a device (%+v, slot %d) goes back to a release of %s that was replaced", after, d.selection, d.slot, app)
			}
			if d.left[app] == nil {
				d.left[app] = make(map[[32]byte]bool)
			}
			d.left[app][was] = true
		}
		d.holds[app] = sum
	}
}

// Whatever commands come, without a flag that allows it no device that has a package is left without it, or goes back to
// a release that was replaced. Rollbacks, which are asked for by name, may.
func TestNoCommandHurtsTheFleet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := storetest.NewMemory(time.Now, 5)
		p := pipeline.New(pipeline.Drivers{
			Ports:  builder.Ports{Objects: m.Objects, Catalog: m.Catalog, Queue: m.Queue, Ledger: m.Ledger, Sources: &source.Sources{Objects: m.Objects}},
			Writer: m.Catalog, DeadLetters: m.Queue,
		}, pipeline.Config{Builder: builder.Options{Log: slog.New(slog.DiscardHandler)}})
		im := &release.Importer{Objects: m.Objects, Catalog: p, Preview: p.Preview}
		apps, tracks, attrs := []string{"a", "b"}, []string{"prod", "beta"}, []string{"x", "y"}
		var fleet []*fleetDevice
		for _, track := range tracks {
			for _, slot := range []int{edge.NoSlot, 7, 0, 1, 5000} {
				for _, s := range []edge.Selection{
					{Attrs: []edge.Param{{Name: "x", Track: track}}},
					{Attrs: []edge.Param{{Name: "y", Track: track}}},
					{Attrs: []edge.Param{{Name: "x", Track: track}, {Name: "y", Track: track}}},
					{Apps: []edge.Param{{Name: "a", Track: track}}},
				} {
					fleet = append(fleet, &fleetDevice{s, slot, slot == 1, make(map[string][32]byte), make(map[string]map[[32]byte]bool)})
				}
			}
		}
		expected := func(err error) {
			refused := errors.Is(err, history.ErrRefused)
			if err != nil && !refused {
				t.Logf("not done: %v", err)
			}
		}
		draw := func() release.Release {
			app, version := rapid.SampledFrom(apps).Draw(t, "app"), rapid.IntRange(1, 4).Draw(t, "version")
			content := fmt.Sprint(app, " ", version)
			if rapid.IntRange(0, 9).Draw(t, "other content") == 0 {
				content += " again"
			}
			r := releaseOf(app, rapid.SampledFrom(tracks).Draw(t, "track"), fmt.Sprint(version), content)
			if rapid.Bool().Draw(t, "with attributes") {
				r.DeviceAttr = release.Attributes(rapid.SliceOfDistinct(rapid.SampledFrom(attrs), rapid.ID[string]).Draw(t, "attributes")...)
			}
			if rapid.IntRange(0, 2).Draw(t, "with a rollout") == 0 {
				r.Rollout = &catalog.Rollout{Percent: rapid.SampledFrom([]float64{0.5, 5, 30, 60}).Draw(t, "percent"), Salt: "spring"}
			}
			if rapid.IntRange(0, 3).Draw(t, "with floors") == 0 {
				r.Floors = release.Floors(fmt.Sprint(rapid.IntRange(1, 4).Draw(t, "floor")))
			}
			return r
		}
		publish := func(after string, err error) {
			lateToo := rapid.Bool().Draw(t, "late devices, too")
			if errors.As(err, new(*pipeline.PinnedError)) {
				err = nil
			}
			expected(err)
			ix, _, err := builder.ReadIndex(t.Context(), m.Objects)
			if err != nil {
				t.Fatal(err)
			}
			for range 4 { // through the floors
				for _, d := range fleet {
					if ix != nil && (lateToo || !d.late) {
						d.poll(t, ix, after)
					}
				}
			}
		}
		n := rapid.IntRange(5, 40).Draw(t, "commands")
		for range n {
			switch command := rapid.SampledFrom([]string{"put", "put", "put", "rollout", "promote", "import", "build", "build", "rollback", "unpin"}).Draw(t, "command"); command {
			case "put":
				_, err := im.Import(t.Context(), []release.Release{draw()}, false)
				expected(err)
			case "import":
				_, err := im.Import(t.Context(), []release.Release{draw(), draw()}, rapid.Bool().Draw(t, "replace"))
				expected(err)
			case "rollout":
				key := catalog.Key{App: rapid.SampledFrom(apps).Draw(t, "app"), Track: rapid.SampledFrom(tracks).Draw(t, "track")}
				_, err := im.SetRollout(t.Context(), key, rapid.SampledFrom([]float64{1, 20, 50, 100}).Draw(t, "percent"))
				expected(err)
			case "promote":
				_, err := im.Promote(t.Context(), release.Promotion{From: "beta", To: "prod", App: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "app")})
				expected(err)
			case "build":
				publish("build", p.Build(t.Context(), builder.PlanOptions{}, nil))
			case "rollback", "unpin":
				var err error
				if command == "rollback" {
					_, err = p.Rollback(t.Context(), history.Request{By: catalog.Author{Message: "it hangs"}})
				} else if _, err = p.Unpin(t.Context(), catalog.Author{}); err == nil {
					err = p.Build(t.Context(), builder.PlanOptions{}, nil)
				}
				for _, d := range fleet { // by name: what devices had before counts no more
					clear(d.holds)
					clear(d.left)
				}
				publish(command, err)
			}
		}
	})
}
