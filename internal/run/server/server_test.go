package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/operate/inspect"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/limits"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/test/reference"
	"github.com/precast-ota/precast/seed"
)

// site is a data folder that has been built, and a server over it.
type site struct {
	t     testing.TB
	store *local.Store
	pub   *server.Published
	url   string
}

// newSite brings in what fill says, builds it under params and serves it.
func newSite(t testing.TB, opt builder.Options, fill func(im *release.Importer)) *site {
	t.Helper()
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	s := &site{t: t, store: store}
	log := slog.New(slog.DiscardHandler)
	s.pub = server.NewPublished(store.Objects(), log)
	srv := httptest.NewUnstartedServer(server.New(store.Objects(), s.pub, server.NewMetrics(), log).Handler())
	srv.Config = limits.HTTP(srv.Config.Handler, log)
	srv.Start()
	t.Cleanup(srv.Close)
	s.url = srv.URL
	if fill != nil {
		fill(&release.Importer{Objects: store.Objects(), Catalog: store.Catalog()})
		s.build(opt)
	}
	return s
}

func (s *site) build(opt builder.Options) {
	s.t.Helper()
	ctx := context.Background()
	st := pipeline.New(pipeline.Local(s.store), pipeline.Config{Builder: opt})
	if err := st.Build(ctx, builder.PlanOptions{}, nil); err != nil {
		s.t.Fatal(err)
	}
	if err := s.pub.Refresh(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// nothingPrebuilt leaves everything to be composed on request.
func nothingPrebuilt() builder.Options {
	p := builder.DefaultParams()
	p.MaxBytes = 1
	return builder.Options{Params: p}
}

func sample(size int64) func(*release.Importer) {
	return func(im *release.Importer) {
		if _, err := im.Import(context.Background(), seed.Releases(size, 1), false); err != nil {
			panic(err)
		}
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (s *site) get(path string, header ...string) answer {
	s.t.Helper()
	return s.do(http.MethodGet, path, header...)
}

func (s *site) do(method, path string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// files returns what a bundle holds: name -> content digest; it fails if the bundle is not sound.
func (s *site) files(a answer) map[string]string {
	s.t.Helper()
	rep, err := inspect.Bundle(context.Background(), bytes.NewReader(a.body))
	if err != nil || len(rep.Problems) > 0 {
		s.t.Fatalf("bundle is not sound: %v %+v", err, rep)
	}
	files := make(map[string]string)
	for _, f := range rep.Files {
		files[f.Name] = f.SHA256
	}
	return files
}

func (s *site) items() map[string]catalog.Item {
	s.t.Helper()
	items, err := s.store.Catalog().Snapshot(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	byFile := make(map[string]catalog.Item)
	for _, it := range items {
		byFile[it.App+"_"+it.Version] = it
	}
	return byFile
}

func TestTheSamplesSelections(t *testing.T) {
	for name, opt := range map[string]builder.Options{"prebuilt": {}, "composed": nothingPrebuilt()} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, opt, sample(2000))
			for query, want := range map[string][]string{
				"cpuArch=armv8":                                              {"os_armv8_1.1.0"},
				"cpuArch=armv8&os=beta":                                      {"os_armv8_2.0.0"},
				"cpuArch=armv8&attrGamer=prod":                               {"os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"},
				"cpuArch=armv8&attrGamer=prod&attrCellular=prod":             {"modemFW_1.0", "os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"},
				"cpuArch=armv8&attrGamer=beta":                               {"os_armv8_1.1.0", "scoreboard_2.0.0"},
				"cpuArch=armv8&attrGamer=prod&attrCamera=beta":               {"os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1", "videoStreamer_0.1.2"},
				"CPUARCH=ARMV8&videostreamer=BETA&MODEMfw=prod&os=":          {"modemFW_1.0", "os_armv8_1.1.0", "videoStreamer_0.1.2"},
				"cpuArch=sparc&attrCellular=prod":                            {"modemFW_1.0"},
				"cpuArch=armv8&utm_source=x&attrNone=prod&scoreboard=purple": {"os_armv8_1.1.0"},
			} {
				a := s.get("/package?" + query)
				if a.status != 200 {
					t.Fatalf("%s: %d %s", query, a.status, a.body)
				}
				got := s.files(a)
				if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
					t.Fatalf("%s: %v, want %v", query, names, want)
				}
				for file, sum := range got {
					if s.items()[file].SHA256 != sum {
						t.Fatalf("%s: %s has other content than the catalog says", query, file)
					}
				}
				for name, value := range map[string]string{
					"Content-Type":        "application/gzip",
					"Content-Disposition": `attachment; filename="ota-package.tar.gz"`,
					"Content-Encoding":    "",
					"Cache-Control":       layout.PackageCacheControl,
					"Accept-Ranges":       "bytes",
				} {
					if got := a.header.Get(name); got != value {
						t.Errorf("%s: %s: %q, want %q", query, name, got, value)
					}
				}
			}
		})
	}
}

func TestComposedBytesEqualPrebuiltOnes(t *testing.T) {
	prebuilt, composed := newSite(t, builder.Options{}, sample(5000)), newSite(t, nothingPrebuilt(), sample(5000))
	err := composed.store.Objects().List(context.Background(), layout.BundlePrefix, func(o builder.ObjectInfo) error {
		return fmt.Errorf("%s was prebuilt", o.Key)
	})
	if err != nil {
		t.Fatal(err)
	}
	held := prebuilt.items()["scoreboard_1.0.0"].MD5
	for _, path := range []string{
		"/package?cpuArch=armv8&attrGamer=prod",
		"/package?cpuArch=armv8&attrGamer=prod&payloadType=metadataOnly",
		"/package?cpuArch=armv7&attrCamera=beta&os=beta",
	} {
		for _, tags := range []string{"", held} {
			a, b := prebuilt.get(path, "If-None-Match", tags), composed.get(path, "If-None-Match", tags)
			a.header.Del("Date")
			b.header.Del("Date")
			if a.status != 200 || b.status != 200 || !bytes.Equal(a.body, b.body) || fmt.Sprint(a.header) != fmt.Sprint(b.header) {
				t.Fatalf("%s: prebuilt %d bytes %v, composed %d bytes %v", path, len(a.body), a.header, len(b.body), b.header)
			}
			r := []string{"If-None-Match", tags, "Range", "bytes=700-1699"}
			if strings.Contains(path, "metadata") {
				r[3] = "bytes=10-59"
			}
			x, y := prebuilt.get(path, r...), composed.get(path, r...)
			if x.status != 206 || !bytes.Equal(x.body, y.body) || x.header.Get("Content-Range") != y.header.Get("Content-Range") {
				t.Fatalf("%s: range: prebuilt %d %q, composed %d %q", path, x.status, x.body, y.status, y.body)
			}
			if !strings.Contains(path, "metadata") && !bytes.Equal(x.body, a.body[700:1700]) {
				t.Fatalf("%s: the range is not that of the whole", path)
			}
		}
	}
}

func TestHeldTags(t *testing.T) {
	s := newSite(t, builder.Options{}, sample(2000))
	items := s.items()
	all := "/package?cpuArch=armv8&attrGamer=prod&attrCellular=prod"
	os := items["os_armv8_1.1.0"]
	rest := []string{"modemFW_1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}
	for _, tag := range []string{
		os.MD5, `"` + os.MD5 + `"`, `W/"` + os.MD5 + `"`, strings.ToUpper(os.MD5), os.SHA256, "  " + os.MD5 + " , ,",
		`"unknown", ` + os.MD5 + `,"` + os.SHA256 + `"`, "*, " + os.MD5,
	} {
		a := s.get(all, "If-None-Match", tag)
		if got := slices.Sorted(maps.Keys(s.files(a))); !slices.Equal(got, rest) {
			t.Fatalf("If-None-Match: %s: brought %v, want %v", tag, got, rest)
		}
		m := decode(t, s.get(all+"&payloadType=metadataOnly", "If-None-Match", tag))
		if m["os_armv8"].StatusCode != 304 || m["scoreboard"].StatusCode != 200 {
			t.Fatalf("If-None-Match: %s: manifest %+v", tag, m)
		}
	}
	for _, tag := range []string{"*", "", `"nothing"`, strings.Repeat("0", 32)} {
		if got := s.files(s.get(all, "If-None-Match", tag)); len(got) != 4 {
			t.Fatalf("If-None-Match: %s: brought %v, want all four", tag, got)
		}
	}
	everything := []string{os.MD5, items["modemFW_1.0"].SHA256, items["scoreboard_1.0.0"].MD5, items["videoStreamer_0.0.1"].MD5}
	for _, header := range [][]string{
		{"If-None-Match", strings.Join(everything, ",")},
		{"If-None-Match", everything[0], "If-None-Match", everything[1] + ", " + everything[2], "If-None-Match", everything[3]},
	} {
		for _, path := range []string{all, all + "&payloadType=metadataOnly"} {
			a := s.get(path, header...)
			if a.status != 304 || len(a.body) != 0 || a.header.Get("Cache-Control") != layout.PackageCacheControl {
				t.Fatalf("everything held: %d %q %v", a.status, a.body, a.header)
			}
		}
	}
}

// The answer's own ETag works too, as any HTTP cache uses it.
func TestETagOfTheAnswer(t *testing.T) {
	s := newSite(t, builder.Options{}, sample(2000))
	for _, path := range []string{"/package?cpuArch=armv8&attrGamer=prod", "/package?cpuArch=armv8&payloadType=metadataOnly"} {
		first := s.get(path)
		etag := first.header.Get("ETag")
		if !strings.HasPrefix(etag, `"`) {
			t.Fatalf("%s: ETag %s", path, etag)
		}
		for _, sent := range []string{etag, "W/" + etag} {
			if a := s.get(path, "If-None-Match", sent); a.status != 304 || len(a.body) != 0 {
				t.Fatalf("%s: If-None-Match: %s: %d", path, sent, a.status)
			}
		}
		if a := s.get(path+"&os=beta", "If-None-Match", etag); a.status != 200 {
			t.Fatalf("another answer's ETag: %d", a.status)
		}
		if a := s.get(path, "Range", "bytes=0-9", "If-Range", etag); a.status != 206 {
			t.Fatalf("If-Range: %d", a.status)
		}
		if a := s.get(path, "Range", "bytes=0-9", "If-Range", `"another"`); a.status != 200 || len(a.body) != len(first.body) {
			t.Fatalf("If-Range of another ETag: %d, %d bytes", a.status, len(a.body))
		}
	}
	// curl keeps an ETag and compares it.
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Log("curl is not installed")
		return
	}
	file, out := filepath.Join(t.TempDir(), "etag"), filepath.Join(t.TempDir(), "out")
	ask := func() string {
		cmd := exec.Command(curl, "-sS", "--etag-save", file, "--etag-compare", file, "-o", out, "-w", "%{http_code}", s.url+"/package?cpuArch=armv8")
		text, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if a, b := ask(), ask(); a != "200" || b != "304" {
		t.Fatalf("curl --etag-compare: %s, then %s", a, b)
	}
}

func TestErrors(t *testing.T) {
	s := newSite(t, builder.Options{}, sample(100))
	for _, c := range []struct {
		method, path string
		status       int
		message      string
	}{
		{"GET", "/package", 400, "Missing cpuArch query param"},
		{"GET", "/package?cpuArch=", 400, "Missing cpuArch query param"},
		{"GET", "/package?cpuArch=armv8&payloadType=all", 400, "Invalid payloadType param"},
		{"GET", "/package?cpuArch=m68k", 404, "No deployment package found"},
		{"GET", "/package?cpuArch=%zz", 400, "broken percent escape"},
		{"GET", "/package?cpuArch=%", 400, "broken percent escape"},
		{"GET", "/package?cpuArch=a%00b", 400, "control character"},
		{"GET", "/package?cpuArch=%ff", 400, "not UTF-8"},
		{"GET", "/package?cpuArch=" + strings.Repeat("a", 300), 400, "longer than 255 bytes"},
		{"GET", "/package?cpuArch=armv8&" + strings.Repeat("a=b&", 200), 400, "more than 128 parameters"},
		{"GET", "/package?x=" + strings.Repeat("a", 40<<10), 400, "longer than 8000 bytes"},
		{"POST", "/package?cpuArch=armv8", 405, "GET or HEAD"},
		{"GET", "/binaries/x", 404, "No such binary"},
		{"GET", "/binaries/" + strings.Repeat("0", 64) + "/os_1", 404, "No such binary"},
		{"GET", "/binaries/%2e%2e/index", 400, "not clean"},
		{"GET", "/binaries/" + strings.Repeat("0", 64) + "/%2e%2e%2findex", 400, "not clean"},
		{"GET", "/index", 404, "Not found"},
		{"GET", "/precast.db", 404, "Not found"},
	} {
		a := s.do(c.method, c.path)
		var body map[string]string
		if a.status != c.status || json.Unmarshal(a.body, &body) != nil || !strings.Contains(body["error"], c.message) || len(body) != 1 {
			t.Errorf("%s %.60s: %d %s, want %d with %q", c.method, c.path, a.status, a.body, c.status, c.message)
		}
		if a.header.Get("Cache-Control") != layout.ErrorCacheControl || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %.60s: headers %v", c.method, c.path, a.header)
		}
	}
	tags := make([]string, 1_500)
	for i := range tags {
		tags[i] = fmt.Sprintf("%032x", i)
	}
	if a := s.get("/package?cpuArch=armv8", "If-None-Match", strings.Join(tags, ",")); a.status != 400 {
		t.Errorf("1,500 tags: %d %s", a.status, a.body)
	}
	if a := s.get("/package?cpuArch=armv8", "X", strings.Repeat("x", limits.MaxHeader)); a.status != 431 {
		t.Errorf("64 KiB of headers: %d %s", a.status, a.body)
	}
	if a := s.get("/package?cpuArch=armv8", "If-None-Match", strings.Join(tags[:64], ",")); a.status != 200 {
		t.Errorf("64 tags: %d %s", a.status, a.body)
	}
	if a := s.get("/package?cpuArch=armv8", "If-None-Match", strings.Join(tags[:65], ",")); a.status != 400 || !strings.Contains(string(a.body), "64 digests") {
		t.Errorf("65 tags: %d %s", a.status, a.body)
	}
	if a := s.do(http.MethodHead, "/package?cpuArch=armv8"); a.status != 200 || len(a.body) != 0 || a.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: %d %q %v", a.status, a.body, a.header)
	}
}

