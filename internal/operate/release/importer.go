// Package release brings releases into the catalog: catalog files and release archives are read, digests computed,
// binaries stored and the catalog written, all of an import or nothing of it.
package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Objects is where binaries are stored; see builder.Objects.
type Objects interface {
	builder.Getter
	Stat(ctx context.Context, key string) (builder.ObjectInfo, error)
	Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error)
}

// Catalog is what releases are written to; see builder.Catalog and builder.CatalogWriter.
type Catalog interface {
	Snapshot(ctx context.Context) ([]catalog.Item, error)
	Apply(ctx context.Context, edit catalog.Edit) error
	Head(ctx context.Context) (catalog.Head, error)
}

// Importer brings releases into a catalog and an object store.
type Importer struct {
	Objects Objects
	Catalog Catalog
	Limits  Limits                             // of archives; zero: DefaultLimits
	Temp    string                             // folder that archives are unpacked in; empty: the system's
	Report  func(it catalog.Item, stored bool) // told of every item; nil: not
	Now     func() time.Time                   // for the items' Changed; nil: it stays zero
	Clock   builder.Clock                      // for waiting
	By      catalog.Author                     // of every edit

	// Preview works out what an edit changes for devices, as Guard does; nil: nobody asks. What it refuses is refused
	// before anything is written.
	Preview func(ctx context.Context, edit catalog.Edit) (Difference, error)
	Allow   []string // of every edit
	DryRun  bool     // writes nothing: neither the catalog nor binaries
}

// Release is an item and, unless its URL says where it is already, its binary.
type Release struct {
	catalog.Item
	Open func() (io.ReadSeekCloser, error) // nil: the item is complete as it is
	// Without are attributes to take away from those that the item inherits.
	Without []string
}

// Result is what a change did, or would do.
type Result struct {
	Items      []catalog.Item // brought in, complete
	Removed    []catalog.Key
	Difference Difference // for devices; empty without Preview
}

// Import brings releases in. With replace, the catalog afterwards holds nothing else. If anything is
// wrong with any of them, or with the catalog that they would make, nothing is changed in the
// catalog.
func (im *Importer) Import(ctx context.Context, releases []Release, replace bool) (Result, error) {
	described, err := describeAll(ctx, releases)
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	res, err := im.change(ctx, func(before []catalog.Item) (prepared, error) { return prepare(before, described, replace) })
	if err != nil {
		return res, fmt.Errorf("import: %w", err)
	}
	return res, nil
}

// tries is how often a change is worked out anew because somebody else has changed the catalog meanwhile.
const tries = 10

// change makes a change that work works out from the items of the catalog. It is worked out from what is read here, so
// that it can be done again if that has changed by the time when it is made.
func (im *Importer) change(ctx context.Context, work func(before []catalog.Item) (prepared, error)) (Result, error) {
	for try := 1; ; try++ {
		res, err := im.attempt(ctx, work)
		if try == tries || !errors.Is(err, builder.ErrPrecondition) {
			return res, err
		}
	}
}

func (im *Importer) attempt(ctx context.Context, work func(before []catalog.Item) (prepared, error)) (Result, error) {
	head, before, err := im.read(ctx)
	if err != nil {
		return Result{}, err
	}
	p, err := work(before)
	if err != nil || len(p.changes) == 0 {
		return p.res, err
	}
	if err := validate(before, p.changes); err != nil {
		return Result{}, err
	}
	edit := catalog.Edit{Changes: p.changes, By: im.By, Allow: slices.Concat(im.Allow, p.allow)}.On(head, before)
	if im.Preview != nil {
		if p.res.Difference, err = im.Preview(ctx, edit); err != nil {
			return Result{}, err
		}
		if err := p.res.Difference.Refusal(); err != nil && !im.DryRun {
			return p.res, err
		}
	}
	if im.DryRun {
		return p.res, nil
	}
	// Binaries first: the catalog never names one that is not there.
	if err := im.findBinaries(ctx, before, p); err != nil {
		return Result{}, err
	}
	for _, d := range p.binaries {
		stored, err := im.store(ctx, d)
		if err != nil {
			return Result{}, err
		}
		if im.Report != nil {
			im.Report(d.Item, stored)
		}
	}
	im.stamp(before, p.changes)
	if err := im.Catalog.Apply(ctx, edit); err != nil {
		return Result{}, err
	}
	if err := im.settle(ctx, p.binaries); err != nil {
		return p.res, fmt.Errorf("the catalog is changed, and its binaries may have been removed; import once more: %w", err)
	}
	return p.res, nil
}

