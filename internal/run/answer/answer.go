// Package answer sends answers that no object gives over HTTP.
package answer

import (
	"io"
	"net/http"

	"github.com/precast-ota/precast/edge"
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

// ReadOnly tells whether a request is GET or HEAD, and answers it if it is not.
func ReadOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	Fail(w, http.StatusMethodNotAllowed, "Use GET or HEAD")
	return false
}
