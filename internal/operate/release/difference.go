package release

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/history"
)

// ItemDifference is what devices get of one item instead of what they have.
type ItemDifference struct {
	Key  catalog.Key `json:"key"`
	Gets []Gets      `json:"gets"`
	// Lost and Gained are attributes whose devices no longer get the item, or get it now.
	Lost   []string `json:"lost"`
	Gained []string `json:"gained"`
}

// Gets says which devices go from one release to another.
type Gets struct {
	From string `json:"from"` // version; empty: they had nothing
	To   string `json:"to"`   // empty: they get nothing
	// OtherContent: the version is the same, and the file is another one.
	OtherContent bool    `json:"otherContent,omitempty"`
	Devices      Devices `json:"devices"`
}

// Devices are a part of those that the item is for.
type Devices struct {
	Slots  int  `json:"slots"`  // with one of so many slots, of index.Slots
	NoSlot bool `json:"noSlot"` // and those that send none
}

func (d Devices) String() string {
	percent := strconv.FormatFloat(float64(d.Slots)*100/index.Slots, 'f', -1, 64) + " % of the devices with a slot"
	switch {
	case d.Slots == index.Slots && d.NoSlot:
		return "all devices"
	case d.Slots == 0:
		return "devices without a slot"
	case d.NoSlot:
		return percent + ", and those without one,"
	}
	return percent
}

func (d *Devices) add(c class) {
	d.Slots += c.slots
	d.NoSlot = d.NoSlot || c.slot == edge.NoSlot
}

// String says what devices get, in words.
func (g Gets) String() string {
	switch {
	case g.From == "":
		return fmt.Sprintf("%s get %s", g.Devices, g.To)
	case g.To == "":
		return fmt.Sprintf("%s get nothing instead of %s", g.Devices, g.From)
	case g.OtherContent:
		return fmt.Sprintf("%s get %s with other content", g.Devices, g.To)
	}
	return fmt.Sprintf("%s get %s instead of %s", g.Devices, g.To, g.From)
}

// move is a kind of change for devices, and those that it is for.
type move struct {
	allow    string // for a way back
	from, to string // versions
	devices  Devices
}

// comparison is one item, as it is published and as the edit makes it.
type comparison struct {
	difference ItemDifference
	from, to   []index.Item // its releases; none: the item is not there
	pinned     bool         // what is published
	past       past
	// waits compares with what the catalog held before the edit; nil: that is published, or stays.
	waits   *comparison
	waiting bool // this is such a comparison

	losses, backs []move
}

// same tells whether devices get the same.
func (c *comparison) same() bool {
	return slices.EqualFunc(c.from, c.to, func(a, b index.Item) bool {
		lists := slices.Equal(a.Attrs, b.Attrs) && slices.Equal(a.Passed, b.Passed)
		a.Attrs, b.Attrs, a.Passed, b.Passed = nil, nil, nil, nil
		return lists && reflect.DeepEqual(a, b)
	})
}

// file names a release: its version and content.
type file struct {
	version string
	sha256  [32]byte
}

func fileOf(it *index.Item) file { return file{it.Version, it.SHA256} }

func find(releases []index.Item, f file) int {
	return slices.IndexFunc(releases, func(it index.Item) bool { return fileOf(&it) == f })
}

// past is what the history knows of an item.
type past struct {
	// first numbers the releases that were published: a smaller number was published earlier.
	first map[file]int
	// last are the releases of the newest generation that has the item, if what is published has not.
	last []index.Item
}

// maxPast bounds how many generations are read to find out whether a release was published before.
const maxPast = 200

