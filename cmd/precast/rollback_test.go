package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/run/cdn"
)

// cloud is a CloudFront that notes what it is asked.
type cloud struct {
	t  *testing.T
	mu sync.Mutex
	// asked are the requests since the last look, at when they came.
	asked []string
	at    []time.Time
	// stale: its KeyValueStore has a table of before. broken: it answers with errors.
	stale, broken bool
}

// storeARN is its KeyValueStore.
const storeARN = "arn:aws:cloudfront::123456789012:key-value-store/8562a61f-caba-2845-9d99-b97d3ae5d3c1"

// keyValues answers for the KeyValueStore.
func (c *cloud) keyValues(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-RequestId", "7f2c")
	w.Header().Set("ETag", "v1")
	switch keys := r.URL.Path == "/key-value-stores/"+storeARN+"/keys"; {
	case c.broken:
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodPost && keys:
		body, _ := io.ReadAll(r.Body)
		c.asked, c.at = append(c.asked, "If-Match "+r.Header.Get("If-Match")+" "+string(body)), append(c.at, time.Now())
		c.stale = false
		_, _ = io.WriteString(w, `{"ItemCount": 0, "TotalSizeInBytes": 0}`)
	case keys && c.stale:
		_, _ = io.WriteString(w, `{"Items": [{"Key": "rollouts.0", "Value": "spring 3 7 500 app=beta\n"}]}`)
	case keys:
		_, _ = io.WriteString(w, `{"Items": []}`)
	default:
		_, _ = io.WriteString(w, `{"Created": 1, "ItemCount": 1, "KvsARN": "`+storeARN+`", "TotalSizeInBytes": 1}`)
	}
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/key-value-stores/") {
		c.keyValues(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	c.asked, c.at = append(c.asked, r.Method+" "+r.URL.Path+" "+string(body)), append(c.at, time.Now())
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, `<Invalidation xmlns="http://cloudfront.amazonaws.com/doc/2020-05-31/"><Id>I1</Id></Invalidation>`)
}

// invalidation checks that it was asked for one invalidation of the distribution since the last look, and
// returns when.
func (c *cloud) invalidation() time.Time {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) != 1 || !strings.HasPrefix(c.asked[0], "POST /2020-05-31/distribution/E2EXAMPLE/invalidation") || !strings.Contains(c.asked[0], "<Path>/package*</Path>") {
		c.t.Fatalf("asked %q, want one invalidation of /package*", c.asked)
	}
	at := c.at[0]
	c.asked, c.at = nil, nil
	return at
}

func (c *cloud) quiet() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) != 0 {
		c.t.Fatalf("asked %q", c.asked)
	}
}

// inFrontOf makes a data folder with generations of one app for each version, and a CloudFront that commands
// tell of what they publish from now on.
func inFrontOf(t *testing.T, versions ...string) *cloud {
	t.Helper()
	c := &cloud{t: t}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_CLOUDFRONT": server.URL, "AWS_ENDPOINT_URL_CLOUDFRONT_KEYVALUESTORE": server.URL,
		"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"PRECAST_DATA": filepath.Join(t.TempDir(), "data"), "AWS_CA_BUNDLE": "",
	} {
		t.Setenv(name, value)
	}
	os.Unsetenv("AWS_CA_BUNDLE")
	binary := filepath.Join(t.TempDir(), "binary")
	for _, version := range versions {
		if err := os.WriteFile(binary, []byte("release "+version), 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, exitOK, "catalog", "put", "app", binary, "--version", version, "--attr", "x")
		says(t, exitOK, "build")
	}
	t.Setenv("PRECAST_DISTRIBUTION", "E2EXAMPLE")
	return c
}

// says runs a command in this process and returns what it prints, and what it says besides.
func says(t *testing.T, want int, args ...string) (out, errs string) {
	t.Helper()
	return saysUntil(t, t.Context(), "", nil, want, args...)
}

