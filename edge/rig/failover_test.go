package rig_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/format/layout"
)

func custom(t *testing.T, h http.Handler) *rig.Origin {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &rig.Origin{Name: "origin", URL: srv.URL, Domain: "origin.example"}
}

// group is a rig over two origins of the test's.
func group(t *testing.T, handler string, primary, secondary http.HandlerFunc, change ...func(*rig.Distribution)) *rig.Rig {
	t.Helper()
	second := custom(t, secondary)
	second.Name, second.Domain = "second", "second.example"
	return overOrigin(t, handler, primary, append(change, func(d *rig.Distribution) { d.Behaviors[0].Secondary = second })...)
}

func TestFailover(t *testing.T) {
	t.Parallel()
	for status, over := range map[int]bool{
		200: false, 301: false, 400: false, 403: true, 404: true, 416: false, 429: false, 500: true, 502: true, 503: true, 504: true,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			r := group(t, passingHandler, page(status, "first"), page(200, "second"))
			a := get(t, r, "/package")
			want := map[bool]string{false: "first", true: "second"}[over]
			if string(a.body) != want || over != (a.trace.Failover == status) {
				t.Fatal(a)
			}
		})
	}
	t.Run("unreachable", func(t *testing.T) {
		t.Parallel()
		r := group(t, passingHandler, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, page(200, "second"))
		if a := get(t, r, "/package"); string(a.body) != "second" || a.trace.Failover != 502 {
			t.Fatal(a)
		}
	})
	t.Run("cut short", func(t *testing.T) {
		t.Parallel()
		r := group(t, passingHandler, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "first")
		}, page(200, "second"))
		if a := get(t, r, "/package"); string(a.body) != "second" {
			t.Fatal(a)
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		r := group(t, passingHandler, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, page(200, "second"),
			func(d *rig.Distribution) { d.Limits.Origin = 50 * time.Millisecond })
		if a := get(t, r, "/package"); string(a.body) != "second" || a.trace.Failover != 504 {
			t.Fatal(a)
		}
	})
	// As a function URL at its reserved concurrency
	// (https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html): it is passed on, and not kept.
	t.Run("throttled", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int32
		r := group(t, passingHandler, page(403, "first"), func(w http.ResponseWriter, r *http.Request) {
			page([]int{429, 200}[asked.Add(1)-1], "second")(w, r)
		})
		for _, want := range []int{429, 200} {
			if a := get(t, r, "/package"); a.status != want || a.header.Get("Retry-After") != "" {
				t.Fatalf("%v, want %d", a, want)
			}
		}
	})
	t.Run("both fail", func(t *testing.T) {
		t.Parallel()
		r := group(t, passingHandler, page(503, "first"), page(500, "second"))
		if a := get(t, r, "/package"); a.status != 500 || string(a.body) != "second" {
			t.Fatal(a)
		}
	})
}

// The origin-request function runs again for the secondary origin, on the request as it was.
func TestTheHandlerRunsAgain(t *testing.T) {
	t.Parallel()
	handler := `export const handler = async (event) => { const r = event.Records[0].cf.request;
		r.headers['x-saw'] = [{value: r.uri + '?' + r.querystring + ' ' + (r.origin.s3 ?? r.origin.custom).domainName + ' ' + ('x-saw' in r.headers)}];
		r.uri = '/rewritten'; r.querystring = ''; return r; };`
	echo := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI, " ", r.Header.Get("X-Saw")) }
	r := group(t, handler, page(403, ""), echo)
	a := get(t, r, "/package?a=b")
	if want := "/rewritten /package?a=b second.example false"; string(a.body) != want || a.trace.HandlerRuns != 2 {
		t.Fatalf("%v, want %q", a, want)
	}
}

// Whether a generated answer fails over is not documented: the rig can do both.
func TestGeneratedAnswersAndFailover(t *testing.T) {
	t.Parallel()
	for _, over := range []bool{false, true} {
		r := group(t, `export const handler = async () => ({status: '404', body: 'generated'});`, page(200, "first"), page(200, "second"),
			func(d *rig.Distribution) { d.Assume.GeneratedFailsOver = over })
		a := get(t, r, "/package")
		if runs := map[bool]int{false: 1, true: 2}[over]; a.status != 404 || a.trace.HandlerRuns != runs || a.trace.Origin != "edge" {
			t.Fatal(a)
		}
	}
}

