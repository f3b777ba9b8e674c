package history

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
)

// Diff is who would get what, before and after.
type Diff struct {
	Items        []Change `json:"items"`        // by app and track
	Combinations float64  `json:"combinations"` // of attributes, in either index
	Considered   int      `json:"considered"`   // of them, looked at: those that name the fewest attributes
	Variants     int      `json:"variants"`     // looked at beside those: in other rollouts, or before other floors
	Unchanged    int      `json:"unchanged"`    // of all these, get the same as before
	Affected     int      `json:"affected"`     // get something else
	Rest         float64  `json:"rest"`         // not looked at
	Groups       []Group  `json:"groups"`       // what changes for whom, most selections first
	// Edits of the catalog that came between the two, where that is known.
	Edits []catalog.LogEntry `json:"edits,omitempty"`
}

// Group is one change that some selections get.
type Group struct {
	Added   []string `json:"added"`   // "app version"
	Removed []string `json:"removed"` // no longer offered: devices keep what they hold
	Changed []string `json:"changed"` // "app old -> new", each of them several if they are on several tracks
	// Nothing: the selections got something before, and now there is nothing for them.
	Nothing bool `json:"nothing"`
	// Selections counts those that get the change, in each mixture of rollouts and floors, and Examples are the
	// first few of them.
	Selections int      `json:"selections"`
	Examples   []string `json:"examples"`
	// Fetch is what devices download that have everything of before.
	Fetch Fetch `json:"fetch"`
}

// Fetch is an upgrade bundle.
type Fetch struct {
	Bytes int64 `json:"bytes"` // of the binaries in it, before compression
	// Bundle is the length of the bundle for the first of the examples; 0 if there is none, or it cannot be
	// known before it is built.
	Bundle int64 `json:"bundle"`
}

// DiffOptions bound a Diff.
type DiffOptions struct {
	MaxCombinations int // looked at
	Examples        int // of each group
}

// Between compares what devices get from two indexes. The composer tells lengths of bundles.
func Between(ctx context.Context, from, to *index.Index, composer *builder.Composer, opt DiffOptions) (*Diff, error) {
	// The devices that either index can tell apart. Nothing is resolved in this one.
	both := index.New(index.Index{Items: slices.Concat(from.Items, to.Items)})
	walk := edge.NewWalk(both, uint64(opt.MaxCombinations))
	d := &Diff{Items: Compare(from, to), Groups: []Group{}}
	groups := make(map[string]*Group)
	firsts := make(map[string]edge.Device)
	look := func(device edge.Device) {
		g := change(resolve(from, device), resolve(to, device))
		if g == nil {
			d.Unchanged++
			return
		}
		d.Affected++
		key := g.key()
		if groups[key] == nil {
			groups[key] = g
			device.Attrs = slices.Clone(device.Attrs)
			firsts[key] = device
		}
		g = groups[key]
		g.Selections++
		if len(g.Examples) < opt.Examples {
			g.Examples = append(g.Examples, example(walk.Dimensions, device))
		}
	}
	for v := range walk.Visits {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		look(v.Device)
	}
	d.Combinations, d.Considered, d.Variants, d.Rest = walk.Count(), walk.Considered, walk.Variants, walk.Rest()
	for key, g := range groups {
		var err error
		if g.Fetch.Bundle, err = upgrade(ctx, composer, resolve(from, firsts[key]), resolve(to, firsts[key])); err != nil {
			return nil, err
		}
		d.Groups = append(d.Groups, *g)
	}
	slices.SortFunc(d.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Selections, a.Selections), cmp.Compare(a.key(), b.key()))
	})
	return d, nil
}

// example is a device's query, and what it holds if that matters.
func example(dims edge.Dimensions, device edge.Device) string {
	query := dims.Query(device)
	if len(device.Held) > 0 {
		query += " holding " + device.Held.String()
	}
	return query
}

// resolve returns the empty set for what is refused, as such devices get nothing.
func resolve(ix *index.Index, device edge.Device) edge.Set {
	set, err := edge.Resolve(ix, device)
	if err != nil {
		return edge.Set{Index: ix}
	}
	return set
}

// change returns what differs between two sets, nil if nothing does.
func change(before, after edge.Set) *Group {
	g := &Group{Added: []string{}, Removed: []string{}, Changed: []string{}, Examples: []string{}}
	old, now := releases(before), releases(after)
	for app, files := range now {
		// The same releases of an app on both sides are no change, whatever else there is of it.
		added, removed := others(files, old[app]), others(old[app], files)
		if len(added)+len(removed) == 0 {
			// On other tracks they are in another order, and the last one is the app's release in the manifest.
			if was, is := versions(old[app]), versions(files); was != is {
				g.Changed = append(g.Changed, app+" "+was+" -> "+is)
			}
		} else if len(added) == 1 && len(removed) == 1 {
			arrow := removed[0].Version + " -> " + added[0].Version
			if removed[0].Version == added[0].Version {
				arrow = added[0].Version + ", other content"
			}
			g.Changed = append(g.Changed, app+" "+arrow)
		} else {
			g.Added = append(g.Added, names(added)...)
			g.Removed = append(g.Removed, names(removed)...)
		}
		for _, it := range added {
			g.Fetch.Bytes += it.Size
		}
	}
	for app, files := range old {
		if now[app] == nil {
			g.Removed = append(g.Removed, names(files)...)
		}
	}
	if len(g.Added)+len(g.Removed)+len(g.Changed) == 0 {
		return nil
	}
	g.Nothing = after.Len() == 0
	slices.Sort(g.Added)
	slices.Sort(g.Removed)
	slices.Sort(g.Changed)
	return g
}

func releases(set edge.Set) map[string][]*index.Item {
	all := make(map[string][]*index.Item)
	for i := range set.Len() {
		it := set.Item(i)
		all[it.App] = append(all[it.App], it)
	}
	return all
}

func others(files, other []*index.Item) []*index.Item {
	var left []*index.Item
	for _, f := range files {
		if !slices.ContainsFunc(other, func(o *index.Item) bool { return o.Version == f.Version && o.SHA256 == f.SHA256 }) {
			left = append(left, f)
		}
	}
	return left
}

func names(files []*index.Item) []string {
	var all []string
	for _, f := range files {
		all = append(all, f.App+" "+f.Version)
	}
	return all
}

// versions lists the releases of one app.
func versions(files []*index.Item) string {
	var all []string
	for _, f := range files {
		all = append(all, f.Version)
	}
	return strings.Join(all, ", ")
}

func (g *Group) key() string {
	nothing := ""
	if g.Nothing {
		nothing = "nothing"
	}
	return strings.Join([]string{
		strings.Join(g.Changed, "\n"), strings.Join(g.Added, "\n"), strings.Join(g.Removed, "\n"), nothing,
	}, "\x00")
}

// upgrade returns the length of the bundle for a device that holds all of before.
func upgrade(ctx context.Context, composer *builder.Composer, before, after edge.Set) (int64, error) {
	held := builder.Unchanged(after, before)
	if _, ok := builder.Encoder(after.Index); !ok || after.Len() == 0 || held.Full(after.Len()) {
		return 0, nil
	}
	b, err := composer.Bundle(ctx, after, held)
	if errors.Is(err, builder.ErrNotExist) { // a binary that is not compressed yet
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return b.Size(), nil
}
