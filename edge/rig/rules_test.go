package rig_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/edge/rig"
)

// broken tells which rule an answer's trace names.
func broken(a answer) string {
	var b *rig.Broken
	if errors.As(a.trace.Broken, &b) {
		return b.Rule
	}
	if a.trace.Broken != nil {
		return a.trace.Broken.Error()
	}
	return ""
}

// Each case is the body of an origin-request function of (request, r), whose request may be changed.
func TestOriginRequestRules(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, code string
		status     int
		rule       string
	}{
		{"nothing", `return r`, 200, ""},
		{"another uri", `r.uri = '/other'; return r`, 200, ""},
		{"no query", `r.querystring = ''; return r`, 200, ""},
		{"a header of its own", `r.headers['x-mine'] = [{key: 'X-Mine', value: 'a'}]; return r`, 200, ""},
		{"a header without key", `r.headers['x-mine'] = [{value: 'a'}]; return r`, 200, ""},
		{"a removed header", `delete r.headers['x-precast-held']; return r`, 200, ""},
		{"a response", `return {status: '200', body: 'hello', headers: {'x-a': [{value: 'b'}]}}`, 200, ""},
		{"a base64 response", `return {status: '200', body: 'aGVsbG8=', bodyEncoding: 'base64'}`, 200, ""},
		{"a megabyte less headers", `return {status: '200', body: 'x'.repeat(1048576)}`, 200, ""},

		{"If-None-Match removed", `delete r.headers['if-none-match']; return r`, 502, rig.RuleReadOnlyHeader},
		{"If-None-Match changed", `r.headers['if-none-match'] = [{key: 'If-None-Match', value: '"b"'}]; return r`, 502, rig.RuleReadOnlyHeader},
		{"If-Modified-Since added", `r.headers['if-modified-since'] = [{value: 'x'}]; return r`, 502, rig.RuleReadOnlyHeader},
		{"Accept-Encoding added", `r.headers['accept-encoding'] = [{value: 'gzip'}]; return r`, 502, rig.RuleReadOnlyHeader},
		{"Via removed", `delete r.headers.via; return r`, 502, rig.RuleReadOnlyHeader},
		{"X-Cache added", `r.headers['x-cache'] = [{value: 'Hit'}]; return r`, 502, rig.RuleDisallowed},
		{"X-Edge-* added", `r.headers['x-edge-result'] = [{value: 'Hit'}]; return r`, 502, rig.RuleDisallowed},
		{"Connection added", `r.headers.connection = [{value: 'close'}]; return r`, 502, rig.RuleDisallowed},
		{"X-Amz-Cf-Id in a response", `return {status: '200', headers: {'x-amz-cf-id': [{value: 'x'}]}}`, 502, rig.RuleDisallowed},
		{"Via in a response", `return {status: '200', headers: {via: [{value: 'x'}]}}`, 502, rig.RuleReadOnlyHeader},
		{"a name with a space", `r.headers['x mine'] = [{value: 'a'}]; return r`, 502, rig.RuleHeaderName},
		{"a name in upper case", `r.headers['X-Mine'] = [{value: 'a'}]; return r`, 502, rig.RuleHeaderName},
		{"a key that is another name", `r.headers['x-mine'] = [{key: 'X-Yours', value: 'a'}]; return r`, 502, rig.RuleHeaderName},
		{"a value with a line break", `r.headers['x-mine'] = [{value: 'a\r\nx: y'}]; return r`, 502, rig.RuleHeaderName},
		{"another method", `r.method = 'PUT'; return r`, 502, rig.RuleHandlerResult},
		{"a relative uri", `r.uri = 'other'; return r`, 502, rig.RuleHandlerResult},
		{"a query in the uri", `r.uri = '/other?x=y'; return r`, 502, rig.RuleHandlerResult},
		{"a long uri", `r.uri = '/' + 'a'.repeat(8192); return r`, 502, rig.RuleHandlerResult},
		{"a query with a space", `r.querystring = 'a b'; return r`, 502, rig.RuleHandlerResult},
		{"a status that is a number", `return {status: 304}`, 502, rig.RuleHandlerResult},
		{"a status out of range", `return {status: '600'}`, 502, rig.RuleHandlerResult},
		{"a body that is no base64", `return {status: '200', body: '!', bodyEncoding: 'base64'}`, 502, rig.RuleHandlerResult},
		{"an unknown encoding", `return {status: '200', body: '!', bodyEncoding: 'gzip'}`, 502, rig.RuleHandlerResult},
		{"nothing at all", `return undefined`, 502, rig.RuleHandlerResult},
		{"something else", `return {hello: 'world'}`, 502, rig.RuleHandlerResult},
		{"another origin", `r.origin = {custom: {...r.origin.s3, domainName: 'evil.example'}}; return r`, 502, rig.RuleOriginSwitch},
		{"another bucket", `r.origin.s3.domainName = 'evil.s3.amazonaws.com'; return r`, 502, rig.RuleOriginSwitch},
		{"a new origin header", `r.origin.s3.customHeaders['x-a'] = [{key: 'x-a', value: 'b'}]; return r`, 502, rig.RuleOriginSwitch},
		{"too long a response", `return {status: '200', body: 'x'.repeat(1048577)}`, 502, rig.RuleGeneratedLength},
		{"too long a header", `return {status: '200', headers: {'x-a': [{value: 'x'.repeat(1048576)}]}}`, 502, rig.RuleGeneratedLength},
		{"an exception", `throw new Error('no')`, 500, rig.RuleHandlerError},
		{"no answer in time", `return new Promise(() => {})`, 500, rig.RuleHandlerTime},
	}
	var code strings.Builder
	code.WriteString("const cases = [\n")
	for _, c := range cases {
		fmt.Fprintf(&code, "async (r) => { %s },\n", c.code)
	}
	code.WriteString("];\nexport const handler = (event) => { const r = event.Records[0].cf.request; return cases[r.querystring.split('=')[1]](r); };")
	origin := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }
	bucket := func(d *rig.Distribution) { d.Behaviors[0].Primary.S3 = true }
	r := overOrigin(t, code.String(), origin, bucket)
	hurried := overOrigin(t, code.String(), origin, bucket, func(d *rig.Distribution) { d.Limits.HandlerTime = 300 * time.Millisecond })
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := r
			if c.rule == rig.RuleHandlerTime { // the others have the time that a busy machine takes
				r = hurried
			}
			a := get(t, r, fmt.Sprintf("/package?case=%d", i), "If-None-Match", `"a"`, "X-Precast-Held", "a")
			if a.status != c.status || broken(a) != c.rule {
				t.Fatalf("%v, rule %q, want %d, rule %q", a, broken(a), c.status, c.rule)
			}
		})
	}
}

