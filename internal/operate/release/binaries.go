package release

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

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
