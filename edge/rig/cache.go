package rig

import (
	"net/http"
	"strings"
	"time"

	"github.com/pquerna/cachecontrol/cacheobject"
)

// response is an answer of an origin or an edge function, whole.
type response struct {
	status    int
	header    http.Header
	body      []byte
	origin    string // name of the origin; "edge" for a generated one
	generated bool
}

// life is how long a response may be used.
type life struct {
	fresh      time.Duration
	revalidate time.Duration // stale-while-revalidate, beyond fresh
	onError    time.Duration // stale-if-error, beyond fresh; negative: as long as there is a copy
}

// forever is stale-if-error where the origin says nothing of it: CloudFront serves an expired copy when the
// origin answers 5xx or not at all (HTTPStatusCodes.html, HTTPStatusCodes-no-custom-error-pages-in-cache).
const forever = -1

// lifeOf applies Expiration.html's table. The response is not to be stored when ok is false.
func (p CachePolicy) lifeOf(a *response, now time.Time, errorTTL time.Duration) (l life, ok bool) {
	said, directives, forbidden := told(a.header, now)
	if a.status >= 400 {
		return errorLife(a.status, said, forbidden, errorTTL)
	}
	l = life{fresh: max(p.Def, p.Min), onError: forever}
	switch {
	case forbidden:
		if p.Min == 0 {
			return life{}, false
		}
		l.fresh = p.Min
	case said >= 0:
		l.fresh = min(max(said, p.Min), p.Max)
	}
	if p.Max == 0 {
		return life{}, false // caching is off
	}
	// Staleness is capped by the maximum TTL as well (Expiration.html, stale-while-revalidate).
	left := max(p.Max-l.fresh, 0)
	if s := directives.StaleWhileRevalidate; s > 0 {
		l.revalidate = min(seconds(s), left)
	}
	if s := directives.StaleIfError; s >= 0 {
		l.onError = min(seconds(s), left)
	}
	return l, true
}

func seconds(s cacheobject.DeltaSeconds) time.Duration { return time.Duration(s) * time.Second }

// told is what a response says of its freshness, negative if nothing, and whether it forbids caching.
func told(h http.Header, now time.Time) (fresh time.Duration, d *cacheobject.ResponseCacheDirectives, forbidden bool) {
	d, err := cacheobject.ParseResponseCacheControl(strings.Join(h.Values("Cache-Control"), ","))
	if err != nil {
		d, _ = cacheobject.ParseResponseCacheControl("")
	}
	forbidden = d.NoStore || d.NoCachePresent || d.PrivatePresent
	switch {
	case d.SMaxAge >= 0:
		return seconds(d.SMaxAge), d, forbidden
	case d.MaxAge >= 0:
		return seconds(d.MaxAge), d, forbidden
	}
	if expires := h.Get("Expires"); expires != "" {
		at, err := http.ParseTime(expires)
		if err != nil {
			return 0, d, forbidden // as RFC 9111 has it: expired
		}
		return max(at.Sub(now), 0), d, forbidden
	}
	return -1, d, forbidden
}

// errorLife is how long an error is cached (HTTPStatusCodes.html, HTTPStatusCodes-cached-errors).
func errorLife(status int, said time.Duration, forbidden bool, errorTTL time.Duration) (life, bool) {
	l := life{fresh: max(errorTTL, said), onError: 0}
	switch status {
	case 404, 414:
		return l, !forbidden
	case 500, 501, 502, 503, 504:
		return l, true // even those that say no-store
	case 400, 403, 405, 412, 415:
		return l, said >= 0 && !forbidden
	}
	return life{}, false
}

// entry is a cached response.
type entry struct {
	*response
	key    string
	uri    string // after the Function; what invalidations match
	stored time.Time
	life   life
	// retryAt: until then a copy that has expired is sent without asking an origin that failed.
	retryAt time.Time
}

func (e *entry) age(now time.Time) time.Duration { return max(now.Sub(e.stored), 0) }

func (e *entry) fresh(now time.Time) bool { return e.age(now) < e.life.fresh }

// mayRevalidateLater tells whether stale-while-revalidate lets the copy be sent.
func (e *entry) mayRevalidateLater(now time.Time) bool {
	return e.age(now) < e.life.fresh+e.life.revalidate
}

// mayServeOnError tells whether the copy may be sent instead of an origin's 5xx.
func (e *entry) mayServeOnError(now time.Time) bool {
	return e.status < 400 && (e.life.onError == forever || e.age(now) < e.life.fresh+e.life.onError)
}

// conditions adds what asks the origin whether the copy is still right, and tells whether there is any
// (RequestAndResponseBehaviorCustomOrigin.html, RequestCustomConditionalGETs).
func (e *entry) conditions(h http.Header) bool {
	if e.status != http.StatusOK {
		return false
	}
	etag, modified := e.header.Get("Etag"), e.header.Get("Last-Modified")
	if etag != "" {
		h.Set("If-None-Match", etag)
	}
	if modified != "" {
		h.Set("If-Modified-Since", modified)
	}
	return etag != "" || modified != ""
}

// refreshed is the entry after the origin's 304, with the 304's word on it.
func (e *entry) refreshed(answer *response, p CachePolicy, now time.Time, errorTTL time.Duration) *entry {
	next := *e
	copied := *e.response
	copied.header = e.header.Clone()
	for _, name := range []string{"Cache-Control", "Expires", "Etag", "Last-Modified", "Date"} {
		if values := answer.header.Values(name); len(values) > 0 {
			copied.header[name] = values
		}
	}
	next.response, next.stored, next.retryAt = &copied, now, time.Time{}
	if l, ok := p.lifeOf(&copied, now, errorTTL); ok {
		next.life = l
	} else {
		next.life = life{}
	}
	return &next
}

// cache is the cache of one edge location.
type cache struct {
	entries map[string]*entry
	// cleared are the invalidations so far: what was fetched before one is not stored after it.
	cleared []string
}

func (c *cache) put(e *entry, since int) bool {
	for _, pattern := range c.cleared[since:] {
		if matches(pattern, e.uri) {
			return false
		}
	}
	c.entries[e.key] = e
	return true
}

func (c *cache) invalidate(pattern string) int {
	c.cleared = append(c.cleared, pattern)
	n := 0
	for key, e := range c.entries {
		if matches(pattern, e.uri) {
			delete(c.entries, key)
			n++
		}
	}
	return n
}