func TestFunctionRules(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, code string
		status     int
		rule       string
		want       string // what the origin is asked for, or the body
	}{
		{"nothing", `return r`, 200, "", "/package?CASE&b=2&a=1&a=%20"},
		{"the query as text", `r.querystring = 'x=1&y'; return r`, 200, "", "/package?x=1&y"},
		{"the query as an object", `r.querystring = {x: {value: '1'}, a: r.querystring.a}; return r`, 200, "", "/package?x=1&a=1&a=%20"},
		{"no query", `r.querystring = {}; return r`, 200, "", "/package"},
		{"the raw query", `r.headers['x-precast-held'] = {value: r.rawQueryString()}; return r`, 200, "", "/package?CASE&b=2&a=1&a=%20 CASE&b=2&a=1&a=%20"},
		{"another uri", `r.uri = '/other'; return r`, 200, "", "/other?CASE&b=2&a=1&a=%20"},
		{"a promise", `return Promise.resolve(r)`, 200, "", "/package?CASE&b=2&a=1&a=%20"},
		{"a response", `return {statusCode: 418, headers: {'x-a': {value: 'b'}}, body: 'tea'}`, 418, "", "tea"},
		{"a coded response", `return {statusCode: 418, body: {encoding: 'base64', data: 'dGVh'}}`, 418, "", "tea"},

		{"an exception", `throw new Error('no')`, 503, rig.RuleFunctionError, ""},
		{"no end", `while (true) {}`, 503, rig.RuleFunctionError, ""},
		{"no end behind an await", `return (async function () { await 1; while (true) {} })()`, 503, rig.RuleFunctionError, ""},
		{"a promise without end", `return new Promise(function () {})`, 503, rig.RuleFunctionError, ""},
		{"a variable that is not declared", `undeclared = 1; return r`, 503, rig.RuleFunctionError, ""},
		{"the module without its import", `return cf.kvs()`, 503, rig.RuleFunctionError, ""},
		{"evaluation", `return eval('r')`, 503, rig.RuleFunctionError, ""},
		{"Node", `return process.exit()`, 503, rig.RuleFunctionError, ""},
		{"the network", `return fetch('http://127.0.0.1')`, 503, rig.RuleFunctionError, ""},
		{"nothing at all", `return undefined`, 502, rig.RuleFunctionResult, ""},
		{"another method", `r.method = 'PUT'; return r`, 502, rig.RuleFunctionResult, ""},
		{"a relative uri", `r.uri = 'x'; return r`, 502, rig.RuleFunctionResult, ""},
		{"a query with a line break", `r.querystring = 'x\ny'; return r`, 502, rig.RuleFunctionResult, ""},
		{"a header in upper case", `r.headers['X-A'] = {value: 'b'}; return r`, 502, rig.RuleHeaderName, ""},
		{"a header with a line break", `r.headers['x-a'] = {value: 'b\nc'}; return r`, 502, rig.RuleHeaderName, ""},
		{"Host changed", `r.headers.host = {value: 'x'}; return r`, 502, rig.RuleReadOnlyHeader, ""},
		{"X-Cache added", `r.headers['x-cache'] = {value: 'x'}; return r`, 502, rig.RuleDisallowed, ""},
		{"too long a response", `return {statusCode: 200, body: 'x'.repeat(41000)}`, 502, rig.RuleFunctionAnswer, ""},
		{"a status of text", `return {statusCode: '200'}`, 502, rig.RuleFunctionResult, ""},
		{"a status out of range", `return {statusCode: 700}`, 502, rig.RuleFunctionResult, ""},
	}
	var code strings.Builder
	code.WriteString("var cases = {\n")
	for i, c := range cases {
		fmt.Fprintf(&code, "case%d: function (r) { %s },\n", i, c.code)
	}
	code.WriteString("};\nfunction handler(event) { var r = event.request; return cases[Object.keys(r.querystring)[0]](r); }")
	origin := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.TrimSpace(r.RequestURI+" "+r.Header.Get("X-Precast-Held")))
	}
	r := overFunction(t, code.String(), passingHandler, origin)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			first := fmt.Sprintf("case%d", i)
			a := get(t, r, "/package?"+first+"&b=2&a=1&a=%20")
			if a.status != c.status || broken(a) != c.rule {
				t.Fatalf("%v, rule %q, want %d, rule %q", a, broken(a), c.status, c.rule)
			}
			if want := strings.ReplaceAll(c.want, "CASE", first); c.rule == "" && string(a.body) != want {
				t.Fatalf("got %q, want %q", a.body, want)
			}
			if c.status == 418 && a.xcache() != "FunctionGeneratedResponse" {
				t.Fatal(a.header)
			}
		})
	}
}