// What Go's own client would not send: the server answers it, and goes on answering.
func TestRawRequests(t *testing.T) {
	s := newSite(t, builder.Options{}, sample(100))
	host := strings.TrimPrefix(s.url, "http://")
	for _, raw := range []string{
		"GET /package?cpuArch=armv8%0d%0aX: y HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /package?cpuArch=armv8\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /package?cpuArch=\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /../../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET //package?cpuArch=armv8 HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /package?cpuArch=armv8;os=beta HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /package?cpuArch=armv8 HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"\x01\x02\r\n\r\n",
		"GET /package?cpuArch=armv8 HTTP/1.1\r\nHost: h\r\nRange: bytes=" + strings.Repeat("0-0,", 5000) + "0-0\r\n\r\n",
		"NONSENSE\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		raw = strings.Replace(raw, "Host: h\r\n", "Host: h\r\nConnection: close\r\n", 1)
		if _, err := io.WriteString(conn, raw); err != nil {
			t.Fatal(err)
		}
		// (Not by closing the writing side: the server would take the client for gone.)
		reply, err := io.ReadAll(conn)
		conn.Close()
		if err != nil || !bytes.HasPrefix(reply, []byte("HTTP/1.1 ")) {
			t.Fatalf("%.50q: %q %v", raw, reply, err)
		}
		if bytes.HasPrefix(reply, []byte("HTTP/1.1 5")) {
			t.Fatalf("%.50q: %.200q", raw, reply)
		}
		if a := s.get("/package?cpuArch=armv8"); a.status != 200 {
			t.Fatalf("after %.50q: %d", raw, a.status)
		}
	}
}

