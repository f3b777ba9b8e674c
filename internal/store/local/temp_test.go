package local

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/precast-ota/precast/internal/files"
)

func tempNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Open removes what the dead left behind, and nothing of the living.
func TestTempCleaning(t *testing.T) {
	t.Parallel()
	o, dir := openTempObjects(t)
	if err := os.WriteFile(filepath.Join(dir, "tmp", "abandoned"), []byte("half a bun"), 0o600); err != nil {
		t.Fatal(err)
	}
	mine, err := createTemp(o.tmp)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if names := tempNames(t, dir); len(names) != 1 || names[0] != filepath.Base(mine.Name()) {
		t.Errorf("left are %q, want %q", names, mine.Name())
	}
	mine.discard()
	if names := tempNames(t, dir); len(names) != 0 {
		t.Errorf("left are %q", names)
	}
}

// Files are created, moved and cleaned at once; none that is in use may go.
func TestTempCleaningRacesWriting(t *testing.T) {
	t.Parallel()
	o, dir := openTempObjects(t)
	stop, stopped := make(chan struct{}), make(chan error)
	for range 2 {
		go func() {
			for {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				if err := files.Sweep(o.tmp, ""); err != nil {
					stopped <- err
					return
				}
			}
		}()
	}
	for i := range 300 {
		f, err := createTemp(o.tmp)
		if err != nil {
			t.Fatal(err)
		}
		if !files.IsAt(f.File, f.Name()) {
			t.Fatalf("temporary file %d was taken away", i)
		}
		if err := moveDurably(f, o.data, filepath.Join(o.data, "moved"), o.did); err != nil {
			t.Fatal(err)
		}
		f.discard()
	}
	close(stop)
	for range 2 {
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}
	if names := tempNames(t, dir); len(names) != 0 {
		t.Errorf("left are %q", names)
	}
}
