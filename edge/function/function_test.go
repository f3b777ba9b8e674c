// Package function_test holds the viewer functions to what runs it, and to the Go code that it repeats.
package function_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"
)

// maxSize is what CloudFront takes, comments included
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html).
const maxSize = 10 << 10 // bytes

// functions are the viewer functions' files.
func functions() []string { return []string{"function.js", "response.js"} }

func TestSize(t *testing.T) {
	for _, name := range functions() {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > maxSize {
			t.Errorf("%s has %d bytes, more than %d", name, info.Size(), maxSize)
		}
	}
}

// TestInNode runs function.test.mjs: the golden vectors, and what the function promises beyond them.
func TestInNode(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "node", "--test", "function.test.mjs").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("node is not installed: install Node 20")
	}
	if err != nil {
		t.Errorf("node --test: %v\n%s", err, out)
	}
}
