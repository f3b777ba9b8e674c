// Package function_test holds the viewer functions to what runs it, and to the Go code that it repeats.
package function_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/precast-ota/precast/edge/function"
	"github.com/precast-ota/precast/edge/function/shrink"
)

// maxSize is what CloudFront takes
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html#limits-functions).
const maxSize = 10 << 10 // bytes

// functions are the viewer functions' sources by file.
func functions() map[string][]byte {
	return map[string][]byte{"function.js": function.Request, "response.js": function.Response}
}

// packed is what of a viewer function is deployed.
func packed(t testing.TB, name string) []byte {
	t.Helper()
	text, err := shrink.JavaScript(name, functions()[name])
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// packedFolder has the packed functions.
func packedFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name := range functions() {
		if err := os.WriteFile(filepath.Join(dir, name), packed(t, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSize(t *testing.T) {
	for name, source := range functions() {
		n := len(packed(t, name))
		if n > maxSize {
			t.Errorf("%s has %d bytes, more than %d", name, n, maxSize)
		}
		t.Logf("%s: %d bytes of %d, packed of %d", name, n, maxSize, len(source))
	}
}

// TestInNode runs function.test.mjs on the sources, and on what is deployed: the golden vectors, and what the
// function promises beyond them.
func TestInNode(t *testing.T) {
	for kind, dir := range map[string]string{"source": "", "packed": packedFolder(t)} {
		t.Run(kind, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "node", "--test", "function.test.mjs")
			cmd.Env = append(os.Environ(), "PRECAST_FUNCTIONS="+dir)
			out, err := cmd.CombinedOutput()
			if errors.Is(err, exec.ErrNotFound) {
				t.Fatal("node is not installed: install Node 20")
			}
			if err != nil {
				t.Errorf("node --test: %v\n%s", err, out)
			}
		})
	}
}
