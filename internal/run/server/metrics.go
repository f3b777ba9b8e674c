package server

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/answer"
)

// Metrics are what /metrics shows. It observes a builder too.
type Metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	answers    *prometheus.CounterVec
	objects    *prometheus.CounterVec
	bytes      prometheus.Counter
	mended     prometheus.Counter
	plans      prometheus.Counter
	rejected   prometheus.Counter
	heldBack   prometheus.Gauge
	generation prometheus.Gauge
}

var _ builder.Observer = (*Metrics)(nil)

// NewMetrics makes metrics in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "precast_requests_total", Help: "Requests answered, by route and status code."}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "precast_request_seconds", Help: "Time to answer, the body included, by route.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}, []string{"route"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "precast_answers_total", Help: "Bundles and manifests sent, prebuilt or composed on request."}, []string{"source"}),
		objects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "precast_build_objects_total", Help: "Objects of builds, written or found to exist."}, []string{"outcome"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "precast_build_bytes_total", Help: "Bytes of objects written by builds."}),
		mended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "precast_mended_pieces_total", Help: "Pieces that were missing or damaged and have been made again."}),
		plans: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "precast_plans_total", Help: "Plans made."}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "precast_rejected_items_total", Help: "Times that a plan had to leave an item out."}),
		heldBack: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "precast_held_back", Help: "1 if the last plan would drop most of what is published, and was not published."}),
		generation: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "precast_generation", Help: "Generation last published by this process."}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.answers, m.objects, m.bytes, m.mended, m.plans, m.rejected, m.heldBack, m.generation,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Depth registers the queue's depth, asked for at every scrape.
func (m *Metrics) Depth(depth func(context.Context) (waiting, inFlight, dead int, err error)) {
	gauge := func(state string, pick func(w, f, d int) int) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "precast_jobs", Help: "Jobs in the queue, by state.",
			ConstLabels: prometheus.Labels{"state": state}}, func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			w, f, d, err := depth(ctx)
			if err != nil {
				return -1
			}
			return float64(pick(w, f, d))
		})
	}
	m.registry.MustRegister(
		gauge("waiting", func(w, _, _ int) int { return w }),
		gauge("in_flight", func(_, f, _ int) int { return f }),
		gauge("dead", func(_, _, d int) int { return d }))
}

// Disk registers how much of the disk is free, and whether builds are paused for want of it, asked for at every scrape.
func (m *Metrics) Disk(free func() (free, total int64, err error), paused func() error) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "precast_disk_free_bytes", Help: "Bytes free on the disk of the data folder."}, func() float64 {
			n, _, err := free()
			if err != nil {
				return -1
			}
			return float64(n)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "precast_builds_paused", Help: "1 while builds are paused because too little of the disk is free."}, func() float64 {
			if paused() != nil {
				return 1
			}
			return 0
		}))
}

func (m *Metrics) handler() http.Handler {
	metrics := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer.ReadOnly(w, r) {
			metrics.ServeHTTP(w, r)
		}
	})
}

func (m *Metrics) answered(source string) { m.answers.WithLabelValues(source).Inc() }

// Planned implements builder.Observer.
func (m *Metrics) Planned(_ context.Context, r builder.Report) {
	m.plans.Inc()
	m.heldBack.Set(0)
	if r.HeldBack != "" {
		m.heldBack.Set(1)
	}
}

// Stored implements builder.Observer.
func (m *Metrics) Stored(_ context.Context, s builder.Stored) {
	if s.Existed {
		m.objects.WithLabelValues("existed").Inc()
		return
	}
	m.objects.WithLabelValues("written").Inc()
	m.bytes.Add(float64(s.Size))
	if s.Mended {
		m.mended.Inc()
	}
}

// Rejected implements builder.Observer.
func (m *Metrics) Rejected(context.Context, builder.Rejection) { m.rejected.Inc() }

// Published implements builder.Observer.
func (m *Metrics) Published(_ context.Context, p builder.Published) {
	m.generation.Set(float64(p.Generation))
}

// counted counts and times what a handler answers.
func (s *Server) counted(route string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		h(rec, r)
		took := time.Since(start)
		s.metrics.requests.WithLabelValues(route, strconv.Itoa(rec.status)).Inc()
		s.metrics.seconds.WithLabelValues(route).Observe(took.Seconds())
		s.log.DebugContext(r.Context(), "answered", "method", r.Method, "path", r.URL.Path, "status", rec.status, "took", took)
		s.logAccess(r.Context(), route, r.Method, rec, took)
	}
}

// recorder remembers what was answered. Its ReadFrom keeps the way to sendfile open.
type recorder struct {
	http.ResponseWriter
	status            int
	bytes             int64
	source, selection string // for the access log
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
