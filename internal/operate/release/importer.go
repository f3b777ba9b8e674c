// Package release brings releases into the catalog: catalog files and release archives are read, digests computed,
// binaries stored and the catalog written, all of an import or nothing of it.
package release

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/minio/crc64nvme"

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

// adopter takes up a binary that somebody has copied into the store by hand, if its content is what its key says.
type adopter interface {
	Adopt(ctx context.Context, key string) error
}

// findBinaries refuses items that say that their binary is in the store, where it is not. Those that the catalog has
// already are another matter: precast fsck finds them.
func (im *Importer) findBinaries(ctx context.Context, before []catalog.Item, p prepared) error {
	known := make(map[string]bool)
	for _, it := range before {
		for _, s := range it.Steps() {
			known[s.URL] = true
		}
	}
	for _, d := range p.binaries {
		if d.Open != nil { // it is about to be stored
			known[d.URL] = true
		}
	}
	var errs []error
	for _, c := range p.changes {
		if c.Item == nil {
			continue
		}
		for _, s := range c.Item.Steps() {
			key, stored := strings.CutPrefix(s.URL, catalog.StorePrefix)
			if !stored || known[s.URL] || key == "" {
				continue
			}
			known[s.URL] = true
			if err := im.findBinary(ctx, key); errors.Is(err, builder.ErrNotExist) {
				errs = append(errs, fmt.Errorf("item %s %s: its binary is not in the store (%s): give its file, or restore a backup (precast restore)", c.Key, s.Version, key))
			} else if err != nil {
				errs = append(errs, fmt.Errorf("item %s %s: find its binary: %w", c.Key, s.Version, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (im *Importer) findBinary(ctx context.Context, key string) error {
	_, err := im.Objects.Stat(ctx, key)
	if a, ok := im.Objects.(adopter); ok && errors.Is(err, builder.ErrNotExist) {
		err = a.Adopt(ctx, key)
	}
	return err
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

// described is a release with what follows from its binary.
type described struct {
	Release
	sum uint64 // CRC-64/NVME of its binary, if it has one
}

// describeAll reads the binaries of releases. It tells all that is wrong with them.
func describeAll(ctx context.Context, releases []Release) ([]described, error) {
	all := make([]described, len(releases))
	var errs []error
	for i, r := range releases {
		all[i].Release = r
		if r.Open == nil {
			continue
		}
		var err error
		if all[i].Item, all[i].sum, err = describe(ctx, r.Item, r.Open); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return all, errors.Join(errs...)
}

// describe computes what follows from an item's binary, and holds against it what the item says.
func describe(ctx context.Context, it catalog.Item, open func() (io.ReadSeekCloser, error)) (catalog.Item, uint64, error) {
	f, err := open()
	if err != nil {
		return it, 0, fmt.Errorf("item %s: %w", it.Key(), err)
	}
	defer f.Close()
	sha, md, crc := sha256.New(), md5.New(), crc64nvme.New()
	n, err := io.Copy(io.MultiWriter(sha, md, crc), contextReader{ctx, f})
	if err != nil {
		return it, 0, fmt.Errorf("item %s: read its file: %w", it.Key(), err)
	}
	agree := func(field, said, found string) error {
		if said != "" && said != found {
			return fmt.Errorf("item %s: %s: the catalog says %s, the file has %s", it.Key(), field, said, found)
		}
		return nil
	}
	shaHex, mdHex := hex.EncodeToString(sha.Sum(nil)), hex.EncodeToString(md.Sum(nil))
	if err := errors.Join(agree("sha256", it.SHA256, shaHex), agree("md5", it.MD5, mdHex)); err != nil {
		return it, 0, err
	}
	if it.Size != 0 && it.Size != n {
		return it, 0, fmt.Errorf("item %s: size: the catalog says %d, the file has %d bytes", it.Key(), it.Size, n)
	}
	it.SHA256, it.MD5, it.Size = shaHex, mdHex, n
	it.URL = catalog.StoreURL(shaHex, it.App, it.Version)
	return it, crc.Sum64(), nil
}

// store writes an item's binary unless it is there; it tells whether it wrote. The store verifies
// the checksum: a file that has changed since it was described must not be kept under the digest
// that it had, for good.
func (im *Importer) store(ctx context.Context, d described) (bool, error) {
	if d.Open == nil {
		return false, nil
	}
	f, err := d.Open()
	if err != nil {
		return false, fmt.Errorf("item %s: %w", d.Key(), err)
	}
	defer f.Close()
	_, err = im.Objects.Put(ctx, layout.BinaryKey(d.SHA256, d.App, d.Version),
		builder.Body{Reader: f, Size: d.Size, CRC64NVME: d.sum, Checked: true}, builder.PutOptions{IfAbsent: true})
	if errors.Is(err, builder.ErrPrecondition) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("item %s: store its binary: %w", d.Key(), err)
	}
	return true, nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