// saysUntil also calls a function as soon as the command says a text.
func saysUntil(t *testing.T, ctx context.Context, text string, then func(), want int, args ...string) (out, errs string) {
	t.Helper()
	var stdout strings.Builder
	stderr := &listener{text: text, then: then}
	if got := run(ctx, args, streams{out: &stdout, err: stderr}); got != want {
		t.Fatalf("precast %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, &stdout, stderr)
	}
	return stdout.String(), stderr.String()
}

type listener struct {
	strings.Builder
	text string
	then func()
}

func (l *listener) Write(p []byte) (int, error) {
	if l.then != nil && strings.Contains(string(p), l.text) {
		l.then()
	}
	return l.Builder.Write(p)
}

// A rollback is one conditional write and one invalidation, when the edge has settled; pinning needs none.
func TestARollbackIsOneWriteAndOneInvalidation(t *testing.T) {
	c := inFrontOf(t, "1", "2")
	start := time.Now()
	out, _ := says(t, exitOK, "rollback", "--json")
	var res struct {
		Writes  int     `json:"writes"`
		Seconds float64 `json:"seconds"`
		CDN     struct {
			Invalidation string   `json:"invalidation"`
			Problems     []string `json:"problems"`
		} `json:"cdn"`
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatal(err)
	}
	after := c.invalidation().Sub(start)
	if res.Writes != 1 || res.CDN.Invalidation != "done" || len(res.CDN.Problems) != 0 || after < cdn.Settled {
		t.Fatalf("invalidated after %v; %s", after, out)
	}
	t.Logf("one write, after %.3f s; one invalidation, after %.3f s", res.Seconds, after.Seconds())
	says(t, exitOK, "pin")
	c.quiet()
}

// Interrupted while it waits for the edge, it invalidates at once, and says what is done and what is not.
func TestAnInterruptedRollbackSaysWhatIsDone(t *testing.T) {
	c := inFrontOf(t, "1", "2")
	ctx, interrupt := context.WithCancel(t.Context())
	start := time.Now()
	out, errs := saysUntil(t, ctx, "is invalidated in 12s", interrupt, exitError, "rollback")
	if took := c.invalidation().Sub(start); took > cdn.Settled/2 {
		t.Errorf("it waited for %v", took)
	}
	for _, want := range []string{
		"generation 3 is published, with the content of generation 1, in place of 2: one conditional write, in ",
		"one invalidation of /package*, before the edge had settled",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if !strings.Contains(errs, "generation 3 is published all the same") || !strings.Contains(errs, "interrupted") {
		t.Errorf("it says\n%s", errs)
	}
}

// The table of rollouts is brought to the index that is put back, before the answers are invalidated; if that
// fails, the rollback is done all the same and says what is not.
func TestARollbackBringsTheTableBack(t *testing.T) {
	c := inFrontOf(t, "1", "2", "3")
	t.Setenv("PRECAST_KEY_VALUE_STORE", storeARN)
	c.stale = true
	ctx, interrupt := context.WithCancel(t.Context()) // so that nobody waits for the edge
	out, _ := saysUntil(t, ctx, "is invalidated in", interrupt, exitError, "rollback")
	c.mu.Lock()
	asked := c.asked
	c.asked, c.at = nil, nil
	c.mu.Unlock()
	if len(asked) != 2 || asked[0] != `If-Match v1 {"Deletes":[{"Key":"rollouts.0"}]}` || !strings.Contains(asked[1], "<Path>/package*</Path>") {
		t.Fatalf("asked %q, want the table first", asked)
	}
	if !strings.Contains(out, "the table of rollouts is written\n") {
		t.Errorf("it prints\n%s", out)
	}
	c.broken = true
	ctx, interrupt = context.WithCancel(t.Context())
	out, errs := saysUntil(t, ctx, "is invalidated in", interrupt, exitError, "rollback", "1")
	c.invalidation()
	if !strings.Contains(out, "generation 5 is published") || !strings.Contains(errs, "the edge may still have the previous table of rollouts") || !strings.Contains(errs, "RequestID: 7f2c") {
		t.Errorf("it says\n%s%s", out, errs)
	}
}
