package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// moveDurably gives the synced file t the name path, below root, replacing what is there. When it
// returns, name and content survive a crash.
func moveDurably(t *tempFile, root, path string, did func(string) error) error {
	dir := filepath.Dir(path)
	for try := 0; ; try++ {
		err := ensureDir(dir, 0o755)
		if err == nil {
			err = os.Rename(t.Name(), path)
		}
		if err == nil {
			break
		}
		// A concurrent Delete may have removed the folder, or one above it, when it was empty.
		if !errors.Is(err, fs.ErrNotExist) || try == 1000 {
			return fmt.Errorf("commit file: %w", err)
		}
	}
	t.moved = true
	if err := did("renamed"); err != nil {
		return err
	}
	return syncUp(dir, root)
}

// syncUp makes the entries of dir, and of every folder above it up to root, durable. Above dir too,
// because those may be new, made by us or by another process that has not synced them yet.
func syncUp(dir, root string) error {
	for {
		if err := syncDir(dir); err != nil {
			return err
		}
		if dir == root {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// removeDurably removes path, below root, and the folders above it that are empty then.
func removeDurably(root, path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove file: %w", err)
	}
	// The folder may be gone by now, when another key's removal emptied it: then its parent is the
	// one whose entries changed.
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		err := syncDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if dir == root || err == nil && os.Remove(dir) != nil {
			return nil
		}
	}
}

// syncData makes sure that the object's file survives a crash under its name.
func (o *Objects) syncData(p paths) error { return syncUp(filepath.Dir(p.data), o.data) }
