package client_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/trust/signing"
)

// shDevice is the client in sh.
type shDevice struct {
	t     testing.TB
	w     *world
	shell []string
	env   []string
	dir   string
	query string // what the device is
	out   string // of the last update, both streams
}

// shells are those that the script is to run in, with the programs that they find: dash, or else what sh is, which
// must be there, as must what the script needs; and busybox where there is one.
func shells(t testing.TB) map[string]*shDevice {
	t.Helper()
	all := make(map[string]*shDevice)
	for _, need := range []string{"sh", "curl", "openssl", "tar", "sha256sum"} {
		if _, err := exec.LookPath(need); err != nil {
			if !testing.Short() {
				t.Fatalf("no client in sh: %v (go test -short does without)", err)
			}
			t.Logf("no client in sh: %v", err)
			return all
		}
	}
	for _, name := range []string{"dash", "sh"} {
		if path, err := exec.LookPath(name); err == nil {
			all[name] = &shDevice{shell: []string{path}, env: os.Environ()}
			break
		}
	}
	if busybox, err := exec.LookPath("busybox"); err != nil {
		t.Logf("not in busybox: %v", err)
	} else {
		// Everything that it has is busybox's.
		bin := t.TempDir()
		for _, name := range []string{"awk", "cat", "chmod", "cmp", "cp", "cut", "date", "grep", "gzip", "ln", "ls", "mkdir", "mv", "printf", "rm", "sed", "sha256sum", "sort", "sync", "tar", "tr", "uniq", "wc"} {
			if err := os.Symlink(busybox, filepath.Join(bin, name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"curl", "openssl"} {
			path, _ := exec.LookPath(name)
			if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
				t.Fatal(err)
			}
		}
		all["busybox"] = &shDevice{shell: []string{busybox, "ash"}, env: []string{"PATH=" + bin}}
	}
	return all
}

// fatal notes what ends a test.
type fatal struct {
	testing.TB
	why string
}

func (f *fatal) Fatalf(format string, args ...any) {
	f.why = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// Nobody takes a run without the client in sh for one with it.
func TestAMissingShellFails(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short it is passed over")
	}
	t.Setenv("PATH", t.TempDir())
	f := &fatal{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		shells(f)
	}()
	<-done
	if !strings.Contains(f.why, `"sh": executable file not found`) {
		t.Errorf("without any program: %q", f.why)
	}
}

func (w *world) shDevice(of *shDevice) *shDevice {
	w.t.Helper()
	d := *of
	d.t, d.w, d.dir, d.query = w.t, w, w.t.TempDir(), query
	if err := os.WriteFile(filepath.Join(d.dir, "root.pem"), signing.PublicPEM(rootKey.Public()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return &d
}

// devices returns one of each kind.
func (w *world) devices() map[string]device {
	all := map[string]device{"go": w.goDevice()}
	for name, d := range shells(w.t) {
		all[name] = w.shDevice(d)
	}
	return all
}

func (d *shDevice) update() error {
	d.t.Helper()
	work := filepath.Join(d.dir, "work")
	script, err := filepath.Abs("precast-device.sh")
	if err != nil {
		d.t.Fatal(err)
	}
	args := append(d.shell[1:], script, d.w.front, d.query, filepath.Join(d.dir, "root.pem"), work, "sh", "-c", `echo "$1" >>`+filepath.Join(d.dir, "installed"), "install")
	cmd := exec.Command(d.shell[0], args...)
	cmd.Dir = d.dir
	window := "300" // a busy machine must not be taken for a slow server
	if d.w.hurried {
		window = "6"
	}
	cmd.Env = append([]string{"PRECAST_NOW=" + d.w.clock.Now().UTC().Format("20060102150405"), "PRECAST_RATE_WINDOW=" + window, "PRECAST_MIN_RATE=4096"}, d.env...)
	if n := d.w.limits.MaxVersions; n > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprint("PRECAST_MAX_VERSIONS=", n))
	}
	sh, _ := exec.LookPath("sh")
	for i, a := range args {
		if a == "sh" {
			args[i] = sh
		}
	}
	cmd.Args = append([]string{d.shell[0]}, args...)
	out, err := cmd.CombinedOutput()
	d.out = string(out)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if refused := strings.Contains(d.out, "refused ("); refused != (exit.ExitCode() == 3) {
			d.t.Errorf("exit status %d with %s", exit.ExitCode(), out)
		}
		return fmt.Errorf("exit status %d: %s", exit.ExitCode(), out)
	}
	if left, _ := filepath.Glob(filepath.Join(work, "tmp.*")); len(left) > 0 {
		d.t.Errorf("%v is left", left)
	}
	return err
}

func (d *shDevice) installed() (map[string]string, int) {
	d.t.Helper()
	log, _ := os.ReadFile(filepath.Join(d.dir, "installed")) // none: nothing yet
	times := strings.Count(string(log), "\n")
	state, err := os.ReadFile(filepath.Join(d.dir, "work", "state"))
	if err != nil {
		return nil, times
	}
	_, set, _ := strings.Cut(string(state), "\nset ")
	set, _, _ = strings.Cut(set, "\n")
	entries, err := os.ReadDir(filepath.Join(d.dir, "work", set))
	if err != nil {
		d.t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(d.dir, "work", set, e.Name()))
		if err != nil {
			d.t.Fatal(err)
		}
		files[e.Name()] = string(content)
	}
	return files, times
}
