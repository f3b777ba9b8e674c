package release

import (
	"context"
	"fmt"
	"slices"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// Refusal is an error where nothing went wrong: the catalog does not allow what was asked for.
type Refusal string

func (r Refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return Refusal(fmt.Sprintf(format, args...)) }

// Attributes are the attributes of the devices that get an item.
func Attributes(names ...string) map[string]bool {
	var all map[string]bool
	for _, name := range names {
		if all == nil {
			all = make(map[string]bool)
		}
		all[name] = true
	}
	return all
}

// Floors name earlier releases of an item that devices must install first, the oldest first. None: the item keeps the
// floors that it has.
func Floors(versions ...string) []catalog.Item {
	var all []catalog.Item
	for _, version := range versions {
		all = append(all, catalog.Item{Version: version})
	}
	return all
}

// NoFloors takes an item's floors away.
func NoFloors() []catalog.Item { return []catalog.Item{} }

// Item returns an item of the catalog, to be changed.
func (im *Importer) Item(ctx context.Context, key catalog.Key) (catalog.Item, error) {
	items, err := im.Catalog.Snapshot(ctx)
	if err != nil {
		return catalog.Item{}, err
	}
	i := slices.IndexFunc(items, func(it catalog.Item) bool { return it.Key() == key })
	if i < 0 {
		return catalog.Item{}, refuse("%s is not in the catalog; precast catalog list shows what is", key)
	}
	return items[i].Clone(), nil
}

// Put brings one release in and returns its item, complete.
func (im *Importer) Put(ctx context.Context, r Release) (catalog.Item, error) {
	res, err := im.Import(ctx, []Release{r}, false)
	if err != nil {
		return catalog.Item{}, err
	}
	return res.Items[0], nil
}

// Remove takes an item out of the catalog and returns it.
func (im *Importer) Remove(ctx context.Context, key catalog.Key) (catalog.Item, error) {
	it, err := im.Item(ctx, key)
	if err != nil {
		return it, err
	}
	return it, im.Catalog.Apply(ctx, catalog.Edit{Changes: []catalog.Change{catalog.Remove(key)}, By: im.By})
}

// CheckRollout refuses an item whose current release is not being rolled out.
func CheckRollout(it catalog.Item) error {
	if !it.Partial() {
		return refuse("%s %s is not being rolled out; precast catalog put --rollout begins that", it.Key(), it.Version)
	}
	return nil
}

// SetRollout gives an item's current release to so many percent of the devices; 100 ends the rollout.
func (im *Importer) SetRollout(ctx context.Context, it catalog.Item, percent float64) (catalog.Item, error) {
	if err := CheckRollout(it); err != nil {
		return it, err
	}
	if percent == 100 {
		it.Rollout, it.Previous = nil, nil
	} else {
		it.Rollout = &catalog.Rollout{Percent: percent, Salt: it.Rollout.Salt}
	}
	return im.Put(ctx, Release{Item: it})
}

// CancelRollout takes an item's current release back: the one that it is rolled out over is the current one again.
func (im *Importer) CancelRollout(ctx context.Context, it catalog.Item) (catalog.Item, error) {
	if err := CheckRollout(it); err != nil {
		return it, err
	}
	if it.Previous == nil {
		return it, refuse("%s %s is rolled out over nothing; precast catalog rm takes it away", it.Key(), it.Version)
	}
	previous := *it.Previous
	previous.App, previous.Track = it.App, it.Track
	if previous.Floors == nil {
		previous.Floors = NoFloors() // not those of the release that is taken back
	}
	return im.Put(ctx, Release{Item: previous})
}
