package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A tempFile is a file being written. Its writer holds a lock on it; one that is not locked was left
// behind by a process that died, and anybody may remove it.
type tempFile struct {
	*os.File
	moved bool // it has its name for good
}

func createTemp(dir string) (*tempFile, error) {
	for range 100 {
		name := filepath.Join(dir, rand.Text())
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("create temporary file: %w", err)
		}
		// Between its creation and its lock the file looks abandoned: if a cleaner came first, it has
		// locked or removed it, and another file is needed.
		ok, err := tryFlock(f)
		if err == nil && ok {
			ok = isAt(f, name)
		}
		if err == nil && ok {
			return &tempFile{File: f}, nil
		}
		f.Close()
		if err != nil {
			os.Remove(name)
			return nil, fmt.Errorf("create temporary file: %w", err)
		}
	}
	return nil, errors.New("create temporary file: every one was taken away")
}

// discard removes the file unless it has its name for good.
func (t *tempFile) discard() {
	if !t.moved {
		os.Remove(t.Name()) // if that fails, the next Open removes it
	}
	t.Close()
}

// removeAbandoned removes the temporary files of processes that died.
func removeAbandoned(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list temporary files: %w", err)
	}
	for _, e := range entries {
		if err := removeIfAbandoned(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove temporary file: %w", err)
		}
	}
	return nil
}

func removeIfAbandoned(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if ok, err := tryFlock(f); err != nil || !ok {
		return err
	}
	// Names are never used twice: if it was moved to its place meanwhile, there is nothing here.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isAt reports whether the open file f is what name names.
func isAt(f *os.File, name string) bool {
	here, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(name)
	return err == nil && os.SameFile(here, there)
}