// read returns the items of the catalog, and where its log ended before they were read: what is worked out from them is
// made only if it still ends there.
func (im *Importer) read(ctx context.Context) (catalog.Head, []catalog.Item, error) {
	head, err := im.Catalog.Head(ctx)
	if err != nil {
		return head, nil, err
	}
	items, err := im.Catalog.Snapshot(ctx)
	return head, items, err
}

// sweepWait outlasts several leases of a sweep.
const sweepWait = 3 * time.Minute

// settle puts back what was there, and needed by nobody, until the catalog named it: a sweep that had
// begun before may have removed it. One that begins now sees the catalog.
func (im *Importer) settle(ctx context.Context, binaries []described) error {
	awaited := false
	for _, d := range binaries {
		if d.Open == nil {
			continue
		}
		if !awaited {
			if err := builder.AwaitFence(ctx, im.Objects, im.Clock, sweepWait); err != nil {
				return err
			}
			awaited = true
		}
		key := layout.BinaryKey(d.SHA256, d.App, d.Version)
		if _, err := im.Objects.Stat(ctx, key); err == nil {
			continue
		} else if !errors.Is(err, builder.ErrNotExist) {
			return fmt.Errorf("find %s: %w", key, err)
		}
		if _, err := im.store(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// stamp notes when the items were changed; one that is written as it was has not been.
func (im *Importer) stamp(before []catalog.Item, changes []catalog.Change) {
	old := make(map[catalog.Key]catalog.Item, len(before))
	for _, it := range before {
		old[it.Key()] = it
	}
	for _, c := range changes {
		if c.Item == nil {
			continue
		}
		if was, ok := old[c.Key]; ok && was.Same(*c.Item) {
			c.Item.Changed = was.Changed
		} else if c.Item.Changed = (time.Time{}); im.Now != nil {
			c.Item.Changed = im.Now().UTC().Truncate(time.Millisecond)
		}
	}
}

// Changes returns what Import would write into a catalog that holds before, storing nothing.
func (im *Importer) Changes(ctx context.Context, before []catalog.Item, releases []Release, replace bool) ([]catalog.Change, error) {
	described, err := describeAll(ctx, releases)
	if err != nil {
		return nil, err
	}
	p, err := prepare(before, described, replace)
	if err != nil {
		return nil, err
	}
	return p.changes, validate(before, p.changes)
}

// prepared is a change that has been worked out and not begun.
type prepared struct {
	res      Result
	binaries []described // of the items brought in
	changes  []catalog.Change
	allow    []string // what the change allows beside the importer's Allow
}

// bring adds an item that succeeds the one of its key.
func (p *prepared) bring(d described, old *catalog.Item) error {
	it, err := catalog.Succeed(d.Item, old)
	if err != nil {
		return err
	}
	for _, name := range d.Without {
		if !it.DeviceAttr[name] {
			return refuse("%s has no attribute %s to take away", it.Key(), name)
		}
		delete(it.DeviceAttr, name)
	}
	if len(it.Floors) == 0 {
		it.Floors = nil
	}
	if len(it.DeviceAttr) == 0 {
		it.DeviceAttr = nil
	}
	d.Item = it
	p.res.Items = append(p.res.Items, it)
	p.binaries = append(p.binaries, d)
	p.changes = append(p.changes, catalog.Put(it))
	return nil
}

// remove adds the removal of an item.
func (p *prepared) remove(key catalog.Key) {
	p.res.Removed = append(p.res.Removed, key)
	p.changes = append(p.changes, catalog.Remove(key))
}

func byKey(items []catalog.Item) map[catalog.Key]*catalog.Item {
	all := make(map[catalog.Key]*catalog.Item, len(items))
	for i := range items {
		all[items[i].Key()] = &items[i]
	}
	return all
}

func prepare(before []catalog.Item, releases []described, replace bool) (prepared, error) {
	var p prepared
	var errs []error
	old := byKey(before)
	seen := make(map[catalog.Key]bool)
	for _, r := range releases {
		if seen[r.Key()] {
			errs = append(errs, fmt.Errorf("item %s: is there twice", r.Key()))
			continue
		}
		seen[r.Key()] = true
		errs = append(errs, p.bring(r, old[r.Key()]))
	}
	if replace {
		for _, it := range before {
			if !seen[it.Key()] {
				p.remove(it.Key())
			}
		}
	}
	return p, errors.Join(errs...)
}

// validate refuses changes that would make problems. Problems that the catalog had before, and that
// the changes do not touch, do not stand in their way.
func validate(before []catalog.Item, changes []catalog.Change) error {
	old := catalog.Check(before)
	var errs []error
	for _, p := range catalog.Check(catalog.Apply(before, changes)) {
		touched := slices.ContainsFunc(changes, func(c catalog.Change) bool { return c.Key == p.Key })
		if touched || !slices.Contains(old, p) {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}