func TestManifestURLsCanBeFetched(t *testing.T) {
	s := newSite(t, builder.Options{}, func(im *release.Importer) {
		_, err := im.Import(context.Background(), []release.Release{
			{Item: catalog.Item{App: "os_a b%ü", Track: "prod", Version: "1?#&"}, Open: content("strange names")},
			{Item: catalog.Item{App: "empty", Track: "prod", Version: "0", DeviceAttr: map[string]bool{"e": true}}, Open: content("")},
		}, false)
		if err != nil {
			t.Fatal(err)
		}
	})
	m := decode(t, s.get("/package?cpuArch="+url.QueryEscape("A b%ü")+"&attrE=prod&payloadType=metadataOnly"))
	if len(m) != 2 {
		t.Fatalf("manifest %+v", m)
	}
	for app, e := range m {
		a := s.get(e.URL)
		if a.status != 200 || int64(len(a.body)) != e.Size {
			t.Fatalf("%s: %s: %d, %d bytes", app, e.URL, a.status, len(a.body))
		}
		if b := s.get(e.URL, "If-None-Match", a.header.Get("ETag")); b.status != 304 {
			t.Fatalf("%s: by its ETag: %d", app, b.status)
		}
		if !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Fatalf("%s: headers %v", app, a.header)
		}
	}
	if got := s.files(s.get("/package?cpuArch=" + url.QueryEscape("A b%ü") + "&attrE=prod")); len(got) != 2 {
		t.Fatalf("bundle holds %v", got)
	}
}

