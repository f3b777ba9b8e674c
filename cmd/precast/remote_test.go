package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// C22: what does not work through a server says so. It does not fall back to a data folder that nobody meant.
func TestNotThroughAServerC22(t *testing.T) {
	dir := t.TempDir()
	token, data, saved := filepath.Join(dir, "token"), filepath.Join(dir, "data"), filepath.Join(dir, "backup")
	if err := os.WriteFile(token, []byte("0123456789abcdef0123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, 0, "seed", "--data", data, "--size", "2KiB")
	says(t, 0, "build", "--data", data)
	says(t, 0, "backup", saved, "--data", data)
	elsewhere := filepath.Join(dir, "elsewhere")
	for _, args := range [][]string{{"serve", "--addr", "127.0.0.1:0"}, {"restore", saved}, {"catalog", "recover"}} {
		args = append(args, "--data", elsewhere, "--server", "https://127.0.0.1:1", "--token-file", token)
		if _, errs := says(t, exitError, args...); !strings.Contains(errs, "leave out --server") {
			t.Errorf("%s: %s", args, errs)
		}
	}
	if _, err := os.Stat(elsewhere); !os.IsNotExist(err) {
		t.Errorf("there is a data folder: %v", err)
	}
}
