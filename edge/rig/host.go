package rig

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/precast-ota/precast/edge/function"
)

//go:embed host.mjs
var hostScript string

// host is a Node process that runs the edge functions.
type host struct {
	now   func() time.Time
	log   func(line string)
	cmd   *exec.Cmd
	stdin io.WriteCloser

	mu    sync.Mutex
	last  uint64
	calls map[uint64]chan reply
	err   error         // why the process has ended
	ended chan struct{} // closed then
}

type hostOptions struct {
	request, response, handler string   // files
	env                        []string // NAME=value, beside PATH
	now                        func() time.Time
	log                        func(line string) // what the functions print
}

type reply struct {
	ID     uint64
	Result string // JSON
	Error  string
	MS     float64
	Log    *string
	Ready  bool
}

// startHost starts Node and waits until the functions are loaded.
func startHost(ctx context.Context, opt hostOptions) (*host, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("find node (Node.js 20 or newer runs the edge's functions): %w", err)
	}
	h := &host{now: opt.now, log: opt.log, calls: make(map[uint64]chan reply), ended: make(chan struct{})}
	h.cmd = exec.Command(node, "--input-type=module", "-e", hostScript, "--", opt.request, opt.response, opt.handler, function.Host)
	h.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "RIG_NOW=" + strconv.FormatInt(opt.now().UnixMilli(), 10)}, opt.env...)
	var stderr bytes.Buffer
	h.cmd.Stderr = &stderr
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	ready := make(chan struct{})
	go h.read(stdout, ready, &stderr)
	select {
	case <-ready:
		return h, nil
	case <-h.ended:
		return nil, fmt.Errorf("load the edge's functions: %w", h.err)
	case <-ctx.Done():
		h.close()
		return nil, ctx.Err()
	}
}

// read hands out replies until the process ends.
func (h *host) read(stdout io.Reader, ready chan<- struct{}, stderr *bytes.Buffer) {
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var r reply
		switch err := json.Unmarshal(line, &r); {
		case err != nil:
			h.print("not a reply: " + string(line))
		case r.Ready:
			close(ready)
		case r.Log != nil:
			h.print(*r.Log)
		default:
			h.mu.Lock()
			c := h.calls[r.ID]
			delete(h.calls, r.ID)
			h.mu.Unlock()
			if c != nil {
				c <- r
			}
		}
	}
	err := h.cmd.Wait()
	h.mu.Lock()
	h.err = fmt.Errorf("node has ended: %v: %s", err, bytes.TrimSpace(stderr.Bytes()))
	h.mu.Unlock()
	close(h.ended)
}

func (h *host) print(line string) {
	if h.log != nil {
		h.log(line)
	}
}

// errThrown is an exception of the function that was called.
var errThrown = errors.New("threw")

// call calls "request", "response" or "origin" and returns its result as JSON and what it took.
func (h *host) call(ctx context.Context, kind string, event, options any) (json.RawMessage, time.Duration, error) {
	h.mu.Lock()
	h.last++
	id := h.last
	done := make(chan reply, 1)
	h.calls[id] = done
	line, err := json.Marshal(map[string]any{"id": id, "kind": kind, "now": h.now().UnixMilli(), "event": event, "options": options})
	if err == nil {
		_, err = h.stdin.Write(append(line, '\n'))
	}
	h.mu.Unlock()
	if err != nil {
		return nil, 0, fmt.Errorf("call %s function: %w", kind, err)
	}
	select {
	case r := <-done:
		took := time.Duration(r.MS * float64(time.Millisecond))
		if r.Error != "" {
			return nil, took, fmt.Errorf("%s function %w: %s", kind, errThrown, r.Error)
		}
		return json.RawMessage(r.Result), took, nil
	case <-h.ended:
		return nil, 0, h.err
	case <-ctx.Done():
		h.mu.Lock()
		delete(h.calls, id)
		h.mu.Unlock()
		return nil, 0, context.Cause(ctx)
	}
}

// close ends the process.
func (h *host) close() {
	_ = h.stdin.Close() // it ends with its input
	_ = h.cmd.Process.Kill()
	<-h.ended
}
