package client_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// updateDevice is what docs/trust.md shows.
func updateDevice(ctx context.Context, rootPEM []byte, dir string, install func(context.Context, client.Set) error) error {
	c, err := client.New(client.Options{
		URL: "https://packages.example.com", Selection: "cpuArch=armv8&attrGamer=prod",
		Roots: rootPEM, Dir: dir, Install: install, // dir is the client's own
	})
	if err != nil {
		return err
	}
	result, err := c.Update(ctx) // a *client.Refusal says what was not believed
	if err == nil && !result.Changed {
		err = os.ErrExist
	}
	return err
}

// redirected sends requests elsewhere.
type redirected struct{ to *url.URL }

func (r redirected) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = r.to.Scheme, r.to.Host
	return http.DefaultTransport.RoundTrip(req)
}

// The client in Go, as docs/trust.md shows it, by the system's clock.
func TestExampleIsTrue(t *testing.T) {
	w := newWorld(t)
	w.clock.advance(time.Since(w.clock.Now()))
	w.nextKeyring(func(k *keyring.Keyring) { k.Expires = w.clock.Now().Add(24 * time.Hour) }, rootKey)
	to, err := url.Parse(w.front)
	if err != nil {
		t.Fatal(err)
	}
	before := http.DefaultClient
	http.DefaultClient = &http.Client{Transport: redirected{to}}
	t.Cleanup(func() { http.DefaultClient = before })
	files := 0
	if err := updateDevice(t.Context(), signing.PublicPEM(rootKey.Public()), t.TempDir(), func(_ context.Context, set client.Set) error {
		files = len(set.Files)
		return nil
	}); err != nil || files != 3 {
		t.Fatalf("%d files, %v", files, err)
	}

	doc, err := os.ReadFile("../docs/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("docs_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(doc), "```go\n")
	block, _, _ = strings.Cut(block, "```")
	if indented := "\t" + strings.ReplaceAll(strings.TrimSpace(block), "\n", "\n\t"); !ok || !strings.Contains(string(source), indented) {
		t.Errorf("docs/trust.md shows what is not in docs_test.go:\n%s", block)
	}
}
