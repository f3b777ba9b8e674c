//go:build unix

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// command runs a command in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, streams{out: &out, err: &errs, in: strings.NewReader("")})
	return code, out.String(), errs.String()
}

// A named pipe that nobody writes to, wherever a file is expected: it is refused, and nothing waits for it.
func TestS4Pipes(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	folder := filepath.Join(dir, "release")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Mkdir(folder, 0o700), syscall.Mkfifo(filepath.Join(folder, "catalog.json"), 0o600)); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if code, _, stderr := command(t, "seed", "--size", "1KiB", "-d", data); code != exitOK {
		t.Fatal(stderr)
	}
	for name, args := range map[string][]string{
		"put":          {"catalog", "put", "app", pipe, "--version", "1", "-d", data},
		"import":       {"catalog", "import", pipe, "-d", data},
		"catalog.json": {"catalog", "import", folder, "-d", data},
		"plan":         {"plan", "--change", pipe, "-d", data},
		"inspect":      {"inspect", pipe},
		"held":         {"inspect", "http://127.0.0.1:1/", "--held", pipe},
		"verify":       {"verify", pipe, "--keyring", pipe},
		"root":         {"verify", "http://127.0.0.1:1/package?cpuArch=x", "--root", pipe},
		"keyring":      {"verify", "http://127.0.0.1:1/package?cpuArch=x", "--keyring", pipe},
		"index":        {"fsck", "--index", pipe, "http://127.0.0.1:1/"},
		"key":          {"serve", "--signing-key", "file:" + pipe, "--addr", "127.0.0.1:0", "-d", data},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := command(t, args...)
			if code != exitError || !strings.Contains(stderr, "it is a pipe, not a regular file") {
				t.Errorf("exit %d, %s%s", code, stdout, stderr)
			}
		})
	}
}

// An item whose source is a pipe is left out, and says so; the others are published.
func TestS4PipeAsASource(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if code, _, stderr := command(t, "seed", "--size", "1KiB", "-d", data); code != exitOK {
		t.Fatal(stderr)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	item := catalog.Item{App: "hung", Track: "prod", Version: "1", URL: "file://" + pipe, MD5: strings.Repeat("a", 32), SHA256: strings.Repeat("a", 64), Size: 1}
	text, err := json.Marshal([]catalog.Item{item})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "c.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "catalog", "import", file, "-d", data); code != exitOK {
		t.Fatal(stderr)
	}
	code, stdout, stderr := command(t, "build", "-d", data)
	if code != exitNo || !strings.Contains(stdout, "generation 1 is published") || !strings.Contains(stderr, "left out: item hung/prod 1: ") ||
		!strings.Contains(stderr, "it is a pipe, not a regular file") {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
}

// A read that never returns does not keep a command from ending.
func TestS4HungRead(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hung, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	go func() { <-hung; cancel() }()
	err := endOrHang(ctx, time.Millisecond, func() error { close(hung); <-over; return nil })
	if !errors.Is(err, errHangs) {
		t.Errorf("error %v", err)
	}
	// What ends in time says how it ended.
	want := errors.New("ended")
	if err := endOrHang(ctx, time.Hour, func() error { <-ctx.Done(); return want }); !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
}

// precast help, in the ways that people ask for it, and what is told only to somebody who looks.
func TestAskingForHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"catalog"}, {"catalog", "put"}} {
		code, help, _ := command(t, append([]string{"help"}, args...)...)
		_, flag, _ := command(t, append(args, "--help")...)
		if code != exitOK || help != flag || help == "" {
			t.Errorf("help %q: exit %d, %q, want %q", args, code, help, flag)
		}
	}
	_, word, _ := command(t, "version")
	if _, flag, _ := command(t, "--version"); flag != word || word == "" {
		t.Errorf("--version: %q, version: %q", flag, word)
	}
	data := filepath.Join(t.TempDir(), "data")
	if code, stdout, stderr := command(t, "seed", "--size", "1KiB", "-d", data); code != exitOK || stderr != "" || !strings.HasPrefix(stdout, "9 items in the catalog") {
		t.Errorf("seed: exit %d, %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := command(t, "build", "--quiet", "-d", data); code != exitOK || stderr != "" || !strings.HasPrefix(stdout, "generation 1 is published") {
		t.Errorf("build --quiet: exit %d, %s%s", code, stdout, stderr)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"scoreboard", file, "--version", "9", "--rollout", "12.5", "--attr", "gamer"}, {"fresh", file, "--version", "1", "--rollout", "1", "--attr", "gamer"}} {
		if code, _, stderr := command(t, append([]string{"catalog", "put", "-q", "-d", data}, args...)...); code != exitOK {
			t.Fatal(stderr)
		}
	}
	_, list, _ := command(t, "catalog", "list", "-d", data)
	for _, row := range []string{`scoreboard +prod +9 +1 B +gamer +12.5 %, else 1.0.0 `, `fresh +prod +1 +1 B +gamer +1 %, else nothing `, `modemFW +prod +1.0 +1.0 KiB +cellular +all `} {
		if !regexp.MustCompile("(?m)^" + row).MatchString(list) {
			t.Errorf("no line %s in\n%s", row, list)
		}
	}
}

// An import that is killed leaves gigabytes: the next command removes them, whichever it is and wherever the pipeline
// runs. They are below the data folder, and what a running import uses stays.
func TestS9KilledImport(t *testing.T) {
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	archive := filepath.Join(dir, "r.tar.gz")
	out, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(out)
	w := tar.NewWriter(z)
	const size = 8 << 30 // it is killed long before that has been unpacked
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: size}); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 256 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	left := func() (all []string) {
		all, err := filepath.Glob(filepath.Join(data, "tmp", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	kill := func() {
		t.Helper()
		started := exec.Command(path, "catalog", "import", archive, "-d", data)
		if err := started.Start(); err != nil {
			t.Fatal(err)
		}
		for {
			if unpacked, err := filepath.Glob(filepath.Join(data, "tmp", "precast-import-*", "*")); err != nil || len(unpacked) > 0 {
				break
			}
			if started.ProcessState != nil {
				t.Fatal("it has ended")
			}
		}
		if err := started.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := started.Wait(); err == nil {
			t.Fatal("it was not killed")
		}
		if len(left()) == 0 {
			t.Fatal("nothing is left to be swept")
		}
	}
	kill()
	if code, _, stderr := command(t, "seed", "--size", "1KiB", "-d", data); code != exitOK {
		t.Fatal(stderr)
	}
	if all := left(); len(all) > 0 {
		t.Errorf("left are %q", all)
	}
	s, err := startServer(path, dir, os.Environ(), "-d", data)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() }()
	kill()
	running, err := files.MakeFolder(filepath.Join(data, "tmp"), "running-")
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "catalog", "list", "-d", data); code != exitOK {
		t.Fatal(stderr)
	}
	if all := left(); len(all) != 1 || all[0] != running.Path() {
		t.Errorf("left are %q", all)
	}
	if err := running.Remove(); err != nil {
		t.Error(err)
	}
}
