package server

import (
	"bytes"
	"context"
	"net/http"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/answer"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/keyring"
)

// Statements has the server answer for statements. It must not be called once requests are served.
func (s *Server) Statements(m *issuer.Issuer) { s.statements = m }

// serveStatement sends the statement of a decision. It may tell which floors the device has passed, so it varies.
func (s *Server) serveStatement(w http.ResponseWriter, r *http.Request, d edge.Decision) {
	if s.statements == nil {
		answer.Fail(w, http.StatusNotFound, edge.ErrNotSigned)
		return
	}
	d.Epoch = s.statements.Epoch()
	kind, path := d.Object()
	s.serveObject(w, r, object{
		kind: kind, key: path, etag: s.statements.ETag(path), vary: true, unavailable: edge.ErrNotAvailable,
		open: func(ctx context.Context) (content, error) {
			data, err := s.statements.Issue(ctx, d)
			return content{body: builder.NopCloser{ReadSeeker: bytes.NewReader(data)}, source: "signed"}, err
		},
	})
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
	s.serveObject(w, r, object{
		kind: kind, key: key,
		notFound: "No such keyring", unavailable: "The keyring is not available right now",
		open: func(ctx context.Context) (content, error) {
			data, etag, err := readKeyring(ctx, s.objects, key)
			return content{body: builder.NopCloser{ReadSeeker: bytes.NewReader(data)}, etag: etag}, err
		},
	})
}

func readKeyring(ctx context.Context, objects builder.Objects, key string) (data []byte, etag string, err error) {
	data, info, err := builder.ReadAll(ctx, objects, key, keyring.MaxBytes)
	return data, info.ETag, err
}
