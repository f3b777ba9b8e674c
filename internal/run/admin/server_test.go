package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// writer notes the edits that reach the catalog, and may lose them.
type writer struct {
	builder.CatalogWriter
	edits []catalog.Edit
	lose  bool
}

func (w *writer) Apply(ctx context.Context, edit catalog.Edit) error {
	w.edits = append(w.edits, edit)
	if w.lose {
		return nil
	}
	return w.CatalogWriter.Apply(ctx, edit)
}

func newPipeline(t testing.TB) (*pipeline.Pipeline, *writer) {
	t.Helper()
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	drivers := pipeline.Local(store)
	w := &writer{CatalogWriter: drivers.Writer}
	drivers.Writer = w
	return pipeline.New(drivers, pipeline.Config{}), w
}

// served serves the API of a pipeline and returns a client with a token of a role.
func served(t testing.TB, p *pipeline.Pipeline, role Role) *Client {
	t.Helper()
	const token = "a token of a test"
	tokens := only(token, Identity{"ci", role})
	s := httptest.NewServer(Handler(p, func() Tokens { return tokens }, slog.New(slog.DiscardHandler)))
	t.Cleanup(s.Close)
	c, err := NewRemoteClient(s.URL, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func item(version string) catalog.Item {
	sum := sha256.Sum256([]byte(version))
	sha := hex.EncodeToString(sum[:])
	return catalog.Item{App: "os_a", Track: "prod", Version: version, Size: 1, SHA256: sha, MD5: sha[:32],
		URL: catalog.StoreURL(sha, "os_a", version), DeviceAttr: map[string]bool{}}
}

// C22: the objects of a server are objects as of any other driver.
func TestRemoteObjectsC22(t *testing.T) {
	storetest.Objects(t, func(t *testing.T) builder.Objects {
		p, _ := newPipeline(t)
		return served(t, p, Admin).Objects()
	})
}

// C22: each role may do what the table says, and no request is left out.
func TestRolesC22(t *testing.T) {
	p, _ := newPipeline(t)
	routes := (&api{pipeline: p}).routes()
	doc, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		row := "| `" + r.pattern + "` | " + r.role.String() + " |"
		if !strings.Contains(string(doc), row) {
			t.Errorf("docs/operations.md has no row %s", row)
		}
		method, path, _ := strings.Cut(r.pattern, " ")
		path = strings.Replace(path, "{key...}", "binaries/x", 1)
		for role := Read; role <= Admin; role++ {
			c := served(t, p, role)
			req, err := http.NewRequest(method, c.base+path, strings.NewReader("broken"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+c.token)
			req.Header.Set(versionHeader, strconv.Itoa(catalog.Version))
			resp, err := c.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if refused := resp.StatusCode == http.StatusForbidden; refused != (role < r.role) {
				t.Errorf("%s with the role %s: %s", r.pattern, role, resp.Status)
			}
		}
	}
	if n := strings.Count(string(doc), "` | read |") + strings.Count(string(doc), "` | release |") + strings.Count(string(doc), "` | admin |"); n != len(routes) {
		t.Errorf("docs/operations.md has %d rows, the code %d", n, len(routes))
	}
	// A release stores binaries and nothing else, and does not ask for everything to be looked at.
	c := served(t, p, Release)
	put := func(key, content string) error {
		_, err := c.Objects().Put(t.Context(), key, builder.Body{Reader: strings.NewReader(content), Size: int64(len(content))}, builder.PutOptions{})
		return err
	}
	if err := put(layout.IndexKey, "x"); err == nil || !strings.Contains(err.Error(), "needs the role admin") {
		t.Errorf("the index: %v", err)
	}
	if err := c.Build(t.Context(), builder.PlanOptions{Verify: true}, nil); err == nil || !strings.Contains(err.Error(), "needs the role admin") {
		t.Errorf("build --verify: %v", err)
	}
	sum := sha256.Sum256([]byte("content"))
	key := layout.BinaryKey(hex.EncodeToString(sum[:]), "os_a", "1")
	if err := put(key, "other"); err == nil || !strings.Contains(err.Error(), "what was sent has the sha256") {
		t.Errorf("a binary under another's digest: %v", err)
	}
	if err := put(key, "content"); err != nil {
		t.Error(err)
	}
}

func TestWrongTokenC22(t *testing.T) {
	p, _ := newPipeline(t)
	c := served(t, p, Admin)
	for _, token := range []string{"", "a token of a tesT", "a token of a test "} {
		c.token = token
		if _, err := c.Snapshot(t.Context()); token != "a token of a test " && (err == nil || !strings.Contains(err.Error(), "wrong token")) {
			t.Errorf("%q: %v", token, err)
		}
	}
}

// C22: who made an edit is the token's name, whatever the client says; the claim stays a claim.
func TestActorIsProvenC22(t *testing.T) {
	p, w := newPipeline(t)
	edit := catalog.Edit{Changes: []catalog.Change{catalog.Put(item("1"))}, By: catalog.Author{Actor: "the boss", Claim: "me", Message: "why"}}
	if err := served(t, p, Release).Apply(t.Context(), edit); err != nil {
		t.Fatal(err)
	}
	own := httptest.NewServer(OwnHandler(p, "token", slog.New(slog.DiscardHandler)))
	defer own.Close()
	c, err := NewRemoteClient(own.URL, "token", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), edit); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"ci", ""} {
		if by := w.edits[i].By; by != (catalog.Author{Actor: want, Claim: "me", Message: "why"}) {
			t.Errorf("edit %d: %+v", i, by)
		}
	}
}

