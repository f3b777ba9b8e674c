package local

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Some tests need more than one process, or one to kill: the test binary runs itself again, to play
// the role that envRole names on the folder that envDir names.
const (
	envRole = "LOCALSTORE_ROLE"
	envDir  = "LOCALSTORE_DIR"
	envArg  = "LOCALSTORE_ARG"
)

func TestMain(m *testing.M) {
	role := os.Getenv(envRole)
	if role == "" {
		os.Exit(m.Run())
	}
	roles := map[string]func(dir, arg string) error{
		"open":    playOpen,
		"put":     playPut,
		"crash":   playCrash,
		"worker":  playWorker,
		"counter": playCounter,
	}
	play, ok := roles[role]
	if !ok {
		fmt.Fprintf(os.Stderr, "no role %q\n", role)
		os.Exit(2)
	}
	if err := play(os.Getenv(envDir), os.Getenv(envArg)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child is a process that plays a role.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  *bufio.Reader
	stderr *strings.Builder
}

func start(t *testing.T, role, dir, arg string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envRole+"="+role, envDir+"="+dir, envArg+"="+arg)
	c := &child{cmd: cmd, stderr: new(strings.Builder)}
	cmd.Stderr = c.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewReader(out)
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return c
}

// line is the next whole line of output; false at its end, or if it ends within a line.
func (c *child) line() (string, bool) {
	s, err := c.lines.ReadString('\n')
	return strings.TrimSuffix(s, "\n"), err == nil
}

func (c *child) wantLine(t *testing.T, want string) {
	t.Helper()
	if got, _ := c.line(); got != want {
		c.cmd.Wait()
		t.Fatalf("child printed %q, want %q; %s", got, want, c.stderr)
	}
}

// finish waits for the child to end well.
func (c *child) finish(t *testing.T) {
	t.Helper()
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("child: %v: %s", err, c.stderr)
	}
}

// wantKilled waits for the child to end by SIGKILL.
func (c *child) wantKilled(t *testing.T) {
	t.Helper()
	err := c.cmd.Wait()
	if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("child was not killed: %v: %s", err, c.stderr)
	}
}

// killSelf ends this process as a crash does: nothing is run on the way.
func killSelf() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {}
}

// awaitStdin returns when the parent closes our standard input.
func awaitStdin() { io.Copy(io.Discard, os.Stdin) }
