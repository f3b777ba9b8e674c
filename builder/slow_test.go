package builder_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/source"
)

// running runs a pipeline with two workers until the test ends.
func (w *world) running(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	p := pipeline.New(w.drivers, pipeline.Config{Builder: w.opt, Workers: 2, Window: time.Millisecond, Every: 50 * time.Millisecond})
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
		w.close()
	})
}

// becomes waits until this is published.
func (w *world) becomes(want ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for w.generation() == 0 || !slices.Equal(w.versions(), want) {
		if builder.Pause(ctx, 5*time.Millisecond) != nil {
			w.t.Fatalf("published %v, want %v", w.versions(), want)
		}
	}
}

func withHTTP(limits source.Limits) func(*pipeline.Drivers) {
	return func(d *pipeline.Drivers) {
		d.Sources = &source.Sources{Objects: d.Objects, HTTP: http.DefaultClient, Limits: limits}
	}
}

// Two sources keep both workers waiting, one before its answer and one within it. What is ready is published, more than
// once; the slow items stay at their previous releases, and follow by themselves.
func TestS5SlowSourcesHoldNobodyUp(t *testing.T) {
	goOn := make(chan struct{})
	const content = "the binary of the second release"
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/drips" {
			_, _ = io.WriteString(rw, content[:3])
			_ = http.NewResponseController(rw).Flush()
		}
		select {
		case <-goOn:
		case <-r.Context().Done():
			return
		}
		_, _ = io.WriteString(rw, map[string]string{"/drips": content[3:], "/silent": content}[r.URL.Path])
	}))
	defer server.Close()
	w := newWorld(t, t.TempDir(), builder.Options{Patience: 30 * time.Millisecond}, withHTTP(source.Limits{}))
	for _, app := range []string{"drips", "ready", "silent"} {
		w.put(app, "prod", "1", "the first "+app, "x")
	}
	w.running(t)
	w.becomes("drips/prod 1", "ready/prod 1", "silent/prod 1")

	w.apply(catalog.Put(remote("drips", "2", server.URL+"/drips", content)), catalog.Put(remote("silent", "2", server.URL+"/silent", content)))
	for n := 2; n < 5; n++ {
		w.put("ready", "prod", fmt.Sprint(n), fmt.Sprint("release ", n), "x")
		w.becomes("drips/prod 1", fmt.Sprint("ready/prod ", n), "silent/prod 1")
	}
	st, err := w.pipeline().Status(t.Context())
	must(t, err)
	if len(st.Rejected) != 2 || !strings.Contains(st.Rejected[0].Reason, "its source is slow") || st.Rejected[0].Retry.IsZero() {
		t.Errorf("the status says %+v", st.Rejected)
	}
	close(goOn)
	w.becomes("drips/prod 2", "ready/prod 4", "silent/prod 2")
}

// More slow sources than may be waited for: all of them are given up or waited for, and the ready item is published.
func TestS5ManySlowSources(t *testing.T) {
	goOn := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(goOn)
	w := newWorld(t, t.TempDir(), builder.Options{Patience: 10 * time.Millisecond}, withHTTP(source.Limits{}))
	var changes []catalog.Change
	for n := range 20 {
		app := fmt.Sprint("slow", n)
		changes = append(changes, catalog.Put(remote(app, "1", server.URL+"/"+app, app)))
	}
	w.apply(changes...)
	w.put("ready", "prod", "1", "ready", "x")
	w.running(t)
	w.becomes("ready/prod 1")
	w.put("ready", "prod", "2", "ready 2", "x")
	w.becomes("ready/prod 2")
}

// A source that stops half-way is given up by the least rate, and tried again by itself when its time has come.
func TestS5AFailedSourceIsTriedAgain(t *testing.T) {
	var sound atomic.Bool
	const content = "the binary"
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if sound.Load() {
			_, _ = io.WriteString(rw, content)
			return
		}
		_, _ = io.WriteString(rw, content[:2])
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	var now atomic.Int64
	opt := builder.Options{Attempts: 1, Clock: builder.Clock{Time: func() time.Time { return time.Unix(1e9+now.Load(), 0) }}}
	w := newWorld(t, t.TempDir(), opt, withHTTP(source.Limits{Window: 20 * time.Millisecond}))
	w.apply(catalog.Put(remote("a", "1", server.URL, content)))
	w.put("ready", "prod", "1", "ready", "x")
	w.running(t)
	w.becomes("ready/prod 1")
	st, err := w.pipeline().Status(t.Context())
	must(t, err)
	if len(st.Rejected) != 1 || !strings.Contains(st.Rejected[0].Reason, "the source is too slow: it sent less than") {
		t.Fatalf("the status says %+v", st.Rejected)
	}
	first := st.Rejected[0].Retry
	sound.Store(true)
	now.Add(int64(first.Sub(opt.Clock.Now()) / time.Second)) // its time
	w.becomes("a/prod 1", "ready/prod 1")
}
