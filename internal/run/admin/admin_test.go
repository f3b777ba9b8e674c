package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/operate/history"
)

// What is a no in the server is one in the client, in the same words; everything else is an error.
func TestRefusalsTravel(t *testing.T) {
	for _, c := range []struct{ err, is error }{
		{fmt.Errorf("roll back: %w: generation 9 is published", history.ErrRace), history.ErrRace},
		{fmt.Errorf("pin: %w", history.ErrRefused), history.ErrRefused},
		{errors.New("disk full"), nil},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, nil, c.err) }))
		_, err := NewClient(Endpoint{Address: strings.TrimPrefix(server.URL, "http://")}).Unpin(t.Context())
		server.Close()
		for _, sentinel := range []error{history.ErrRace, history.ErrRefused} {
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
	handler := Handler(nil, "token")
	for version, want := range map[string]string{
		"":  "the command stores catalogs in version 1, and the running server in version 2: use the same precast for both", // as programs before version 2
		"3": "the command stores catalogs in version 3, and the running server in version 2",
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
			if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s of version %q: %d %s", request, version, w.Code, w.Body)
			}
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, endpointFile), []byte(`{"pid":1,"address":"127.0.0.1:1","token":"t","url":"http://x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir); err == nil || !strings.Contains(err.Error(), "the command stores catalogs in version 2, and the running server in version 1") {
		t.Errorf("Find of an earlier server = %v", err)
	}
}