// readPast reads the history of those items that get a release that is not published. It reads nothing for the others.
func readPast(ctx context.Context, objects builder.Objects, published *index.Index, items []*comparison) error {
	wanted := make(map[catalog.Key]*comparison)
	for _, c := range items {
		if slices.ContainsFunc(c.to, func(it index.Item) bool { return find(c.from, fileOf(&it)) < 0 }) || c.waits != nil {
			wanted[folded(c.difference.Key)] = c
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	generations, err := history.Past(ctx, objects, published.Generation, maxPast, func(ix *index.Index) map[catalog.Key][]index.Item {
		found := make(map[catalog.Key][]index.Item)
		for i := int32(0); int(i) < len(ix.Items); i = ix.Next(i) {
			if key := folded(catalog.Key{App: ix.Items[i].App, Track: ix.Items[i].Track}); wanted[key] != nil {
				found[key] = slices.Clone(ix.Items[i:ix.Next(i)])
			}
		}
		return found
	})
	if err != nil {
		return err
	}
	for key, c := range wanted {
		c.past.first = make(map[file]int)
		for age, g := range generations {
			releases := g[key]
			if len(c.from) == 0 && c.past.last == nil {
				c.past.last = releases
			}
			for i := range releases {
				c.past.first[fileOf(&releases[i])] = -age
			}
		}
		if c.waits == nil {
			continue
		}
		c.waits.past.first = maps.Clone(c.past.first)
		for i := range c.from { // what is published comes before what waits
			if f := fileOf(&c.from[i]); find(c.waits.from, f) < 0 {
				c.waits.past.first[f] = 1
			}
		}
	}
	return nil
}

// otherContent returns the versions that were published with another file than they would have now.
func (c *comparison) otherContent() []string {
	var versions []string
	for i := range c.to {
		f := fileOf(&c.to[i])
		if find(c.from, f) >= 0 || slices.Contains(versions, f.version) {
			continue
		}
		other := func(g file) bool { return g.version == f.version && g != f }
		published := slices.ContainsFunc(c.from, func(it index.Item) bool { return other(fileOf(&it)) })
		for g := range c.past.first {
			published = published || other(g)
		}
		if published {
			versions = append(versions, f.version)
		}
	}
	return versions
}

// side is an item alone, for the resolver.
type side struct {
	ix    *index.Index
	table edge.Table
}

func sideOf(releases []index.Item) side {
	ix := index.New(index.Index{Items: slices.Clone(releases)})
	return side{ix, edge.TableOf(ix)}
}

// gives returns what a device gets that holds one file, nil for nothing.
func (s side) gives(selection edge.Selection, slot int, held *index.Item) *index.Item {
	device := edge.Device{Selection: selection, Cohort: s.table.Cohort(selection, slot)}
	if held != nil {
		device.Held = edge.Tags{edge.Hex(held.SHA256[:])}
	}
	set, err := edge.Resolve(s.ix, device)
	if err != nil || set.Len() == 0 {
		return nil
	}
	return set.Item(0)
}

// steps returns what a device gets one after the other: floors, then the release.
func (s side) steps(selection edge.Selection, slot int) []*index.Item {
	var all []*index.Item
	for held := (*index.Item)(nil); ; {
		next := s.gives(selection, slot, held)
		if next == nil || held != nil && fileOf(next) == fileOf(held) || len(all) > len(s.ix.Items) {
			return all
		}
		all = append(all, next)
		held = next
	}
}

// compare finds out what every device gets. Each class of slots is asked for, by the item's name and by each attribute:
// whoever has several attributes gets no less than whoever has one of them.
func (c *comparison) compare() {
	from, to, before := sideOf(c.from), sideOf(c.to), c.from
	if len(before) == 0 {
		before = c.past.last // devices keep what they have
	}
	had := sideOf(before)
	track := index.Fold(c.difference.Key.Track)
	named := edge.Selection{Apps: []edge.Param{{Name: index.Fold(c.difference.Key.App), Track: track}}}
	gets, lost, gained := make(moves), make(map[string]bool), make(map[string]bool)
	losses, backs := make(moves), make(moves)
	attrs := attributes(c.from, c.to)
	for _, class := range classes(before, c.to) {
		var last *index.Item
		if steps := from.steps(named, class.slot); len(steps) > 0 {
			last = steps[len(steps)-1]
		}
		next := to.gives(named, class.slot, last)
		if last != nil && next == nil {
			losses.add(move{from: last.Version}, class)
		}
		if (last != nil || next != nil) && (last == nil || next == nil || fileOf(last) != fileOf(next)) {
			gets.add(move{from: versionOf(last), to: versionOf(next)}, class)
		}
		c.waysBack(had, to, before, class, named, backs)
		for _, attr := range attrs {
			one := edge.Selection{Attrs: []edge.Param{{Name: attr, Track: track}}}
			hadIt, hasIt := from.gives(one, class.slot, last) != nil, to.gives(one, class.slot, last) != nil
			// By its name the item is there before and after: it is the attribute that takes it away, or gives it.
			lost[attr] = lost[attr] || hadIt && !hasIt && next != nil
			gained[attr] = gained[attr] || !hadIt && hasIt && last != nil
		}
	}
	for _, m := range gets.sorted() {
		c.difference.Gets = append(c.difference.Gets, Gets{m.from, m.to, m.from == m.to, m.devices})
	}
	c.difference.Gets = append([]Gets{}, c.difference.Gets...)
	c.difference.Lost, c.difference.Gained = those(lost), those(gained)
	c.losses, c.backs = losses.sorted(), backs.sorted()
}

// waysBack adds what takes the devices of a class back, at whichever of the releases that they go through they are.
func (c *comparison) waysBack(had, to side, before []index.Item, class class, named edge.Selection, backs moves) {
	steps := had.steps(named, class.slot)
	for i, held := range steps {
		next := to.gives(named, class.slot, held)
		if next == nil {
			continue
		}
		if allow := c.back(before, steps, i, next); allow != "" {
			backs.add(move{allow, held.Version, next.Version, Devices{}}, class)
		}
	}
}

// back returns what an edit has to allow for a device that holds one of the steps and gets another release next; empty
// if that is no way back. before are the item's releases that devices have, steps are those that this device goes through.
func (c *comparison) back(before []index.Item, steps []*index.Item, i int, next *index.Item) string {
	held, got := fileOf(steps[i]), fileOf(next)
	if got == held || got.version == held.version { // other content is another matter
		return ""
	}
	if at := slices.IndexFunc(steps, func(it *index.Item) bool { return fileOf(it) == got }); at >= 0 {
		if at < i {
			return AllowOlder
		}
		return ""
	}
	if at := find(before, got); at >= 0 {
		switch {
		case at < find(before, held):
			return ""
		case next.Role != index.Floor && find(c.to, held) >= 0:
			return AllowShrink
		}
		return AllowOlder
	}
	first, replaced := c.past.first[got]
	if !replaced {
		return ""
	}
	// After a rollback, what it took back may be put again: it came later than what is pinned.
	if since, ok := c.past.first[held]; c.pinned && next.Role == index.Current && ok && first > since {
		return ""
	}
	return AllowOlder
}

func versionOf(it *index.Item) string {
	if it == nil {
		return ""
	}
	return it.Version
}

// attributes returns the attributes of releases, folded and sorted.
func attributes(releases ...[]index.Item) []string {
	all := make(map[string]bool)
	for _, r := range releases {
		for i := range r {
			for _, attr := range r[i].Attrs {
				all[index.Fold(attr)] = true
			}
		}
	}
	return those(all)
}

// those returns the sorted keys that are true.
func those(set map[string]bool) []string {
	all := []string{}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if set[name] {
			all = append(all, name)
		}
	}
	return all
}

// moves are kinds of changes, and the devices that each is for.
type moves map[move]*Devices

func (m moves) add(one move, c class) {
	if m[one] == nil {
		m[one] = &Devices{}
	}
	m[one].add(c)
}

// sorted returns them, those of the most devices first.
func (m moves) sorted() []move {
	var all []move
	for one, devices := range m {
		one.devices = *devices
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b move) int {
		if d := b.devices.Slots - a.devices.Slots; d != 0 {
			return d
		}
		return slices.Compare([]string{a.from, a.to, a.allow}, []string{b.from, b.to, b.allow})
	})
	return all
}
