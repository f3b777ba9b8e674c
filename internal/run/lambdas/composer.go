package lambdas

import (
	"context"
	"errors"
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
	// Store keeps what was composed, so that the next request finds it in the object store.
	Store bool
	// FirstByte is how long an answer may take to begin; then it is 503, or sent without having been stored. 0: no
	// limit. What has more than MaxSent bytes is stored however long that takes: sent it would break off, stored it
	// is there the next time.
	FirstByte time.Duration
	MaxSent   int64
	Log       *slog.Logger

	Composer *builder.Composer
	// Statements signs statements; nil: none are signed here.
	Statements *issuer.Issuer
}

// What the composer behind CloudFront has: CloudFront waits 60 seconds for it (terraform/edge.tf), and then says 504
// without Retry-After; a function URL streams 200 MB
// (https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html).
const (
	FirstByte = 20 * time.Second
	MaxSent   = 200_000_000
)

var errSlow = errors.New("it took too long to begin an answer")

// ServeHTTP implements http.Handler.
func (c *Composer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !answer.ReadOnly(w, r) {
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	r = r.WithContext(ctx)
	var limit limit
	if c.FirstByte > 0 {
		limit.at = time.Now().Add(c.FirstByte)
		limit.timer = time.AfterFunc(c.FirstByte, func() { cancel(errSlow) })
		defer limit.timer.Stop()
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
	d, err := c.find(ctx, key, r.Header)
	if err != nil {
		c.unavailable(ctx, w, "compose", key, err)
		return
	}
	if d.Status != edge.StatusOK {
		answer.Fail(w, d.Status, d.Error)
		return
	}
	if err := c.send(w, r, limit, key, kind, d); err != nil {
		c.Log.ErrorContext(ctx, "compose", "key", key, "error", err, "cause", context.Cause(ctx))
	}
}

// unavailable answers 503, and logs why.
func (c *Composer) unavailable(ctx context.Context, w http.ResponseWriter, doing, key string, err error) {
	c.Log.ErrorContext(ctx, doing, "key", key, "error", err, "cause", context.Cause(ctx))
	answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNotAvailable)
}

// limit ends a request's context at a time, unless it is stopped before. The zero value never does.
type limit struct {
	at    time.Time
	timer *time.Timer
}

// stop tells whether the limit had not passed yet.
func (l limit) stop() bool { return l.timer == nil || l.timer.Stop() }

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

func (c *Composer) send(w http.ResponseWriter, r *http.Request, limit limit, key string, kind layout.Kind, d edge.Decision) error {
	composed, err := c.Composer.Compose(r.Context(), kind, d.Set, d.Mask)
	if err == nil {
		defer composed.Close()
		if !limit.stop() { // else the context, which it is read under, lasts until it is sent
			err = errSlow
		}
	}
	if err != nil {
		answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNotAvailable)
		return err
	}
	etag := layout.ETag(key)
	if c.Store && r.Method == http.MethodGet {
		ctx := r.Context()
		if !limit.at.IsZero() && composed.Size <= c.MaxSent {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, limit.at, errSlow)
			defer cancel()
		}
		// The next answer is the store's, with its ETag: this one says the same, so that devices can revalidate and
		// resume with a part.
		stored, err := c.store(ctx, key, kind, d)
		var damage *builder.Damage
		switch {
		case errors.As(err, &damage): // sent, it would break off
			answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNotAvailable)
			return err
		case err != nil:
			c.Log.WarnContext(ctx, "composed object was not stored", "key", key, "error", err, "cause", context.Cause(ctx))
		default:
			etag = stored
		}
	}
	answer.Object(w, r, kind, etag, composed)
	if damage := composed.Damage(); damage != nil {
		return damage
	}
	return nil
}

// store keeps what is composed, and returns the stored object's ETag. It reads what it stores by itself: a Put that
// was given up may keep reading for a while.
func (c *Composer) store(ctx context.Context, key string, kind layout.Kind, d edge.Decision) (etag string, err error) {
	info, err := c.Composer.Store(ctx, key, kind, d.Set, d.Mask, builder.PutOptions{IfAbsent: true})
	if errors.Is(err, builder.ErrPrecondition) { // somebody else has
		info, err = c.Objects.Stat(ctx, key)
	}
	return info.ETag, err
}
