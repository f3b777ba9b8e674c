package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestRig(t *testing.T) {
	dist := t.TempDir()
	pack := exec.Command("go", "run", "./edge/cmd/pack", "-out", dist)
	pack.Dir = filepath.Join("..", "..", "..", "..")
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var log strings.Builder
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"--dist", dist}, w, &log)
		w.CloseWithError(err)
		ended <- err
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, _ := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	for _, want := range []string{"Miss", "Hit"} {
		resp, err := http.Get(url + "/package?cpuArch=armv8")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.Header.Get("X-Cache") != want+" from cloudfront" {
			t.Fatal(resp.StatusCode, resp.Header)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"x-cache=Miss origin=s3", "x-cache=Hit"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not logged:\n%s", want, log.String())
		}
	}
}

func TestHelp(t *testing.T) {
	var diag strings.Builder
	if err := run(t.Context(), []string{"--help"}, io.Discard, &diag); err == nil || !strings.Contains(diag.String(), "Example:") {
		t.Fatal(err, diag.String())
	}
	if err := run(t.Context(), []string{"--dist", t.TempDir(), "--data", t.TempDir()}, io.Discard, io.Discard); err == nil {
		t.Fatal("it started without edge functions")
	}
}