func TestGenerated304IsCachedOrNot(t *testing.T) {
	t.Parallel()
	for _, cached := range []bool{false, true} {
		r := group(t, `export const handler = async () => ({status: '304', headers: {'cache-control': [{value: 'max-age=10'}]}});`, page(200, ""), page(200, ""),
			func(d *rig.Distribution) { d.Assume.NotModifiedIsCached = cached })
		get(t, r, "/package")
		a := get(t, r, "/package")
		if want := map[bool]string{false: "Miss", true: "Hit"}[cached]; a.status != 304 || len(a.body) != 0 || a.xcache() != want {
			t.Fatal(a)
		}
		// One that answers a condition is for this viewer alone.
		get(t, r, "/package?b", "If-None-Match", `"x"`)
		if a := get(t, r, "/package?b"); a.xcache() != "Miss" {
			t.Fatal(a)
		}
	}
}

// Requests pass a rig's S3 and composer only with the signature of origin access control.
func TestOriginsWantSignatures(t *testing.T) {
	t.Parallel()
	objects := emptyBucket(t)
	key := layout.BundleKey(strings.Repeat("a", 64), "0")
	put(t, objects, key, "bundle")
	var origins []*rig.Origin
	r := start(t, rig.Options{Objects: objects, Dist: dist(t, passingFunction, `export const handler = async (event) => { const r = event.Records[0].cf.request; r.uri = '/`+key+`'; r.querystring = ''; return r; };`),
		Change:  func(d *rig.Distribution) { origins = []*rig.Origin{d.Behaviors[0].Primary, d.Behaviors[0].Secondary} },
		Compose: func(builder.Objects) http.Handler { return page(200, "composed") }})
	if a := get(t, r, "/package?a=b"); string(a.body) != "bundle" || a.trace.Origin != "s3" {
		t.Fatal(a)
	}
	for _, o := range origins {
		resp, err := http.Get(o.URL + "/" + key)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 403 {
			t.Errorf("%s: %d for a request that is not signed", o.Name, resp.StatusCode)
		}
	}
	// The same request, signed for another service, region or time, is none.
	for name, change := range map[string]func(o *rig.Origin){
		"not signed":     func(o *rig.Origin) { o.Service = "" },
		"another region": func(o *rig.Origin) { o.Region = "us-east-1" },
	} {
		r := start(t, rig.Options{Objects: objects, Dist: dist(t, passingFunction, `export const handler = async (event) => { const r = event.Records[0].cf.request; r.uri = '/`+key+`'; r.querystring = ''; return r; };`),
			Change: func(d *rig.Distribution) { change(d.Behaviors[0].Primary); change(d.Behaviors[0].Secondary) }})
		if a := get(t, r, "/package?a=b"); a.status != 403 || len(r.S3.Requests()) != 1 || r.S3.Requests()[0].By != "" {
			t.Errorf("%s: %v", name, a)
		}
	}
}

// A device's query in S3's sight is an error.
func TestBucketRefusesQueries(t *testing.T) {
	t.Parallel()
	objects := emptyBucket(t)
	key := layout.BundleKey(strings.Repeat("a", 64), "0")
	put(t, objects, key, "bundle")
	r := start(t, rig.Options{Objects: objects, Dist: dist(t, passingFunction, `export const handler = async (event) => { const r = event.Records[0].cf.request; r.uri = '/`+key+`'; return r; };`)})
	if a := get(t, r, "/package?response-content-type=text/html"); a.status != 400 || !strings.Contains(string(a.body), "InvalidArgument") {
		t.Fatal(a)
	}
	if a := get(t, r, "/package"); a.status != 200 {
		t.Fatal(a)
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	objects := emptyBucket(t)
	key := layout.BinaryKey(strings.Repeat("b", 64), "some app", "1+2%")
	put(t, objects, key, "binary")
	for _, list := range []bool{false, true} {
		r := start(t, rig.Options{Objects: objects, List: list, Dist: dist(t, passingFunction, passingHandler)})
		path := "/binaries/" + strings.Repeat("b", 64) + "/"
		a := get(t, r, path+"some%20app_1%2B2%25")
		if a.status != 200 || string(a.body) != "binary" || a.header.Get("ETag") != `"9d7183f16acce70658f686ae7f1a4d20"` ||
			a.header.Get("Cache-Control") != layout.HeadersOf(layout.Binary).CacheControl || a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("Last-Modified") == "" {
			t.Fatal(a, a.header)
		}
		missing := get(t, r, path+"none")
		if want := map[bool]int{false: 403, true: 404}[list]; missing.status != want || !strings.HasPrefix(string(missing.body), "<Error><Code>") {
			t.Fatal(missing)
		}
		r.S3.Replace(key, []byte("corrupt"))
		r.Invalidate("/*")
		if a := get(t, r, path+"some%20app_1%2B2%25", "Range", "bytes=0-2"); a.status != 206 || string(a.body) != "cor" {
			t.Fatal(a)
		}
		r.S3.SetSlowDown(true)
		if a := get(t, r, path+"other"); a.status != 503 || !strings.Contains(string(a.body), "SlowDown") {
			t.Fatal(a)
		}
	}
}
