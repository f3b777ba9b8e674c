// Package source reads binaries from where catalog items say they are.
package source

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// Sources opens the URLs of catalog items: store: (the object store itself), http:, https:, file: if it may,
// and whatever schemes Other knows.
type Sources struct {
	Objects builder.Objects
	HTTP    *http.Client
	// Files lets file: be opened: where the catalog is this machine's own. Elsewhere, anyone who may write to the
	// catalog could have any file of the builder's machine published.
	Files bool
	Other map[string]builder.Sources // by scheme
	// Limits are those of http, https and the schemes of Other.
	Limits Limits
}

var _ builder.Sources = (*Sources)(nil)

// Open implements builder.Sources.
func (s *Sources) Open(ctx context.Context, address string) (io.ReadCloser, error) {
	if key, ok := strings.CutPrefix(address, catalog.StorePrefix); ok {
		body, _, err := s.Objects.Get(ctx, key, 0, -1)
		return body, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", address, err)
	}
	switch other, ok := s.Other[u.Scheme]; {
	case ok:
		return s.Limits.within(ctx, func(ctx context.Context) (io.ReadCloser, error) { return other.Open(ctx, address) })
	case u.Scheme == "file" && !s.Files:
		return nil, fmt.Errorf("open %s: it is a file of one machine: bring it in with precast catalog import or put", address)
	case u.Scheme == "file":
		return files.Open(filepath.FromSlash(u.Path))
	case u.Scheme == "http", u.Scheme == "https":
		return s.Limits.within(ctx, func(ctx context.Context) (io.ReadCloser, error) { return s.fetch(ctx, address) })
	}
	return nil, fmt.Errorf("open %s: this program cannot read %q addresses", address, u.Scheme)
}

func (s *Sources) fetch(ctx context.Context, address string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", address, err)
	}
	// The bytes as they are stored: a digest is of those.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", address, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("open %s: the server answered %s", address, resp.Status)
	}
	return resp.Body, nil
}
