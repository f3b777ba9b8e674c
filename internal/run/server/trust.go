package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/answer"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// Statements has the server answer for statements. It must not be called once requests are served.
func (s *Server) Statements(m *statement.Maker) { s.statements = m }

// serveStatement sends the statement of a decision.
func (s *Server) serveStatement(w http.ResponseWriter, r *http.Request, d edge.Decision, held string) {
	if s.statements == nil {
		answer.Fail(w, http.StatusNotFound, edge.ErrNotSigned)
		return
	}
	d.Epoch = s.statements.Epoch()
	kind, path := d.Object()
	etag := s.statements.ETag(path)
	h := w.Header()
	h.Set("ETag", `"`+etag+`"`)
	h.Set("Cache-Control", layout.PackageCacheControl)
	h.Set("Vary", "If-None-Match") // it may tell which floors have been passed
	if tag, ok := edge.SingleTag(held); ok && tag == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	data, err := s.statements.Make(r.Context(), d)
	if r.Context().Err() != nil {
		return // the device has gone
	}
	if err != nil {
		h.Del("ETag")
		h.Del("Vary")
		s.log.ErrorContext(r.Context(), "answer device", "key", path, "error", err)
		answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNotAvailable)
		return
	}
	s.metrics.answered("signed")
	h.Set("Content-Type", layout.HeadersOf(kind).ContentType)
	serve(w, r, bytes.NewReader(data))
}

// serveKeyring sends the current keyring, or a version of it.
func (s *Server) serveKeyring(w http.ResponseWriter, r *http.Request) {
	if !answer.ReadOnly(w, r) {
		return
	}
	key := strings.TrimPrefix(r.URL.Path, "/")
	kind, err := layout.KindOf(key)
	if err != nil || kind != layout.Keyring && kind != layout.KeyringHistory {
		answer.Fail(w, http.StatusNotFound, "No such keyring")
		return
	}
	data, etag, err := readKeyring(r.Context(), s.objects, key)
	if errors.Is(err, builder.ErrNotExist) {
		answer.Fail(w, http.StatusNotFound, "No such keyring")
		return
	}
	if err != nil {
		s.log.ErrorContext(r.Context(), "answer device", "key", key, "error", err)
		answer.Fail(w, http.StatusServiceUnavailable, "The keyring is not available right now")
		return
	}
	headers := layout.HeadersOf(kind)
	h := w.Header()
	h.Set("ETag", `"`+etag+`"`)
	h.Set("Cache-Control", headers.CacheControl)
	h.Set("Content-Type", headers.ContentType)
	if tag, ok := edge.SingleTag(strings.Join(r.Header.Values("If-None-Match"), ",")); ok && tag == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	serve(w, r, bytes.NewReader(data))
}

func readKeyring(ctx context.Context, objects builder.Objects, key string) (data []byte, etag string, err error) {
	body, info, err := objects.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	data, err = io.ReadAll(io.LimitReader(body, keyring.MaxBytes+1))
	if err == nil && len(data) > keyring.MaxBytes {
		err = fmt.Errorf("%s is longer than %d bytes", key, keyring.MaxBytes)
	}
	return data, info.ETag, err
}
