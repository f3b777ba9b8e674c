package server_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/store/local"
)

// Every request of a device has a line in the access log, one with an odd path too, and none can write a line of its own.
func TestAccessLogHasEveryRequest(t *testing.T) {
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log := slog.New(slog.DiscardHandler)
	s := server.New(store.Objects(), server.NewPublished(store.Objects(), log), server.NewMetrics(), log)
	var text bytes.Buffer
	s.LogAccess(&text)
	h := s.Handler()
	paths := []string{"//etc", "/binaries/../x", "/.env", "/package", "/x%0d%0a%22", "/keyring.d/%1b[m"}
	for i, path := range paths {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://x"+path, nil))
		if n := strings.Count(text.String(), "\n"); n != i+1 {
			t.Errorf("after %s the log has %d lines, want %d:\n%s", path, n, i+1, &text)
		}
	}
}
