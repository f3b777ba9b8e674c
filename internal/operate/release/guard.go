package release

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-version"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/history"
)

// What an edit is refused for unless its Allow names it. They are the flags of the commands, without the dashes.
const (
	AllowWithdraw = "allow-withdraw" // devices would be left without a package that they have
	AllowShrink   = "allow-shrink"   // a rollout would reach fewer devices: some go back
	AllowOlder    = "allow-older"    // devices would go to a release that was replaced before
	AllowContent  = "allow-content"  // a version that was published would have other content
	AllowRemoval  = "allow-removal"  // more than three items, and more than a tenth, would be removed
	AllowEmpty    = "allow-empty"    // a file has no bytes
)

// allowAll is what a command allows whose name says what it does.
func allowAll() []string {
	return []string{AllowWithdraw, AllowShrink, AllowOlder, AllowContent, AllowRemoval, AllowEmpty}
}

// Refused is one reason not to make an edit.
type Refused struct {
	Allow  string `json:"allow"` // what the edit has to allow: a flag without its dashes
	Reason string `json:"reason"`
}

func (r Refused) String() string { return r.Reason + "; --" + r.Allow + " does it all the same" }

// Difference is what an edit changes for devices, against what is published.
type Difference struct {
	Items    []ItemDifference `json:"items"` // by app and track
	Warnings []string         `json:"warnings"`
	Refused  []Refused        `json:"refused"` // what the edit does not allow
}

// mostReasons is how many reasons a refusal names.
const mostReasons = 20

// Refusal is nil if nothing is refused.
func (d Difference) Refusal() error {
	if len(d.Refused) == 0 {
		return nil
	}
	var reasons []string
	for i, r := range d.Refused {
		if i == mostReasons {
			reasons = append(reasons, fmt.Sprintf("and %d more reasons; --dry-run names all", len(d.Refused)-i))
			break
		}
		reasons = append(reasons, r.String())
	}
	return Refusal(strings.Join(reasons, "\n"))
}

// What a removal has to exceed, both of them, to need AllowRemoval.
const (
	fewItems   = 3
	fewOfItems = 10 // one of so many
)

// Guard works out what an edit changes for the devices that have what is published, and what it is refused for. It
// looks only at the items that the edit touches. What the catalog holds before the edit is on its way to devices, so that
// it must not hurt those that get that first, either; unless what is published is pinned. As long as nothing is
// published, only the catalog is looked at. An edit that was worked out from another catalog than this one is not looked
// at: builder.ErrPrecondition.
func Guard(ctx context.Context, objects builder.Objects, cat Snapshotter, edit catalog.Edit) (Difference, error) {
	g := guard{edit: edit}
	items, err := cat.Snapshot(ctx)
	var head catalog.Head
	if err == nil {
		head, err = cat.Head(ctx)
	}
	if err == nil && edit.Base != "" && edit.Base != head.Digest {
		err = builder.ErrPrecondition
	}
	if err != nil {
		return Difference{}, fmt.Errorf("work out what the change does: %w", err)
	}
	g.checkCatalog(items)
	if err := g.readPublished(ctx, objects, items); err != nil {
		return Difference{}, fmt.Errorf("work out what the change does: %w", err)
	}
	g.checkTable(items)
	g.warnHeldBack(items)
	for _, c := range g.items {
		g.checkItem(c)
		if c.waits != nil {
			g.checkItem(c.waits)
		}
	}
	d := Difference{Items: []ItemDifference{}, Warnings: append([]string{}, g.warnings...), Refused: []Refused{}}
	for _, c := range g.items {
		if len(c.difference.Gets)+len(c.difference.Lost)+len(c.difference.Gained) > 0 {
			d.Items = append(d.Items, c.difference)
		}
	}
	for _, r := range g.refused {
		if !slices.Contains(edit.Allow, r.Allow) {
			d.Refused = append(d.Refused, r)
		}
	}
	return d, nil
}

// Snapshotter reads a catalog; see builder.Catalog.
type Snapshotter interface {
	Snapshot(ctx context.Context) ([]catalog.Item, error)
	Head(ctx context.Context) (catalog.Head, error)
}

// guard is an edit that is being looked at.
type guard struct {
	edit      catalog.Edit
	published *index.Index // nil: nothing is
	items     []*comparison
	warnings  []string
	refused   []Refused
}

func (g *guard) refuse(allow, format string, args ...any) {
	if r := (Refused{allow, fmt.Sprintf(format, args...)}); !slices.Contains(g.refused, r) {
		g.refused = append(g.refused, r)
	}
}

