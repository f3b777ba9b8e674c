//go:build !unix

package limits

// openFiles: Windows has no such limit.
func openFiles() uint64 { return 1 << 20 }
