//go:build unix

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// S2: 220 connections that do not read, under 200 open files: devices, probes and commands are answered throughout.
func TestServerIsNotHeldS2(t *testing.T) {
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	precast(t, nil, "seed", "--data", dir, "--size", "2MiB")
	precast(t, nil, "build", "--data", dir)
	limited := filepath.Join(t.TempDir(), "precast")
	if err := os.WriteFile(limited, fmt.Appendf(nil, "#!/bin/sh\nulimit -n 200\nexec %s \"$@\"\n", path), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := startServer(limited, dir, os.Environ(), "--data", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}()
	host := strings.TrimPrefix(s.url, "http://")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answered := func(path string, want int) {
		t.Helper()
		resp, err := client.Get(s.url + path)
		if err != nil {
			t.Fatalf("%s is not answered: %v", path, err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
			t.Fatalf("%s: %s %v", path, resp.Status, err)
		}
	}
	for i, held := range []string{
		"", "GET /package?cpuArch=armv8 HTTP/1.1\r\nHost: ", // silent, slow
		strings.Repeat("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 1000), // small answers until its buffers are full
		"GET /package?cpuArch=armv8 HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		for range 220 {
			c, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, held); err != nil {
				t.Fatal(err)
			}
		}
		answered("/package?cpuArch=armv8", 200)
		answered("/package?cpuArch=none", 404)
		answered("/livez", 200)
		answered("/metrics", 200)
		precast(t, nil, "catalog", "list", "--data", dir)
		if i == 3 {
			precast(t, nil, "catalog", "put", "os_armv8", path, "--version", "9", "--data", dir)
		}
	}
}