// checkCatalog looks at what follows from the catalog alone.
func (g *guard) checkCatalog(items []catalog.Item) {
	empty := func(it catalog.Item) bool { return it.Size == 0 }
	was := make(map[catalog.Key]catalog.Item, len(items))
	for _, it := range items {
		was[it.Key()] = it
	}
	removed := 0
	for _, c := range g.edit.Changes {
		old, ok := was[c.Key]
		if c.Item == nil {
			if ok {
				removed++
			}
			continue
		}
		for _, s := range c.Item.Steps() {
			known := slices.ContainsFunc(old.Steps(), func(o catalog.Step) bool { return empty(o.Item) && o.Version == s.Version })
			if empty(s.Item) && !known {
				g.refuse(AllowEmpty, "%s %s: its file is empty", c.Key, s.Version)
			}
		}
	}
	if removed > fewItems && removed*fewOfItems > len(items) {
		g.refuse(AllowRemoval, "%d of the %d items of the catalog would be removed", removed, len(items))
	}
}

// warnHeldBack says what the builder is going to do with a plan that drops most of what is published.
func (g *guard) warnHeldBack(items []catalog.Item) {
	if g.published == nil {
		return
	}
	has := make(map[catalog.Key]bool, len(items))
	for _, it := range items {
		has[it.Key()] = true
	}
	for _, c := range g.edit.Changes {
		has[c.Key] = c.Item != nil
	}
	if dropped, most := builder.DropsMost(g.published, has); most {
		g.warnings = append(g.warnings, fmt.Sprintf("%d of the %d published items would be gone: the build holds that back until you run precast unpin --accept-removals", dropped, g.published.Len()))
	}
}

// readPublished brings together what is published of the items that the edit touches, what waits to be, and what the
// edit makes of them.
func (g *guard) readPublished(ctx context.Context, objects builder.Objects, items []catalog.Item) error {
	var err error
	if g.published, _, err = builder.ReadIndex(ctx, objects); err != nil {
		return err
	}
	before := make(map[catalog.Key][]index.Item)
	if g.published != nil {
		for key, releases := range history.ByKey(g.published) {
			before[folded(key)] = releases
		}
	}
	// To devices, upper and lower case are the same.
	touched := make(map[catalog.Key]*comparison)
	for _, c := range g.edit.Changes {
		key := folded(c.Key)
		if touched[key] == nil {
			touched[key] = &comparison{difference: ItemDifference{Key: c.Key}, from: before[key], pinned: g.published != nil && g.published.Pin != ""}
		}
		if c.Item == nil {
			continue
		}
		to, err := builder.IndexItems(*c.Item)
		if err != nil {
			return err
		}
		touched[key].difference.Key, touched[key].to = c.Key, to
	}
	g.items = slices.SortedFunc(maps.Values(touched), func(a, b *comparison) int {
		return cmp.Or(cmp.Compare(a.difference.Key.App, b.difference.Key.App), cmp.Compare(a.difference.Key.Track, b.difference.Key.Track))
	})
	g.readWaiting(items)
	g.items = slices.DeleteFunc(g.items, func(c *comparison) bool { return c.same() && c.waits == nil })
	if g.published == nil {
		return nil
	}
	return readPast(ctx, objects, g.published, g.items)
}

// readWaiting adds what waits to be published of the items that the edit touches.
func (g *guard) readWaiting(items []catalog.Item) {
	if g.published == nil || g.published.Pin != "" {
		return
	}
	touched := make(map[catalog.Key]*comparison, len(g.items))
	for _, c := range g.items {
		touched[folded(c.difference.Key)] = c
	}
	for _, it := range items {
		c := touched[folded(it.Key())]
		if c == nil {
			continue
		}
		releases, err := builder.IndexItems(it)
		if err != nil { // then no plan takes it up, either
			continue
		}
		waits := &comparison{difference: ItemDifference{Key: c.difference.Key}, from: releases, to: c.to, waiting: true}
		if published := (&comparison{from: c.from, to: releases}); !published.same() && !waits.same() {
			c.waits = waits
		}
	}
}

func folded(k catalog.Key) catalog.Key {
	return catalog.Key{App: index.Fold(k.App), Track: index.Fold(k.Track)}
}