func content(s string) func() (io.ReadSeekCloser, error) {
	return func() (io.ReadSeekCloser, error) { return builder.NopCloser{ReadSeeker: strings.NewReader(s)}, nil }
}

func decode(t testing.TB, a answer) manifest.Manifest {
	t.Helper()
	if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	m, err := manifest.Decode(bytes.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBeforeTheFirstPublish(t *testing.T) {
	s := newSite(t, builder.Options{}, nil)
	for _, path := range []string{"/package?cpuArch=armv8", "/healthz"} {
		a := s.get(path)
		if a.status != 503 || a.header.Get("Retry-After") == "" || a.header.Get("Cache-Control") == layout.ErrorCacheControl {
			t.Fatalf("%s: %d %v", path, a.status, a.header)
		}
	}
}

// Whatever happens to the stored index, the last good one answers.
func TestABadIndexIsNotUsed(t *testing.T) {
	s := newSite(t, builder.Options{}, sample(100))
	ctx := context.Background()
	good := s.get("/package?cpuArch=armv8").body
	body, _, err := s.store.Objects().Get(ctx, layout.IndexKey, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	first, err := io.ReadAll(body)
	body.Close()
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) {
		t.Helper()
		_, err := s.store.Objects().Put(ctx, layout.IndexKey, builder.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}, builder.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.store.Catalog().Apply(ctx, catalog.Edit{Changes: []catalog.Change{catalog.Remove(catalog.Key{App: "modemFW", Track: "prod"})}}); err != nil {
		t.Fatal(err)
	}
	s.build(builder.Options{}) // generation 2
	for name, bad := range map[string][]byte{
		"truncated": first[:len(first)-3],
		"damaged":   append(append([]byte{}, first[:40]...), append([]byte{first[40] ^ 1}, first[41:]...)...),
		"empty":     {},
		"older":     first,
	} {
		put(bad)
		if err := s.pub.Refresh(ctx); err == nil {
			t.Fatalf("a %s index was taken", name)
		}
		if a := s.get("/package?cpuArch=armv8"); a.status != 200 || !bytes.Equal(a.body, good) {
			t.Fatalf("with a %s index: %d", name, a.status)
		}
	}
}

// C21: a probe of life is no probe of readiness.
func TestProbesC21(t *testing.T) {
	s := newSite(t, builder.Options{}, nil)
	look := func(path string, status int, text string) {
		t.Helper()
		a := s.get(path)
		if a.status != status || !strings.Contains(string(a.body), text) || status == 200 && a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %s, want %d with %q", path, a.status, a.header, a.body, status, text)
		}
	}
	look("/livez", 200, "ok")
	look("/readyz", 503, "No catalog has been published yet")
	sample(100)(&release.Importer{Objects: s.store.Objects(), Catalog: s.store.Catalog()})
	s.build(builder.Options{})
	look("/readyz", 200, `"generation":1`)
	if err := s.store.Objects().Delete(t.Context(), layout.IndexKey); err != nil {
		t.Fatal(err)
	}
	look("/readyz", 503, "cannot be read")
	look("/livez", 200, "ok")
	look("/healthz", 200, `"generation":1`)
}

// S14: what watches the server is read, and nothing else.
func TestMethodsS14(t *testing.T) {
	s := newSite(t, builder.Options{}, sample(100))
	for _, path := range []string{"/livez", "/readyz", "/healthz", "/metrics"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"} {
			if a := s.do(method, path); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d %v", method, path, a.status, a.header)
			}
		}
	}
	for _, path := range []string{"/livez", "/metrics"} {
		if a := s.do("HEAD", path); a.status != 200 || len(a.body) > 0 {
			t.Errorf("HEAD %s: %d %s", path, a.status, a.body)
		}
	}
}

