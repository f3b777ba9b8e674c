package source_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/store/source"
)

func read(t *testing.T, s *source.Sources, address string) (string, error) {
	t.Helper()
	body, err := s.Open(t.Context(), address)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		t.Fatalf("read %s: %v", address, err)
	}
	return string(data), nil
}

func TestStore(t *testing.T) {
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := &source.Sources{Objects: store.Objects()}
	sum := strings.Repeat("0f", 32)
	// A key is not a URL: these would be cut, decoded or refused there.
	for _, version := range []string{"1.0", "1#2", "50%", "a b?c", "%2e"} {
		body := builder.Body{Reader: strings.NewReader("content " + version), Size: int64(len("content " + version))}
		if _, err := store.Objects().Put(t.Context(), layout.BinaryKey(sum, "app", version), body, builder.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, s, catalog.StoreURL(sum, "app", version)); err != nil || got != "content "+version {
			t.Errorf("version %s: %q, error %v", version, got, err)
		}
	}
	if _, err := read(t, s, catalog.StoreURL(sum, "app", "2")); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := read(t, s, "store:../precast.db"); err == nil {
		t.Error("a key outside the layout is read")
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a b%.bin")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := (&url.URL{Scheme: "file", Path: filepath.ToSlash(name)}).String()
	if got, err := read(t, &source.Sources{Files: true}, address); err != nil || got != "content" {
		t.Errorf("%s: %q, error %v", address, got, err)
	}
	if _, err := read(t, &source.Sources{}, address); err == nil || !strings.Contains(err.Error(), "catalog import") {
		t.Errorf("a file is opened where it may not be: %v", err)
	}
	_, err := read(t, &source.Sources{Files: true}, "file://"+filepath.ToSlash(dir)+"/missing")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("missing: %v", err)
	}
}

func TestHTTP(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "content")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/binary", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("Accept-Encoding") != "identity" {
			http.Error(w, "unexpected request", http.StatusTeapot)
			return
		}
		_, _ = io.WriteString(w, "content")
	})
	mux.HandleFunc("/zipped", func(w http.ResponseWriter, r *http.Request) { // whatever was asked for
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zipped.Bytes())
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/binary", http.StatusFound) })
	mux.HandleFunc("/empty", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/part", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusPartialContent) })
	server := httptest.NewServer(mux)
	defer server.Close()
	s := &source.Sources{HTTP: server.Client()}

	for path, want := range map[string]string{"/binary": "content", "/moved": "content", "/zipped": zipped.String()} {
		if got, err := read(t, s, server.URL+path); err != nil || got != want {
			t.Errorf("%s: %q, error %v; want %q", path, got, err, want)
		}
	}
	for path, status := range map[string]string{"/missing": "404 Not Found", "/empty": "204 No Content", "/part": "206 Partial Content"} {
		_, err := read(t, s, server.URL+path)
		if want := "open " + server.URL + path + ": the server answered " + status; err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", path, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Open(ctx, server.URL+"/binary"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	server.Close()
	if _, err := read(t, s, server.URL+"/binary"); err == nil || !strings.Contains(err.Error(), server.URL+"/binary") {
		t.Errorf("nobody listens: %v", err)
	}
}

type other struct{ opened []string }

func (o *other) Open(_ context.Context, address string) (io.ReadCloser, error) {
	o.opened = append(o.opened, address)
	return io.NopCloser(strings.NewReader("from elsewhere")), nil
}

func TestSchemes(t *testing.T) {
	s3 := &other{}
	s := &source.Sources{Other: map[string]builder.Sources{"s3": s3}}
	if got, err := read(t, s, "s3://bucket/key"); err != nil || got != "from elsewhere" || len(s3.opened) != 1 || s3.opened[0] != "s3://bucket/key" {
		t.Errorf("s3: %q, error %v, opened %q", got, err, s3.opened)
	}
	for address, want := range map[string]string{
		"ftp://host/x":    `open ftp://host/x: this program cannot read "ftp" addresses`,
		"s4://bucket/key": `open s4://bucket/key: this program cannot read "s4" addresses`,
		"/etc/hostname":   `open /etc/hostname: this program cannot read "" addresses`,
		"":                `open : this program cannot read "" addresses`,
	} {
		if _, err := read(t, s, address); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", address, err, want)
		}
	}
	if _, err := read(t, s, "http://%zz/"); err == nil || !strings.HasPrefix(err.Error(), "open http://%zz/: ") {
		t.Errorf("not a URL: %v", err)
	}
}

// A source that does not answer, one that stops and one that drips are given up; one that is slow to be read is not.
func TestS5Limits(t *testing.T) {
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
			close(gone)
		case "/drips":
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
			}
		default:
			_, _ = io.WriteString(w, strings.Repeat("x", 5000))
		}
	}))
	defer server.Close()
	open := func(path string, limits source.Limits) (io.ReadCloser, error) {
		return (&source.Sources{HTTP: server.Client(), Limits: limits}).Open(t.Context(), server.URL+path)
	}
	if _, err := open("/silent", source.Limits{Open: 20 * time.Millisecond}); !errors.Is(err, source.ErrSlow) {
		t.Errorf("one that does not answer: %v", err)
	}
	<-gone // its connection does not stay
	body, err := open("/drips", source.Limits{Window: 20 * time.Millisecond, Least: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, body); !errors.Is(err, source.ErrSlow) {
		t.Errorf("one that drips: %v", err)
	}
	body.Close()
	body, err = open("/sound", source.Limits{Window: time.Minute, Least: 100})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, body); n != 5000 || err != nil {
		t.Errorf("a sound one: %d bytes, %v", n, err)
	}
	body.Close()
}
