package release

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// CatalogName is the catalog file in a folder or release archive.
const CatalogName = "catalog.json"

// maxCatalog bounds a catalog file, in bytes: some ten times as many items as an index may hold.
const maxCatalog = 256 << 20

// TempPrefix begins the names of the temporary folders that archives are unpacked in.
const TempPrefix = "precast-import-"

// Load reads releases from name: a catalog file (its binaries beside it), a folder with one, or a
// release archive with one in it: zip, or tar, plain or compressed with gzip, zstd or xz. The releases can be opened
// until close is called.
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

// loadCatalog reads the catalog file name below root; the files of its items are relative to it.
func loadCatalog(root *os.Root, name string) ([]Release, error) {
	f, err := files.OpenIn(root, name)
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
		file := filepath.Join(filepath.Dir(name), filepath.FromSlash(e.File))
		open := func() (io.ReadSeekCloser, error) { return files.OpenIn(root, file) }
		binary, err := open()
		if err != nil {
			return nil, fmt.Errorf("item %s: file: %w", e.Key(), err)
		}
		binary.Close()
		releases[i].Open = open
	}
	return releases, nil
}

// unpack extracts an archive into a temporary folder.
func (im *Importer) unpack(ctx context.Context, name string) (dir string, discard func(), err error) {
	f, err := files.Open(name)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	parent := im.Temp
	if parent == "" {
		parent = os.TempDir()
	}
	temp, err := files.MakeFolder(parent, TempPrefix)
	if err != nil {
		return "", nil, err
	}
	discard = func() { _ = temp.Remove() } // what is left the next command sweeps
	root, err := os.OpenRoot(temp.Path())
	if err != nil {
		discard()
		return "", nil, err
	}
	defer root.Close()
	limits := im.Limits
	if limits == (Limits{}) {
		limits = DefaultLimits()
	}
	u := unpacker{root: root, left: limits}
	if err := members(ctx, f, limits, u.member); err != nil {
		discard()
		return "", nil, err
	}
	return temp.Path(), discard, nil
}

// findCatalog returns the catalog file nearest to the top of a folder.
func findCatalog(dir string) (string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == CatalogName && !d.IsDir() {
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

// leadsOut tells whether a link at name, which is a path in the archive, names something outside.
func leadsOut(name, target string) bool {
	return path.IsAbs(target) || !filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(name), target)))
}
