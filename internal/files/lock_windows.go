package files

import (
	"errors"
	"fmt"
	"os"
)

const withoutWaiting, withoutFollowing = 0, 0

// Lock is not to be had on Windows: a folder cannot be locked there.
func Lock(*os.File) error { return fmt.Errorf("lock: %w on Windows", errors.ErrUnsupported) }

// TryLock is as Lock.
func TryLock(f *os.File) (bool, error) { return false, Lock(f) }
