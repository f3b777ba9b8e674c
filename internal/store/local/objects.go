package local

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/layout"
)

const (
	lockStripes = 64
	bufferSize  = 1 << 20
	maxName     = 255 // bytes; what most file systems allow
	// Readers take no lock; one that keeps being overtaken by writers takes it after so many tries.
	readTries = 3
)

// Objects keeps objects as plain files. Any number of processes may use one folder at once.
type Objects struct {
	data, meta, locks, tmp string // folders
	readOnly               bool   // nothing is written, and no lock taken

	// Writers of one key exclude each other: within this process by the mutex of the key's stripe,
	// so that waiting costs no thread, then across processes by a lock file.
	stripes [lockStripes]sync.Mutex
	buffers sync.Pool // of *[bufferSize]byte

	// did is told each completed step of a write; an error from it ends the write. Tests crash in it.
	did func(step string) error
}

// OpenObjects opens the objects of a data folder, which it creates if missing. It needs no Close.
func OpenObjects(dir string) (*Objects, error) {
	o, err := openObjects(dir)
	if err == nil {
		err = files.Sweep(o.tmp, "")
	}
	if err != nil {
		return nil, fmt.Errorf("open data folder %s: %w", dir, err)
	}
	return o, nil
}

func openObjects(dir string) (*Objects, error) {
	o, dir, err := objectsIn(dir)
	if err != nil {
		return nil, err
	}
	// Objects are public and may be served by another program; the rest is ours.
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{dir, 0o755}, {o.data, 0o755}, {o.meta, 0o755}, {o.locks, 0o700}, {o.tmp, 0o700}} {
		if err := ensureDir(d.path, d.mode); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		// The parent may not be ours to open; then its creator is responsible for it.
		if err := syncDir(d); err != nil && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
	}
	return o, nil
}

// objectsIn names the folders of the objects in dir, and makes dir absolute.
func objectsIn(dir string) (*Objects, string, error) {
	if err := supported(); err != nil {
		return nil, "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", err
	}
	o := &Objects{
		data:  filepath.Join(dir, "objects"),
		meta:  filepath.Join(dir, "meta"),
		locks: filepath.Join(dir, "locks"),
		tmp:   filepath.Join(dir, "tmp"),
		did:   func(string) error { return nil },
	}
	o.buffers.New = func() any { return new([bufferSize]byte) }
	return o, dir, nil
}

// paths are where one object's parts are.
type paths struct{ key, data, meta string }

func (o *Objects) paths(key string) (paths, error) {
	// Such a key has no empty, . or .. part, no control character and no backslash.
	if _, err := layout.KindOf(key); err != nil {
		return paths{}, err
	}
	for part := range strings.SplitSeq(key, "/") {
		if len(part) > maxName {
			return paths{}, fmt.Errorf("name file: %q is %d bytes, longer than %d", part, len(part), maxName)
		}
	}
	local := filepath.FromSlash(key)
	return paths{key, filepath.Join(o.data, local), filepath.Join(o.meta, local)}, nil
}

// lock excludes every other writer of key.
func (o *Objects) lock(key string) (unlock func(), err error) {
	h := fnv.New32a()
	io.WriteString(h, key)
	n := h.Sum32() % lockStripes
	o.stripes[n].Lock()
	f, err := os.OpenFile(filepath.Join(o.locks, fmt.Sprintf("%02x", n)), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		if err = files.Lock(f); err == nil {
			return func() { f.Close(); o.stripes[n].Unlock() }, nil
		}
		f.Close()
	}
	o.stripes[n].Unlock()
	return nil, fmt.Errorf("lock key: %w", err)
}

// Temp is a folder for temporary files that the next to open the data folder removes, once their process has ended.
func (o *Objects) Temp() string { return o.tmp }

func (o *Objects) buffer() (buf []byte, release func()) {
	b := o.buffers.Get().(*[bufferSize]byte)
	return b[:], func() { o.buffers.Put(b) }
}

// Stat implements builder.Objects.
func (o *Objects) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	f, info, err := o.open(ctx, key)
	if err != nil {
		return builder.ObjectInfo{}, fmt.Errorf("stat object %q: %w", key, err)
	}
	f.Close()
	return info, nil
}

