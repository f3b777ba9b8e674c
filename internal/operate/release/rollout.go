package release

import (
	"context"
	"fmt"
	"slices"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/history"
)

// Refusal is an error where nothing went wrong: the catalog does not allow what was asked for, or a guard.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// Is tells that it is a refusal like those of the history.
func (r Refusal) Is(target error) bool { return target == history.ErrRefused }

func refuse(format string, args ...any) error { return Refusal(fmt.Sprintf(format, args...)) }

// Attributes are the attributes of the devices that get an item. None: the item keeps those that it has.
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

// NoAttributes takes an item's attributes away.
func NoAttributes() map[string]bool { return map[string]bool{} }

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

// Item returns an item of the catalog.
func (im *Importer) Item(ctx context.Context, key catalog.Key) (catalog.Item, error) {
	items, err := im.Catalog.Snapshot(ctx)
	if err != nil {
		return catalog.Item{}, err
	}
	return itemOf(items, key)
}

func itemOf(items []catalog.Item, key catalog.Key) (catalog.Item, error) {
	i := slices.IndexFunc(items, func(it catalog.Item) bool { return it.Key() == key })
	if i < 0 {
		return catalog.Item{}, refuse("%s is not in the catalog; precast catalog list shows what is", key)
	}
	return items[i].Clone(), nil
}

// Remove takes an item out of the catalog. It asks for nothing: that is what it is for.
func (im *Importer) Remove(ctx context.Context, key catalog.Key) (it catalog.Item, res Result, err error) {
	res, err = im.change(ctx, func(before []catalog.Item) (p prepared, err error) {
		if it, err = itemOf(before, key); err == nil {
			p.remove(key)
		}
		p.allow = allowAll()
		return p, err
	})
	return it, res, err
}

// CheckRollout refuses an item whose current release is not being rolled out.
func CheckRollout(it catalog.Item) error {
	if !it.Partial() {
		return refuse("%s %s is not being rolled out; precast catalog put --rollout begins that", it.Key(), it.Version)
	}
	return nil
}

// SetRollout gives an item's current release to so many percent of the devices; 100 ends the rollout.
func (im *Importer) SetRollout(ctx context.Context, key catalog.Key, percent float64) (Result, error) {
	return im.rollout(ctx, key, nil, func(it catalog.Item) (catalog.Item, error) {
		if percent == 100 {
			it.Rollout, it.Previous = nil, nil
		} else {
			it.Rollout = &catalog.Rollout{Percent: percent, Salt: it.Rollout.Salt}
		}
		return it, nil
	})
}

// CancelRollout takes an item's current release back: the one that it is rolled out over is the current one again. It
// asks for nothing: that is what it is for.
func (im *Importer) CancelRollout(ctx context.Context, key catalog.Key) (Result, error) {
	return im.rollout(ctx, key, allowAll(), func(it catalog.Item) (catalog.Item, error) {
		if it.Previous == nil {
			return it, refuse("%s %s is rolled out over nothing; precast catalog rm takes it away", it.Key(), it.Version)
		}
		previous := it.Previous.Clone()
		previous.App, previous.Track = it.App, it.Track
		return previous.Complete(), nil // not with floors and attributes of the release that is taken back
	})
}

// rollout changes an item that is being rolled out. The result has the item alone.
func (im *Importer) rollout(ctx context.Context, key catalog.Key, allow []string, f func(catalog.Item) (catalog.Item, error)) (Result, error) {
	return im.change(ctx, func(before []catalog.Item) (prepared, error) {
		p := prepared{allow: allow}
		old, err := itemOf(before, key)
		if err != nil {
			return p, err
		}
		if err := CheckRollout(old); err != nil {
			return p, err
		}
		it, err := f(old.Clone())
		if err != nil {
			return p, err
		}
		return p, p.bring(described{Release: Release{Item: it}}, &old)
	})
}