// The viewer-response Function: a body of (response).
func TestResponseFunctionRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, code string
		origin     int
		status     int
		rule       string
		header     string // X-A of the answer
	}{
		{"nothing", `return response`, 200, 200, "", "origin"},
		{"a header", `response.headers['x-a'] = {value: 'function'}; return response`, 200, 200, "", "function"},
		{"no header", `delete response.headers['x-a']; return response`, 200, 200, "", ""},
		{"another status", `response.statusCode = 202; return response`, 200, 202, "", "origin"},
		{"not for errors", `response.headers['x-a'] = {value: 'function'}; return response`, 404, 404, "", "origin"},

		{"an exception", `throw new Error('no')`, 200, 503, rig.RuleFunctionError, ""},
		{"nothing at all", `return undefined`, 200, 502, rig.RuleFunctionResult, ""},
		{"Via changed", `response.headers.via = {value: 'x'}; return response`, 200, 502, rig.RuleReadOnlyHeader, ""},
		{"Warning added", `response.headers.warning = {value: 'x'}; return response`, 200, 502, rig.RuleReadOnlyHeader, ""},
		{"X-Cache added", `response.headers['x-cache'] = {value: 'Hit'}; return response`, 200, 502, rig.RuleDisallowed, ""},
		{"a header in upper case", `response.headers['X-A'] = {value: 'x'}; return response`, 200, 502, rig.RuleHeaderName, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := custom(t, page(c.origin, "body", "X-A", "origin"))
			r := start(t, rig.Options{Dist: distWith(t, passingFunction, "function handler(event) { var response = event.response; "+c.code+" }", passingHandler),
				Change: func(d *rig.Distribution) { d.Behaviors[0].Primary, d.Behaviors[0].Secondary = o, nil }})
			for _, when := range []string{"miss", "hit"} {
				a := get(t, r, "/package")
				if a.status != c.status || broken(a) != c.rule || a.header.Get("X-A") != c.header || c.rule == "" && string(a.body) != "body" {
					t.Fatalf("%s: %v %v, rule %q, want %d, rule %q, X-A %q", when, a, a.header, broken(a), c.status, c.rule, c.header)
				}
			}
		})
	}
}

