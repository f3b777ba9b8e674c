package edge

import (
	"strconv"
	"strings"

	"github.com/precast-ota/precast/internal/format/layout"
)

// Names of the request headers between the CDN's viewer function, its origin handler and the composer.
const (
	// HeldHeader brings the held tags in canonical form (Tags.String). It is part of the cache key.
	HeldHeader = "X-Precast-Held"
	// CohortHeader brings the rollouts that the device is in (Cohort.String). It is part of the cache key.
	CohortHeader = "X-Precast-Cohort"
	// SelectionHeader brings the canonical selection (Selection.String) to the composer: an object's
	// path names a set, and a set ID does not tell its items. The origin handler moves it here from
	// the query, in which an object store would look for parameters of its own.
	SelectionHeader = "X-Precast-Selection"
	// StatusHeader brings the status of CacheResponse's answer to the CDN's viewer-response function.
	StatusHeader = "X-Precast-Status"
)

// RetryAfter is how long a device is asked to wait after a 503, in seconds.
const RetryAfter = 5

// ErrNotAvailable is the text of a 503 while the object store cannot be read.
const ErrNotAvailable = "The package is not available right now"

// Header is a header line of a response.
type Header struct{ Name, Value string }

// Response is an answer that no object gives: 304, or an error as JSON.
type Response struct {
	Status  int
	Headers []Header
	Body    string
}

// Response returns the answer to a decision whose Status is not 200.
func (d Decision) Response() Response {
	if d.Status == StatusNotModified {
		return Response{Status: d.Status, Headers: []Header{
			{"Cache-Control", layout.PackageCacheControl},
			{"Vary", "If-None-Match"},
		}}
	}
	return Failure(d.Status, d.Error)
}

// CacheResponse is Response for a cache that may revalidate a copy of its own: to it, 304 would mean that its
// copy is still right, and a device that holds everything since a rollback would get the release that was rolled
// back. It gets 200, and the viewer-response function makes 304 of it (edge/function/response.js).
func (d Decision) CacheResponse() Response {
	r := d.Response()
	if d.Status == StatusNotModified {
		r.Status = StatusOK
		r.Headers = append(r.Headers, Header{StatusHeader, strconv.Itoa(d.Status)})
	}
	return r
}

// Failure returns an error as every part of Precast answers it: {"error": message}, cached for a short
// while; a 503 is not cached and says when to come again.
func Failure(status int, message string) Response {
	r := Response{Status: status, Body: `{"error":` + quote(message) + "}\n", Headers: []Header{
		{"Cache-Control", layout.ErrorCacheControl},
		{"Content-Type", "application/json"},
		{"X-Content-Type-Options", "nosniff"},
	}}
	if status == StatusUnavailable {
		r.Headers[0].Value = layout.UnavailableCacheControl
		r.Headers = append(r.Headers, Header{"Retry-After", strconv.Itoa(RetryAfter)})
	}
	return r
}

// quote writes a string of valid UTF-8 as JSON.
func quote(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20:
			b.WriteString(`\u00`)
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
