package server

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/answer"
)

// object is an answer with an entity tag: a bundle, manifest, statement, keyring or binary.
type object struct {
	kind layout.Kind
	key  string // in the store, or the path of a statement; for the log
	// etag is the entity tag, without quotes. With it, 304 is answered before open is called; without it, open
	// returns the tag.
	etag string
	// vary: the answer depends on If-None-Match. Caches are told so.
	vary bool
	// Messages for an object that does not exist (404) and one that cannot be read (503). If notFound is empty, an
	// object that does not exist is unavailable.
	notFound, unavailable string
	open                  func(ctx context.Context) (content, error)
}

// content is an opened object.
type content struct {
	body   io.ReadSeekCloser
	etag   string
	source string // for the metrics; empty: not counted
}

// serveObject answers 304, 404, 503, or sends the object or the range of it that is asked for.
func (s *Server) serveObject(w http.ResponseWriter, r *http.Request, o object) {
	if o.etag != "" && o.notModified(w, r) {
		return
	}
	c, err := o.open(r.Context())
	if err == nil {
		defer c.body.Close()
	}
	if r.Context().Err() != nil {
		return // the device has gone
	}
	if o.notFound != "" && errors.Is(err, builder.ErrNotExist) {
		answer.Fail(w, http.StatusNotFound, o.notFound)
		return
	}
	if err != nil {
		s.log.ErrorContext(r.Context(), "answer device", "key", o.key, "error", err)
		answer.Fail(w, http.StatusServiceUnavailable, o.unavailable)
		return
	}
	if o.etag == "" {
		o.etag = c.etag
		if o.notModified(w, r) {
			return
		}
	}
	if c.source != "" {
		s.metrics.answered(c.source)
		noteSource(w, c.source)
	}
	o.setVary(w)
	o.open = nil // what it holds of the request is not needed while the body is sent
	forget(r)
	defer cork(r)()
	answer.Object(w, r, o.kind, o.etag, c.body)
	if composed, ok := c.body.(*builder.Answer); ok && composed.Damage() != nil {
		s.log.ErrorContext(r.Context(), "answer broken off", "key", o.key, "error", composed.Damage())
	}
}

// forget drops what a request was decided on: a body may take long to send, and a request may be large. What is left is
// what http.ServeContent looks at. (If-None-Match is not: notModified has decided what it means.)
func forget(r *http.Request) {
	kept := make(http.Header)
	for _, name := range []string{"Range", "If-Range", "If-Match"} {
		if v := r.Header.Values(name); len(v) > 0 {
			kept[name] = v
		}
	}
	clear(r.Header) // net/http holds on to the map
	maps.Copy(r.Header, kept)
	r.URL.RawQuery, r.RequestURI = "", ""
}

// notModified answers 304 if the request's only tag is the object's. Several tags say what the device holds.
func (o object) notModified(w http.ResponseWriter, r *http.Request) bool {
	tag, ok := edge.SingleTag(strings.Join(r.Header.Values("If-None-Match"), ","))
	if !ok || tag != o.etag {
		return false
	}
	o.setVary(w)
	answer.NotModified(w, o.kind, o.etag)
	return true
}

func (o object) setVary(w http.ResponseWriter) {
	if o.vary {
		w.Header().Set("Vary", "If-None-Match")
	}
}
