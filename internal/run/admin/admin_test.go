package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// What is a no in the server is one in the client, in the same words; everything else is an error.
func TestRefusalsTravel(t *testing.T) {
	for _, c := range []struct{ err, is error }{
		{fmt.Errorf("roll back: %w: generation 9 is published", history.ErrRace), history.ErrRace},
		{fmt.Errorf("pin: %w", history.ErrRefused), history.ErrRefused},
		{fmt.Errorf("write catalog: %w", builder.ErrPrecondition), builder.ErrPrecondition},
		{errors.New("disk full"), nil},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, nil, c.err) }))
		client, err := NewRemoteClient(server.URL, "token", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Unpin(t.Context(), catalog.Author{})
		server.Close()
		for _, sentinel := range []error{history.ErrRace, history.ErrRefused, builder.ErrPrecondition} {
			if errors.Is(err, sentinel) != (sentinel == c.is) {
				t.Errorf("%v: the client says %v", c.err, err)
			}
		}
		if c.is != nil && err.Error() != c.err.Error() || !strings.Contains(err.Error(), c.err.Error()) {
			t.Errorf("%v: the client says %v", c.err, err)
		}
	}
}

// S13: a command and a server of different versions do not work together, whichever is the older one.
func TestS13VersionsMustAgree(t *testing.T) {
	handler := OwnHandler(nil, "token", slog.New(slog.DiscardHandler))
	for version, want := range map[string]string{
		"":    fmt.Sprintf("the command stores catalogs in version 1, and the running server in version %d: use the same precast for both", catalog.Version), // as programs before version 2
		"999": fmt.Sprintf("the command stores catalogs in version 999, and the running server in version %d", catalog.Version),
	} {
		for _, request := range []string{"POST /v1/changes", "GET /v1/catalog", "POST /v1/rollback"} {
			method, path, _ := strings.Cut(request, " ")
			r := httptest.NewRequest(method, path, strings.NewReader("[]"))
			r.Header.Set("Authorization", "Bearer token")
			if version != "" {
				r.Header.Set(versionHeader, version)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != http.StatusUpgradeRequired || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s of version %q: %d %s", request, version, w.Code, w.Body)
			}
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, endpointFile), []byte(`{"pid":1,"address":"127.0.0.1:1","token":"t","url":"http://x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("the command stores catalogs in version %d, and the running server in version 1", catalog.Version)) {
		t.Errorf("Find of an earlier server = %v", err)
	}
}

// serve has the admin API of a catalog in memory, for requests that come from whom author says.
func serve(t *testing.T, author func(body []byte) string) *Client {
	memory := storetest.NewMemory(time.Now, 5)
	p := pipeline.New(pipeline.Drivers{Ports: builder.Ports{Catalog: memory.Catalog, Objects: memory.Objects}, Writer: memory.Catalog}, pipeline.Config{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		tokens := only("secret", Identity{author(body), Admin})
		Handler(p, func() Tokens { return tokens }, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c, err := NewRemoteClient(server.URL, "secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A catalog keeps its contract when it is reached through a server.
func TestCatalogThroughServer(t *testing.T) {
	storetest.Catalog(t, func(t *testing.T) storetest.CatalogStore {
		return allowing{serve(t, func(body []byte) string {
			var edit catalog.Edit
			_ = json.Unmarshal(body, &edit) // of other requests nothing matters
			return edit.By.Actor
		})}
	})
}

// allowing is a client whose edits pass the guards: items without a file, and removals of many.
type allowing struct{ *Client }

func (c allowing) Apply(ctx context.Context, edit catalog.Edit) error {
	edit.Allow = []string{release.AllowEmpty, release.AllowRemoval}
	return c.Client.Apply(ctx, edit)
}

// Nobody says for himself that he is proven to be somebody.
func TestActorIsTheServersToSay(t *testing.T) {
	for _, proven := range []string{"", "ci"} {
		c := serve(t, func([]byte) string { return proven })
		edit := catalog.Edit{By: catalog.Author{Actor: "boss", Claim: "boss"}, Changes: []catalog.Change{catalog.Put(catalog.Item{App: "a", Track: "prod"})}}
		edit.Allow = []string{release.AllowEmpty}
		if err := c.Apply(t.Context(), edit); err != nil {
			t.Fatal(err)
		}
		err := c.Log(t.Context(), 0, func(e catalog.LogEntry) error {
			if e.By != (catalog.Author{Actor: proven, Claim: "boss"}) {
				t.Errorf("the log says %+v", e.By)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