// S11: a change that is said to be made has been read back.
func TestChangesAreReadBackS11(t *testing.T) {
	p, w := newPipeline(t)
	c := served(t, p, Release)
	apply := func(changes ...catalog.Change) error { return c.Apply(t.Context(), catalog.Edit{Changes: changes}) }
	if err := apply(catalog.Put(item("1"))); err != nil {
		t.Fatal(err)
	}
	w.lose = true
	for name, change := range map[string]catalog.Change{"put": catalog.Put(item("2")), "remove": catalog.Remove(item("1").Key())} {
		if err := apply(change); err == nil || !strings.Contains(err.Error(), "read the change back") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.lose = false
	if err := apply(catalog.Put(item("1")), catalog.Remove(item("1").Key())); err != nil {
		t.Error(err)
	}
}

// S11: a stranger on the port of a dead server gets nothing: neither the token, nor what a command says.
func TestStrangerGetsNothingS11(t *testing.T) {
	l, _, endpoint, err := Listen("http://devices")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // the server is killed
	_, others, _, err := Listen("http://devices")
	if err != nil {
		t.Fatal(err)
	}
	for name, serve := range map[string]func(net.Conn, *bytes.Buffer){
		"over HTTP": func(c net.Conn, got *bytes.Buffer) { _, _ = io.CopyN(got, c, 5) },
		"over TLS with a key of its own": func(c net.Conn, got *bytes.Buffer) {
			_, _ = io.Copy(got, tls.Server(c, others))
		},
	} {
		t.Run(name, func(t *testing.T) {
			stranger, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			var got bytes.Buffer
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if c, err := stranger.Accept(); err == nil {
					serve(c, &got)
					c.Close()
				}
			}()
			endpoint.Address = stranger.Addr().String()
			c, err := NewClient(endpoint)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(item("1"))}}); err == nil {
				t.Error("the change is said to be made")
			}
			<-ended
			if strings.Contains(got.String(), endpoint.Token) || strings.Contains(got.String(), "os_a") || strings.HasPrefix(got.String(), "POST") {
				t.Errorf("the stranger got %q", got.String())
			}
		})
	}
	endpoint.Certificate = ""
	if _, err := NewClient(endpoint); err == nil {
		t.Error("a server that cannot prove itself is believed")
	}
}

func TestServerURLsC22(t *testing.T) {
	for server, ok := range map[string]bool{
		"https://packages.example.com:9090": true, "http://127.0.0.1:9090": true, "http://[::1]:1/": true, "http://localhost:1": true,
		"http://packages.example.com": false, "http://10.0.0.1:9090": false, "ftp://127.0.0.1": false, "https://u:p@h": false,
		"https://h/path": false, "https://h?q": false, "h:9090": false, "": false,
	} {
		if _, err := NewRemoteClient(server, "t", nil); (err == nil) != ok {
			t.Errorf("%s: %v", server, err)
		}
	}
}

func TestTokensC22(t *testing.T) {
	long := strings.Repeat("x", 20)
	digest := sha256.Sum256([]byte("of a digest"))
	path := filepath.Join(t.TempDir(), "tokens")
	read := func(text string, mode os.FileMode) (Tokens, bool, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return ReadTokens(path)
	}
	tokens, exposed, err := read("# people\n\nci release "+long+"1 # nightly\n\tme  admin sha256:"+hex.EncodeToString(digest[:])+"\n", 0o604)
	if err != nil || !exposed || len(tokens) != 2 {
		t.Fatalf("%v %v %v", tokens, exposed, err)
	}
	for token, want := range map[string]Identity{long + "1": {"ci", Release}, "of a digest": {"me", Admin}, long: {}} {
		if who, ok := tokens.find(token); who != want || ok != (want.Role != 0) {
			t.Errorf("%s: %+v", token, who)
		}
	}
	if _, exposed, err := read("me admin sha256:"+hex.EncodeToString(digest[:]), 0o644); err != nil || exposed {
		t.Errorf("a digest that everybody can read: %v %v", exposed, err)
	}
	for text, want := range map[string]string{
		"":                  "there is none",
		"ci release":        "line 1: a line is",
		"ci boss " + long:   `"boss" is no role`,
		"ci read short":     "at least 20 characters",
		"ci read sha256:12": "64 hex digits",
		"ci read sha256:" + long + long + long + "yyyy": "64 hex digits",
		"ci read " + long + "\nci admin 2" + long:       "line 2: the name is there twice",
		"a read " + long + "\nb admin " + long:          "line 2: the token is there twice",
		"\x1b[m read " + long:                           "printable",
	} {
		if _, _, err := read(text, 0o600); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), long) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
