package rig_test

import (
	"crypto/md5"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/edge/rig"
)

// origin answers with what the test sets, and counts.
type origin struct {
	mu     sync.Mutex
	asked  []*http.Request
	answer http.HandlerFunc
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked = append(o.asked, r.Clone(r.Context()))
	answer := o.answer
	o.mu.Unlock()
	answer(w, r)
}

func (o *origin) set(f http.HandlerFunc) { o.mu.Lock(); o.answer = f; o.mu.Unlock() }

func (o *origin) count() int { o.mu.Lock(); defer o.mu.Unlock(); return len(o.asked) }

func (o *origin) last() *http.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[len(o.asked)-1]
}

// page answers with a body, its ETag and headers (names and values), and honours If-None-Match.
func page(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		if status == 200 {
			etag := fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum([]byte(body))))
			w.Header().Set("ETag", etag)
			if r.Header.Get("If-None-Match") == etag {
				w.WriteHeader(304)
				return
			}
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// How long a response is used (Expiration.html), under several cache policies.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	zero := rig.CachePolicy{Queries: rig.AllQueries, Def: 30 * time.Second, Max: time.Minute}
	floor := rig.CachePolicy{Queries: rig.AllQueries, Min: 20 * time.Second, Def: 30 * time.Second, Max: time.Minute}
	for _, c := range []struct {
		name    string
		policy  rig.CachePolicy
		status  int
		header  []string
		seconds int // for which it is sent from the cache
	}{
		{"nothing said", zero, 200, nil, 30},
		{"max-age", zero, 200, []string{"Cache-Control", "public, max-age=45"}, 45},
		{"max-age above the maximum", zero, 200, []string{"Cache-Control", "max-age=31536000, immutable"}, 60},
		{"max-age below the minimum", floor, 200, []string{"Cache-Control", "max-age=5"}, 20},
		{"s-maxage before max-age", zero, 200, []string{"Cache-Control", "max-age=10, s-maxage=50"}, 50},
		{"max-age=0", zero, 200, []string{"Cache-Control", "max-age=0"}, 0},
		{"Expires", zero, 200, []string{"Expires", "40s"}, 40},
		{"Expires after max-age", zero, 200, []string{"Expires", "40s", "Cache-Control", "max-age=10"}, 10},
		{"Expires in the past", zero, 200, []string{"Expires", "-1h"}, 0},
		{"no-store", zero, 200, []string{"Cache-Control", "no-store"}, 0},
		{"no-cache", zero, 200, []string{"Cache-Control", "no-cache, max-age=50"}, 0},
		{"private", zero, 200, []string{"Cache-Control", "private, max-age=50"}, 0},
		{"no-store and a minimum", floor, 200, []string{"Cache-Control", "no-store"}, 20},
		{"nonsense", zero, 200, []string{"Cache-Control", "max-age=soon"}, 30},
		{"404", zero, 404, nil, 10},
		{"404 with max-age", zero, 404, []string{"Cache-Control", "max-age=25"}, 25},
		{"404 with less than the minimum", zero, 404, []string{"Cache-Control", "max-age=2"}, 10},
		{"404 not to be stored", zero, 404, []string{"Cache-Control", "no-store"}, 0},
		{"400", zero, 400, nil, 0},
		{"400 with max-age", zero, 400, []string{"Cache-Control", "max-age=15"}, 15},
		{"403 with max-age", zero, 403, []string{"Cache-Control", "max-age=1"}, 10},
		{"503 not to be stored", zero, 503, []string{"Cache-Control", "no-store"}, 5},
		{"500", zero, 500, nil, 5},
		{"416", zero, 416, []string{"Cache-Control", "max-age=50"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := &origin{}
			r := shared(t, o, c.policy)
			header := slices.Clone(c.header)
			if len(header) > 0 && header[0] == "Expires" { // from when the rig started
				d, err := time.ParseDuration(header[1])
				if err != nil {
					t.Fatal(err)
				}
				header[1] = r.Now().Add(d).UTC().Format(http.TimeFormat)
			}
			o.set(page(c.status, "body", header...))
			first := get(t, r, "/package?a=b")
			if first.status != c.status {
				t.Fatal(first)
			}
			if c.seconds > 0 {
				r.Advance(time.Duration(c.seconds)*time.Second - time.Second)
				if a := get(t, r, "/package?a=b"); o.count() != 1 || a.status != c.status || string(a.body) != "body" || a.header.Get("Age") != fmt.Sprint(c.seconds-1) {
					t.Fatalf("a second before: %v, Age %s, %d fetches", a, a.header.Get("Age"), o.count())
				}
				r.Advance(time.Second)
			}
			if a := get(t, r, "/package?a=b"); o.count() != 2 || a.status != c.status {
				t.Fatalf("after: %v, %d fetches", a, o.count())
			}
		})
	}
}

