package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

func (c catalogs) head(t *testing.T) catalog.Head {
	t.Helper()
	head, err := c.Head(t.Context())
	if err != nil {
		t.Fatalf("Head: %v", err)
	}
	return head
}

// entries reads the log after a number, which has to be a chain that ends at its head.
func (c catalogs) entries(t *testing.T, after catalog.Head) []catalog.LogEntry {
	t.Helper()
	var all []catalog.LogEntry
	head := after
	err := c.CatalogStore.Log(t.Context(), after.Number, func(e catalog.LogEntry) error {
		if err := e.Follow(head); err != nil {
			t.Errorf("Log: %v", err)
		}
		if e.Time.IsZero() {
			t.Errorf("Log: entry %d has no time", e.Number)
		}
		all, head = append(all, e), e.Head()
		return nil
	})
	if err != nil {
		t.Fatalf("Log: %v", err)
	}
	if end := c.head(t); end != head {
		t.Errorf("Log ends at %v, and Head is %v", head, end)
	}
	return all
}

// Every edit is one entry, which tells who made it, why, what was and what is.
func (c catalogs) log(t *testing.T) {
	if head := c.head(t); head != catalog.NewHead() {
		t.Errorf("Head of an empty catalog = %v", head)
	}
	c.entries(t, catalog.NewHead())
	a1, a2, b := item("a", "prod", "1"), item("a", "prod", "2"), item("b", "prod", "1")
	a1.Floors = []catalog.Item{{Version: "0.5"}}
	a2.Rollout, a2.Previous = &catalog.Rollout{Percent: 12.5}, &catalog.Item{Version: "1"}
	a2.DeviceAttr = map[string]bool{"gamer": true, "camera": false}
	half := a2.Clone()
	half.Rollout.Percent = 50
	by := catalog.Author{Actor: "ci", Claim: "eve", Message: "“why” <&>\u2028"}
	for _, edit := range []catalog.Edit{
		{By: by, Changes: []catalog.Change{catalog.Put(b), catalog.Put(a1)}},
		{Changes: []catalog.Change{catalog.Put(a2), catalog.Put(b)}}, // b stays what it is
		{Changes: []catalog.Change{catalog.Put(half)}},
		{Changes: []catalog.Change{catalog.Put(a1), catalog.Remove(b.Key()), catalog.Remove(a1.Key()), catalog.Put(a1)}},
	} {
		if err := c.Apply(t.Context(), edit); err != nil {
			t.Fatalf("Apply: %v", err)
		}
	}
	got := c.entries(t, catalog.NewHead())
	want := [][]catalog.LogChange{
		{{Key: b.Key(), Now: catalog.Summarize(&b)}, {Key: a1.Key(), Now: catalog.Summarize(&a1)}},
		{{Key: a1.Key(), Was: catalog.Summarize(&a1), Now: catalog.Summarize(&a2)}},
		{{Key: a1.Key(), Was: catalog.Summarize(&a2), Now: catalog.Summarize(&half)}},
		{{Key: b.Key(), Was: catalog.Summarize(&b)}, {Key: a1.Key(), Was: catalog.Summarize(&half), Now: catalog.Summarize(&a1)}},
	}
	if len(got) != len(want) {
		t.Fatalf("the log has %d entries, want %d", len(got), len(want))
	}
	for i, e := range got {
		if byKey(e.Changes) != byKey(want[i]) {
			t.Errorf("entry %d: changes %+v, want %+v", e.Number, e.Changes, want[i])
		}
	}
	if got[0].By != by || got[1].By != (catalog.Author{}) {
		t.Errorf("the authors are %+v and %+v", got[0].By, got[1].By)
	}
	if rest := c.entries(t, got[1].Head()); !reflect.DeepEqual(rest, got[2:]) {
		t.Errorf("Log after 2 = %+v", rest)
	}
	stop, seen := errors.New("stop"), 0
	if err := c.CatalogStore.Log(t.Context(), 0, func(catalog.LogEntry) error { seen++; return stop }); err != stop || seen != 1 {
		t.Errorf("Log = %v after %d entries, want what yield returned after 1", err, seen)
	}
}

