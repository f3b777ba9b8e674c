package builder

import "syscall"

// Full disks, quotas, exhausted tables: nobody's job is to blame. Windows has its own codes for them (winerror.h);
// the Unix names exist in package syscall, but no call returns them there.
var exhausted = [...]syscall.Errno{
	4,    // ERROR_TOO_MANY_OPEN_FILES
	8,    // ERROR_NOT_ENOUGH_MEMORY
	14,   // ERROR_OUTOFMEMORY
	19,   // ERROR_WRITE_PROTECT
	39,   // ERROR_HANDLE_DISK_FULL
	112,  // ERROR_DISK_FULL
	1295, // ERROR_DISK_QUOTA_EXCEEDED
}
