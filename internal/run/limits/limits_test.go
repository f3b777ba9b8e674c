package limits

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// serve serves h with the limits, and returns the address.
func serve(t *testing.T, max int, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := HTTP(h, log)
	go func() { _ = s.Serve(Listen(l, max, log)) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func get(t *testing.T, addr, path string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		t.Fatalf("a client that reads is not answered: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("a client that reads is cut off: %v", err)
	}
	return string(body)
}

// holders are the ways to hold a connection; each returns once it does.
var holders = map[string]func(t *testing.T, addr string, answering chan struct{}){
	"connects and says nothing": func(t *testing.T, addr string, _ chan struct{}) { dial(t, addr) },
	"sends half of its headers": func(t *testing.T, addr string, _ chan struct{}) {
		fmt.Fprint(dial(t, addr), "GET / HTTP/1.1\r\nHost: h\r\nX: ")
	},
	"stays after an answer": func(t *testing.T, addr string, _ chan struct{}) {
		c := dial(t, addr)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
	},
	"does not read its answer": func(t *testing.T, addr string, answering chan struct{}) {
		fmt.Fprint(dial(t, addr), "GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
		<-answering
	},
}

// S2: however a client holds connections, and however many, one that asks and reads is answered.
func TestConnectionsS2(t *testing.T) {
	for name, hold := range holders {
		t.Run(name, func(t *testing.T) {
			answering := make(chan struct{}, 64)
			addr := serve(t, 8, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/endless" {
					answering <- struct{}{}
					for err := error(nil); err == nil; {
						_, err = w.Write(make([]byte, step))
					}
					return
				}
				fmt.Fprint(w, "hello")
			}))
			for range 24 {
				hold(t, addr, answering)
				if got := get(t, addr, "/"); got != "hello" {
					t.Fatalf("answered %q", got)
				}
			}
		})
	}
}

// S2: an answer under way goes on while others connect and say nothing.
func TestSilentConnectionsDoNotEndAnswersS2(t *testing.T) {
	next := make(chan struct{})
	addr := serve(t, 8, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			_, _ = w.Write(make([]byte, step))
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}))
	c := dial(t, addr)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for range 20 {
			dial(t, addr)
		}
		if n, err := io.CopyN(io.Discard, resp.Body, step); err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		next <- struct{}{}
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 0 {
		t.Errorf("%d bytes more, %v", n, err)
	}
}

// S2: the deadline of an answer moves with its progress, and only with that: at 128 KiB in half a minute an answer may
// take hours, and without progress half a minute, whatever was sent before.
func TestDeadlineMovesWithProgressS2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var deadline time.Time
		m := meter{set: func(d time.Time) error { deadline = d; return nil }}
		take := func(n int64, d time.Duration) { m.begin(); time.Sleep(d); m.end(n) }
		left := func() time.Duration { m.begin(); return time.Until(deadline) }
		for range 1000 {
			take(step/4, 7*time.Second)
		}
		if left() != stall {
			t.Errorf("a slow client is left %v after a step", left())
		}
		take(step-1, 20*time.Second)
		if left() != stall-20*time.Second {
			t.Errorf("within a step: %v", left())
		}
		take(0, 9*time.Second)
		if left() != stall-29*time.Second {
			t.Errorf("without progress: %v", left())
		}
		time.Sleep(time.Hour) // the server takes its time
		if left() != stall-29*time.Second {
			t.Errorf("what the server needs counts: %v", left())
		}
	})
}

// deadlines is a connection that notes its deadlines.
type deadlines struct {
	http.ResponseWriter
	write, read []time.Time
}

func (d *deadlines) SetWriteDeadline(at time.Time) error { d.write = append(d.write, at); return nil }
func (d *deadlines) SetReadDeadline(at time.Time) error  { d.read = append(d.read, at); return nil }

// S2: every answer has a deadline, however it is sent, and so has every body that is read.
func TestEveryAnswerHasADeadlineS2(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 3*step), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]http.HandlerFunc{
		"304":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) },
		"404":  http.NotFound,
		"file": func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) },
		"read": func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
	} {
		t.Run(name, func(t *testing.T) {
			d := &deadlines{ResponseWriter: discard{http.Header{}}}
			r, err := http.NewRequest("GET", "/", bytes.NewReader(make([]byte, 3*step)))
			if err != nil {
				t.Fatal(err)
			}
			if name != "read" {
				r.Body, r.ContentLength = http.NoBody, 0
			}
			pace(h).ServeHTTP(d, r)
			wrote, read := len(d.write), len(d.read)
			switch {
			case name == "read" && read < 3, name != "read" && wrote < 1, name == "file" && wrote < 4:
				t.Errorf("%d deadlines of the answer, %d of the request", wrote, read)
			}
		})
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// S2: the limits are made for HTTP/1.1, so nothing else is spoken.
func TestNoHTTP2S2(t *testing.T) {
	addr := serve(t, 8, http.NotFoundHandler())
	c := dial(t, addr)
	fmt.Fprint(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 4") && !strings.HasPrefix(string(got), "HTTP/1.1 505") {
		t.Errorf("%q %v", got, err)
	}
}

// S3: beyond 64 KiB of headers the answer is 431, on a new connection and on one that is used again.
func TestHeadersS3(t *testing.T) {
	addr := serve(t, 8, http.NotFoundHandler())
	c := dial(t, addr)
	r := bufio.NewReader(c)
	for _, want := range []struct{ bytes, status int }{{40 << 10, 404}, {MaxHeader, 431}} {
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: h\r\nX: %s\r\n\r\n", strings.Repeat("x", want.bytes))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != want.status {
			t.Errorf("%d bytes of headers: %s", want.bytes, resp.Status)
		}
	}
}

// S2: the limits leave room below the number of files that the process may have open.
func TestConnectionsAreBelowTheFileLimitS2(t *testing.T) {
	devices, admin := Connections()
	if limit := openFiles(); uint64(2*(devices+admin)+ownFiles) > limit || devices < 16 || admin < 4 {
		t.Errorf("%d devices, %d commands of %d files", devices, admin, limit)
	}
}

// What a client offers to send, and nobody wants, is not waited for.
func TestRefusedBodyIsNotWaitedFor(t *testing.T) {
	addr := serve(t, 10, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	for _, expect := range []string{"Expect: 100-continue\r\n", ""} {
		c := dial(t, addr)
		if _, err := fmt.Fprintf(c, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n%s\r\n", expect); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(headerTimeout / 2)); err != nil { // half of what the server would wait
			t.Fatal(err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || line != "HTTP/1.1 403 Forbidden\r\n" {
			t.Errorf("%q: the answer is %q, %v", expect, line, err)
		}
	}
}