// byKey writes changes in the order of their keys: which of them was made first may be lost.
func byKey(changes []catalog.LogChange) string {
	all := make(map[string]string)
	for _, c := range changes {
		text, err := json.Marshal(c)
		all[c.Key.String()] = fmt.Sprint(string(text), err)
	}
	return fmt.Sprint(all)
}

// logOfMany: the log is longer than what a driver reads at a time, and an entry of many long items is not too long.
func (c catalogs) logOfMany(t *testing.T) {
	const edits = 70
	for i := range edits {
		c.apply(t, catalog.Put(item("a", "prod", fmt.Sprint(i))))
	}
	for i, e := range c.entries(t, catalog.NewHead()) {
		if e.Changes[0].Now.Version != fmt.Sprint(i) {
			t.Errorf("entry %d is of version %s", e.Number, e.Changes[0].Now.Version)
		}
	}
	head := c.head(t)
	var changes []catalog.Change
	for i := range 90 {
		it := item(fmt.Sprint("app", i), "prod", "1")
		it.DeviceAttr = make(map[string]bool)
		for j := range 100 {
			it.DeviceAttr[fmt.Sprint(strings.Repeat("x", 60), j)] = true
		}
		changes = append(changes, catalog.Put(it))
	}
	c.apply(t, changes...)
	if last := c.entries(t, head); len(last) != 1 || len(last[0].Changes) != 90 {
		t.Errorf("the log has %d entries for one edit", len(last))
	}
}

// What changes nothing in the catalog is in the log all the same, and moves its end.
func (c catalogs) act(t *testing.T) {
	before := c.head(t)
	edit := catalog.Edit{By: catalog.Author{Claim: "eve"}, Act: &catalog.Act{What: "rollback", Generation: 3, Of: 1}}
	if err := c.Apply(t.Context(), edit); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	c.want(t)
	if all := c.entries(t, before); len(all) != 1 || all[0].Act == nil || *all[0].Act != *edit.Act || all[0].By != edit.By {
		t.Errorf("the log is %+v", all)
	}
	late := catalog.Edit{Base: before.Digest, Changes: []catalog.Change{catalog.Put(item("a", "prod", "1"))}}
	if err := c.Apply(t.Context(), late); !errors.Is(err, builder.ErrPrecondition) {
		t.Errorf("Apply of an edit from before = %v", err)
	}
}

// What is refused, or does nothing, is not in the log.
func (c catalogs) refused(t *testing.T) {
	other := catalog.Put(item("a", "prod", "1"))
	other.Key.Track = "beta"
	for _, edit := range []catalog.Edit{
		{Changes: []catalog.Change{catalog.Put(item("", "prod", "1"))}},
		{Changes: []catalog.Change{catalog.Put(item("a", "", "1"))}},
		{Changes: []catalog.Change{other}},
		{By: catalog.Author{Message: "\x1b[2J"}, Changes: []catalog.Change{catalog.Put(item("a", "prod", "1"))}},
		{By: catalog.Author{Claim: strings.Repeat("x", 1000)}, Changes: []catalog.Change{catalog.Put(item("a", "prod", "1"))}},
	} {
		if err := c.Apply(t.Context(), edit); err == nil {
			t.Errorf("Apply(%+v) succeeded", edit)
		}
	}
	c.apply(t)
	c.want(t)
	if all := c.entries(t, catalog.NewHead()); len(all) > 0 {
		t.Errorf("the log is %+v", all)
	}
}

