//go:build unix

package local

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// supported reports why this system cannot keep a data folder; on Unix it can.
func supported() error { return nil }

// flock locks f for this open file alone: it excludes other processes and other opens of this
// process. The lock ends when f is closed, or its process ends however.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return wrapFlock(f, err)
		}
	}
}

// tryFlock is flock that reports false instead of waiting.
func tryFlock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		default:
			return err == nil, wrapFlock(f, err)
		}
	}
}

func wrapFlock(f *os.File, err error) error {
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}
