package client_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// What a server says of its failure goes into the device's log as one line that steers no terminal.
func TestS10AnswersOfServers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "out of tea\x1b[2J\u009b31m\u202e\nall is well\xff")
	}))
	defer server.Close()
	c, err := client.New(client.Options{URL: server.URL, Selection: query, Roots: signing.PublicPEM(rootKey.Public()), Dir: t.TempDir(),
		Install: func(context.Context, client.Set) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Update(t.Context())
	if err == nil || !strings.Contains(err.Error(), "out of tea?[2J?31m??all is well?") || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("error %q", err)
	}
}