// shared is a rig without an origin-request function, over an origin of the test's.
func shared(t *testing.T, o *origin, p rig.CachePolicy) *rig.Rig {
	t.Helper()
	return overOrigin(t, passingHandler, o.ServeHTTP, func(d *rig.Distribution) {
		d.Behaviors[0].OriginRequest, d.Behaviors[0].Function = false, false
		if p.Max > 0 {
			d.Behaviors[0].Cache = p
		}
	})
}

// What is the same in the key is one entry; what is not in it does not come to the origin.
func TestCacheKey(t *testing.T) {
	t.Parallel()
	o := &origin{answer: func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.RequestURI, r.Header.Get("X-Kept"))
	}}
	r := shared(t, o, rig.CachePolicy{Queries: rig.ListedQueries, Listed: []string{"a", "b"}, Headers: []string{"X-Kept"}, Def: time.Minute, Max: time.Minute})
	for _, c := range []struct {
		target string
		header []string
		want   string
		xcache string
	}{
		{"/package?a=1&c=2", nil, "/package?a=1 ", "Miss"},
		{"/package?c=3&a=1", []string{"X-Other", "y", "User-Agent", "z"}, "/package?a=1 ", "Hit"},
		{"/package?a=1&b=2", nil, "/package?a=1&b=2 ", "Miss"},
		{"/package?a=1", []string{"X-Kept", "k"}, "/package?a=1 k", "Miss"},
		{"/package?a=1", []string{"X-Kept", "l"}, "/package?a=1 l", "Miss"},
		{"/package?a=1", []string{"x-kept", "k", "Accept-Encoding", "gzip"}, "/package?a=1 k", "Hit"},
	} {
		a := get(t, r, c.target, c.header...)
		if string(a.body) != c.want || a.xcache() != c.xcache {
			t.Fatalf("%s %v: %v, want %q, %s", c.target, c.header, a, c.want, c.xcache)
		}
		for name := range o.last().Header {
			if slices.Contains([]string{"X-Other", "Accept-Encoding"}, name) || o.last().Header.Get("User-Agent") != "Amazon CloudFront" {
				t.Fatalf("the origin was sent %v", o.last().Header)
			}
		}
	}
}

func TestRevalidation(t *testing.T) {
	t.Parallel()
	o := &origin{answer: page(200, "one", "Cache-Control", "max-age=10")}
	r := shared(t, o, rig.CachePolicy{})
	first := get(t, r, "/package")
	r.Advance(10 * time.Second)
	// A device's own condition is not the cache's, and is met from the copy.
	if a := get(t, r, "/package", "If-None-Match", first.header.Get("ETag")); a.status != 304 || a.xcache() != "RefreshHit" || o.last().Header.Get("If-None-Match") != first.header.Get("ETag") {
		t.Fatalf("%v, the origin was sent %v", a, o.last().Header)
	}
	if a := get(t, r, "/package"); string(a.body) != "one" || a.xcache() != "Hit" || o.count() != 2 {
		t.Fatal(a, "the 304 did not make the copy fresh")
	}
	o.set(page(200, "two", "Cache-Control", "max-age=10"))
	r.Advance(10 * time.Second)
	if a := get(t, r, "/package"); string(a.body) != "two" || a.xcache() != "Miss" {
		t.Fatal(a)
	}
	o.set(page(404, "gone"))
	r.Advance(10 * time.Second)
	if a := get(t, r, "/package"); a.status != 404 || a.xcache() != "Error" {
		t.Fatal(a)
	}
}

// The trap: an origin-request function that answers 304 from what the device holds tells the cache that its
// copy is right, whatever the copy is.
func TestAGenerated304RefreshesTheCopy(t *testing.T) {
	t.Parallel()
	o := &origin{answer: page(200, "yesterday", "Cache-Control", "max-age=10")}
	r := overOrigin(t, `let n = 0; export const handler = async (event) => n++ === 0 ? event.Records[0].cf.request : {status: '304'};`, o.ServeHTTP)
	get(t, r, "/package")
	r.Advance(time.Hour)
	if a := get(t, r, "/package"); a.status != 200 || string(a.body) != "yesterday" || a.xcache() != "RefreshHit" {
		t.Fatalf("%v: the rig does not show the trap", a)
	}
}

