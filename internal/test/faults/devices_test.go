package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/operate/inspect"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/test/reference"
)

// errBrokenOff: a device did not get all that was announced. It knows, and asks again.
var errBrokenOff = errors.New("the download broke off")

// response is what a device was sent.
type response struct {
	status int
	header http.Header
	body   []byte
}

// front answers devices.
type front interface {
	ask(ctx context.Context, query, held string) (response, error)
}

// inProcess asks a handler.
type inProcess struct{ http.Handler }

func (f inProcess) ask(ctx context.Context, query, held string) (response, error) {
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/package?"+query, nil)
	if held != "" {
		req.Header.Set("If-None-Match", held)
	}
	rec := httptest.NewRecorder()
	f.ServeHTTP(rec, req)
	r := response{rec.Code, rec.Header(), rec.Body.Bytes()}
	if n, err := strconv.Atoi(r.header.Get("Content-Length")); err == nil && r.status == http.StatusOK && n != len(r.body) {
		return r, errBrokenOff // net/http closes such a connection
	}
	return r, ctx.Err()
}

// over asks a server at a URL, which may change as it is started again.
type over struct {
	url    func() string
	client *http.Client
}

func (f over) ask(ctx context.Context, query, held string) (response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url()+"/package?"+query, nil)
	if err != nil {
		return response{}, err
	}
	if held != "" {
		req.Header.Set("If-None-Match", held)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return response{}, fmt.Errorf("%w: %w", errBrokenOff, err)
	}
	return response{resp.StatusCode, resp.Header, body}, nil
}

// serve is a server of what is published, which looks for a newer index until ctx is done.
func (w *world) serve(ctx context.Context, objects builder.Objects, st *pipeline.Pipeline) front {
	p := server.NewPublished(objects, w.opt.Log)
	unsubscribe := st.Subscribe(func(ev pipeline.Event) {
		if ev.Published != nil {
			p.Poke()
		}
	})
	go func() {
		defer unsubscribe()
		p.Run(ctx, 5*time.Second)
	}()
	return inProcess{server.New(objects, p, server.NewMetrics(), w.opt.Log).Handler()}
}

// fresh is a server that has just read what is published.
func (w *world) fresh(objects builder.Objects) front {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	p := server.NewPublished(objects, log)
	must(w.t, p.Refresh(w.t.Context()))
	return inProcess{server.New(objects, p, server.NewMetrics(), log).Handler()}
}

// selections are what devices ask, as parameters in their order.
func selections() [][][2]string {
	var all [][][2]string
	for _, os := range []string{"", "beta"} {
		for _, x := range []string{"", "prod", "beta"} {
			for _, y := range []string{"", "prod"} {
				params := [][2]string{{"cpuArch", "a"}}
				for _, p := range [][2]string{{"os", os}, {"attrX", x}, {"attrY", y}} {
					if p[1] != "" {
						params = append(params, p)
					}
				}
				all = append(all, params)
			}
		}
	}
	all = append(all, [][2]string{{"cpuArch", "a"}, {"payloadType", "metadataOnly"}}, [][2]string{{"cpuArch", "none"}})
	return all
}

// device is one device after another, each of which asks some times and holds what it was brought.
func (w *world) device(ctx context.Context, f front, r *rand.Rand, every time.Duration) {
	all := selections()
	for ctx.Err() == nil {
		params := all[r.IntN(len(all))]
		held := make(map[string]bool)
		for range 1 + r.IntN(3) {
			brought := w.poll(ctx, f, params, held)
			for _, digest := range brought {
				if r.IntN(4) > 0 {
					held[digest] = true
				}
			}
			pause(ctx, every)
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// everybody asks every selection, holding nothing.
func (w *world) everybody(f front) {
	w.t.Helper()
	for _, params := range selections() {
		w.poll(w.t.Context(), f, params, nil)
	}
	w.judge()
}

// judge fails if a device got a wrong answer.
func (w *world) judge() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.problems); n > 0 {
		w.t.Fatalf("%d answers were wrong:\n%s", n, strings.Join(w.problems[:min(5, n)], "\n"))
	}
}

func (w *world) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// poll asks once, compares the answer with every catalog that can be live, and returns the digests of what it
// brought.
func (w *world) poll(ctx context.Context, f front, params [][2]string, held map[string]bool) []string {
	w.mu.Lock()
	floor := w.floor
	w.mu.Unlock()
	faulty := w.faulty.Load()
	query := url.Values{}
	for _, p := range params {
		query.Add(p[0], p[1])
	}
	resp, err := f.ask(ctx, query.Encode(), strings.Join(slices.Sorted(maps.Keys(held)), ","))
	faulty = faulty || w.faulty.Load()
	if ctx.Err() != nil {
		return nil
	}
	asked := fmt.Sprintf("%s holding %d", query.Encode(), len(held))
	if err != nil {
		if !faulty {
			w.problem("%s: %v, without a fault", asked, err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.broken++
		return nil
	}
	w.mu.Lock()
	w.answers[resp.status]++
	w.mu.Unlock()
	if resp.status == http.StatusServiceUnavailable {
		if resp.header.Get("Retry-After") == "" {
			w.problem("%s: 503 without Retry-After", asked)
		}
		if !faulty {
			w.problem("%s: 503 without a fault: %s", asked, resp.body)
		}
		return nil
	}
	files, digests, err := contents(ctx, resp)
	if err != nil {
		w.problem("%s: %v", asked, err)
		return nil
	}
	w.follows(asked, resp.status, files, floor, params, held)
	return digests
}

// contents are the files of an answer and their digests.
func contents(ctx context.Context, resp response) (files, digests []string, err error) {
	if resp.status != http.StatusOK {
		return nil, nil, nil
	}
	var m manifest.Manifest
	if resp.header.Get("Content-Type") == "application/json" {
		if m, err = manifest.Decode(bytes.NewReader(resp.body)); err != nil {
			return nil, nil, err
		}
	} else {
		rep, err := inspect.Bundle(context.WithoutCancel(ctx), bytes.NewReader(resp.body))
		if err != nil {
			return nil, nil, err
		}
		if len(rep.Problems) > 0 {
			return nil, nil, fmt.Errorf("unsound bundle: %s", strings.Join(rep.Problems, "; "))
		}
		m = rep.Manifest
	}
	for name, e := range m.Files() {
		if e.StatusCode == manifest.StatusIncluded {
			files, digests = append(files, name), append(digests, e.SHA256)
		}
	}
	slices.Sort(files)
	return files, digests, nil
}

// follows notes a problem unless an answer follows from one of the states since floor, which it then raises:
// a server does not go back.
func (w *world) follows(asked string, status int, files []string, floor int, params [][2]string, held map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, items := range w.states[floor:] {
		if s, want := reference.Answer(items, params, held); s == status && slices.Equal(files, want) {
			w.floor = max(w.floor, floor+i)
			return
		}
	}
	w.problems = append(w.problems, fmt.Sprintf("%s: %d %v follows from none of the catalogs %d to %d", asked, status, files, floor, len(w.states)-1))
}