func TestMetricsAndHealth(t *testing.T) {
	s := newSite(t, builder.Options{}, sample(100))
	s.get("/package?cpuArch=armv8")
	s.get("/package?cpuArch=none")
	if a := s.get("/healthz"); a.status != 200 || !strings.Contains(string(a.body), `"generation":1`) {
		t.Fatalf("healthz: %d %s", a.status, a.body)
	}
	text := string(s.get("/metrics").body)
	for _, want := range []string{
		`precast_requests_total{code="200",route="package"} 1`,
		`precast_requests_total{code="404",route="package"} 1`,
		`precast_answers_total{source="prebuilt"} 1`,
		"go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// Random catalogs and requests: the server answers as the plain reference does.
func TestTheServerAgreesWithTheReference(t *testing.T) {
	for seedNumber := range uint64(8) {
		r := rand.New(rand.NewPCG(seedNumber, 7))
		pick := func(from ...string) string { return from[r.IntN(len(from))] }
		opt := builder.Options{}
		if seedNumber%2 == 1 { // some answers are composed; all of them
			opt.Params = builder.DefaultParams()
			opt.Params.MaxBundles = 5 * (seedNumber / 2 % 2)
		}
		s := newSite(t, opt, func(im *release.Importer) {
			var releases []release.Release
			seen := make(map[catalog.Key]bool)
			for range 2 + r.IntN(9) {
				it := catalog.Item{App: pick("os_a", "os_B", "Tool", "game", "fw"), Track: pick("prod", "Beta", "x y"), DeviceAttr: map[string]bool{}}
				if seen[it.Key()] {
					continue
				}
				seen[it.Key()] = true
				it.Version = pick("1", "2", "3.0-"+it.Track)
				for range r.IntN(3) {
					it.DeviceAttr[pick("Gamer", "camera", "ü")] = r.IntN(4) > 0
				}
				// One version has one content, on every track.
				releases = append(releases, release.Release{Item: it, Open: content(it.App + it.Version)})
			}
			if _, err := im.Import(context.Background(), releases, false); err != nil {
				t.Fatal(err)
			}
		})
		items, err := s.store.Catalog().Snapshot(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		statuses := make(map[int]int)
		for range 300 {
			var params [][2]string
			var query []string
			for range 1 + r.IntN(6) {
				k := pick("cpuArch", "cpuarch", "CPUARCH", "os", "OS", "attrGamer", "ATTRgamer", "attrcamera", "attrü", "tool", "Game", "fw", "junk", "payloadType", "attr")
				v := pick("prod", "PROD", "beta", "x y", "", "nothing")
				switch strings.ToLower(k) {
				case "cpuarch":
					v = pick("a", "A", "b", "c", "")
				case "payloadtype":
					v = pick("metadataOnly", "fullPayload", "FULLPAYLOAD", "junk", "")
				}
				params = append(params, [2]string{k, v})
				query = append(query, url.QueryEscape(k)+"="+url.QueryEscape(v))
			}
			held := make(map[string]bool)
			var tags []string
			for _, it := range items {
				switch r.IntN(4) {
				case 0:
					held[it.MD5] = true
					tags = append(tags, `"`+it.MD5+`"`)
				case 1:
					held[it.SHA256] = true
					tags = append(tags, strings.ToUpper(it.SHA256))
				}
			}
			status, files := reference.Answer(items, params, held)
			statuses[status]++
			a := s.get("/package?"+strings.Join(query, "&"), "If-None-Match", strings.Join(tags, pick(",", " , ", ",,")))
			if a.status != status {
				t.Fatalf("catalog %v\n%v\nheld %v\n%d %s, want %d", items, query, tags, a.status, a.body, status)
			}
			if status != 200 {
				continue
			}
			var got []string
			if a.header.Get("Content-Type") == "application/json" {
				for name, e := range decode(t, a).Files() {
					if e.StatusCode == 200 {
						got = append(got, name)
					}
				}
				slices.Sort(got)
			} else {
				got = slices.Sorted(maps.Keys(s.files(a)))
			}
			if !slices.Equal(got, files) {
				t.Fatalf("catalog %v\n%v\nheld %v\nbrought %v, want %v", items, query, tags, got, files)
			}
		}
		for _, status := range []int{200, 304, 400, 404} {
			if statuses[status] == 0 {
				t.Logf("catalog %d had no answer with %d", seedNumber, status)
			}
		}
	}
}