func TestStale(t *testing.T) {
	t.Parallel()
	const swr = "max-age=10, stale-while-revalidate=20"
	t.Run("while revalidating", func(t *testing.T) {
		t.Parallel()
		o := &origin{answer: page(200, "one", "Cache-Control", swr)}
		r := shared(t, o, rig.CachePolicy{})
		get(t, r, "/package")
		o.set(page(200, "two", "Cache-Control", swr))
		r.Advance(29 * time.Second)
		if a := get(t, r, "/package"); string(a.body) != "one" || !a.trace.Stale {
			t.Fatal(a)
		}
		r.Wait()
		if a := get(t, r, "/package"); string(a.body) != "two" || a.trace.Stale || o.count() != 2 {
			t.Fatal(a)
		}
		r.Advance(30 * time.Second)
		o.set(page(200, "three", "Cache-Control", swr))
		if a := get(t, r, "/package"); string(a.body) != "three" {
			t.Fatal(a, "it was stale for longer than it may")
		}
	})
	t.Run("not beyond the maximum TTL", func(t *testing.T) {
		t.Parallel()
		o := &origin{answer: page(200, "one", "Cache-Control", "max-age=50, stale-while-revalidate=100")}
		r := shared(t, o, rig.CachePolicy{})
		get(t, r, "/package")
		o.set(page(200, "two"))
		r.Advance(time.Minute)
		if a := get(t, r, "/package"); string(a.body) != "two" {
			t.Fatal(a)
		}
	})
	for name, c := range map[string]struct {
		control string
		want    int // of an expired copy while the origin fails
	}{
		"on error":                    {"max-age=10", 200},
		"not with stale-if-error=0":   {"max-age=10, stale-if-error=0", 503},
		"with stale-if-error":         {"max-age=10, stale-if-error=20", 200},
		"not after stale-if-error":    {"max-age=10, stale-if-error=3", 503},
		"not what may not be stored":  {"no-store", 503},
		"what must be looked at anew": {"max-age=0", 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &origin{answer: page(200, "one", "Cache-Control", c.control)}
			r := shared(t, o, rig.CachePolicy{})
			get(t, r, "/package")
			r.Advance(15 * time.Second)
			o.set(page(503, "no"))
			if a := get(t, r, "/package"); a.status != c.want || a.trace.Stale != (c.want == 200) {
				t.Fatal(a)
			}
			// For the error caching minimum TTL nobody asks again.
			before := o.count()
			if a := get(t, r, "/package"); a.status != c.want || o.count() != before {
				t.Fatal(a, o.count())
			}
			r.Advance(5 * time.Second)
			o.set(page(200, "two"))
			if a := get(t, r, "/package"); string(a.body) != "two" || o.count() != before+1 {
				t.Fatal(a, o.count())
			}
		})
	}
}

func TestCollapsedForwarding(t *testing.T) {
	t.Parallel()
	const viewers = 50
	release := make(chan struct{})
	o := &origin{answer: func(w http.ResponseWriter, r *http.Request) {
		<-release
		page(200, "one")(w, r)
	}}
	r := shared(t, o, rig.CachePolicy{})
	var wg sync.WaitGroup
	for range viewers {
		wg.Go(func() {
			if a, err := try(r, "GET", "/package"); err != nil || string(a.body) != "one" {
				t.Error(a, err)
			}
		})
	}
	for r.Waiting() < viewers-1 {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	joined := 0
	for _, tr := range r.Traces() {
		if tr.Joined {
			joined++
		}
	}
	if o.count() != 1 || joined != viewers-1 {
		t.Fatalf("%d fetches for %d viewers of one key, of whom %d waited", o.count(), viewers, joined)
	}
}

// What may not be cached is fetched for each.
func TestCollapsedForwardingOfWhatIsNotCached(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	o := &origin{answer: func(w http.ResponseWriter, r *http.Request) {
		<-release
		page(200, "one", "Cache-Control", "no-store")(w, r)
	}}
	r := shared(t, o, rig.CachePolicy{})
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if a, err := try(r, "GET", "/package"); err != nil || string(a.body) != "one" {
				t.Error(a, err)
			}
		})
	}
	for r.Waiting() < 4 {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if o.count() != 5 {
		t.Fatalf("%d fetches", o.count())
	}
}

