package local

import (
	"os"

	"github.com/precast-ota/precast/internal/files"
)

// A tempFile is a file being written. Its writer holds a lock on it; one that is not locked was left
// behind by a process that died, and anybody may remove it.
type tempFile struct {
	*os.File
	moved bool // it has its name for good
}

func createTemp(dir string) (*tempFile, error) {
	f, err := files.CreateTemp(dir)
	if err != nil {
		return nil, err
	}
	return &tempFile{File: f}, nil
}

// discard removes the file unless it has its name for good.
func (t *tempFile) discard() {
	if !t.moved {
		os.Remove(t.Name()) // if that fails, the next Open removes it
	}
	t.Close()
}