// A function sees UTF-8; what is not is taken for ISO-8859-1, and goes on as it was if it is not changed.
func TestEncodings(t *testing.T) {
	t.Parallel()
	r := overFunction(t, `function handler(e) { e.request.headers['x-precast-held'] = {value: String(e.request.querystring.a.value.charCodeAt(0))}; return e.request; }`, passingHandler,
		func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.URL.RawQuery, r.Header.Get("X-Precast-Held"))
		})
	for query, want := range map[string]string{"a=\xc3\xa9": "a=\xc3\xa9233", "a=\xe9": "a=\xe9233", "a=%e9": "a=%e937"} {
		if a := get(t, r, "/package?"+query); string(a.body) != want {
			t.Errorf("%q: %v, want %q", query, a, want)
		}
	}
}

func TestRequestLimits(t *testing.T) {
	t.Parallel()
	r := overOrigin(t, passingHandler, func(w http.ResponseWriter, r *http.Request) {})
	room := 8192 - len("https://device.example/package?")
	for _, c := range []struct {
		name, method, target string
		header               []string
		status               int
		rule                 string
	}{
		{"a long URL", "GET", "/package?" + strings.Repeat("a", room-20), nil, 200, ""},
		{"too long a URL", "GET", "/package?" + strings.Repeat("a", room+1), nil, 413, rig.RuleURLLength},
		{"a megabyte of query", "GET", "/package?" + strings.Repeat("a", 1<<20), nil, 413, rig.RuleURLLength},
		{"long headers", "GET", "/package", []string{"X-A", strings.Repeat("a", 20000)}, 200, ""},
		{"too long headers", "GET", "/package", []string{"X-A", strings.Repeat("a", 20480)}, 413, rig.RuleRequestLength},
		{"HEAD", "HEAD", "/package", nil, 200, ""},
		{"POST", "POST", "/package", nil, 403, rig.RuleMethod},
		{"an odd method", "BREW", "/package", nil, 403, rig.RuleMethod},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := ask(t, r, c.method, c.target, c.header...)
			if a.status != c.status || broken(a) != c.rule {
				t.Fatalf("%d, rule %q, want %d, rule %q", a.status, broken(a), c.status, c.rule)
			}
		})
	}
}

// What cannot be published does not start.
func TestPublishLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dir  string
		want string
	}{
		"10 KB of Function": {dist(t, passingFunction+strings.Repeat(" ", 10<<10-len(passingFunction)), passingHandler), ""},
		"more than 10 KB":   {dist(t, passingFunction+strings.Repeat(" ", 10<<10), passingHandler), "more than 10240"},
		"broken Function":   {dist(t, `function handler( {`, passingHandler), "SyntaxError"},
		"broken handler":    {dist(t, passingFunction, `export const handler = (`), "SyntaxError"},
		"nothing":           {t.TempDir(), "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := rig.Start(t.Context(), rig.Options{Objects: emptyBucket(t), Dist: c.dir, Now: frozen()})
			if err == nil {
				err = errors.Join(err, r.Close())
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
		})
	}
	big := dist(t, passingFunction, passingHandler)
	if err := os.WriteFile(filepath.Join(big, "edge.zip"), bytes.Repeat([]byte("x"), 50<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := rig.Start(t.Context(), rig.Options{Objects: emptyBucket(t), Dist: big}); err == nil || !strings.Contains(err.Error(), "more than 52428800") {
		t.Fatal(err)
	}
}
