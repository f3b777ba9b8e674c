package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// envInside is set within the namespace, to the program under test.
const envInside = "FAULTS_PRECAST"

// A disk is full, really: a small file system in memory, mounted in a namespace of this test's own.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	program := os.Getenv(envInside)
	if program != "" {
		diskFull(t, program)
		return
	}
	program = filepath.Join(t.TempDir(), "precast")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/precast-ota/precast/cmd/precast").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	inNamespace(t, program)
	counted(t, "6 commands")
}

// inNamespace runs this very test once more where it may mount; inside is what it finds in envInside.
func inNamespace(t *testing.T, inside string) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), envInside+"="+inside)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 { // only root of a namespace mounts
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a mount namespace: %v\n%s", err, out)
	}
	t.Logf("in a mount namespace:\n%s", out)
}

// small disk
type volume struct {
	t   *testing.T
	dir string
}

func mount(t *testing.T, size string) *volume {
	t.Helper()
	v := &volume{t, t.TempDir()}
	// Nothing that is mounted here shows outside.
	must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	must(t, syscall.Mount("precast-faults", v.dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { _ = syscall.Unmount(v.dir, syscall.MNT_DETACH) }) // it goes with the namespace anyway
	return v
}

func (v *volume) resize(size string) {
	v.t.Helper()
	must(v.t, syscall.Mount("", v.dir, "", syscall.MS_REMOUNT, "size="+size))
}

// free is how many bytes are left.
func (v *volume) free() int64 {
	v.t.Helper()
	var st syscall.Statfs_t
	must(v.t, syscall.Statfs(v.dir, &st))
	return int64(st.Bavail) * int64(st.Bsize)
}

// leave fills the disk until so many bytes are left.
func (v *volume) leave(bytes int64) {
	v.t.Helper()
	must(v.t, os.WriteFile(filepath.Join(v.dir, "filler"), make([]byte, v.free()-bytes), 0o600))
}

// wantFull runs a command that cannot be done.
func (v *volume) wantFull(program string, args ...string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		v.t.Fatalf("precast %s on a full disk: %v\n%s", strings.Join(args, " "), err, out)
	}
	last := lines(string(out))
	said := last[len(last)-1]
	if !strings.Contains(said, "no space left on device") || !strings.Contains(said, v.dir) {
		v.t.Fatalf("precast %s on a full disk does not name it: %s", args[0], out)
	}
	v.t.Logf("precast %s: %s", args[0], said)
}

// wantPaused runs a build that does not begin, and a status that says why (C20).
func (v *volume) wantPaused(program, data string) {
	v.t.Helper()
	for _, command := range []string{"build", "status"} {
		out, err := exec.Command(program, command, "--data", data).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), "builds are paused: the disk has ") || !strings.Contains(string(out), "and builds leave 154 KiB free (--min-free)") {
			v.t.Fatalf("precast %s on a disk that is nearly full: %v\n%s", command, err, out)
		}
	}
}

