package main

import (
	"bufio"
	"context"
	"errors"
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
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/store/local"
)

// drain reads one answer over a kept connection and returns its length.
func drain(conn net.Conn, r *bufio.Reader, request string, buf []byte) (int64, error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 && resp.StatusCode != 304 {
		return 0, fmt.Errorf("answer: %s", resp.Status)
	}
	var n int64
	for {
		m, err := resp.Body.Read(buf)
		n += int64(m)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// seeded starts a server on a new folder that has the sample, with copies or without.
func seeded(b *testing.B, size string, copies bool) (dir, path string, s *serving) {
	path, err := exec.LookPath("precast")
	if err != nil {
		b.Fatal(err)
	}
	dir = b.TempDir()
	if out, err := exec.Command(path, "seed", "--data", dir, "--size", size).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	s, err = startServer(path, dir, os.Environ(), "--data", dir, "--subset-items", "0", fmt.Sprintf("--copies=%v", copies))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.end(syscall.SIGTERM) })
	return dir, path, s
}

// BenchmarkPutToServed changes a binary of 1 MiB of the sample, and waits until devices get it.
func BenchmarkPutToServed(b *testing.B) {
	for name, copies := range map[string]bool{"copies": true, "pieces": false} {
		b.Run(name, func(b *testing.B) {
			dir, path, _ := seeded(b, "1MiB", copies)
			file, n := filepath.Join(b.TempDir(), "scoreboard"), 0
			for b.Loop() {
				n++
				if err := os.WriteFile(file, []byte(strings.Repeat(fmt.Sprintf("%08d", n), 1<<17)), 0o600); err != nil {
					b.Fatal(err)
				}
				for _, args := range [][]string{{"catalog", "put", "scoreboard", file, "--version", fmt.Sprint("2.", n), "--attr", "gamer"}, {"build"}} {
					if out, err := exec.Command(path, append(args, "--data", dir)...).CombinedOutput(); err != nil {
						b.Fatalf("%v: %s", err, out)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/release")
		})
	}
}

// BenchmarkServe sends a bundle of 20 MB from a `precast serve` of its own: as a file, composed while it is sent, and the
// same file from nginx where it is installed, in turns; and asks for answers with 304.
func BenchmarkServe(b *testing.B) {
	dir, _, s := seeded(b, "5MiB", true)
	_, _, composing := seeded(b, "5MiB", false)
	objects, err := local.OpenObjects(dir)
	if err != nil {
		b.Fatal(err)
	}
	ix, _, err := builder.ReadIndex(context.Background(), objects)
	if err != nil {
		b.Fatal(err)
	}
	query := "cpuArch=armv8&attrGamer=prod&attrCellular=prod"
	d := edge.Decide(ix, query, "")
	var held []string
	for i := range d.Set.Len() {
		held = append(held, edge.Hex(d.Set.Item(i).MD5[:]))
	}
	host := strings.TrimPrefix(s.url, "http://")
	request := "GET /package?" + query + " HTTP/1.1\r\nHost: h\r\n\r\n"

	b.Run("20MB", func(b *testing.B) {
		nginx, stop := startNginx(b, filepath.Join(dir, "objects"))
		defer stop()
		file := "GET /" + layout.BundleKey(d.Set.ID(), "0") + " HTTP/1.1\r\nHost: h\r\n\r\n"
		buf := make([]byte, 1<<20)
		var took [3]time.Duration
		var bytes [3]int64
		ask := func(i int, addr, request string) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			r := bufio.NewReader(conn)
			start := time.Now()
			for range 4 {
				n, err := drain(conn, r, request, buf)
				if err != nil {
					b.Fatal(err)
				}
				bytes[i] += n
			}
			took[i] += time.Since(start)
		}
		for b.Loop() {
			ask(0, host, request)
			ask(2, strings.TrimPrefix(composing.url, "http://"), request)
			if nginx != "" {
				ask(1, nginx, file)
			}
		}
		rate := func(i int) float64 { return float64(bytes[i]) / took[i].Seconds() / 1e6 }
		b.ReportMetric(rate(0), "MB/s")
		b.ReportMetric(rate(2), "composed-MB/s")
		b.ReportMetric(100*rate(2)/rate(0), "%-composed-of-file")
		if nginx != "" {
			b.ReportMetric(rate(1), "nginx-MB/s")
			b.ReportMetric(100*rate(0)/rate(1), "%-of-nginx")
		} else {
			b.Log("nginx is not installed: nothing to compare with")
		}
	})
	b.Run("304", func(b *testing.B) {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		r, buf := bufio.NewReader(conn), make([]byte, 4096)
		ask := "GET /package?" + query + " HTTP/1.1\r\nHost: h\r\nIf-None-Match: " + strings.Join(held, ",") + "\r\n\r\n"
		start := time.Now()
		for b.Loop() {
			if n, err := drain(conn, r, ask, buf); err != nil || n != 0 {
				b.Fatal(n, err)
			}
		}
		b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "requests/s")
	})
}

// startNginx serves a folder; the address is empty where nginx is not installed.
func startNginx(b *testing.B, root string) (addr string, stop func()) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return "", func() {}
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	dir := b.TempDir()
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`%s daemon off; worker_processes 1; pid %s/pid; error_log %s/error.log;
events { worker_connections 64; }
http { sendfile on; tcp_nopush on; access_log off; keepalive_requests 100000;
  client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f; uwsgi_temp_path %s/u; scgi_temp_path %s/s;
  server { listen %s; root %s; } }`, user, dir, dir, dir, dir, dir, dir, dir, addr, root)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, "-p", dir, "-c", conf, "-e", filepath.Join(dir, "error.log"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if cmd.Process.Signal(syscall.Signal(0)) != nil {
			b.Fatal("nginx did not start")
		}
	}
	return addr, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
}
