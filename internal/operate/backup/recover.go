package backup

import (
	"context"
	"errors"
	"fmt"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Recovered is a catalog that was made again from what is published.
type Recovered struct {
	Generation uint64         `json:"generation"` // that it was made from
	Pin        string         `json:"pin,omitempty"`
	Items      []catalog.Item `json:"items"`
	// Missing are binaries that are not in the store: their items stay published as they are, and cannot be built again.
	Missing []string `json:"missing"`
	// Passed counts releases after floors that no generation describes any more: devices that hold one of those get
	// the floor again.
	Passed int `json:"passed"`
	// Waiting is the newest plan that was not published, 0 if there is none: its changes are lost.
	Waiting uint64 `json:"waiting,omitempty"`
}

// Recover makes a lost catalog again from the published index and the generations before it. It fails with history.ErrRefused
// if the catalog has anything else in it, or nothing is published.
//
// What devices get is all there. An index does not have: ident, cpuArch, where a binary came from, when an item was
// changed, and changes that were not published.
func Recover(ctx context.Context, to Target) (Recovered, error) {
	res, err := recoverCatalog(ctx, to)
	if err != nil {
		return res, fmt.Errorf("recover the catalog: %w", err)
	}
	return res, nil
}

func recoverCatalog(ctx context.Context, to Target) (Recovered, error) {
	s, err := Installation{Objects: to.Objects, Catalog: nothing{}}.read(ctx, ^uint64(0))
	if err != nil {
		return Recovered{}, err
	}
	ix := s.newest()
	if ix == nil || ix.Len() == 0 {
		return Recovered{}, refuse("nothing is published that a catalog could be made from")
	}
	res := Recovered{Generation: ix.Generation, Pin: ix.Pin, Missing: []string{}}
	known := make(map[[32]byte]index.Item)
	for _, g := range append(s.history, ix) {
		for _, it := range g.Items {
			known[it.SHA256] = it
		}
	}
	for i := int32(0); int(i) < len(ix.Items); i = ix.Next(i) {
		res.Items = append(res.Items, res.item(ix.Items[i:ix.Next(i)], known))
	}
	if err := catalog.Validate(res.Items); err != nil {
		return res, err
	}
	missing, err := missingItems(ctx, to.Catalog, res.Items, func(what string) error {
		return refuse("the catalog is not lost: it has %s", what)
	})
	if err != nil {
		return res, err
	}
	if err := res.lost(ctx, to.Objects, ix); err != nil {
		return res, err
	}
	if err := to.Numbers.Advance(ctx, max(s.sequence(), res.Waiting)); err != nil {
		return res, err
	}
	r := restorer{Target: to}
	return res, r.catalog(ctx, missing)
}

// nothing is a catalog without items.
type nothing struct{}

func (nothing) Snapshot(context.Context) ([]catalog.Item, error) { return nil, nil }

// item makes an item of its releases in an index: the current one, its floors, the one that it is rolled out over ...
func (r *Recovered) item(releases []index.Item, known map[[32]byte]index.Item) catalog.Item {
	var all []catalog.Item // current and previous ones
	for _, it := range releases {
		release := catalog.Item{Version: it.Version, MD5: edge.Hex(it.MD5[:]), SHA256: edge.Hex(it.SHA256[:]), Size: it.Size}
		release.URL = catalog.StoreURL(release.SHA256, it.App, it.Version)
		if it.Role == index.Floor {
			release.Passed = r.passed(it, known)
			of := &all[len(all)-1]
			of.Floors = append([]catalog.Item{release}, of.Floors...) // an item has the oldest first
			continue
		}
		for _, name := range it.Attrs {
			if release.DeviceAttr == nil {
				release.DeviceAttr = make(map[string]bool)
			}
			release.DeviceAttr[name] = true
		}
		if it.Salt != "" {
			release.Rollout = &catalog.Rollout{Percent: float64(it.Share) * 100 / index.Slots}
			if named := (catalog.Item{App: it.App, Version: it.Version}); named.Salt() != it.Salt {
				release.Rollout.Salt = it.Salt
			}
		}
		all = append(all, release)
	}
	for i := len(all) - 1; i > 0; i-- {
		all[i-1].Previous = &all[i]
	}
	all[0].App, all[0].Track = releases[0].App, releases[0].Track
	return all[0]
}

func (r *Recovered) passed(floor index.Item, known map[[32]byte]index.Item) []catalog.Item {
	var all []catalog.Item
	for _, d := range floor.Passed {
		it, ok := known[d.SHA256]
		if !ok {
			r.Passed++
			continue
		}
		all = append(all, catalog.Item{Version: it.Version, MD5: edge.Hex(d.MD5[:]), SHA256: edge.Hex(d.SHA256[:]), Size: it.Size})
	}
	return all
}

// lost looks for binaries that are gone, and for plans that were on their way.
func (r *Recovered) lost(ctx context.Context, objects Objects, ix *index.Index) error {
	for i := range ix.Items {
		key := builder.BinaryKey(&ix.Items[i])
		_, err := objects.Stat(ctx, key)
		if errors.Is(err, builder.ErrNotExist) {
			r.Missing = append(r.Missing, key)
		} else if err != nil {
			return err
		}
	}
	return objects.List(ctx, layout.PlanPrefix, func(o builder.ObjectInfo) error {
		sequence, err := layout.PlanSequence(o.Key)
		if sequence > ix.Sequence {
			r.Waiting = max(r.Waiting, sequence)
		}
		return err
	})
}
