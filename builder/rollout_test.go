package builder_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"

	"pgregory.net/rapid"
)

// staging rolls a release out, some of the time, or gives it a floor.
func (w *world) staging(t *rapid.T, it catalog.Item) catalog.Item {
	if rapid.IntRange(0, 2).Draw(t, "rollout") == 0 {
		it.Rollout = &catalog.Rollout{Percent: rapid.SampledFrom([]float64{0, 0.01, 10, 50, 99.99}).Draw(t, "percent"), Salt: rapid.SampledFrom([]string{"", "spring", "winter"}).Draw(t, "salt")}
	}
	switch rapid.IntRange(0, 3).Draw(t, "floors") {
	case 0:
		it.Floors = []catalog.Item{}
	case 1:
		content := "floor of " + it.App
		md, sha := sums(content)
		body := builder.Body{Reader: strings.NewReader(content), Size: int64(len(content))}
		if _, err := w.base.Objects.Put(context.Background(), layout.BinaryKey(sha, it.App, "floor"), body, builder.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		it.Floors = []catalog.Item{{Version: "floor", URL: catalog.StoreURL(sha, it.App, "floor"), MD5: md, SHA256: sha, Size: int64(len(content))}}
	}
	return it
}

// rolled is a catalog whose operating system is rolled out over one with a floor.
func rolled(w *world, percent float64) {
	w.put("os_a", "prod", "1", "one")
	w.put("app", "prod", "1", "an app", "x")
	w.release(catalog.Item{App: "os_a", Track: "prod", Version: "2", Floors: []catalog.Item{{Version: "1"}}}, "two")
	w.release(catalog.Item{App: "os_a", Track: "prod", Version: "3", Rollout: &catalog.Rollout{Percent: percent, Salt: "spring"}}, "three")
}

// Whatever slot a device has, and whatever floors it has passed, its bundle is there before it asks.
func TestEveryVariantIsPrebuilt(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	rolled(w, 10)
	w.build(builder.PlanOptions{})
	w.checkComplete()
	ix, _, err := builder.ReadIndex(t.Context(), w.base.Objects)
	must(t, err)
	_, one := sums("one")
	versions := make(map[string]bool)
	for slot := -1; slot < 10_000; slot += 7 {
		for _, held := range []string{"", one} {
			query := "cpuArch=a&attrX=prod"
			if slot >= 0 {
				query += fmt.Sprint("&slot=", slot)
			}
			d := edge.Decide(ix, query, held)
			kind, key := d.Object()
			if _, err := w.base.Objects.Stat(t.Context(), key); err != nil || kind != layout.Bundle {
				t.Fatalf("%s holding %q: %v", query, held, err)
			}
			i := slices.IndexFunc(d.Set.Positions, func(p int32) bool { return ix.Items[p].App == "os_a" })
			versions[d.Set.Item(i).Version] = true
		}
	}
	if fmt.Sprint(len(versions)) != "3" {
		t.Errorf("devices get %v", versions)
	}
	r := w.events.plans[len(w.events.plans)-1]
	if want := []builder.Rollout{{Key: catalog.Key{App: "os_a", Track: "prod"}, Version: "3", Percent: 10, Salt: "spring", Over: "2"}}; !slices.Equal(r.Rollouts, want) {
		t.Errorf("rollouts %+v, want %+v", r.Rollouts, want)
	}
	if want := []builder.Floor{{Key: catalog.Key{App: "os_a", Track: "prod"}, Version: "1", Before: "3"}, {Key: catalog.Key{App: "os_a", Track: "prod"}, Version: "1", Before: "2"}}; !slices.Equal(r.Floors, want) {
		t.Errorf("floors %+v, want %+v", r.Floors, want)
	}
}

// A rollout that grows, or ends, moves devices from one set to another, and writes nothing but the index.
func TestAGrowingRolloutWritesNothing(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	rolled(w, 10)
	w.build(builder.PlanOptions{})
	for _, percent := range []float64{20, 99.99, 100, 0, 5} {
		items, err := w.base.Catalog.Snapshot(context.Background())
		must(t, err)
		i := slices.IndexFunc(items, func(it catalog.Item) bool { return it.App == "os_a" })
		items[i].Rollout.Percent = percent
		w.apply(catalog.Put(items[i]))
		w.events.reset()
		before := w.generation()
		w.build(builder.PlanOptions{})
		for _, prefix := range append(served, layout.PiecePrefix) {
			if n := w.events.writtenUnder(prefix); n > 0 {
				t.Errorf("to %v %%: %d objects below %s were written", percent, n, prefix)
			}
		}
		if w.generation() != before+1 {
			t.Errorf("to %v %%: generation %d after %d", percent, w.generation(), before)
		}
	}
}

// Devices that had a release while it was rolled out find the way from it prebuilt, whichever side they were on.
func TestUpgradePathsOutOfARollout(t *testing.T) {
	params := builder.DefaultParams()
	params.SubsetItems = 0
	w := newWorld(t, t.TempDir(), builder.Options{Params: params})
	defer w.close()
	for i := range 6 {
		w.put(fmt.Sprint("app", i), "prod", "1", fmt.Sprint("one of ", i), "x")
	}
	w.build(builder.PlanOptions{})
	next := itemOf("app3", "prod", "2", "x")
	next.Rollout = &catalog.Rollout{Percent: 50}
	w.release(next, "two of 3")
	w.build(builder.PlanOptions{})
	ix, _, err := builder.ReadIndex(t.Context(), w.base.Objects)
	must(t, err)
	holding := func(cohort string) string {
		d := edge.DecideCohort(ix, "cpuarch=a&attrx=prod", cohort, "")
		var all []string
		for i := range d.Set.Len() {
			sum := d.Set.Item(i).SHA256
			all = append(all, edge.Hex(sum[:]))
		}
		return strings.Join(all, ",")
	}
	inside, outside := holding(next.Salt()+"~5000"), holding("")
	if inside == outside {
		t.Fatal("both sides are the same")
	}
	w.put("app3", "prod", "3", "three of 3", "x")
	w.put("app4", "prod", "3", "three of 4", "x")
	w.build(builder.PlanOptions{})
	ix, _, err = builder.ReadIndex(t.Context(), w.base.Objects)
	must(t, err)
	for _, held := range []string{inside, outside} {
		d := edge.Decide(ix, "cpuArch=a&attrX=prod", held)
		_, key := d.Object()
		if _, err := w.base.Objects.Stat(t.Context(), key); err != nil || d.Mask.Empty() {
			t.Errorf("%v", err)
		}
	}
}

// An item of which one release cannot be built is left out whole, and stays as it was published.
func TestAReleaseThatCannotBeBuilt(t *testing.T) {
	sources := memorySources{"http://x/1": "one", "http://x/2": "two", "http://x/f": "other than it should be"}
	w := newWorld(t, t.TempDir(), builder.Options{}, withSources(sources))
	defer w.close()
	old := remote("app", "1", "http://x/1", "one")
	w.apply(catalog.Put(old))
	w.build(builder.PlanOptions{})
	next := remote("app", "2", "http://x/2", "two")
	bad := remote("", "f", "http://x/f", "a floor")
	bad.Track, bad.DeviceAttr = "", nil
	next.Floors = []catalog.Item{bad}
	previous := old
	previous.App, previous.Track = "", ""
	next.Rollout, next.Previous = &catalog.Rollout{Percent: 10}, &previous
	w.apply(catalog.Put(next))
	w.build(builder.PlanOptions{})
	if got := w.versions(); !slices.Equal(got, []string{"app/prod 1"}) {
		t.Fatalf("published %v", got)
	}
	if len(w.events.rejected) == 0 || w.events.rejected[0].Key != next.Key() || !strings.Contains(w.events.rejected[0].Reason, "the catalog says") {
		t.Fatalf("rejected %+v", w.events.rejected)
	}
	sources["http://x/f"] = "a floor"
	w.build(builder.PlanOptions{Retry: true})
	if got := w.versions(); !slices.Equal(got, []string{"app/prod 2", "app/prod f", "app/prod 1"}) {
		t.Fatalf("published %v", got)
	}
	w.checkComplete()
	w.checkEqualsFromScratch(newWorld(t, t.TempDir(), builder.Options{}, withSources(sources)))
}

// A rollout that the edge's table has no room for is told, and is one to nobody: at the edge and everywhere else.
func TestRolloutsWithoutRoom(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	const n = edge.MaxRollouts + 3
	for i := range n {
		app := fmt.Sprintf("app%02d", i)
		w.put(app, "prod", "1", "one of "+app, "x")
		next := itemOf(app, "prod", "2", "x")
		next.Rollout = &catalog.Rollout{Percent: 50, Salt: fmt.Sprintf("salt%02d", i)}
		w.release(next, "two of "+app)
	}
	w.build(builder.PlanOptions{})
	r := w.events.plans[len(w.events.plans)-1]
	left := 0
	for i, o := range r.Rollouts {
		if o.NoRoom != (i >= edge.MaxRollouts) || o.Percent != 50 {
			t.Errorf("%+v", o)
		}
		if o.NoRoom {
			left++
		}
	}
	if left != 3 {
		t.Errorf("%d rollouts have no room", left)
	}
	ix, _, err := builder.ReadIndex(t.Context(), w.base.Objects)
	must(t, err)
	if table := edge.TableOf(ix); len(table.LeftOut) > 0 || len(table.Lines) == 0 {
		t.Errorf("the published index leaves %d rollouts out", len(table.LeftOut))
	}
	for slot := range 1000 {
		d := edge.Decide(ix, fmt.Sprintf("cpuArch=a&app%02d=prod&slot=%d", n-1, slot), "")
		if d.Set.Item(0).Version != "1" {
			t.Fatalf("slot %d gets %s", slot, d.Set.Item(0).Version)
		}
	}
	w.checkComplete()
}

// However many rollouts and floors there are, a plan looks at no more than its limit, and says what it left out.
func TestPlansOfManyRolloutsAreBounded(t *testing.T) {
	params := builder.DefaultParams()
	params.MaxCombinations = 500
	ix := index.Index{Format: "test", Params: params}
	for i := range 20 {
		app := fmt.Sprintf("app%02d", i)
		next := index.Item{App: app, Track: "prod", Version: "2", Size: 1, Attrs: []string{"all", app}, Salt: fmt.Sprint("salt", i), Share: 5000}
		next.SHA256[0], next.SHA256[1] = byte(i), 2
		old := next
		old.Version, old.Role, old.Salt, old.Share, old.SHA256[1] = "1", index.Previous, "", 0, 1
		floor := old
		floor.Version, floor.Role, floor.Attrs, floor.SHA256[1] = "0", index.Floor, nil, 0
		ix.Items = append(ix.Items, next, floor, old)
	}
	c := builder.Cover(index.New(ix), nil)
	if c.Considered+c.Variants > 500 || c.Variants == 0 || c.LeftOut.Mixed == 0 {
		t.Errorf("%d combinations and %d variants looked at, %d not in every mixture", c.Considered, c.Variants, c.LeftOut.Mixed)
	}
}
