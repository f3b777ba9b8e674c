package main

import (
	"fmt"
	"os"

	"github.com/precast-ota/precast/internal/files"
)

// maxNamed bounds the files that are named on the command line and read into memory, in bytes.
const maxNamed = 256 << 20

// openBinary opens what is to be installed on devices.
func openBinary(name string) (*os.File, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a folder, and a release is one file: pack it (tar -czf app.tar.gz -C %[1]q .) and put that; precast catalog import brings in a folder with a catalog.json", name)
	}
	return files.Open(name)
}
