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
}

// Release is an item and, unless its URL says where it is already, its binary.
type Release struct {
	catalog.Item
	Open func() (io.ReadSeekCloser, error) // nil: the item is complete as it is
}

// Result is what an import did.
type Result struct {
	Items   []catalog.Item // brought in, complete
	Removed []catalog.Key
}

// Import brings releases in. With replace, the catalog afterwards holds nothing else. If anything is
// wrong with any of them, or with the catalog that they would make, nothing is changed in the
// catalog.
func (im *Importer) Import(ctx context.Context, releases []Release, replace bool) (Result, error) {
	for try := 1; ; try++ {
		res, err := im.attempt(ctx, releases, replace)
		if errors.Is(err, builder.ErrPrecondition) && try < tries {
			continue
		}
		if err != nil {
			return res, fmt.Errorf("import: %w", err)
		}
		return res, nil
	}
}

// tries is how often a change is worked out anew because somebody else has changed the catalog meanwhile.
const tries = 10

func (im *Importer) attempt(ctx context.Context, releases []Release, replace bool) (Result, error) {
	head, before, err := im.read(ctx)
	if err != nil {
		return Result{}, err
	}
	p, err := im.prepare(ctx, before, releases, replace)
	if err != nil {
		return Result{}, err
	}
	// Binaries first: the catalog never names one that is not there.
	for i, it := range p.res.Items {
		stored, err := im.store(ctx, it, releases[i].Open, p.sums[i])
		if err != nil {
			return Result{}, err
		}
		if im.Report != nil {
			im.Report(it, stored)
		}
	}
	im.stamp(before, p.changes)
	if err := im.Catalog.Apply(ctx, catalog.Edit{Changes: p.changes, By: im.By}.On(head, before)); err != nil {
		return Result{}, err
	}
	if err := im.settle(ctx, p, releases); err != nil {
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
func (im *Importer) settle(ctx context.Context, p prepared, releases []Release) error {
	awaited := false
	for i, it := range p.res.Items {
		if releases[i].Open == nil {
			continue
		}
		if !awaited {
			if err := builder.AwaitFence(ctx, im.Objects, im.Clock, sweepWait); err != nil {
				return err
			}
			awaited = true
		}
		key := layout.BinaryKey(it.SHA256, it.App, it.Version)
		if _, err := im.Objects.Stat(ctx, key); err == nil {
			continue
		} else if !errors.Is(err, builder.ErrNotExist) {
			return fmt.Errorf("find %s: %w", key, err)
		}
		if _, err := im.store(ctx, it, releases[i].Open, p.sums[i]); err != nil {
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
	p, err := im.prepare(ctx, before, releases, replace)
	return p.changes, err
}

// prepared is an import that has been checked and not begun.
type prepared struct {
	res     Result
	sums    []uint64 // CRC-64/NVME of each item's binary, if it has one
	changes []catalog.Change
}

func (im *Importer) prepare(ctx context.Context, before []catalog.Item, releases []Release, replace bool) (prepared, error) {
	var p prepared
	old := make(map[catalog.Key]*catalog.Item, len(before))
	for i := range before {
		old[before[i].Key()] = &before[i]
	}
	seen := make(map[catalog.Key]bool)
	for _, r := range releases {
		if seen[r.Key()] {
			return prepared{}, fmt.Errorf("item %s: is there twice", r.Key())
		}
		seen[r.Key()] = true
		it, sum := r.Item, uint64(0)
		if r.Open != nil {
			var err error
			if it, sum, err = describe(ctx, it, r.Open); err != nil {
				return prepared{}, err
			}
		}
		var err error
		if it, err = catalog.Succeed(it, old[r.Key()]); err != nil {
			return prepared{}, err
		}
		p.res.Items = append(p.res.Items, it)
		p.sums = append(p.sums, sum)
		p.changes = append(p.changes, catalog.Put(it))
	}
	if replace {
		for _, it := range before {
			if !seen[it.Key()] {
				p.res.Removed = append(p.res.Removed, it.Key())
				p.changes = append(p.changes, catalog.Remove(it.Key()))
			}
		}
	}
	if err := validate(before, p.changes); err != nil {
		return prepared{}, err
	}
	return p, nil
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
func (im *Importer) store(ctx context.Context, it catalog.Item, open func() (io.ReadSeekCloser, error), sum uint64) (bool, error) {
	if open == nil {
		return false, nil
	}
	f, err := open()
	if err != nil {
		return false, fmt.Errorf("item %s: %w", it.Key(), err)
	}
	defer f.Close()
	_, err = im.Objects.Put(ctx, layout.BinaryKey(it.SHA256, it.App, it.Version),
		builder.Body{Reader: f, Size: it.Size, CRC64NVME: sum, Checked: true}, builder.PutOptions{IfAbsent: true})
	if errors.Is(err, builder.ErrPrecondition) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("item %s: store its binary: %w", it.Key(), err)
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
