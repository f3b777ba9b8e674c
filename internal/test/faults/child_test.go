package faults_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Some tests need a process to kill, or one in a namespace of its own: the test binary runs itself again, to
// play the role that envRole names.
const (
	envRole = "FAULTS_ROLE"
	envDir  = "FAULTS_DIR"
	envArg  = "FAULTS_ARG"
)

func TestMain(m *testing.M) {
	role := os.Getenv(envRole)
	if role == "" {
		os.Exit(m.Run())
	}
	play, ok := roles()[role]
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

func roles() map[string]func(dir, arg string) error {
	all := map[string]func(dir, arg string) error{"pipeline": playPipeline, "rollback": playRollback, "collect": playCollect}
	maps.Copy(all, awsRoles())
	return all
}

var errKilled = errors.New("killed")

// child runs a role to its end, and returns what it printed; errKilled if it was.
func child(role, dir, arg string) (out string, err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envRole+"="+role, envDir+"="+dir, envArg+"="+arg)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = cmd.Run(); err == nil {
		return stdout.String(), nil
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return stdout.String(), errKilled
	}
	return "", fmt.Errorf("play %s %s: %w: %s", role, arg, err, &stderr)
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

// killingReader kills this process when so many bytes have been read of it.
type killingReader struct {
	io.ReadSeeker
	left int64
}

func (r *killingReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		killSelf()
	}
	n, err := r.ReadSeeker.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}
