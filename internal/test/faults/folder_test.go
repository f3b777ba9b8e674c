package faults_test

import (
	"os"
	"strings"
	"testing"
)

// folder is a folder in memory where there is such a file system: what is under test here is the order of
// writes, not whether a disk keeps them, and waiting for disks takes most of the time otherwise.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "precast-faults-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// lines cuts a program's output.
func lines(out string) []string { return strings.Split(strings.TrimSpace(out), "\n") }