// An edit is made only on what it was worked out from.
func (c catalogs) conditional(t *testing.T) {
	empty := c.head(t)
	a1, a2, b := item("a", "prod", "1"), item("a", "prod", "2"), item("b", "prod", "1")
	put := func(it catalog.Item) catalog.Edit { return catalog.Edit{Changes: []catalog.Change{catalog.Put(it)}} }
	first := put(a1).On(empty, nil)
	if err := c.Apply(t.Context(), first); err != nil {
		t.Fatalf("Apply on the empty catalog: %v", err)
	}
	one := c.head(t)
	for _, late := range []catalog.Edit{first, put(b).On(empty, nil), put(a2).On(empty, []catalog.Item{a1})} {
		if err := c.Apply(t.Context(), late); !errors.Is(err, builder.ErrPrecondition) {
			t.Errorf("Apply on the empty catalog, which is not empty any more = %v", err)
		}
	}
	c.want(t, a1)
	if head := c.head(t); head != one {
		t.Errorf("the log ends at %v, after nothing was done at %v", head, one)
	}
	second := put(a2).On(one, []catalog.Item{a1})
	if err := c.Apply(t.Context(), second); err != nil {
		t.Errorf("Apply on what is there: %v", err)
	}
	// The same catalog again is not the same end of the log.
	c.apply(t, catalog.Put(a1))
	if err := c.Apply(t.Context(), second); !errors.Is(err, builder.ErrPrecondition) {
		t.Errorf("Apply on what was there before = %v", err)
	}
	c.want(t, a1)
	c.entries(t, catalog.NewHead())
}

// was: writers who do not write the log do not go unnoticed either.
func (c catalogs) was(t *testing.T) {
	a := catalog.Item{App: "a", Track: "prod", Version: "1", DeviceAttr: map[string]bool{}}
	c.apply(t, catalog.Put(a))
	head := c.head(t)
	other := a.Clone()
	other.Ident = "by hand"
	b := item("b", "prod", "1")
	for _, before := range [][]catalog.Item{nil, {other}, {a, b}} {
		edit := catalog.Edit{Changes: []catalog.Change{catalog.Put(b), catalog.Put(item("a", "prod", "2"))}}.On(head, before)
		if err := c.Apply(t.Context(), edit); !errors.Is(err, builder.ErrPrecondition) {
			t.Errorf("Apply of an edit that was worked out from %+v = %v", before, err)
		}
		removal := catalog.Edit{Changes: []catalog.Change{catalog.Remove(b.Key()), catalog.Remove(a.Key())}}.On(head, before)
		if err := c.Apply(t.Context(), removal); !errors.Is(err, builder.ErrPrecondition) {
			t.Errorf("Apply of a removal that was worked out from %+v = %v", before, err)
		}
	}
	c.want(t, item("a", "prod", "1"))
	// No attributes and an empty map of them are the same, as in Snapshot.
	edit := catalog.Edit{Changes: []catalog.Change{catalog.Put(item("a", "prod", "2"))}}.On(head, []catalog.Item{item("a", "prod", "1")})
	if err := c.Apply(t.Context(), edit); err != nil {
		t.Errorf("Apply: %v", err)
	}
}

// Writers who work out what they write from what they read lose nothing.
func (c catalogs) conditionalTogether(t *testing.T) {
	const writers, each = 4, 4
	var refused atomic.Int64
	together(writers, func(int) {
		for range each {
			for {
				err := c.countUp(t)
				if err == nil {
					break
				}
				if !errors.Is(err, builder.ErrPrecondition) {
					t.Errorf("Apply: %v", err)
					return
				}
				refused.Add(1)
			}
		}
	})
	c.want(t, item("a", "prod", fmt.Sprint(writers*each)))
	if n := len(c.entries(t, catalog.NewHead())); n != writers*each {
		t.Errorf("the log has %d entries, want %d", n, writers*each)
	}
	t.Logf("%d edits, and %d that were refused", writers*each, refused.Load())
}

// countUp makes an item's version greater by 1.
func (c catalogs) countUp(t *testing.T) error {
	head, err := c.Head(t.Context())
	if err != nil {
		return err
	}
	items, err := c.Snapshot(t.Context())
	if err != nil {
		return err
	}
	n := 0
	for _, it := range items {
		if n, err = strconv.Atoi(it.Version); err != nil {
			return err
		}
	}
	edit := catalog.Edit{Changes: []catalog.Change{catalog.Put(item("a", "prod", fmt.Sprint(n+1)))}}
	return c.Apply(t.Context(), edit.On(head, items))
}
