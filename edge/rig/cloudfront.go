package rig

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// CloudFront is one edge location of a distribution. It answers viewers.
type CloudFront struct {
	dist    Distribution
	host    *host
	now     func() time.Time
	oac     aws.Credentials // what origin access control signs with
	client  http.RoundTripper
	onTrace func(Trace)

	background sync.WaitGroup // fetches that no viewer waits for

	mu      sync.Mutex
	last    uint64
	cache   cache
	flights map[string]*flight
	traces  []Trace
}

// flight is a fetch for one cache key, which others of the key wait for.
type flight struct {
	done    chan struct{}
	outcome outcome
	waiting int // others
}

// outcome is what a fetch made of a key.
type outcome struct {
	answer *response
	stored time.Time // of the copy; zero: the answer is not in the cache
	xcache string
	stale  bool
	origin string
	broken error
}

// What X-Cache says (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/AccessLogs.html, x-edge-result-type).
const (
	hit        = "Hit"
	miss       = "Miss"
	refreshHit = "RefreshHit"
	failed     = "Error"
	limited    = "LimitExceeded"
	byFunction = "FunctionGeneratedResponse"
)

func newCloudFront(d Distribution, h *host, oac aws.Credentials, now func() time.Time, onTrace func(Trace)) *CloudFront {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	transport.MaxIdleConnsPerHost = 64
	transport.Proxy = nil
	return &CloudFront{dist: d, host: h, now: now, oac: oac, client: transport, onTrace: onTrace,
		cache: cache{entries: make(map[string]*entry)}, flights: make(map[string]*flight)}
}

// Invalidate removes what matches the path patterns, each of which may end with *. They are matched with the
// URI after the Function, without the query (Invalidation.html). It returns how many copies went.
func (c *CloudFront) Invalidate(patterns ...string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, p := range patterns {
		n += c.cache.invalidate(p)
	}
	return n
}

// Entries is the number of copies in the cache.
func (c *CloudFront) Entries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.cache.entries)
}

// Wait waits for fetches in the background.
func (c *CloudFront) Wait() { c.background.Wait() }

func (c *CloudFront) nextID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	return fmt.Sprintf("rig-%d", c.last)
}

// ServeHTTP implements http.Handler.
func (c *CloudFront) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	t := &Trace{ID: c.nextID(), Method: hr.Method, URL: hr.RequestURI}
	whole := &wholeAnswer{header: w.Header()}
	if b, r := c.serve(whole, hr, t); b != nil && b.ResponseFunction && whole.status < 400 {
		if err := c.runResponse(hr.Context(), t, r, whole); err != nil {
			clear(whole.header)
			*whole = wholeAnswer{header: whole.header}
			c.write(whole, hr, t, nil, c.broken(t, err), failed)
		}
	}
	t.Status, t.Bytes = whole.status, whole.body.Len()
	c.record(*t) // before the viewer has the answer, so that it can look
	w.WriteHeader(whole.status)
	_, _ = w.Write(whole.body.Bytes()) // the viewer has gone, or everything is well
}

// serve answers up to the viewer-response Function, which the behavior may have; nil: it does not run.
func (c *CloudFront) serve(w http.ResponseWriter, hr *http.Request, t *Trace) (*Behavior, *request) {
	if err := c.checkLength(hr); err != nil {
		c.write(w, hr, t, nil, c.broken(t, err), limited)
		return nil, nil
	}
	r := fromViewer(t.ID, hr)
	b := c.dist.behavior(hr.URL.Path)
	t.Pattern = b.Pattern
	if hr.Method != http.MethodGet && hr.Method != http.MethodHead {
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/http-403-permission-denied.html
		c.write(w, hr, t, nil, c.broken(t, &Broken{RuleMethod, http.StatusForbidden, hr.Method}), failed)
		return nil, nil
	}
	if b.Function {
		changed, answer, err := c.runFunction(hr.Context(), t, r)
		switch {
		case err != nil:
			c.write(w, hr, t, b, c.broken(t, err), failed)
			return nil, nil
		case answer != nil:
			c.write(w, hr, t, b, answer, byFunction)
			return nil, nil
		}
		r = changed
	}
	c.fromCache(w, hr, t, b, r)
	return b, r
}

// checkLength: "If a request or a URL exceeds these maximums, CloudFront returns HTTP status code 413"
// (RequestAndResponseBehaviorCustomOrigin.html, RequestCustomMaxRequestStringLength).
func (c *CloudFront) checkLength(r *http.Request) error {
	if n := len("https://") + len(r.Host) + len(r.RequestURI); n > c.dist.Limits.URL {
		return &Broken{RuleURLLength, http.StatusRequestEntityTooLarge, fmt.Sprintf("%d bytes", n)}
	}
	if n := headerLength(r); n > c.dist.Limits.Request {
		return &Broken{RuleRequestLength, http.StatusRequestEntityTooLarge, fmt.Sprintf("%d bytes", n)}
	}
	return nil
}

