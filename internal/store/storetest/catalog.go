package storetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// CatalogStore is both sides of a catalog.
type CatalogStore interface {
	builder.Catalog
	builder.CatalogWriter
}

// Catalog checks a driver of builder.Catalog and builder.CatalogWriter. Each call of open returns an
// empty catalog.
func Catalog(t *testing.T, open func(t *testing.T) CatalogStore) {
	for _, test := range []struct {
		name string
		run  func(catalogs, *testing.T)
	}{
		{"Empty", catalogs.empty},
		{"RoundTrip", catalogs.roundTrip},
		{"Replace", catalogs.replace},
		{"Remove", catalogs.remove},
		{"KeysApart", catalogs.keysApart},
		{"InOrder", catalogs.inOrder},
		{"Many", catalogs.many},
		{"Cancelled", catalogs.cancelled},
		{"Concurrent", catalogs.concurrent},
		{"Log", catalogs.log},
		{"LogOfMany", catalogs.logOfMany},
		{"Act", catalogs.act},
		{"Refused", catalogs.refused},
		{"Conditional", catalogs.conditional},
		{"Was", catalogs.was},
		{"ConditionalTogether", catalogs.conditionalTogether},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(catalogs{open(t)}, t) })
	}
}

type catalogs struct{ CatalogStore }

func (c catalogs) apply(t *testing.T, changes ...catalog.Change) {
	t.Helper()
	if err := c.Apply(t.Context(), catalog.Edit{Changes: changes}); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func (c catalogs) want(t *testing.T, want ...catalog.Item) {
	t.Helper()
	got, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	got, want = normal(got), normal(want)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Snapshot = %.2000v, want %.2000v", got, want)
	}
}

// normal sorts a copy of items; no attributes and an empty map of them are the same.
func normal(items []catalog.Item) []catalog.Item {
	sorted := slices.SortedFunc(slices.Values(items), catalog.Compare)
	for i := range sorted {
		if len(sorted[i].DeviceAttr) == 0 {
			sorted[i].DeviceAttr = nil
		}
	}
	return sorted
}

func item(app, track, version string) catalog.Item {
	return catalog.Item{App: app, Track: track, Version: version}
}

func (c catalogs) empty(t *testing.T) {
	c.want(t)
	c.apply(t)
	c.want(t)
}

func (c catalogs) roundTrip(t *testing.T) {
	items := []catalog.Item{
		{
			App: "scoreboard", Track: "prod", Version: "1.0.0", Ident: "R-1 “quoted”\n日本語",
			URL: "s3://bucket/a key?x=1&y=2", MD5: strings.Repeat("a", 32), SHA256: sha1, Size: 1 << 40, Changed: time.UnixMilli(1_700_000_000_123).UTC(),
			CPUArch: "armv8", DeviceAttr: map[string]bool{"gamer": true, "camera": false, "mit Ümlaut": true},
		},
		item("os_armv8", "beta", "2"),
		{App: "empty", Track: "any string: / # %", DeviceAttr: map[string]bool{}},
	}
	for _, it := range items {
		c.apply(t, catalog.Put(it))
	}
	c.want(t, items...)
}

func (c catalogs) replace(t *testing.T) {
	first := catalog.Item{App: "a", Track: "prod", Version: "1", Ident: "x", DeviceAttr: map[string]bool{"gamer": true}}
	c.apply(t, catalog.Put(first))
	c.want(t, first)
	// Whole: nothing of the earlier item is left.
	for _, v := range []string{"2", "3", "1"} {
		c.apply(t, catalog.Put(item("a", "prod", v)))
		c.want(t, item("a", "prod", v))
	}
}

func (c catalogs) remove(t *testing.T) {
	a, b := item("a", "prod", "1"), item("b", "prod", "1")
	c.apply(t, catalog.Remove(a.Key()))
	c.want(t)
	c.apply(t, catalog.Put(a), catalog.Put(b))
	c.apply(t, catalog.Remove(a.Key()), catalog.Remove(item("c", "prod", "").Key()))
	c.want(t, b)
	c.apply(t, catalog.Put(a), catalog.Remove(b.Key()))
	c.want(t, a)
}

// Keys whose parts join to the same string are different keys.
func (c catalogs) keysApart(t *testing.T) {
	items := []catalog.Item{
		item("a", "b/c", "1"), item("a/b", "c", "2"), item("a#b", "c", "3"), item("a", "b#c", "4"),
		item("A", "b/c", "5"), item("ab", "c", "6"), item("a", "bc", "7"),
	}
	for _, it := range items {
		c.apply(t, catalog.Put(it))
	}
	c.want(t, items...)
	c.apply(t, catalog.Remove(items[0].Key()))
	c.want(t, items[1:]...)
}

// The changes of one Apply take effect in their order.
func (c catalogs) inOrder(t *testing.T) {
	a, b := item("a", "prod", "1"), item("b", "prod", "1")
	c.apply(t,
		catalog.Put(item("a", "prod", "0")), catalog.Put(a),
		catalog.Remove(b.Key()), catalog.Put(b),
		catalog.Put(item("c", "prod", "1")), catalog.Remove(catalog.Key{App: "c", Track: "prod"}))
	c.want(t, a, b)
}

// many changes more items than a DynamoDB transaction holds (100), and gives the catalog more than a
// page of a scan holds (1 MB).
func (c catalogs) many(t *testing.T) {
	var items []catalog.Item
	var changes []catalog.Change
	for i := range 80 {
		it := item(fmt.Sprintf("app%03d", i), "prod", "1")
		it.Ident = strings.Repeat("x", 15_000)
		items, changes = append(items, it), append(changes, catalog.Put(it))
	}
	c.apply(t, changes...)
	c.want(t, items...)
	for i := range items {
		items[i].Version = "2"
		changes[i] = catalog.Put(items[i])
	}
	c.apply(t, changes...)
	c.want(t, items...)
}

func (c catalogs) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Apply(ctx, catalog.Edit{Changes: []catalog.Change{catalog.Put(item("a", "prod", "1"))}}); err == nil {
		t.Error("Apply with an ended context succeeded")
	}
	c.want(t)
	if _, err := c.Snapshot(ctx); err == nil {
		t.Error("Snapshot with an ended context succeeded")
	}
}

// Every acknowledged change is in every later snapshot.
func (c catalogs) concurrent(t *testing.T) {
	const writers, each = 6, 5
	together(writers, func(w int) {
		for i := range each {
			mine := item(fmt.Sprintf("app%d", w), fmt.Sprintf("track%d", i), "1")
			if err := c.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(mine)}}); err != nil {
				t.Errorf("Apply: %v", err)
				return
			}
			items, err := c.Snapshot(t.Context())
			if err != nil {
				t.Errorf("Snapshot: %v", err)
				return
			}
			if !slices.ContainsFunc(items, func(it catalog.Item) bool { return reflect.DeepEqual(it, mine) }) {
				t.Errorf("Snapshot is without %s, which was acknowledged", mine.Key())
			}
		}
	})
	if items, err := c.Snapshot(t.Context()); err != nil || len(items) != writers*each {
		t.Errorf("Snapshot has %d items, %v, want %d", len(items), err, writers*each)
	}
}
