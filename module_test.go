package precast_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// command runs a program in dir and returns what it printed, stderr included.
func command(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	// A make around the tests must not tell the one below what to do.
	cmd.Env = append(os.Environ(), append([]string{"MAKEFLAGS=", "MAKELEVEL="}, env...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// only returns the only file that a pattern matches.
func only(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %q, %v; want one file", pattern, names, err)
	}
	return names[0]
}

// device is the program of somebody who imports the client.
const device = `package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"` + module + `/client"
)

func main() {
	url, root, dir, target := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	roots, err := os.ReadFile(root)
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Options{
		URL: url, Selection: "cpuArch=armv8&attrGamer=prod", Roots: roots, Dir: dir,
		Install: func(_ context.Context, set client.Set) error {
			for _, f := range set.Files {
				data, err := os.ReadFile(f.Path)
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(target, f.Name), data, 0o755); err != nil {
					return err
				}
			}
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	result, err := c.Update(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("generation %d, changed: %t\n", result.Generation, result.Changed)
}
`

// serve starts the server of a data folder, for as long as the test runs, and returns its URL.
func serve(t *testing.T, program, data, signingKey string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "serve", "--data", data, "--addr", "127.0.0.1:0", "--log-level", "warn", "--signing-key", "file:"+signingKey)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ok {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the server said %q: %v\n%s", line, err, &stderr)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return url
}

// Somebody else's module imports the client, needs nothing else, and installs what a server serves.
func TestModuleCanBeImported(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs")
	}
	checkout, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.go": device,
		"go.mod":  "module example.com/device\n\ngo 1.26\n\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + checkout + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Without a network: the client's package needs no other module.
	command(t, dir, []string{"GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off"}, "go", "build", "-o", "device", ".")

	program, data, keys := filepath.Join(dir, "precast"), filepath.Join(dir, "data"), filepath.Join(dir, "keys")
	command(t, ".", nil, "make", "build", "BIN="+dir, "VERSION=v9.8.7")
	if out := command(t, dir, nil, program, "--version"); !strings.HasPrefix(out, "precast v9.8.7,") {
		t.Errorf("make build gives the program the version %q", out)
	}
	command(t, dir, nil, program, "seed", "--data", data, "--size", "2KiB")
	command(t, dir, nil, program, "build", "--data", data)
	command(t, dir, nil, program, "keys", "init", "--dir", keys)
	command(t, dir, nil, program, "keys", "publish", "--dir", keys, "--data", data)
	root := only(t, filepath.Join(keys, "root-*.pub.pem"))
	url := serve(t, program, data, only(t, filepath.Join(keys, "signing-*.pem")))

	target := t.TempDir()
	update := []string{"./device", url, root, filepath.Join(dir, "state"), target}
	if out, want := command(t, dir, nil, update...), "generation 1, changed: true\n"; out != want {
		t.Errorf("the first update: %q, want %q", out, want)
	}
	var installed []string
	entries, err := os.ReadDir(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Size() != 2<<10 {
			t.Errorf("%s: %v, want 2 KiB", e.Name(), err)
		}
		installed = append(installed, e.Name())
	}
	if want := []string{"os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}; !slices.Equal(installed, want) {
		t.Errorf("%q is installed, want %q", installed, want)
	}
	if out, want := command(t, dir, nil, update...), "generation 1, changed: false\n"; out != want {
		t.Errorf("the second update: %q, want %q", out, want)
	}
}

// A fork gives the module its own path by one command: everything builds, and nothing has the old one.
func TestModulePath(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything once more")
	}
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(command(t, ".", nil, "git", "ls-files", "-z"), "\x00"), "\x00") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	const to = "example.com/me/precast"
	command(t, dir, nil, "make", "module-path", "TO="+to)
	if got := command(t, dir, nil, "go", "list", "-m"); got != to+"\n" {
		t.Errorf("go.mod has the path %q", got)
	}
	old := exec.CommandContext(t.Context(), "grep", "-rnF", module, ".")
	old.Dir = dir
	if left, err := old.Output(); err == nil || len(left) > 0 {
		t.Errorf("the old path is left:\n%s", left)
	}
	if out := command(t, dir, nil, "gofmt", "-l", "."); out != "" {
		t.Errorf("not formatted: %s", out)
	}
	command(t, dir, nil, "go", "build", "./...")
	command(t, dir, nil, "go", "vet", ".", "./client", "./internal/format/...")
}

// make cross for the packages that differ between platforms; CI does it for all.
func TestCrossBuilds(t *testing.T) {
	if testing.Short() {
		t.Skip("builds for every platform")
	}
	command(t, ".", nil, "make", "cross", "CROSS=./client ./builder ./internal/store/local")
}
