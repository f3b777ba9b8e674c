package release

import (
	"context"
	"errors"
	"slices"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// Promotion gives the devices of one track the releases of another one.
type Promotion struct {
	App      string // empty: every app of the track
	From, To string // tracks
	Rollout  *catalog.Rollout
}

// Promote makes the items of one track those of another: the same files, with their attributes, and their floors if
// they have any. Items that are the same already are left out.
func (im *Importer) Promote(ctx context.Context, pr Promotion) (Result, error) {
	if pr.From == pr.To {
		return Result{}, refuse("%s is the track to promote from and the one to promote to", pr.From)
	}
	return im.change(ctx, func(before []catalog.Item) (prepared, error) {
		var p prepared
		var errs []error
		old, found := byKey(before), false
		for _, it := range slices.SortedFunc(slices.Values(before), catalog.Compare) {
			if it.Track != pr.From || pr.App != "" && it.App != pr.App {
				continue
			}
			found = true
			if it.Partial() {
				errs = append(errs, refuse("%s %s is still being rolled out; precast catalog rollout --track %s %s 100 finishes that", it.Key(), it.Version, it.Track, it.App))
				continue
			}
			next := it.Clone()
			next.Track, next.Rollout, next.Previous = pr.To, nil, nil
			floors := next.Floors
			next = next.Complete()
			if len(floors) == 0 {
				next.Floors = nil // those of the release that is replaced stay
			}
			was := old[next.Key()]
			if was != nil && !was.Partial() && sameRelease(next, *was) {
				continue
			}
			if pr.Rollout != nil {
				rollout := *pr.Rollout
				next.Rollout = &rollout
			}
			errs = append(errs, p.bring(described{Release: Release{Item: next}}, was))
		}
		switch {
		case !found && pr.App != "":
			return p, refuse("%s is not in the catalog; precast catalog list shows what is", catalog.Key{App: pr.App, Track: pr.From})
		case !found:
			return p, refuse("track %s has no items; precast catalog list shows what is there", pr.From)
		}
		return p, errors.Join(errs...)
	})
}

// sameRelease tells whether an item has what another one is to be given.
func sameRelease(it, was catalog.Item) bool {
	floor := func(a, b catalog.Item) bool { return a.SHA256 == b.SHA256 }
	return it.Version == was.Version && it.SHA256 == was.SHA256 && it.URL == was.URL && it.Ident == was.Ident &&
		slices.Equal(it.Attrs(), was.Attrs()) && (it.Floors == nil || slices.EqualFunc(it.Floors, was.Floors, floor))
}