func TestRangeAndHead(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("0123456789", 100)
	o := &origin{answer: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
	}}
	r := shared(t, o, rig.CachePolicy{})
	check := func(when, method string, header []string, status int, want string) answer {
		t.Helper()
		a := ask(t, r, method, "/package", header...)
		if a.status != status || string(a.body) != want {
			t.Fatalf("%s: %v, want %d %q", when, a, status, want)
		}
		return a
	}
	check("range, miss", "GET", []string{"Range", "bytes=5-9"}, 206, "56789")
	if a := check("HEAD, miss", "HEAD", nil, 200, ""); a.header.Get("Content-Length") != "1000" {
		t.Fatal(a.header)
	}
	check("beyond, miss", "GET", []string{"Range", "bytes=5000-"}, 416, "invalid range: failed to overlap\n")
	check("all", "GET", nil, 200, body)
	before := o.count()
	if a := check("range, hit", "GET", []string{"Range", "bytes=995-"}, 206, "56789"); a.header.Get("Content-Range") != "bytes 995-999/1000" || a.xcache() != "Hit" {
		t.Fatal(a.header)
	}
	if a := check("HEAD, hit", "HEAD", nil, 200, ""); a.header.Get("Content-Length") != "1000" {
		t.Fatal(a.header)
	}
	check("If-Range of the copy", "GET", []string{"Range", "bytes=0-1", "If-Range", `"e"`}, 206, "01")
	check("If-Range of another", "GET", []string{"Range", "bytes=0-1", "If-Range", `"f"`}, 200, body)
	check("If-None-Match", "GET", []string{"If-None-Match", `"e"`}, 304, "")
	check("If-None-Match of another", "GET", []string{"If-None-Match", `"f"`}, 200, body)
	if o.count() != before {
		t.Fatalf("the origin was asked %d times more", o.count()-before)
	}
}

func TestInvalidation(t *testing.T) {
	t.Parallel()
	o := &origin{answer: func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI) }}
	// What counts is the URI after the Function.
	r := overFunction(t, `function handler(event) { var r = event.request; if (r.querystring.x) r.uri = '/elsewhere'; return r; }`, passingHandler, o.ServeHTTP)
	fill := func() {
		for _, target := range []string{"/package?a=1", "/package?a=2", "/package?x=3"} {
			get(t, r, target)
		}
	}
	for pattern, want := range map[string]int{"/package*": 2, "/package": 2, "/elsewhere": 1, "/*": 3, "/other*": 0, "/pack": 0} {
		fill()
		if n := r.Invalidate(pattern); n != want {
			t.Errorf("%s: %d copies went, want %d", pattern, n, want)
		}
		r.Invalidate("/*")
	}
}

// What was fetched before an invalidation is not stored after it.
func TestInvalidationDuringAFetch(t *testing.T) {
	t.Parallel()
	o := &origin{}
	var r *rig.Rig
	o.set(func(w http.ResponseWriter, req *http.Request) {
		r.Invalidate("/package*")
		fmt.Fprint(w, "old")
	})
	r = shared(t, o, rig.CachePolicy{})
	get(t, r, "/package")
	if r.Entries() != 0 {
		t.Fatal("the old answer was stored")
	}
	o.set(page(200, "new"))
	if a := get(t, r, "/package"); string(a.body) != "new" || r.Entries() != 1 {
		t.Fatal(a)
	}
}

func TestHeadersOfAnswers(t *testing.T) {
	t.Parallel()
	o := &origin{answer: page(200, "x", "Vary", "Origin, X-Precast-Held", "Cache-Control", "max-age=1", "X-Amz-Request-Id", "1", "Set-Cookie", "a=b", "X-Own", "kept")}
	r := overOrigin(t, passingHandler, o.ServeHTTP, func(d *rig.Distribution) {
		d.Behaviors[0].Override = map[string]string{"Cache-Control": "max-age=99", "X-Added": "yes"}
	})
	for range 2 {
		a := get(t, r, "/package")
		for name, want := range map[string]string{
			"Vary": "X-Precast-Held", "Cache-Control": "max-age=99", "X-Added": "yes", "X-Own": "kept",
			"X-Amz-Request-Id": "", "Set-Cookie": "",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if a.header.Get("Via") == "" || a.header.Get("X-Amz-Cf-Id") == "" {
			t.Error(a.header)
		}
	}
	// The policy is for the viewer: the copy lives for the origin's max-age.
	r.Advance(time.Second)
	if get(t, r, "/package"); o.count() != 2 {
		t.Fatal(o.count())
	}
}

// A broken rule is nobody else's answer.
func TestBrokenRulesAreNotCached(t *testing.T) {
	t.Parallel()
	o := &origin{answer: page(200, "fine")}
	r := overOrigin(t, `let n = 0; export const handler = async (event) => { if (n++ === 0) throw new Error('once'); return event.Records[0].cf.request; };`, o.ServeHTTP)
	if a := get(t, r, "/package"); a.status != 500 || r.Entries() != 0 {
		t.Fatal(a)
	}
	if a := get(t, r, "/package"); a.status != 200 {
		t.Fatal(a)
	}
}
