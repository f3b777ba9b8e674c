package history_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
)

func TestList(t *testing.T) {
	w := newWorld(t)
	if all, err := history.List(t.Context(), w.memory.Objects, 5); err != nil || len(all) != 0 {
		t.Fatalf("of nothing %+v, %v", all, err)
	}
	start := time.Now()
	w.publish("1", "2")
	w.put("other", "beta", "1", "another app", "y")
	must(t, w.build())
	must(t, w.memory.Catalog.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Remove(catalog.Key{App: "app", Track: "prod"})}}))
	must(t, w.build())
	_, err := w.pipeline().Pin(t.Context(), catalog.Author{Message: "fair"})
	must(t, err)
	must(t, w.memory.Objects.Delete(t.Context(), layout.HistoryKey(4))) // it is not copied yet
	describe := func(n int) (lines []string) {
		t.Helper()
		all, err := history.List(t.Context(), w.memory.Objects, n)
		must(t, err)
		for _, g := range all {
			if g.When.Before(start.Add(-time.Second)) || g.When.After(time.Now()) {
				t.Errorf("generation %d of %s", g.Number, g.When)
			}
			var changes []string
			for _, c := range g.Changes {
				changes = append(changes, fmt.Sprintf("%s %s %s>%s", c.What, c.Key, c.From, c.To))
			}
			lines = append(lines, fmt.Sprintf("%d %d items, against %d: %s; current %v %s", g.Number, g.Items, g.Before, strings.Join(changes, ", "), g.Current, g.Pin))
		}
		return lines
	}
	want := []string{
		"4 2 items, against 3: removed app/prod 2>; current true fair",
		"3 3 items, against 2: added other/beta >1; current false ",
		"2 2 items, against 1: version app/prod 1>2; current false ",
		"1 2 items, against 0: ; current false ",
	}
	for n := 1; n <= 4; n++ {
		if got := describe(n); !slices.Equal(got, want[:n]) {
			t.Errorf("the last %d:\n%s", n, strings.Join(got, "\n"))
		}
	}
	// One that cannot be read is passed over, and said.
	_, err = w.memory.Objects.Put(t.Context(), layout.HistoryKey(3), builder.Body{Reader: strings.NewReader("PCX?"), Size: 4}, builder.PutOptions{})
	must(t, err)
	all, err := history.List(t.Context(), w.memory.Objects, 5)
	must(t, err)
	if len(all) != 4 || all[1].Problem == "" || all[0].Before != 2 || len(all[0].Changes) != 2 {
		t.Fatalf("%+v", all)
	}
}

func item(app, track, version string, size int64, attrs ...string) index.Item {
	it := index.Item{App: app, Track: track, Version: version, Size: size, Attrs: attrs}
	copy(it.SHA256[:], app+version)
	copy(it.MD5[:], app+version)
	return it
}

