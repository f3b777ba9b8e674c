package backup

import "os"

// tryLock locks nothing: os.Rename fails on Windows while another process has the file open.
func tryLock(*os.File) bool { return true }
