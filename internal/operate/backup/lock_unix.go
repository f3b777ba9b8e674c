//go:build unix

package backup

import (
	"errors"
	"os"
	"syscall"
)

// tryLock tells whether nobody else has the lock of a file. File systems without locks have none to wait for.
func tryLock(f *os.File) bool {
	return !errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
