package lambdas

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/answer"
	"github.com/precast-ota/precast/internal/trust/issuer"
)

// Composer answers requests, with the device's selection, cohort and held tags in edge.SelectionHeader,
// edge.CohortHeader and edge.HeldHeader, for bundles and manifests that were not prebuilt, under the very path that
// the object store was asked for first. It composes what the published index, or one of the retained
// ones before it, gives to that selection, and nothing else: a path that does not follow from the
// selection is 404, whatever it names.
type Composer struct {
	Objects builder.Objects
	// FirstByte is how long an answer may take; then it is 503, or sent without having been stored. 0: no limit.
	FirstByte time.Duration
	// MaxSent is how many bytes an answer may have; 0: MaxSent. What is larger is stored, however long that takes, and
	// answered with 503: the object store has it the next time.
	MaxSent int64
	Log     *slog.Logger

	Composer *builder.Composer
	// Statements signs statements; nil: none are signed here.
	Statements *issuer.Issuer
}

// What the composer behind CloudFront has: CloudFront waits 60 seconds for it (terraform/edge.tf), and then says 504
// without Retry-After; a function's buffered answer has 6 MB at most, as JSON, with its body in base64
// (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
const (
	FirstByte = 20 * time.Second
	MaxSent   = 4 << 20
)

var errSlow = errors.New("it took too long to make an answer")

// ServeHTTP implements http.Handler.
func (c *Composer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !answer.ReadOnly(w, r) {
		return
	}
	ctx := r.Context()
	if c.FirstByte > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.FirstByte, errSlow)
		defer cancel()
	}
	key := strings.TrimPrefix(r.URL.Path, "/")
	kind, err := layout.KindOf(key)
	if err == nil && kind == layout.Statement {
		c.serveStatement(w, r.WithContext(ctx), key)
		return
	}
	if err != nil || kind != layout.Bundle && kind != layout.Manifest {
		answer.Fail(w, http.StatusNotFound, "Not found")
		return
	}
	d, err := c.find(ctx, key, r.Header)
	if err != nil {
		c.unavailable(ctx, w, "compose", key, err)
		return
	}
	if d.Status != edge.StatusOK {
		answer.Fail(w, d.Status, d.Error)
		return
	}
	if err := c.send(ctx, w, r, key, kind, d); err != nil {
		c.Log.ErrorContext(ctx, "compose", "key", key, "error", err, "cause", context.Cause(ctx))
	}
}

// unavailable answers 503, and logs why.
func (c *Composer) unavailable(ctx context.Context, w http.ResponseWriter, doing, key string, err error) {
	c.Log.ErrorContext(ctx, doing, "key", key, "error", err, "cause", context.Cause(ctx))
	answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNotAvailable)
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

// send answers with what is composed, once all of it is there: a cache would take an answer that breaks off for a whole
// one. It also stores the answer, so that the next request finds it in the object store. What is too large to be sent is
// stored under the request's own context, which ctx has limited.
func (c *Composer) send(ctx context.Context, w http.ResponseWriter, r *http.Request, key string, kind layout.Kind, d edge.Decision) error {
	data, body, err := c.read(ctx, kind, d)
	if err == nil && data == nil {
		if _, err = c.Composer.Store(r.Context(), key, kind, d.Set, d.Mask, builder.PutOptions{IfAbsent: true}); errors.Is(err, builder.ErrPrecondition) {
			err = nil // somebody else has
		}
	}
	if err != nil || data == nil {
		answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNotAvailable)
		return err
	}
	// The next answer is the store's, with its ETag: this one says the same, so that devices can revalidate and
	// resume with a part.
	etag := layout.ETag(key)
	info, err := c.Objects.Put(ctx, key, body, builder.PutOptions{IfAbsent: true})
	if errors.Is(err, builder.ErrPrecondition) { // somebody else has
		info, err = c.Objects.Stat(ctx, key)
	}
	if err != nil {
		c.Log.WarnContext(ctx, "composed object was not stored", "key", key, "error", err, "cause", context.Cause(ctx))
	} else {
		etag = info.ETag
	}
	answer.Object(w, r, kind, etag, bytes.NewReader(data))
	return nil
}

// read composes what can be sent. Data is nil of what is too large for that.
func (c *Composer) read(ctx context.Context, kind layout.Kind, d edge.Decision) (data []byte, body builder.Body, err error) {
	composed, err := c.Composer.Compose(ctx, kind, d.Set, d.Mask)
	if err != nil {
		return nil, body, err
	}
	defer composed.Close()
	if composed.Size > cmp.Or(c.MaxSent, MaxSent) {
		return nil, body, nil
	}
	data = make([]byte, composed.Size)
	if _, err := io.ReadFull(composed, data); err != nil {
		return nil, body, fmt.Errorf("read composed pieces: %w", err)
	}
	body = composed.Body()
	body.Reader = bytes.NewReader(data)
	return data, body, nil
}
