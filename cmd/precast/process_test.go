//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/inspect"
	"github.com/precast-ota/precast/internal/store/local"
)

// precast runs the command in a process of its own and returns its peak memory in bytes.
func precast(t *testing.T, env []string, args ...string) int64 {
	t.Helper()
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("precast %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return peak(cmd.ProcessState)
}

// peak is a process's peak resident memory: ru_maxrss is in KiB on Linux (getrusage(2)).
func peak(p *os.ProcessState) int64 { return int64(p.SysUsage().(*syscall.Rusage).Maxrss) << 10 }

// storedObjects returns the digest of every object below the prefixes, and fails unless each
// is whole.
func storedObjects(t *testing.T, dir string, prefixes ...string) map[string][32]byte {
	t.Helper()
	ctx := context.Background()
	objects, err := local.OpenObjects(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][32]byte)
	for _, p := range prefixes {
		err := objects.List(ctx, p, func(o builder.ObjectInfo) error {
			body, info, err := objects.Get(ctx, o.Key, 0, -1)
			if err != nil {
				return err
			}
			defer body.Close()
			data, err := io.ReadAll(body)
			if err != nil {
				return err
			}
			if int64(len(data)) != info.Size {
				return fmt.Errorf("%s has %d bytes, not %d", o.Key, len(data), info.Size)
			}
			all[o.Key] = sha256.Sum256(data)
			if p == layout.BundlePrefix {
				rep, err := inspect.Bundle(ctx, strings.NewReader(string(data)))
				if err != nil || len(rep.Problems) > 0 {
					return fmt.Errorf("%s is torn: %w %+v", o.Key, err, rep)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Killed again and again in the middle of a build, the server finishes it, with nothing torn on the way.
func TestKilledServersFinishTheirBuild(t *testing.T) {
	for name, c := range map[string]struct {
		copies string
		counts string // the folder that grows while it builds
		step   int    // by how many files
	}{
		"pieces": {"false", "pieces", 1},
		"copies": {"true", "bundles", 45},
	} {
		t.Run(name, func(t *testing.T) { killedServers(t, []string{"PRECAST_COPIES=" + c.copies}, c.counts, c.step) })
	}
}

func killedServers(t *testing.T, env []string, counts string, step int) {
	want := t.TempDir()
	precast(t, env, "seed", "--data", want, "--size", "20KiB")
	precast(t, env, "build", "--data", want)
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	precast(t, env, "seed", "--data", dir, "--size", "20KiB")
	kills := 0
	for ; kills < 10; kills++ {
		cmd := exec.Command(path, "serve", "--data", dir, "--addr", "127.0.0.1:0", "--log-level", "error")
		cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed as soon as there are so many files: each life gets a little further.
		for objectsOf(dir, counts) < kills*step {
			if _, err := os.Stat(filepath.Join(dir, "objects", layout.IndexKey)); err == nil {
				break
			}
		}
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		storedObjects(t, dir, layout.BundlePrefix)
		objects, err := local.OpenObjects(dir)
		if err != nil {
			t.Fatal(err)
		}
		if ix, _, err := builder.ReadIndex(context.Background(), objects); err != nil {
			t.Fatal(err)
		} else if ix != nil {
			rep, err := fsck.Store(context.Background(), objects, fsck.Options{})
			if err != nil || !rep.Complete() {
				t.Fatalf("published, and not complete: %v %+v", err, rep.Problems)
			}
		}
	}
	s, err := startServer(path, dir, append(os.Environ(), env...), "--data", dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	all := []string{layout.BundlePrefix, layout.ManifestPrefix, layout.PiecePrefix, layout.BinaryPrefix}
	a, b := storedObjects(t, want, all...), storedObjects(t, dir, all...)
	if len(a) != len(b) {
		t.Fatalf("%d objects after %d kills, %d without", len(b), kills, len(a))
	}
	for key, sum := range a {
		if b[key] != sum {
			t.Fatalf("%s differs after %d kills", key, kills)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "tmp", "*")); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v %v", left, err)
	}
}

// objectsOf counts the objects of a kind.
func objectsOf(dir, kind string) int {
	n := 0
	_ = filepath.WalkDir(filepath.Join(dir, "objects", kind), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return nil // folders come and go
	})
	return n
}

// A binary of 2 GiB is brought in, built and sent in little memory.
func TestMemoryDoesNotGrowWithTheBinary(t *testing.T) {
	const size = 2 << 30
	const limit = 256 << 20
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	f, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil { // sparse
		t.Fatal(err)
	}
	f.Close()
	data := filepath.Join(dir, "data")
	env := []string{"GOMEMLIMIT=256MiB"}
	check := func(what string, bytes int64) {
		t.Helper()
		t.Logf("%s: peak %d MiB", what, bytes>>20)
		if bytes > limit {
			t.Errorf("%s takes %d MiB", what, bytes>>20)
		}
	}
	check("catalog put", precast(t, env, "catalog", "put", "--data", data, "--version", "1", "os_big", big))
	if err := os.Remove(big); err != nil {
		t.Fatal(err)
	}
	check("build", precast(t, env, "build", "--data", data))
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	s, err := startServer(path, dir, append(os.Environ(), env...), "--data", data, "--base-url", "http://x.invalid")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/package?cpuArch=big", binaryPath(t, data)} {
		resp, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || n != resp.ContentLength {
			t.Fatalf("%s: %d, %d of %d bytes: %v", path, resp.StatusCode, n, resp.ContentLength, err)
		}
		t.Logf("%s: %d bytes", path[:8], n)
	}
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	check("serve", peak(s.cmd.ProcessState))
}

func binaryPath(t *testing.T, data string) string {
	t.Helper()
	objects, err := local.OpenObjects(data)
	if err != nil {
		t.Fatal(err)
	}
	var path string
	if err := objects.List(context.Background(), layout.BinaryPrefix, func(o builder.ObjectInfo) error {
		path = "/" + o.Key
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return path
}

// An answer that is being sent when the signal comes is sent to its end.
func TestShutdownLetsAnswersEnd(t *testing.T) {
	dir := t.TempDir()
	precast(t, nil, "seed", "--data", dir, "--size", "8MiB")
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	s, err := startServer(path, dir, os.Environ(), "--data", dir, "--max-bytes", "1MiB")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(s.url + "/package?cpuArch=armv8&attrGamer=prod")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.end(syscall.SIGTERM) }()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != resp.ContentLength || n < 24<<20 {
		t.Fatalf("%d of %d bytes arrived: %v", n, resp.ContentLength, err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "serve.json")); !os.IsNotExist(err) {
		t.Fatalf("serve.json is still there: %v", err)
	}
}

// Without curl the demo plays on; with a wrong answer it says so. The real one is `make demo`.
func TestDemo(t *testing.T) {
	for _, env := range []string{"PATH=" + os.Getenv("PATH"), "PATH="} {
		path, err := exec.LookPath("precast")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "demo", "--size", "100KiB")
		cmd.Env = append(os.Environ(), env)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Every answer was right.") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

func TestDemoNoticesAWrongAnswer(t *testing.T) {
	var out strings.Builder
	dir := t.TempDir()
	d := &demo{out: &out, dir: dir, data: filepath.Join(dir, "data"), size: 1000, number: 1}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := d.seed(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.build(ctx); err != nil {
		t.Fatal(err)
	}
	served := d.serve(ctx)
	d.number = 2 // the story now believes in other binaries than the server has
	if err := d.story(ctx); err == nil || !strings.Contains(err.Error(), "6 holds the OS: brought [modemFW_1.0 os_armv8_1.1.0") {
		t.Fatalf("%v\n%s", err, &out)
	}
	cancel()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}
