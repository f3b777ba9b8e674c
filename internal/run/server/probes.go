package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/answer"
)

// MetricsApart keeps /metrics from devices: Watch serves it. It must not be called once requests are served.
func (s *Server) MetricsApart() { s.apart = true }

// Watch registers the routes for those who watch the server: probes and /metrics.
func (s *Server) Watch(mux *http.ServeMux) {
	s.probes(mux)
	mux.Handle("/metrics", s.metrics.handler())
}

func (s *Server) probes(mux *http.ServeMux) {
	mux.HandleFunc("/livez", probe(func(w http.ResponseWriter, _ *http.Request) { working(w, 0) }))
	mux.HandleFunc("/readyz", probe(s.serveReady))
	mux.HandleFunc("/healthz", probe(s.serveHealth))
}

func probe(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if answer.ReadOnly(w, r) {
			h(w, r)
		}
	}
}

// working says so, with the generation that is served unless it is 0.
func working(w http.ResponseWriter, generation uint64) {
	w.Header().Set("Content-Type", "application/json")
	if generation == 0 {
		fmt.Fprintln(w, `{"status":"ok"}`)
		return
	}
	fmt.Fprintf(w, `{"status":"ok","generation":%d}`+"\n", generation)
}

func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	ix := s.published.Index()
	if ix == nil {
		answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNoIndex)
		return
	}
	working(w, ix.Generation)
}

// readyTimeout is how long the store has to show what is published.
const readyTimeout = 5 * time.Second

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	ix := s.published.Index()
	if ix == nil {
		answer.Fail(w, http.StatusServiceUnavailable, edge.ErrNoIndex)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if _, err := s.objects.Stat(ctx, layout.IndexKey); err != nil {
		answer.Fail(w, http.StatusServiceUnavailable, "What is published cannot be read")
		return
	}
	working(w, ix.Generation)
}
