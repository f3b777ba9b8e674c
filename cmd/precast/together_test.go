package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// S6: of two commands at once through one server, none is checked against what the other one has changed since.
func TestS6CommandsAtOnce(t *testing.T) {
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("PRECAST_DATA", filepath.Join(dir, "data"))
	files := make(map[string]string)
	for _, content := range []string{"one", "two"} {
		files[content] = filepath.Join(dir, content)
		if err := os.WriteFile(files[content], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := startServer(path, dir, os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}()
	// together runs two commands at once and returns how many have done it.
	together := func(commands ...[]string) int {
		t.Helper()
		codes := make([]int, len(commands))
		var wg sync.WaitGroup
		for i, args := range commands {
			wg.Go(func() {
				var out strings.Builder
				if codes[i] = run(t.Context(), args, streams{out: &out, err: &out, in: strings.NewReader("")}); codes[i] == exitUsage {
					t.Errorf("%v: %s", args, &out)
				}
			})
		}
		wg.Wait()
		done := 0
		for _, code := range codes {
			if code == exitOK {
				done++
			}
		}
		return done
	}
	put := func(app, file string, flags ...string) []string {
		return append([]string{"catalog", "put", app, files[file]}, flags...)
	}
	items := func() map[string]catalog.Item {
		t.Helper()
		d, err := dataFlag{Data: os.Getenv("PRECAST_DATA")}.existing(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		all, err := d.catalog().Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		byKey := make(map[string]catalog.Item)
		for _, it := range all {
			byKey[it.Key().String()] = it
		}
		return byKey
	}
	const rounds = 6
	for i := range rounds {
		lower, upper := fmt.Sprint("col", i), fmt.Sprint("COL", i)
		if done := together(put(lower, "one", "--version", "1"), put(upper, "two", "--version", "1")); done != 1 {
			t.Errorf("%d of %s and %s are accepted, want one", done, lower, upper)
		}
		twice := fmt.Sprint("twice", i)
		if done := together(put(twice, "one", "--version", "1"), put(twice, "two", "--version", "1", "--track", "beta")); done != 1 {
			t.Errorf("%d contents of %s 1 are accepted, want one", done, twice)
		}
		floors := fmt.Sprint("floors", i)
		together(put(floors, "one", "--version", "1"))
		done := together(put(floors, "two", "--version", "2", "--floor", "1"), put(floors, "two", "--version", "3"))
		it := items()[floors+"/prod"]
		// In the other order there is no release 1 any more that could be a floor.
		if want := done - 1; done < 1 || it.Version != "3" || len(it.Floors) != want {
			t.Errorf("%d of the commands are done, and %s is %s with the floors %v", done, floors, it.Version, versions(it.Floors))
		}
	}
}
