// Package upgrade holds this program to installations that earlier ones made: testdata/upgrade.
package upgrade

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

const (
	module = "github.com/precast-ota/precast"
	root   = "../../.." // of the repository
	// deviceQuery is what the devices of the frozen installations are.
	deviceQuery = "cpuArch=armv8&attrGamer=prod"
)

var scratch string // a folder; set by TestMain, which removes it

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "precast-upgrade-test-")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// built builds this program, once for all tests.
var built = sync.OnceValues(func() (program string, err error) {
	program = filepath.Join(scratch, "precast")
	if out, err := inRoot("go", "build", "-o", program, "./cmd/precast"); err != nil {
		return "", fmt.Errorf("build precast: %w\n%s", err, out)
	}
	return program, nil
})

func inRoot(args ...string) ([]byte, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = root
	return cmd.CombinedOutput()
}

func precast(t *testing.T) string {
	t.Helper()
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// try runs a program and returns what it printed, on both streams, and its exit code.
func try(t *testing.T, dir string, env []string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// command is try for a program that must end well.
func command(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	out, code := try(t, dir, env, args...)
	if code != 0 {
		t.Fatalf("%s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
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

// server is a running precast serve.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr *bytes.Buffer
	url    string
}

// serve starts a program's server of a data folder, which ends with the test.
func serve(t *testing.T, program, data string, env ...string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(program, "serve", "--data", data, "--addr", "127.0.0.1:0", "--log-level", "warn"), stderr: new(bytes.Buffer)}
	s.cmd.Env, s.cmd.Stderr = append(os.Environ(), env...), s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ok {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		t.Fatalf("the server said %q: %v\n%s", line, err, s.stderr)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	s.url = url
	return s
}

// stop ends the server, which must end well.
func (s *server) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Fatalf("the server ended with %v\n%s", err, s.stderr)
	}
}

// get asks for a URL as a device that holds what held lists.
func get(t *testing.T, url, held string) (status int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if held != "" {
		req.Header.Set("If-None-Match", held)
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// answer is what the earlier program's server answered.
type answer struct {
	Query  string `json:"query"`
	Held   string `json:"held,omitempty"`
	Status int    `json:"status"`
	SHA256 string `json:"sha256"` // of the body
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// shimFiles are what edge.zip holds besides the WebAssembly and the settings.
func shimFiles() []string {
	return []string{"index.mjs", "handler.mjs", "published.mjs", "go.mjs", "s3.mjs"}
}

// frozen is a folder of testdata/upgrade.
type frozen struct {
	t   *testing.T
	dir string
}

// each runs a test on every frozen installation.
func each(t *testing.T, test func(t *testing.T, f frozen)) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(root, "testdata", "upgrade", "*", "commit"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no frozen installation: %v", err)
	}
	for _, file := range dirs {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) { test(t, frozen{t, dir}) })
	}
}

func (f frozen) read(name string) []byte {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

func (f frozen) answers() []answer {
	f.t.Helper()
	var all []answer
	for dec := json.NewDecoder(bytes.NewReader(f.read("answers.jsonl"))); ; {
		var a answer
		if err := dec.Decode(&a); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// unpack writes the sources into a module of their own. It needs the modules that this one needs, and no network.
func (f frozen) unpack() (dir string) {
	f.t.Helper()
	dir = f.t.TempDir()
	files := txtar.Parse(f.read("sources.txtar")).Files
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			f.t.Fatal(err)
		}
		files = append(files, txtar.File{Name: name, Data: data})
	}
	for _, file := range files {
		path := filepath.Join(dir, file.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			f.t.Fatal(err)
		}
		if err := os.WriteFile(path, file.Data, 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
	return dir
}

// build builds a command of the frozen sources.
func (f frozen) build(pkg string) (program string) {
	f.t.Helper()
	program = filepath.Join(f.t.TempDir(), filepath.Base(pkg))
	command(f.t, f.unpack(), offline(), "go", "build", "-trimpath", "-o", program, pkg)
	return program
}

func offline(env ...string) []string {
	return append(env, "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
}

// installation unpacks the data folder (data), the keys and the devices' folders (device-go, device-sh), or only what
// begins with a prefix.
func (f frozen) installation(prefix ...string) (dir string) {
	f.t.Helper()
	return f.extract("installation.tar.gz", strings.Join(prefix, ""))
}

func (f frozen) extract(archive, prefix string) (dir string) {
	f.t.Helper()
	dir = f.t.TempDir()
	z, err := gzip.NewReader(bytes.NewReader(f.read(archive)))
	if err != nil {
		f.t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			f.t.Fatal(err)
		}
		if !strings.HasPrefix(h.Name, prefix) {
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(path, 0o755); err != nil {
				f.t.Fatal(err)
			}
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			f.t.Fatal(err)
		}
		if err := os.WriteFile(path, data, h.FileInfo().Mode()); err != nil {
			f.t.Fatal(err)
		}
	}
}
