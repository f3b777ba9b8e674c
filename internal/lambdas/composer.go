package lambdas

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"precast/builder"
	"precast/edge"
	"precast/internal/answer"
	"precast/internal/index"
	"precast/internal/layout"
	"precast/internal/statement"
)

// Composer answers requests, with the device's selection, cohort and held tags in edge.SelectionHeader,
// edge.CohortHeader and edge.HeldHeader, for bundles and manifests that were not prebuilt, under the very path that
// the object store was asked for first. It composes what the published index, or one of the retained
// ones before it, gives to that selection, and nothing else: a path that does not follow from the
// selection is 404, whatever it names.
type Composer struct {
	Objects builder.Objects
	// Store keeps what was composed, so that the next request finds it in the object store.
	Store bool
	Log   *slog.Logger

	Composer *builder.Composer
	// Statements signs statements; nil: none are signed here.
	Statements *statement.Maker
}

// ServeHTTP implements http.Handler.
func (c *Composer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !answer.ReadOnly(w, r) {
		return
	}
	key := strings.TrimPrefix(r.URL.Path, "/")
	kind, err := layout.KindOf(key)
	if err == nil && kind == layout.Statement {
		c.serveStatement(w, r, key)
		return
	}
	if err != nil || kind != layout.Bundle && kind != layout.Manifest {
		answer.Fail(w, http.StatusNotFound, "Not found")
		return
	}
	d, err := c.find(r.Context(), key, r.Header)
	if err != nil {
		c.Log.ErrorContext(r.Context(), "compose", "key", key, "error", err)
		answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNotAvailable)
		return
	}
	if d.Status != edge.StatusOK {
		answer.Fail(w, d.Status, d.Error)
		return
	}
	if err := c.send(w, r, key, kind, d); err != nil {
		c.Log.ErrorContext(r.Context(), "compose", "key", key, "error", err)
	}
}

// find returns the decision whose object has this key, of the newest index that has one.
func (c *Composer) find(ctx context.Context, key string, h http.Header) (edge.Decision, error) {
	ix, _, err := builder.ReadIndex(ctx, c.Objects)
	if err != nil {
		return edge.Decision{}, err
	}
	if ix == nil {
		return edge.Decision{Status: edge.StatusUnavailable, Error: edge.ErrNoIndex}, nil
	}
	for back := uint64(0); ; back++ {
		d := decide(ix, h)
		if d.Status == edge.StatusBadRequest {
			return d, nil
		}
		if d.Status == edge.StatusOK {
			if _, object := d.Object(); object == key {
				return d, nil
			}
		}
		if back >= ix.Params.Retain || ix.Generation <= 1 {
			return edge.Decision{Status: edge.StatusNotFound, Error: edge.ErrNotFound}, nil
		}
		earlier, err := builder.ReadGeneration(ctx, c.Objects, ix.Generation-1)
		if errors.Is(err, builder.ErrNotExist) {
			return edge.Decision{Status: edge.StatusNotFound, Error: edge.ErrNotFound}, nil
		}
		if err != nil {
			return edge.Decision{}, err
		}
		ix = withRetain(earlier, ix.Params.Retain)
	}
}

// decide answers what the edge has been asked. That has told the origin in headers.
func decide(ix *index.Index, h http.Header) edge.Decision {
	return edge.DecideCohort(ix, h.Get(edge.SelectionHeader), h.Get(edge.CohortHeader), h.Get(edge.HeldHeader))
}

// withRetain keeps the newest index's word on how far back to look.
func withRetain(ix *index.Index, retain uint64) *index.Index {
	c := *ix
	c.Params.Retain = retain
	return &c
}

func (c *Composer) send(w http.ResponseWriter, r *http.Request, key string, kind layout.Kind, d edge.Decision) error {
	composed, err := c.Composer.Compose(r.Context(), kind, d.Set, d.Mask)
	if err != nil {
		answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNotAvailable)
		return err
	}
	defer composed.Close()
	if c.Store && r.Method == http.MethodGet {
		_, err := c.Objects.Put(r.Context(), key, composed.Body(), builder.PutOptions{IfAbsent: true})
		if err != nil && !errors.Is(err, builder.ErrPrecondition) {
			c.Log.WarnContext(r.Context(), "composed object was not stored", "key", key, "error", err)
		}
	}
	headers := layout.HeadersOf(kind)
	h := w.Header()
	h.Set("Content-Type", headers.ContentType)
	h.Set("Cache-Control", headers.CacheControl)
	if headers.ContentDisposition != "" {
		h.Set("Content-Disposition", headers.ContentDisposition)
	}
	h.Set("ETag", `"`+layout.ETag(key)+`"`)
	http.ServeContent(w, r, "", time.Time{}, composed)
	return nil
}