func wantDone(t *testing.T, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("precast %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

// random writes a file that does not compress.
func random(t *testing.T, seed uint64, size int) string {
	t.Helper()
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range data {
		data[i] = byte(r.Uint32() >> 24)
	}
	name := filepath.Join(t.TempDir(), "binary")
	must(t, os.WriteFile(name, data, 0o600))
	return name
}

func diskFull(t *testing.T, program string) {
	v := mount(t, "1m")
	data := filepath.Join(v.dir, "data")
	put := func(app string, file string, version string) []string {
		args := []string{"catalog", "put", app, file, "--data", data, "--version", version}
		if app != "os_a" {
			args = append(args, "--attr", "x")
		}
		return args
	}
	// On a folder of its own: the database alone is some 64 KB.
	v.wantFull(program, "seed", "--data", data, "--size", "400KiB")
	must(t, os.RemoveAll(data))

	v.resize("3m")
	first := random(t, 1, 100<<10)
	wantDone(t, program, put("os_a", first, "1")...)
	wantDone(t, program, put("b", random(t, 2, 100<<10), "1")...)
	v.leave(100 << 10)
	v.wantFull(program, put("b", random(t, 3, 200<<10), "2")...)
	v.wantPaused(program, data)
	v.wantFull(program, "build", "--data", data, "--min-free", "0")
	must(t, os.Remove(filepath.Join(v.dir, "filler")))
	wantDone(t, program, "build", "--data", data)

	serveFull(t, v, program, data, put)
}

// serveFull fills the disk under a server.
func serveFull(t *testing.T, v *volume, program, data string, put func(app, file, version string) []string) {
	objects, err := local.OpenObjects(data)
	must(t, err)
	w := newWorld(t, pipeline.Drivers{})
	w.base.Objects = objects
	w.state(program, data)
	server := exec.Command(program, "serve", "--data", data, "--addr", "127.0.0.1:0", "--window", "20ms", "--log-level", "warn", "--min-free", "0")
	server.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // its spool files are elsewhere
	server.Stderr = w.log
	out, err := server.StdoutPipe()
	must(t, err)
	must(t, server.Start())
	defer func() { _ = server.Process.Kill() }() // if it has not ended by itself
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	go func() { _, _ = io.Copy(io.Discard, out) }()
	url := strings.TrimPrefix(strings.TrimSpace(line), "ready ")
	f := over{func() string { return url }, http.DefaultClient}

	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { w.device(ctx, f, rand.New(rand.NewPCG(1, 1)), 100*time.Millisecond) })
	w.everybody(f)

	// The binary fits, what is made of it does not.
	const size = 150 << 10
	v.leave(size + 90<<10)
	w.mu.Lock() // devices wait until the change is known
	wantDone(t, program, put("b", random(t, 4, size), "3")...)
	w.states = append(w.states, export(t, program, data))
	w.mu.Unlock()
	// First there is no room for a piece, then none at all, so that the queue cannot be written either: for
	// longer than it takes to give a job up.
	await(t, time.Minute, "three failed tries", func() bool { return w.log.count(`msg="job failed"`) >= 3 })
	if left := v.free(); left > 0 {
		must(t, os.WriteFile(filepath.Join(v.dir, "rest"), make([]byte, left), 0o600))
	}
	await(t, time.Minute, "six failed tries", func() bool { return w.log.count(`msg="job failed"`) >= 6 })
	if n := w.log.count("no space left on device"); n < 6 {
		t.Fatalf("the log says %d times that there is no space left:\n%s", n, w.log.tail())
	}
	must(t, complete(ctx, objects))
	w.everybody(f)
	if w.answers[503] > 0 || w.broken > 0 {
		t.Fatalf("devices noticed: %v, %d broken", w.answers, w.broken)
	}
	// A change that does not fit at all is refused, and changes nothing.
	v.wantFull(program, put("os_a", random(t, 5, 400<<10), "4")...)

	v.resize("8m")
	await(t, 30*time.Second, "the release is published", func() bool { return upToDate(t, program, data) })
	w.mu.Lock()
	w.floor = len(w.states) - 1
	w.mu.Unlock()
	w.everybody(f)
	cancel()
	all.Wait()
	w.judge()
	must(t, complete(t.Context(), objects))
	must(t, server.Process.Signal(syscall.SIGTERM))
	if err := server.Wait(); err != nil {
		t.Fatalf("the server ended with %v:\n%s", err, w.log.tail())
	}
	v.equal(program, data)
}

// state notes the catalog as it is.
func (w *world) state(program, data string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, export(w.t.(*testing.T), program, data))
}

func export(t *testing.T, program, data string) []catalog.Item {
	t.Helper()
	entries, err := catalog.Decode(strings.NewReader(string(wantDone(t, program, "catalog", "export", "--data", data))))
	must(t, err)
	var items []catalog.Item
	for _, e := range entries {
		items = append(items, e.Item)
	}
	return items
}

// upToDate tells whether everything is published and nothing is left to do. A dead letter or a rejection
// never goes away by itself.
func upToDate(t *testing.T, program, data string) bool {
	t.Helper()
	out, err := exec.Command(program, "status", "--json", "--data", data).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var st pipeline.Status
	must(t, json.Unmarshal(out, &st))
	if st.Dead > 0 || len(st.Rejected) > 0 {
		t.Fatalf("it does not go on by itself: %s", out)
	}
	return st.UpToDate && st.Waiting+st.InFlight == 0
}

// equal builds the folder's catalog in another one, and fails unless all of that is in this.
func (v *volume) equal(program, data string) {
	v.t.Helper()
	there := filepath.Join(folder(v.t), "data")
	ctx := v.t.Context()
	store, d := openLocal(v.t, data, local.Options{})
	items, err := d.Catalog.Snapshot(ctx)
	must(v.t, err)
	here, err := stored(ctx, d.Objects)
	must(v.t, err)
	must(v.t, store.Close())
	store, d = openLocal(v.t, there, local.Options{})
	must(v.t, copyCatalog(ctx, d, items, here))
	must(v.t, store.Close())
	wantDone(v.t, program, "build", "--data", there)
	objects, err := local.OpenObjects(there)
	must(v.t, err)
	want, err := stored(ctx, objects)
	must(v.t, err)
	must(v.t, contains(here, want))
	v.t.Logf("%d objects as from scratch", len(want))
}
