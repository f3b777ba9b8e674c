package local

import (
	"errors"
	"fmt"
)

// supported reports why Windows cannot keep a data folder. Writers replace objects that readers have open, and
// temporary files keep their lock while they are renamed: os.Rename fails there with a sharing violation. A rename
// survives a power cut only after its folder has been synced, and folders cannot be. Locks alone (LockFileEx) would
// not make the folder safe, so nothing opens it.
func supported() error {
	return fmt.Errorf("%w on Windows, which cannot replace a file that is open and cannot sync a folder; let precast serve keep the folder on a Unix machine", errors.ErrUnsupported)
}
