package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	manifestName = "backup.json"
	contentDir   = "content"
	// One file is written at a time, under this name: what an interrupted run has left is written over.
	temporary = "tmp"
	lockName  = "lock"
)

// Folder is a backup in a folder. Contents have the names of their digests and are never changed, so that a run that
// is interrupted leaves the backup of the run before as it was.
type Folder struct {
	dir  string
	lock *os.File // nil: it is only read
}

// WriteFolder opens a folder to write a backup to, which it creates. One process at a time can.
func WriteFolder(dir string) (*Folder, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open backup folder: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != manifestName && name != contentDir && name != temporary && name != lockName {
			return nil, refuse("%s is no backup: it has %s in it; give another folder", dir, name)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, contentDir), 0o755); err != nil {
		return nil, fmt.Errorf("make backup folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open backup folder: %w", err)
	}
	if !tryLock(lock) {
		lock.Close()
		return nil, fmt.Errorf("open backup folder: another backup is being written to %s", dir)
	}
	return &Folder{dir, lock}, nil
}

// ReadFolder opens a folder that has a backup.
func ReadFolder(dir string) *Folder { return &Folder{dir: dir} }

// Close lets other processes write to the folder.
func (f *Folder) Close() error {
	if f.lock == nil {
		return nil
	}
	return f.lock.Close()
}

func (f *Folder) content(p Part) string { return filepath.Join(f.dir, contentDir, p.SHA256) }

// Before implements Sink.
func (f *Folder) Before() (*Manifest, error) {
	m, err := f.manifest()
	if errors.Is(err, ErrNone) {
		return nil, nil
	}
	return m, err
}

func (f *Folder) manifest() (*Manifest, error) {
	file, err := os.Open(filepath.Join(f.dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNone, f.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open backup: %w", err)
	}
	defer file.Close()
	data, err := readMost(file, maxManifest)
	if err != nil {
		return nil, err
	}
	return parseManifest(data)
}

// readMost reads at most so many bytes.
func readMost(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("it is longer than %d bytes", most)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", manifestName, err)
	}
	return data, nil
}

// Has implements Sink.
func (f *Folder) Has(p Part) (bool, error) {
	info, err := os.Lstat(f.content(p))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular() && info.Size() == p.Size, err
}

// Add implements Sink.
func (f *Folder) Add(_ context.Context, p Part, body io.Reader) error {
	return f.write(f.content(p), body)
}

// write replaces a file, whole or not at all.
func (f *Folder) write(name string, body io.Reader) error {
	path := filepath.Join(f.dir, temporary)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, body)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(path, name)
	}
	if err != nil {
		os.Remove(path) // its space may be what the next one needs
	}
	return err
}

// Commit implements Sink. It removes what neither this backup nor an interrupted one needs.
func (f *Folder) Commit(_ context.Context, m *Manifest) error {
	data, err := encodeManifest(m)
	if err != nil {
		return err
	}
	if err := syncFolder(filepath.Join(f.dir, contentDir)); err != nil {
		return err
	}
	if err := f.write(filepath.Join(f.dir, manifestName), bytes.NewReader(data)); err != nil {
		return err
	}
	if err := syncFolder(f.dir); err != nil {
		return err
	}
	needed := make(map[string]bool)
	for _, p := range m.Parts {
		needed[p.SHA256] = true
	}
	entries, err := os.ReadDir(filepath.Join(f.dir, contentDir))
	if err != nil {
		return fmt.Errorf("remove what an earlier backup needed: %w", err)
	}
	for _, e := range entries {
		if sum, err := hex.DecodeString(e.Name()); err != nil || len(sum) != 32 || needed[e.Name()] {
			continue // not ours
		}
		if err := os.Remove(filepath.Join(f.dir, contentDir, e.Name())); err != nil {
			return fmt.Errorf("remove what an earlier backup needed: %w", err)
		}
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// walk implements Source.
func (f *Folder) walk(ctx context.Context, m *Manifest, yield func(p Part, body io.Reader) error) error {
	seen := make(map[string]bool)
	for _, p := range m.Parts {
		if seen[p.SHA256] {
			continue
		}
		seen[p.SHA256] = true
		if err := f.one(ctx, p, yield); err != nil {
			return err
		}
	}
	return nil
}

func (f *Folder) one(ctx context.Context, p Part, yield func(p Part, body io.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if there, err := f.Has(p); err != nil || !there {
		return err // whoever walks misses it
	}
	file, err := os.Open(f.content(p))
	if err != nil {
		return err
	}
	defer file.Close()
	return yield(p, file)
}