// fromCache answers from the cache or, on a miss, from the origin.
func (c *CloudFront) fromCache(w http.ResponseWriter, hr *http.Request, t *Trace, b *Behavior, r *request) {
	t.Key = b.Cache.key(r)
	now := c.now()
	c.mu.Lock()
	e := c.cache.entries[t.Key]
	c.mu.Unlock()
	// What the Function left of the viewer's conditions is what counts.
	hr = hr.Clone(hr.Context())
	hr.Header = r.header
	switch {
	case e != nil && e.fresh(now):
		c.send(w, hr, t, b, outcome{answer: e.response, stored: e.stored, xcache: hitOrError(e.status), origin: e.origin})
	case e != nil && (now.Before(e.retryAt) || e.mayRevalidateLater(now)):
		if !now.Before(e.retryAt) {
			c.refreshLater(b, t.Key, r, e)
		}
		c.send(w, hr, t, b, outcome{answer: e.response, stored: e.stored, xcache: hit, stale: true, origin: e.origin})
	case e != nil && e.status == http.StatusOK:
		// The cache asks for itself: the viewer's conditions and range are met from its copy.
		c.send(w, hr, t, b, c.shared(hr.Context(), t, b, r.asking(), e))
	case r.plain():
		c.send(w, hr, t, b, c.shared(hr.Context(), t, b, r, nil))
	default:
		// The answer may be for this viewer alone: a range, a 304.
		o := c.refresh(hr.Context(), t, b, r, nil)
		t.Stale = o.stale
		if c.unsatisfiable(o.answer, hr.Header) {
			o.answer = beyond(o.answer)
		}
		c.write(w, hr, t, b, o.answer, o.xcache)
	}
}

// asking is the request without a viewer's conditions and range.
func (r *request) asking() *request {
	out := r.clone()
	out.method = http.MethodGet
	for _, name := range passedOn() {
		out.header.Del(name)
	}
	return out
}

func hitOrError(status int) string {
	if status >= 400 {
		return failed
	}
	return hit
}

// shared lets one request of a key fetch while the others wait for it
// (RequestAndResponseBehaviorCustomOrigin.html, request-custom-traffic-spikes). What may not be cached is
// each one's own to fetch.
func (c *CloudFront) shared(ctx context.Context, t *Trace, b *Behavior, r *request, old *entry) outcome {
	key := b.Cache.key(r)
	c.mu.Lock()
	f, joined := c.flights[key]
	if !joined {
		f = &flight{done: make(chan struct{})}
		c.flights[key] = f
	} else {
		f.waiting++
	}
	c.mu.Unlock()
	if !joined {
		// A viewer that goes away takes nothing from the others.
		f.outcome = c.refresh(context.WithoutCancel(ctx), t, b, r, old)
		c.mu.Lock()
		delete(c.flights, key)
		c.mu.Unlock()
		close(f.done)
		return f.outcome
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return outcome{answer: failure(http.StatusBadGateway, "the viewer has gone", ""), xcache: failed}
	}
	o := f.outcome
	if o.stored.IsZero() && o.broken == nil && !o.stale {
		return c.refresh(ctx, t, b, r, old)
	}
	t.Joined, t.Broken = true, o.broken
	if o.xcache == miss {
		o.xcache = hit
	}
	return o
}

// refreshLater fetches in the background, unless somebody does already.
func (c *CloudFront) refreshLater(b *Behavior, key string, r *request, e *entry) {
	c.mu.Lock()
	_, busy := c.flights[key]
	c.mu.Unlock()
	if busy {
		return
	}
	later := r.asking()
	c.background.Go(func() {
		t := &Trace{ID: r.id + "-background", Method: later.method, URL: target(later), Pattern: b.Pattern, Key: key}
		o := c.shared(context.Background(), t, b, later, e)
		t.XCache, t.Stale = o.xcache, o.stale
		c.record(*t)
	})
}

// refresh asks the origin, with the conditions of an expired copy if there is one, and stores what it may.
func (c *CloudFront) refresh(ctx context.Context, t *Trace, b *Behavior, r *request, old *entry) outcome {
	c.mu.Lock()
	since := len(c.cache.cleared)
	c.mu.Unlock()
	out := r.toOrigin(b.Cache, via(c.dist.ID))
	conditional := old != nil && old.conditions(out.header)
	a := c.fetch(ctx, t, b, out)
	now := c.now()
	ttl := c.dist.errorTTL(a.status)
	o := outcome{answer: a, xcache: miss, origin: t.Origin, broken: t.Broken}
	switch {
	case conditional && a.status == http.StatusNotModified:
		next := old.refreshed(a, b.Cache, now, ttl)
		c.store(next, since)
		return outcome{answer: next.response, stored: now, xcache: refreshHit, origin: t.Origin}
	case a.status >= 500 && old != nil && old.mayServeOnError(now):
		c.mu.Lock()
		if held := c.cache.entries[old.key]; held == old {
			again := *old
			again.retryAt = now.Add(ttl)
			c.cache.entries[old.key] = &again
		}
		c.mu.Unlock()
		return outcome{answer: old.response, stored: old.stored, xcache: refreshHit, stale: true, origin: old.origin, broken: t.Broken}
	case a.status >= 400:
		o.xcache = failed
	}
	if l, ok := b.Cache.lifeOf(a, now, ttl); ok && c.storable(a, r) && t.Broken == nil {
		e := &entry{response: a, key: b.Cache.key(r), uri: r.uri, stored: now, life: l}
		c.store(e, since)
		o.stored = now
	}
	return o
}

// storable tells whether an answer is the same for every viewer of the key.
func (c *CloudFront) storable(a *response, r *request) bool {
	switch {
	case r.method != http.MethodGet:
		return false
	case a.status == http.StatusPartialContent, a.status == http.StatusRequestedRangeNotSatisfiable:
		return false // CloudFront keeps parts, and may ask for more than a viewer did; no viewer can tell
	case a.status == http.StatusNotModified:
		return a.generated && r.plain() && c.dist.Assume.NotModifiedIsCached
	}
	return true
}

func (c *CloudFront) store(e *entry, since int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache.put(e, since)
}
