//go:build unix

package limits

import "syscall"

// openFiles is how many files this process may have open. (Go raises it to the hard limit at the start.)
func openFiles() uint64 {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return 1024
	}
	return uint64(r.Cur)
}