// Get implements builder.Objects. The body is the *os.File itself when the whole object is asked
// for, and an io.Seeker and io.ReaderAt in any case.
func (o *Objects) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if off < 0 {
		return nil, builder.ObjectInfo{}, fmt.Errorf("get object %q: offset %d is negative", key, off)
	}
	f, info, err := o.open(ctx, key)
	if err != nil {
		return nil, builder.ObjectInfo{}, fmt.Errorf("get object %q: %w", key, err)
	}
	if off == 0 && n < 0 {
		return f, info, nil
	}
	off = min(off, info.Size)
	if left := info.Size - off; n < 0 || n > left {
		n = left
	}
	return section{io.NewSectionReader(f, off, n), f}, info, nil
}

type section struct {
	*io.SectionReader
	io.Closer
}

// open opens an object for reading.
func (o *Objects) open(ctx context.Context, key string) (*os.File, builder.ObjectInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	p, err := o.paths(key)
	if err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	for range readTries {
		f, rec, err := o.glimpse(p)
		if err != nil {
			return nil, builder.ObjectInfo{}, err
		}
		if f != nil {
			return opened(f, rec.info(key))
		}
	}
	if o.readOnly {
		return o.openAsIs(p)
	}
	// Either a writer is at work, and we wait for it; or one died, and we finish what it began.
	unlock, err := o.lock(key)
	if err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	defer unlock()
	f, rec, err := o.settle(p)
	if err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	return opened(f, rec.info(key))
}

// opened adds what the file itself, and its kind, say of an object.
func opened(f *os.File, info builder.ObjectInfo) (*os.File, builder.ObjectInfo, error) {
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, builder.ObjectInfo{}, fmt.Errorf("inspect file: %w", err)
	}
	kind, _ := layout.KindOf(info.Key) // it has been opened by this key
	info.Modified, info.Headers = fi.ModTime(), layout.HeadersOf(kind)
	return f, info, nil
}

// open opens an object's sidecar, reads it, and then opens the object's file. The caller closes both files.
func (p paths) open() (side *os.File, sc sidecar, data *os.File, err error) {
	if side, err = os.Open(p.meta); err != nil {
		return nil, sc, nil, notExist(err)
	}
	if sc, err = readSidecar(side); err == nil {
		if data, err = os.Open(p.data); err == nil {
			return side, sc, data, nil
		}
		err = notExist(err)
	}
	side.Close()
	return nil, sc, nil, err
}

// glimpse opens an object without a lock. It returns no file and no error if a writer is, or was, at
// work in between.
//
// The file changes only while its sidecar lists two records, or when there was no object. So if one
// and the same sidecar, listing one record, was there before and after the file was opened, then the
// two belong together. Sidecars are never modified but replaced, and the one held open here keeps its
// identity from being used again.
func (o *Objects) glimpse(p paths) (*os.File, record, error) {
	side, sc, f, err := p.open()
	if err != nil {
		return nil, record{}, err
	}
	defer side.Close()
	if len(sc.Candidates) != 1 || !files.IsAt(side, p.meta) {
		f.Close()
		return nil, record{}, nil
	}
	rec, err := choose(sc.Candidates, f, nil)
	if err != nil {
		f.Close()
		return nil, record{}, err
	}
	return f, rec, nil
}

// notExist turns the file system's word for absence into the port's.
func notExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return builder.ErrNotExist
	}
	return fmt.Errorf("open file: %w", err)
}

// Delete removes objects; removing what is not there is no error. On error some of them may have been
// removed.
func (o *Objects) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := o.remove(ctx, key); err != nil {
			return fmt.Errorf("delete object %q: %w", key, err)
		}
	}
	return nil
}

func (o *Objects) remove(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.readOnly {
		return ErrReadOnly
	}
	p, err := o.paths(key)
	if err != nil {
		return err
	}
	unlock, err := o.lock(key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeDurably(o.data, p.data); err != nil {
		return err
	}
	return removeDurably(o.meta, p.meta)
}