func TestBetween(t *testing.T) {
	from := index.New(index.Index{Items: []index.Item{
		item("os_a", "prod", "1", 1000), item("game", "prod", "1", 100, "gamer"), item("cam", "prod", "1", 10, "camera"),
	}})
	to := index.New(index.Index{Items: []index.Item{
		item("os_a", "prod", "2", 2000), item("game", "prod", "1", 100, "gamer"), item("score", "prod", "1", 5, "gamer"),
	}})
	composer := builder.NewComposer(newWorld(t).memory.Objects)
	d, err := history.Between(t.Context(), from, to, composer, history.DiffOptions{MaxCombinations: 100, Examples: 2})
	must(t, err)
	// Two architectures, and each attribute at prod or not at all.
	if d.Combinations != 8 || d.Considered != 8 || d.Affected != 7 || d.Unchanged != 1 || d.Rest != 0 || len(d.Items) != 3 {
		t.Fatalf("%+v", d)
	}
	var got []string
	for _, g := range d.Groups {
		got = append(got, fmt.Sprintf("%v +%v -%v nothing=%v for %d %v: %d bytes", g.Changed, g.Added, g.Removed, g.Nothing, g.Selections, g.Examples, g.Fetch.Bytes))
	}
	want := []string{
		"[] +[] -[cam 1] nothing=true for 1 [attrcamera=prod&cpuarch=other]: 0 bytes",
		"[] +[score 1] -[] nothing=false for 1 [attrgamer=prod&cpuarch=other]: 5 bytes",
		"[] +[score 1] -[cam 1] nothing=false for 1 [attrcamera=prod&attrgamer=prod&cpuarch=other]: 5 bytes",
		"[os_a 1 -> 2] +[] -[] nothing=false for 1 [cpuarch=a]: 2000 bytes",
		"[os_a 1 -> 2] +[] -[cam 1] nothing=false for 1 [attrcamera=prod&cpuarch=a]: 2000 bytes",
		"[os_a 1 -> 2] +[score 1] -[] nothing=false for 1 [attrgamer=prod&cpuarch=a]: 2005 bytes",
		"[os_a 1 -> 2] +[score 1] -[cam 1] nothing=false for 1 [attrcamera=prod&attrgamer=prod&cpuarch=a]: 2005 bytes",
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("groups\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if d, err := history.Between(t.Context(), from, to, composer, history.DiffOptions{MaxCombinations: 3}); err != nil || d.Considered != 3 || d.Rest != 5 {
		t.Errorf("bounded: %+v, %v", d, err)
	}
	if d, err := history.Between(t.Context(), from, from, composer, history.DiffOptions{MaxCombinations: 100}); err != nil || d.Affected != 0 || len(d.Groups) != 0 {
		t.Errorf("of an index with itself: %+v, %v", d, err)
	}
}

// The length of an upgrade bundle is that of the bundle.
func TestBetweenKnowsBundles(t *testing.T) {
	w := newWorld(t)
	w.publish("1", "2")
	old, err := builder.ReadGeneration(t.Context(), w.memory.Objects, 1)
	must(t, err)
	d, err := history.Between(t.Context(), old, w.index(), builder.NewComposer(w.memory.Objects), history.DiffOptions{MaxCombinations: 100, Examples: 9})
	must(t, err)
	if len(d.Groups) != 1 || d.Groups[0].Selections != 2 {
		t.Fatalf("%+v", d)
	}
	decision := edge.Decide(w.index(), d.Groups[0].Examples[0], "")
	sets := w.index()
	s, err := edge.Resolve(old, decision.Device)
	must(t, err)
	held := builder.Unchanged(decision.Set, s)
	info, err := w.memory.Objects.Stat(t.Context(), layout.BundleKey(decision.Set.ID(), held.String()))
	must(t, err)
	if d.Groups[0].Fetch.Bundle != info.Size || info.Size == 0 {
		t.Fatalf("%+v of %d items; the bundle has %d bytes", d.Groups[0], len(sets.Items), info.Size)
	}
}

// Two releases of one app change places: those that get both find another one at the top of the manifest.
func TestBetweenSeesSwappedTracks(t *testing.T) {
	from := index.New(index.Index{Items: []index.Item{item("os_a", "prod", "2", 1), item("os_a", "beta", "1", 1, "Y")}})
	to := index.New(index.Index{Items: []index.Item{item("os_a", "prod", "1", 1, "x"), item("os_a", "beta", "2", 1, "Y")}})
	const query = "attrx=prod&attry=beta&cpuarch=a"
	d, err := history.Between(t.Context(), from, to, builder.NewComposer(newWorld(t).memory.Objects), history.DiffOptions{MaxCombinations: 1000, Examples: 1000})
	must(t, err)
	for _, g := range d.Groups {
		if slices.Contains(g.Examples, query) {
			if len(g.Added)+len(g.Removed) > 0 || !slices.Equal(g.Changed, []string{"os_a 1, 2 -> 2, 1"}) {
				t.Errorf("%+v", g)
			}
			return
		}
	}
	t.Errorf("%s is called unchanged", query)
}

// What a diff says of a selection is what resolving gives it, whatever the indexes.
func TestBetweenAgreesWithResolving(t *testing.T) {
	composer := builder.NewComposer(newWorld(t).memory.Objects)
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) *index.Index {
			var items []index.Item
			for _, app := range []string{"os_a", "b", "c"} {
				for _, track := range []string{"prod", "beta"} {
					if !rapid.Bool().Draw(t, name+app+track) {
						continue
					}
					attrs := rapid.SampledFrom([][]string{nil, {"x"}, {"Y"}, {"Y", "x"}}).Draw(t, "attrs")
					items = append(items, item(app, track, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version"), 1, attrs...))
				}
			}
			return index.New(index.Index{Items: items})
		}
		from, to := draw("from"), draw("to")
		d, err := history.Between(t.Context(), from, to, composer, history.DiffOptions{MaxCombinations: 10_000, Examples: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		said := make(map[string]history.Group)
		for _, g := range d.Groups {
			for _, s := range g.Examples {
				if _, twice := said[s]; twice {
					t.Fatalf("%s is in two groups", s)
				}
				said[s] = g
			}
			if len(g.Examples) != g.Selections {
				t.Fatalf("%d examples of %d", len(g.Examples), g.Selections)
			}
		}
		if len(said) != d.Affected || d.Affected+d.Unchanged != d.Considered {
			t.Fatalf("%+v", d)
		}
		files := func(ix *index.Index, query string) (all []string) {
			set := edge.Decide(ix, query, "").Set
			for i := range set.Len() {
				all = append(all, set.Item(i).App+" "+set.Item(i).Version)
			}
			return all
		}
		for _, query := range []string{"cpuarch=a", "cpuarch=a&os=beta", "attrx=prod&cpuarch=a", "attrx=beta&cpuarch=other", "attrx=prod&attry=beta&cpuarch=a"} {
			before, after := files(from, query), files(to, query)
			g, changed := said[query]
			sameSets := slices.Equal(before, after)
			if sameSets && changed {
				t.Fatalf("%s: %v is called changed: %+v", query, before, g)
			}
			if !sameSets && !changed && d.Rest == 0 && knows(from, to, query) {
				t.Fatalf("%s: %v and then %v is called unchanged", query, before, after)
			}
			for _, f := range g.Added {
				if slices.Contains(before, f) || !slices.Contains(after, f) {
					t.Fatalf("%s: %s is called added", query, f)
				}
			}
			for _, f := range g.Removed {
				if !slices.Contains(before, f) || slices.Contains(after, f) {
					t.Fatalf("%s: %s is called removed", query, f)
				}
			}
		}
	})
}

// knows tells whether a query is one of the combinations that two indexes have together.
func knows(from, to *index.Index, query string) bool {
	found := false
	edge.DimensionsOf(index.New(index.Index{Items: slices.Concat(from.Items, to.Items)})).Each(func(_ int, s edge.Selection) bool {
		found = s.String() == query
		return !found
	})
	return found
}

// Every edit is said of the generation that it came with, and a rollback of its own.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	put := func(percent float64, why string) {
		t.Helper()
		it := catalog.Item{App: "app", Track: "prod", Version: "2", Rollout: &catalog.Rollout{Percent: percent}}
		im := &release.Importer{Objects: w.memory.Objects, Catalog: w.memory.Catalog, By: catalog.Author{Claim: "eve", Message: why}}
		_, err := im.Import(t.Context(), []release.Release{{Item: it, Open: func() (io.ReadSeekCloser, error) {
			return builder.NopCloser{ReadSeeker: strings.NewReader("release 2")}, nil
		}}}, false)
		must(t, err)
	}
	w.publish("1") // 2 edits
	put(10, "try it")
	must(t, w.build())
	put(50, "no complaints")
	put(20, "too fast")
	must(t, w.build())
	_, err := w.pipeline().Rollback(t.Context(), history.Request{By: catalog.Author{Claim: "bob", Message: "bad"}})
	must(t, err)
	_, err = w.pipeline().Unpin(t.Context(), catalog.Author{Claim: "bob"})
	must(t, err)
	put(30, "better")
	must(t, w.build())
	said := func(n int) string {
		t.Helper()
		all, err := history.List(t.Context(), w.memory.Objects, n)
		must(t, err)
		must(t, history.Explain(t.Context(), w.memory.Objects, w.memory.Catalog, all))
		var b strings.Builder
		for _, g := range all {
			fmt.Fprintf(&b, "%d:", g.Number)
			for _, e := range g.Edits {
				fmt.Fprintf(&b, " %d", e.Number)
			}
			b.WriteString("\n")
		}
		return b.String()
	}
	// 6 is the rollback, 7 the unpin, 8 what came after.
	const all = "5: 7 8\n4: 6\n3: 4 5\n2: 3\n1: 1 2\n"
	lines := strings.SplitAfter(all, "\n")
	for n := 1; n <= 5; n++ {
		if got, want := said(n), strings.Join(lines[:n], ""); got != want {
			t.Errorf("the last %d generations: %q, want %q", n, got, want)
		}
	}
	edits, err := history.Edits(t.Context(), w.memory.Catalog, 5, 3)
	if err != nil || len(edits) != 2 || edits[0].Number != 4 {
		t.Errorf("between: %+v, %v", edits, err)
	}
}
