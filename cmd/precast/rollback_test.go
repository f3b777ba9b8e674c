package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A rollback invalidates the distribution once, like a publish; pinning does not.
func TestRollbackInvalidates(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	cloudfront := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.Path+" "+string(body))
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `<Invalidation xmlns="http://cloudfront.amazonaws.com/doc/2020-05-31/"><Id>I1</Id></Invalidation>`)
	}))
	defer cloudfront.Close()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_CLOUDFRONT": cloudfront.URL, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"PRECAST_DATA": filepath.Join(t.TempDir(), "data"), "AWS_CA_BUNDLE": "",
	} {
		t.Setenv(name, value)
	}
	os.Unsetenv("AWS_CA_BUNDLE")
	command := func(args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		if got := run(t.Context(), args, streams{&out, &errs}); got != exitOK {
			t.Fatalf("precast %s: exit code %d\n%s%s", strings.Join(args, " "), got, &out, &errs)
		}
		return out.String()
	}
	invalidations := func() []string {
		mu.Lock()
		defer mu.Unlock()
		was := asked
		asked = nil
		return was
	}
	binary := filepath.Join(t.TempDir(), "binary")
	for _, version := range []string{"1", "2"} {
		if err := os.WriteFile(binary, []byte("release "+version), 0o600); err != nil {
			t.Fatal(err)
		}
		command("catalog", "put", "app", binary, "--version", version, "--attr", "x")
		command("build")
	}
	t.Setenv("PRECAST_DISTRIBUTION", "E2EXAMPLE") // each publish now takes as long as the edge needs to settle
	var res struct {
		Writes  int     `json:"writes"`
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal([]byte(command("rollback", "--json")), &res); err != nil {
		t.Fatal(err)
	}
	got := invalidations()
	// One, and the same again once the edge has settled: see package cdn.
	if len(got) != 2 || res.Writes != 1 || !strings.HasPrefix(got[0], "POST /2020-05-31/distribution/E2EXAMPLE/invalidation") ||
		!strings.Contains(got[0], "<Path>/package*</Path>") || !strings.Contains(got[1], "-settled<") {
		t.Fatalf("%d writes, invalidations %v", res.Writes, got)
	}
	t.Logf("rolled back in %.3f s: %d write, %d invalidations, the second one when the edge has settled", res.Seconds, res.Writes, len(got))
	command("pin")
	if got := invalidations(); len(got) != 0 {
		t.Fatalf("a pin invalidated: %v", got)
	}
}
