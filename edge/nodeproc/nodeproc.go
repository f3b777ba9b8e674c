// Package nodeproc runs a Node script that answers JSON lines: one line on its standard input, one line on
// its standard output. Tests ask the JavaScript of the edge through it, thousands of times in one process.
package nodeproc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// ErrNoNode says that there is nothing to run scripts with.
var ErrNoNode = errors.New("node is not installed: install Node 20")

// grace is how long a script may run on after its input has ended, or its context.
const grace = 10 * time.Second

// Process is a running script. Its methods may be called by several goroutines; calls are answered in order.
type Process struct {
	script string
	cmd    *exec.Cmd
	stderr *tail

	mu     sync.Mutex // held for a whole call
	stdin  io.WriteCloser
	stdout *bufio.Reader
	failed error // why there is nothing to call any more

	wait func() error
}

// Start runs a script. It is killed when the context ends; Close ends it in peace. The error is ErrNoNode if
// there is no node.
func Start(ctx context.Context, script string, args ...string) (*Process, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", script, ErrNoNode)
	}
	p := &Process{script: script, stderr: new(tail)}
	p.cmd = exec.CommandContext(ctx, node, append([]string{script}, args...)...)
	p.cmd.Stderr = p.stderr
	p.cmd.WaitDelay = grace
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", script, err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", script, err)
	}
	p.stdout = bufio.NewReaderSize(stdout, 1<<16)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", script, err)
	}
	p.wait = sync.OnceValue(p.cmd.Wait)
	return p, nil
}

// Call sends in as one line of JSON and reads the next line into out. After an error the process is of no
// use any more, unless the error is that in has no JSON, or that the answer does not fit out.
func (p *Process) Call(in, out any) error {
	line, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("call %s: encode: %w", p.script, err)
	}
	answer, err := p.exchange(append(line, '\n'))
	if err != nil {
		return fmt.Errorf("call %s: %w", p.script, err)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("call %s: decode %.300q: %w", p.script, answer, err)
	}
	return nil
}

// exchange writes a line and reads one. The script reads a whole line before it answers, so that neither
// side waits for the other with a full pipe.
func (p *Process) exchange(line []byte) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		return nil, p.failed
	}
	_, err := p.stdin.Write(line)
	var answer []byte
	if err == nil {
		answer, err = p.stdout.ReadBytes('\n')
	}
	if err != nil {
		p.failed = p.ended(err)
		return nil, p.failed
	}
	return answer, nil
}

// Close ends the script's input and waits for it. Its error is that of the script, if it failed; closing
// twice is all right.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = errors.New("the process is closed")
	}
	_ = p.stdin.Close()
	kill := time.AfterFunc(grace, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.wait(); err != nil {
		return fmt.Errorf("close %s: %w%s", p.script, err, p.stderr)
	}
	return nil
}

// ended turns a broken pipe into what the process says about it.
func (p *Process) ended(broken error) error {
	_ = p.stdin.Close()
	kill := time.AfterFunc(grace, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.wait(); err != nil {
		broken = err
	}
	return fmt.Errorf("the process has ended: %w%s", broken, p.stderr)
}

// tail keeps the end of what a process writes to its standard error.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 8 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - tailBytes; extra > 0 {
		t.text = t.text[extra:]
	}
	return len(b), nil
}

// String is empty, or what was written on lines of its own.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return ""
	}
	return "\n" + strings.TrimRight(string(t.text), "\n")
}
