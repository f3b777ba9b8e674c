//go:build unix

package files

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

const (
	withoutWaiting   = syscall.O_NONBLOCK
	withoutFollowing = syscall.O_NOFOLLOW
)

// Lock locks f for this open file alone: it excludes other processes and other opens of this
// process. The lock ends when f is closed, or its process ends however.
func Lock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return wrapLock(f, err)
		}
	}
}

// TryLock is Lock that reports false instead of waiting.
func TryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		default:
			return err == nil, wrapLock(f, err)
		}
	}
}

func wrapLock(f *os.File, err error) error {
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}
