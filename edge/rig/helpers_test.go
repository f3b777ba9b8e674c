package rig_test

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/store/local"
)

// passing are edge functions that change nothing.
const (
	passingFunction = `function handler(event) { return event.request; }`
	passingHandler  = `export const handler = async (event) => event.Records[0].cf.request;`
)

// dist writes a folder as edge/cmd/pack does, with edge functions of the test's.
func dist(t testing.TB, function, handler string) string {
	t.Helper()
	return distWith(t, function, "function handler(event) { return event.response; }", handler)
}

func distWith(t testing.TB, function, response, handler string) string {
	t.Helper()
	dir := t.TempDir()
	for name, code := range map[string]string{"function.js": function, "response.js": response} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	f, err := z.Create("index.mjs")
	if err == nil {
		_, err = io.WriteString(f, handler)
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "edge.zip"), out.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// frozen is a clock that moves by Rig.Advance only.
func frozen() func() time.Time {
	at := time.Now().Truncate(time.Second)
	return func() time.Time { return at }
}

func start(t testing.TB, opt rig.Options) *rig.Rig {
	t.Helper()
	if opt.Now == nil {
		opt.Now = frozen()
	}
	if opt.Objects == nil {
		opt.Objects = emptyBucket(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := rig.Start(ctx, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func emptyBucket(t testing.TB) *local.Objects {
	t.Helper()
	objects, err := local.OpenObjects(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func put(t testing.TB, objects builder.Objects, key, content string) {
	t.Helper()
	body := builder.Body{Reader: strings.NewReader(content), Size: int64(len(content))}
	if _, err := objects.Put(t.Context(), key, body, builder.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// overOrigin starts a rig whose /package comes from an HTTP handler of the test's, without a secondary.
func overOrigin(t *testing.T, handler string, origin http.HandlerFunc, change ...func(*rig.Distribution)) *rig.Rig {
	t.Helper()
	return overFunction(t, passingFunction, handler, origin, change...)
}

func overFunction(t *testing.T, function, handler string, origin http.HandlerFunc, change ...func(*rig.Distribution)) *rig.Rig {
	t.Helper()
	srv := httptest.NewServer(origin)
	t.Cleanup(srv.Close)
	return start(t, rig.Options{Dist: dist(t, function, handler), Change: func(d *rig.Distribution) {
		b := &d.Behaviors[0]
		b.Primary, b.Secondary = &rig.Origin{Name: "origin", URL: srv.URL, Domain: "origin.example"}, nil
		b.Override, b.ResponseFunction = nil, false
		for _, f := range change {
			f(d)
		}
	}})
}

// answer is what a device got, and how.
type answer struct {
	status int
	header http.Header
	body   []byte
	trace  rig.Trace
}

func (a answer) String() string {
	return fmt.Sprintf("%d %.200q [%s] %v", a.status, a.body, a.trace, a.trace.Fetches)
}

// xcache is X-Cache's first word.
func (a answer) xcache() string {
	word, _ := strings.CutSuffix(a.header.Get("X-Cache"), " from cloudfront")
	return word
}

// ask sends a request with the target as it stands; header are names and values.
func ask(t testing.TB, r *rig.Rig, method, target string, header ...string) answer {
	t.Helper()
	a, err := try(r, method, target, header...)
	if err != nil {
		t.Fatalf("%s %.200s: %v", method, target, err)
	}
	return a
}

func get(t testing.TB, r *rig.Rig, target string, header ...string) answer {
	t.Helper()
	return ask(t, r, http.MethodGet, target, header...)
}

func try(r *rig.Rig, method, target string, header ...string) (answer, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: device.example\r\nConnection: close\r\n", method, target)
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", header[i], header[i+1])
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method, URL: &url.URL{}})
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: body}
	a.trace, _ = r.Trace(resp.Header.Get("X-Amz-Cf-Id"))
	return a, nil
}

var scratch string // a folder; set by TestMain, which removes it

// packed builds the real artefacts, once for all tests.
var packed = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(scratch, "dist")
	cmd := exec.Command("go", "run", "./edge/cmd/pack", "-out", dir)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go run ./edge/cmd/pack: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "precast-rig-test-")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
