package files

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// CreateTemp makes a temporary file in dir and locks it. One that is not locked was left behind by a process that
// died, and Sweep removes it.
func CreateTemp(dir string) (*os.File, error) {
	return claim(dir, "", func(name string) (*os.File, error) {
		return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	})
}

// A Folder is a temporary folder that its maker has locked, as CreateTemp locks a file.
type Folder struct{ lock *os.File }

// MakeFolder makes a temporary folder in dir, after those with this prefix that the dead left there are removed.
func MakeFolder(dir, prefix string) (*Folder, error) {
	if err := Sweep(dir, prefix); err != nil {
		return nil, err
	}
	lock, err := claim(dir, prefix, func(name string) (*os.File, error) {
		if err := os.Mkdir(name, 0o700); err != nil {
			return nil, err
		}
		return os.Open(name)
	})
	if err != nil {
		return nil, err
	}
	return &Folder{lock}, nil
}

// Path is where the folder is.
func (f *Folder) Path() string { return f.lock.Name() }

// Remove removes the folder and everything in it.
func (f *Folder) Remove() error { return errors.Join(os.RemoveAll(f.Path()), f.lock.Close()) }

func claim(dir, prefix string, create func(name string) (*os.File, error)) (*os.File, error) {
	for range 100 {
		name := filepath.Join(dir, prefix+rand.Text())
		f, err := create(name)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) && exists(dir) {
			continue // a cleaner took the folder between its creation and its opening
		}
		if err != nil {
			return nil, fmt.Errorf("create temporary file: %w", err)
		}
		// Between its creation and its lock it looks abandoned: if a cleaner came first, it has locked or removed it,
		// and another one is needed.
		ok, err := TryLock(f)
		if errors.Is(err, errors.ErrUnsupported) {
			return f, nil // nothing is swept there
		}
		if err == nil && ok {
			ok = IsAt(f, name)
		}
		if err == nil && ok {
			return f, nil
		}
		f.Close()
		if err != nil {
			os.Remove(name)
			return nil, fmt.Errorf("create temporary file: %w", err)
		}
	}
	return nil, errors.New("create temporary file: every one was taken away")
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// Sweep removes the temporary files and folders in dir that begin with prefix and whose process died. Those of other
// users stay.
func Sweep(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list temporary files: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.IsDir() && !e.Type().IsRegular() {
			continue
		}
		if err := removeIfAbandoned(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("remove temporary file: %w", err)
		}
	}
	return nil
}

func removeIfAbandoned(name string) error {
	// Anybody may put a link or a pipe in its place, in a temporary folder that all share.
	f, err := os.OpenFile(name, os.O_RDONLY|withoutWaiting|withoutFollowing, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if ok, err := TryLock(f); err != nil || !ok {
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	}
	// Names are never used twice: if it was moved to its place meanwhile, there is nothing here.
	return os.RemoveAll(name)
}

// IsAt reports whether the open file f is what name names.
func IsAt(f *os.File, name string) bool {
	here, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(name)
	return err == nil && os.SameFile(here, there)
}
