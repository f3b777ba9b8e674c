package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mholt/archives"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// CatalogName is the catalog file in a folder or release archive.
const CatalogName = "catalog.json"

// maxCatalog bounds a catalog file, in bytes: some ten times as many items as an index may hold.
const maxCatalog = 256 << 20

// maxDepth bounds the folders above a file in an archive: they are not counted among its files.
const maxDepth = 16

// Limits bound what an archive may unpack to, so that a small file cannot fill the disk.
type Limits struct {
	Files int   // regular files
	Bytes int64 // of all of them
}

// DefaultLimits are those of an Importer that has none.
func DefaultLimits() Limits { return Limits{Files: 10_000, Bytes: 32 << 30} }

// Load reads releases from name: a catalog file (its binaries beside it), a folder with one, or a
// release archive with one in it (any format that mholt/archives reads: tar, zip, 7z, rar, and tar
// compressed by gzip, zstd, xz, bzip2 ...). The releases can be opened until close is called.
func (im *Importer) Load(ctx context.Context, name string) (releases []Release, close func(), err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, fmt.Errorf("load releases: %w", err)
	}
	dir, file := filepath.Split(name)
	discard := func() {}
	switch {
	case info.IsDir():
		dir, file = name, CatalogName
	case strings.EqualFold(filepath.Ext(name), ".json"):
		if dir == "" {
			dir = "."
		}
	default:
		if dir, discard, err = im.unpack(ctx, name); err != nil {
			return nil, nil, fmt.Errorf("load releases from %s: %w", name, err)
		}
		if file, err = findCatalog(dir); err != nil {
			discard()
			return nil, nil, fmt.Errorf("load releases from %s: %w", name, err)
		}
		dir, file = filepath.Join(dir, filepath.Dir(file)), filepath.Base(file)
	}
	// A Root opens nothing outside its folder, whatever names and links say.
	root, err := os.OpenRoot(dir)
	if err != nil {
		discard()
		return nil, nil, fmt.Errorf("load releases: %w", err)
	}
	close = func() {
		root.Close()
		discard()
	}
	if releases, err = loadCatalog(root, file); err != nil {
		close()
		return nil, nil, fmt.Errorf("load releases from %s: %w", name, err)
	}
	return releases, close, nil
}

func loadCatalog(root *os.Root, name string) ([]Release, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// It is read into memory, and may come out of an archive that unpacks to anything.
	if info.Size() > maxCatalog {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, info.Size(), maxCatalog)
	}
	entries, err := catalog.Decode(f)
	if err != nil {
		return nil, err
	}
	releases := make([]Release, len(entries))
	for i, e := range entries {
		releases[i].Item = e.Item
		if e.File == "" {
			continue
		}
		if !filepath.IsLocal(filepath.FromSlash(e.File)) {
			return nil, fmt.Errorf("item %s: file: %q leads out of the folder of the catalog", e.Key(), e.File)
		}
		info, err := root.Stat(filepath.FromSlash(e.File))
		if err != nil {
			return nil, fmt.Errorf("item %s: file: %w", e.Key(), err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("item %s: file: %q is not a regular file", e.Key(), e.File)
		}
		releases[i].Open = func() (io.ReadSeekCloser, error) { return root.Open(filepath.FromSlash(e.File)) }
	}
	return releases, nil
}

// unpack extracts an archive into a temporary folder.
func (im *Importer) unpack(ctx context.Context, name string) (dir string, discard func(), err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	format, stream, err := archives.Identify(ctx, filepath.Base(name), f)
	if err != nil {
		return "", nil, fmt.Errorf("tell its format (a catalog file ends in .json): %w", err)
	}
	extractor, ok := format.(archives.Extractor)
	if !ok {
		return "", nil, fmt.Errorf("%s holds one stream, not files: want an archive with a %s in it", format.Extension(), CatalogName)
	}
	dir, err = os.MkdirTemp("", "precast-import-")
	if err != nil {
		return "", nil, err
	}
	discard = func() { os.RemoveAll(dir) }
	root, err := os.OpenRoot(dir)
	if err != nil {
		discard()
		return "", nil, err
	}
	defer root.Close()
	u := unpacker{root: root, left: im.Limits}
	if u.left == (Limits{}) {
		u.left = DefaultLimits()
	}
	if err := extractor.Extract(ctx, stream, u.file); err != nil {
		discard()
		return "", nil, err
	}
	return dir, discard, nil
}

type unpacker struct {
	root *os.Root
	left Limits
}

func (u *unpacker) file(ctx context.Context, f archives.FileInfo) error {
	name := strings.TrimPrefix(f.NameInArchive, "./")
	if f.IsDir() || name == "" || name == "." {
		return nil
	}
	if f.LinkTarget != "" || !f.Mode().IsRegular() {
		return fmt.Errorf("%q is not a regular file", f.NameInArchive)
	}
	if !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00") || !filepath.IsLocal(filepath.FromSlash(name)) {
		return fmt.Errorf("%q leads out of the archive", f.NameInArchive)
	}
	if strings.Count(name, "/") > maxDepth {
		return fmt.Errorf("%q lies too deep", f.NameInArchive)
	}
	if u.left.Files--; u.left.Files < 0 {
		return errors.New("it holds too many files")
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	defer in.Close()
	out, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%q is in it twice", name)
	}
	if err != nil {
		return err
	}
	defer out.Close()
	// The size that an archive states is not believed: what comes out is counted.
	n, err := io.Copy(out, io.LimitReader(contextReader{ctx, in}, min(u.left.Bytes, math.MaxInt64-1)+1))
	if err != nil {
		return fmt.Errorf("unpack %q: %w", name, err)
	}
	if u.left.Bytes -= n; u.left.Bytes < 0 {
		return errors.New("it unpacks to more bytes than are allowed")
	}
	return out.Close()
}

// findCatalog returns the catalog file nearest to the top of a folder.
func findCatalog(dir string) (string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == CatalogName && d.Type().IsRegular() {
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			depth := strings.Count(filepath.ToSlash(rel), "/")
			if len(found) > 0 {
				if best := strings.Count(filepath.ToSlash(found[0]), "/"); depth > best {
					return nil
				} else if depth < best {
					found = nil
				}
			}
			found = append(found, rel)
		}
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", fmt.Errorf("there is no %s in it", CatalogName)
	case len(found) > 1:
		return "", fmt.Errorf("there are two catalogs in it: %s and %s", found[0], found[1])
	}
	return found[0], nil
}
