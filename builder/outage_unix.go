//go:build !windows

package builder

import "syscall"

// Full disks, quotas, exhausted tables: nobody's job is to blame.
var exhausted = [...]syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM}
