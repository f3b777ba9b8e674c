package nodeproc_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/precast-ota/precast/edge/nodeproc"
)

// answers is a script that squares numbers, throws at 13 and leaves quietly at 14.
const answers = `
import { createInterface } from 'node:readline';
console.error('hello from ' + process.argv[2]);
for await (const line of createInterface({ input: process.stdin })) {
  const n = JSON.parse(line);
  if (n === 13) throw new Error('thirteen');
  if (n === 14) process.exit(0);
  process.stdout.write(JSON.stringify(n * n) + '\n');
}
`

func start(t *testing.T, ctx context.Context) *nodeproc.Process {
	t.Helper()
	script := filepath.Join(t.TempDir(), "square.mjs")
	if err := os.WriteFile(script, []byte(answers), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := nodeproc.Start(ctx, script, "the test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() }) // a test that cares has closed it
	return p
}

func TestCalls(t *testing.T) {
	p := start(t, t.Context())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := i; n < 400; n += 4 {
				n := n + 100
				var got int
				if err := p.Call(n, &got); err != nil || got != n*n {
					t.Errorf("%d: %d, error %v", n, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := p.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	if err := p.Call(1, new(int)); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("call after close: %v", err)
	}
}

// An error of the script says what the script said.
func TestScriptFails(t *testing.T) {
	p := start(t, t.Context())
	for range 2 {
		err := p.Call(13, new(int))
		if err == nil || !strings.Contains(err.Error(), "Error: thirteen") || !strings.Contains(err.Error(), "hello from the test") {
			t.Errorf("error %v", err)
		}
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "thirteen") {
		t.Errorf("close: %v", err)
	}
}

func TestScriptLeaves(t *testing.T) {
	p := start(t, t.Context())
	if err := p.Call(14, new(int)); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("error %v", err)
	}
}

// What cannot be sent or understood breaks one call only.
func TestOneCallFails(t *testing.T) {
	p := start(t, t.Context())
	if err := p.Call(func() {}, new(int)); err == nil {
		t.Error("a function is sent")
	}
	if err := p.Call(3, new(string)); err == nil || !strings.Contains(err.Error(), `"9\n"`) {
		t.Errorf("error %v", err)
	}
	var got int
	if err := p.Call(3, &got); err != nil || got != 9 {
		t.Errorf("%d, error %v", got, err)
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := start(t, ctx)
	if err := p.Call(2, new(int)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := p.Close(); err == nil {
		t.Log("it had ended before it was killed")
	}
	if err := p.Call(2, new(int)); err == nil {
		t.Error("a call is answered after the end")
	}
}

func TestNoScript(t *testing.T) {
	p, err := nodeproc.Start(t.Context(), filepath.Join(t.TempDir(), "missing.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Call(1, new(int)); err == nil || !strings.Contains(err.Error(), "Cannot find module") {
		t.Errorf("error %v", err)
	}
	_ = p.Close()
}

func TestNoNode(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := nodeproc.Start(t.Context(), "x.mjs"); !errors.Is(err, nodeproc.ErrNoNode) || !strings.Contains(err.Error(), "install Node 20") {
		t.Errorf("error %v", err)
	}
}
