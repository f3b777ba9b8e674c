package main

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// status asks a server for a path.
func (s *serving) status(t *testing.T, path string) int {
	t.Helper()
	resp, err := http.Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}

// C21: during a long first build the server is alive and not ready, so that nobody restarts it. The build ends once its
// source answers.
func TestProbesDuringTheFirstBuildC21(t *testing.T) {
	const binary = "a binary that takes its time"
	asked, answer := make(chan struct{}), make(chan struct{})
	first, release := sync.OnceFunc(func() { close(asked) }), sync.OnceFunc(func() { close(answer) })
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		first()
		<-answer
		fmt.Fprint(w, binary)
	}))
	defer slow.Close()
	defer release()
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "catalog.json")
	text, err := json.Marshal([]catalog.Item{{App: "os_armv8", Track: "prod", Version: "1", URL: slow.URL + "/os", Size: int64(len(binary)),
		MD5: fmt.Sprintf("%x", md5.Sum([]byte(binary))), SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(binary)))}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, exitOK, "catalog", "import", file, "--data", data)
	type start struct {
		*serving
		err error
	}
	ready := make(chan start, 1)
	go func() {
		s, err := startServer("precast", dir, os.Environ(), "--data", data)
		ready <- start{s, err}
	}()
	select {
	case <-asked:
	case s := <-ready:
		t.Fatalf("the server is ready before anything is published: %v", s.err)
	}
	var endpoint struct{ URL string }
	text, err = os.ReadFile(filepath.Join(data, "serve.json"))
	if err == nil {
		err = json.Unmarshal(text, &endpoint)
	}
	if err != nil {
		t.Fatalf("serve.json: %s %v", text, err)
	}
	building := &serving{url: endpoint.URL}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/healthz": 503, "/package?cpuArch=armv8": 503} {
		if got := building.status(t, path); got != want {
			t.Errorf("during the first build, %s: %d, want %d", path, got, want)
		}
	}
	release()
	s := <-ready
	if s.err != nil {
		t.Fatal(s.err)
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz", "/package?cpuArch=armv8"} {
		if got := s.status(t, path); got != 200 {
			t.Errorf("after the first build, %s: %d, want 200", path, got)
		}
	}
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// S14: with an address for those who watch, metrics are there and not where devices ask. No method changes anything.
func TestMetricsAreApartS14(t *testing.T) {
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte("me admin 0123456789abcdef0123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	says(t, exitOK, "build", "--data", data) // an empty catalog
	s, err := startServer("precast", dir, os.Environ(), "--data", data, "--admin-addr", "127.0.0.1:0", "--admin-tokens", tokens)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}()
	watched := &serving{url: s.admin}
	if public, apart := s.status(t, "/metrics"), watched.status(t, "/metrics"); public != 404 || apart != 200 {
		t.Errorf("/metrics: %d where devices ask, want 404; %d on the admin address, want 200", public, apart)
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		req, err := http.NewRequestWithContext(t.Context(), method, s.admin+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 405 {
			t.Errorf("%s /metrics: %s, want 405", method, resp.Status)
		}
	}
}
