package lambdas_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/precast-ota/precast/internal/run/lambdas"
)

func request(method string, header map[string]string) events.LambdaFunctionURLRequest {
	in := events.LambdaFunctionURLRequest{RawPath: "/bundles/a", Headers: header}
	in.RequestContext.DomainName, in.RequestContext.HTTP.Method = "x.lambda-url.eu-west-1.on.aws", method
	return in
}

// The largest answer that a composer sends fits into what a function may return: 6 MB of JSON.
func TestLive4TheLargestAnswerFits(t *testing.T) {
	large := lambdas.FunctionURL(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/gzip")
		if _, err := w.Write(make([]byte, lambdas.MaxSent)); err != nil {
			t.Error(err)
		}
	}))
	out, err := large(t.Context(), request("GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(out)
	if err != nil || len(data) > 6_000_000 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// The handler is asked for what has a body: by GET, under no condition that can be answered without one.
func TestLive1NoAnswerIsEmpty(t *testing.T) {
	var seen *http.Request
	f := lambdas.FunctionURL(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		w.Header().Add("Vary", "A")
		w.Header().Add("Vary", "B")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte{0xff, 0})
	}))
	out, err := f(t.Context(), request("HEAD", map[string]string{"if-none-match": `"a"`, "if-modified-since": "x", "if-match": "y",
		"if-unmodified-since": "z", "if-range": `"b"`, "range": "bytes=1-", "x-precast-held": "h"}))
	if err != nil {
		t.Fatal(err)
	}
	body, err := base64.StdEncoding.DecodeString(out.Body)
	if err != nil || !out.IsBase64Encoded || string(body) != "\xff\x00" || out.StatusCode != http.StatusTeapot || out.Headers["Vary"] != "A, B" {
		t.Errorf("%+v, %v", out, err)
	}
	want := http.Header{"If-Range": {`"b"`}, "Range": {"bytes=1-"}, "X-Precast-Held": {"h"}}
	if seen.Method != http.MethodGet || seen.URL.Path != "/bundles/a" || len(seen.Header) != len(want) {
		t.Errorf("%s %s %v", seen.Method, seen.URL, seen.Header)
	}
	for name := range want {
		if seen.Header.Get(name) != want.Get(name) {
			t.Errorf("%s: %q", name, seen.Header.Get(name))
		}
	}
	if _, err := f(t.Context(), events.LambdaFunctionURLRequest{RawPath: "/%zz"}); err == nil {
		t.Error("a path that cannot be read is no error")
	}
}