// checkTable looks at what items have in common: the edge's table of rollouts may have no room for one more, and then
// nobody is in one of those that it has; and a device that matches too many packages gets none. What waits to be
// published counts.
func (g *guard) checkTable(items []catalog.Item) {
	touched := make(map[catalog.Key]bool, len(g.items))
	var all, next index.Index
	for _, c := range g.items {
		touched[folded(c.difference.Key)] = true
		next.Items = append(next.Items, c.to...)
	}
	for _, it := range items {
		releases, err := builder.IndexItems(it)
		if err != nil { // then no plan takes it up, either
			continue
		}
		all.Items = append(all.Items, releases...)
		if !touched[folded(it.Key())] {
			next.Items = append(next.Items, releases...)
		}
	}
	ix := index.New(next)
	out := leftOut(ix)
	before := make(map[rollout]bool)
	if len(out) > 0 {
		for _, it := range leftOut(index.New(all)) {
			before[rolloutOf(it)] = true
		}
	}
	for _, it := range out {
		if r := rolloutOf(it); !touched[r.key] {
			if g.published != nil && !before[r] {
				g.refuse(AllowShrink, "%s/%s: nobody would be in the rollout of %s any more: the table of rollouts has no room for it beside this change; end another rollout first", it.App, it.Track, it.Version)
			}
			continue
		}
		for _, c := range g.items {
			for i := range c.to {
				if own := &c.to[i]; own.App == it.App && own.Track == it.Track && own.Salt == it.Salt {
					own.Share = 0
				}
			}
		}
	}
	if g.published != nil {
		g.checkMatches(ix)
	}
}

// rollout is one that an index has.
type rollout struct {
	key  catalog.Key // folded
	salt string
}

func rolloutOf(it *index.Item) rollout {
	return rollout{folded(catalog.Key{App: it.App, Track: it.Track}), it.Salt}
}

// leftOut are the releases of an index that the edge's table has no room for, in its order.
func leftOut(ix *index.Index) []*index.Item {
	var out []*index.Item
	for _, p := range edge.TableOf(ix).LeftOut {
		out = append(out, &ix.Items[p])
	}
	return out
}

// checkMatches refuses what gives devices with one attribute more packages than a device may get.
func (g *guard) checkMatches(next *index.Index) {
	matches := func(ix *index.Index, attr edge.Param) int {
		heads := make(map[int32]bool)
		for _, p := range ix.WithAttr(attr.Name) {
			if index.Fold(ix.Items[p].Track) == attr.Track {
				heads[ix.Head(p)] = true
			}
		}
		return len(heads)
	}
	looked := make(map[edge.Param]bool)
	for _, c := range g.items {
		for _, attr := range attributes(c.to) {
			p := edge.Param{Name: attr, Track: index.Fold(c.difference.Key.Track)}
			if looked[p] {
				continue
			}
			looked[p] = true
			if n, was := matches(next, p), matches(g.published, p); n >= edge.MaxSet && was < edge.MaxSet && was > 0 {
				g.refuse(AllowWithdraw, "devices with %s at %s would get nothing: they would match %d packages, and a device gets less than %d beside its operating system", attr, p.Track, n, edge.MaxSet)
			}
		}
	}
}

// checkItem looks at one item.
func (g *guard) checkItem(c *comparison) {
	key := c.difference.Key
	c.compare()
	if g.published == nil {
		return
	}
	have, was := "have", "was published"
	if c.waiting {
		have, was = "are about to get", "waits to be published"
	}
	for _, l := range c.losses {
		hint := ""
		if len(c.to) > 0 && c.to[0].Salt != "" {
			hint = ": a rollout needs a release that comes before it, and this one replaces none"
		}
		g.refuse(AllowWithdraw, "%s: %s %s %s and would get nothing instead%s", key, l.devices, have, l.from, hint)
	}
	if len(c.difference.Lost) > 0 {
		g.refuse(AllowWithdraw, "%s: devices with %s %s %s and would get nothing instead", key, strings.Join(c.difference.Lost, ", "), have, c.from[0].Version)
	}
	for _, b := range c.backs {
		what := "which was replaced before"
		if b.allow == AllowShrink {
			what = "as the rollout would reach fewer devices; precast catalog rollout --cancel takes a release back from all of them"
		}
		g.refuse(b.allow, "%s: %s %s %s and would go back to %s, %s", key, b.devices, have, b.from, b.to, what)
	}
	for _, version := range c.otherContent() {
		g.refuse(AllowContent, "%s: version %s %s with other content; give the new content a new version", key, version, was)
	}
	if !c.waiting && lower(c) {
		g.warnings = append(g.warnings, fmt.Sprintf("%s: version %s is lower than %s, which is published", key, c.to[0].Version, c.from[0].Version))
	}
}

// lower tells whether the new version is lower than the one that is published, where both are numbers with dots.
func lower(c *comparison) bool {
	if len(c.from) == 0 || len(c.to) == 0 {
		return false
	}
	old, err := version.NewVersion(c.from[0].Version)
	if err != nil {
		return false
	}
	next, err := version.NewVersion(c.to[0].Version)
	return err == nil && next.LessThan(old)
}
