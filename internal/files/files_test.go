//go:build unix

package files_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/precast-ota/precast/internal/files"
)

// Only regular files are opened, and nothing is waited for: not even by a name that is a link, or inside a folder.
func TestS4OnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	socket, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	err = errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.Mkdir(at("folder"), 0o700), os.Symlink("pipe", at("link")),
		os.WriteFile(at("file"), []byte("content"), 0o600), os.Symlink("file", at("good")), os.Symlink("/dev/zero", at("zero")))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]string{
		"pipe": "it is a pipe, not a regular file", "link": "it is a pipe, not a regular file", "folder": "it is a folder, not a regular file",
		"socket": "it is a socket, not a regular file", "zero": "it is a device, not a regular file", "missing": "no such file or directory",
	} {
		_, err := files.Read(at(name), 100)
		if err == nil || err.Error() != "open "+at(name)+": "+want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		if name == "zero" {
			want = "path escapes from parent"
		}
		if _, err := files.OpenIn(root, name); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s in a folder: %v, want %s", name, err, want)
		}
	}
	for _, name := range []string{"file", "good"} {
		if data, err := files.Read(at(name), 7); err != nil || string(data) != "content" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		if _, err := files.Read(at(name), 6); err == nil || !strings.Contains(err.Error(), "longer than 6 bytes") {
			t.Errorf("%s, too long: %v", name, err)
		}
	}
}
