// Package answer sends HTTP answers to devices: errors, and objects with their headers.
package answer

import (
	"io"
	"net/http"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Write sends a response.
func Write(w http.ResponseWriter, r edge.Response) {
	for _, h := range r.Headers {
		w.Header().Set(h.Name, h.Value)
	}
	w.WriteHeader(r.Status)
	_, _ = io.WriteString(w, r.Body) // the client has gone, or everything is well
}

// Fail sends an error.
func Fail(w http.ResponseWriter, status int, message string) { Write(w, edge.Failure(status, message)) }

// Object sends an object of a kind, or the range of it that is asked for. The entity tag is without quotes.
func Object(w http.ResponseWriter, r *http.Request, kind layout.Kind, etag string, body io.ReadSeeker) {
	headers := layout.HeadersOf(kind)
	h := w.Header()
	h.Set("Content-Type", headers.ContentType)
	if headers.ContentDisposition != "" {
		h.Set("Content-Disposition", headers.ContentDisposition)
	}
	setValidity(h, headers, etag)
	http.ServeContent(w, r, "", time.Time{}, body)
}

// NotModified tells a client that what it has, under this entity tag, is still the object.
func NotModified(w http.ResponseWriter, kind layout.Kind, etag string) {
	setValidity(w.Header(), layout.HeadersOf(kind), etag)
	w.WriteHeader(http.StatusNotModified)
}

func setValidity(h http.Header, headers layout.Headers, etag string) {
	h.Set("Cache-Control", headers.CacheControl)
	h.Set("ETag", `"`+etag+`"`)
}

// ReadOnly tells whether a request is GET or HEAD, and answers it if it is not.
func ReadOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	Fail(w, http.StatusMethodNotAllowed, "Use GET or HEAD")
	return false
}
