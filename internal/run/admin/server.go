package admin

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// maxRequest bounds a request: a catalog of 100,000 items is about 30 MB.
const maxRequest = 256 << 20

// Statuses of errors where nothing went wrong, and the answer is no.
const (
	statusRefused = http.StatusUnprocessableEntity // history.ErrRefused, and so release.Refusal
	statusRace    = http.StatusPreconditionFailed  // history.ErrRace
	statusMoved   = http.StatusConflict            // builder.ErrPrecondition
)

// line is one line of the answer to a build: an event, or last of all the outcome.
type line struct {
	pipeline.Event
	Done    bool                   `json:"done,omitempty"`
	Error   string                 `json:"error,omitempty"`
	Pinned  *pipeline.PinnedError  `json:"pinned,omitempty"`  // instead of Error
	LeftOut *pipeline.LeftOutError `json:"leftOut,omitempty"` // alike
	Paused  string                 `json:"paused,omitempty"`  // alike: builder.ErrPaused
}

// Handler serves the admin API of a pipeline.
func Handler(p *pipeline.Pipeline, token string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/catalog", tells(p.Snapshot))
	mux.Handle("GET /v1/head", tells(p.Head))
	mux.HandleFunc("GET /v1/log", func(w http.ResponseWriter, r *http.Request) { writeLog(w, r, p) })
	mux.Handle("GET /v1/status", tells(p.Status))
	mux.Handle("POST /v1/redrive", tells(p.Redrive))
	mux.Handle("POST /v1/preview", does(p.Preview))
	mux.Handle("POST /v1/unpin", does(func(ctx context.Context, by catalog.Author) (history.Pinned, error) {
		by.Actor = Actor(ctx)
		return p.Unpin(ctx, by)
	}))
	mux.Handle("POST /v1/rollback", does(func(ctx context.Context, r history.Request) (pipeline.RolledBack, error) {
		r.By.Actor = Actor(ctx)
		return p.Rollback(ctx, r)
	}))
	mux.Handle("POST /v1/pin", does(func(ctx context.Context, by catalog.Author) (history.Pinned, error) {
		by.Actor = Actor(ctx)
		return p.Pin(ctx, by)
	}))
	mux.Handle("POST /v1/changes", does(func(ctx context.Context, edit catalog.Edit) (struct{}, error) {
		edit.By.Actor = Actor(ctx)
		return struct{}{}, p.Apply(ctx, edit)
	}))
	mux.HandleFunc("POST /v1/build", func(w http.ResponseWriter, r *http.Request) {
		var opt builder.PlanOptions
		if read(w, r, &opt) {
			build(w, r.Context(), p, opt)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
			http.Error(w, "wrong token", http.StatusUnauthorized)
			return
		}
		if v, _ := strconv.ParseUint(r.Header.Get(versionHeader), 10, 64); v != catalog.Version {
			http.Error(w, mismatch(max(v, 1), catalog.Version).Error(), http.StatusConflict)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		mux.ServeHTTP(w, r)
	})
}

type actorKey struct{}

// WithActor notes who sends a request, as the token proves that it came with.
func WithActor(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, actorKey{}, name)
}

// Actor returns who sends a request; empty if its token is nobody's own, such as that of the data folder.
func Actor(ctx context.Context) string {
	name, _ := ctx.Value(actorKey{}).(string)
	return name
}

// writeLog streams the catalog's log, one entry a line. The last line is an entry without a number: an answer that
// breaks off has none.
func writeLog(w http.ResponseWriter, r *http.Request, p *pipeline.Pipeline) {
	after, err := strconv.ParseUint(r.FormValue("after"), 10, 64)
	if err != nil {
		http.Error(w, "after is not a number", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, begun := json.NewEncoder(w), false
	err = p.Log(r.Context(), after, func(e catalog.LogEntry) error { begun = true; return enc.Encode(e) })
	switch {
	case err == nil:
		_ = enc.Encode(catalog.LogEntry{})
	case !begun:
		answer(w, nil, err)
	}
}

// build streams a build's events, one JSON object a line.
func build(w http.ResponseWriter, ctx context.Context, p *pipeline.Pipeline, opt builder.PlanOptions) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	err := p.Follow(ctx, opt, func(ev pipeline.Event) {
		_ = enc.Encode(line{Event: ev}) // a client that has gone ends ctx
		_ = flush.Flush()
	})
	last := line{Done: true}
	switch {
	case errors.As(err, &last.Pinned), errors.As(err, &last.LeftOut):
	case errors.Is(err, builder.ErrPaused):
		last.Paused = err.Error()
	case err != nil:
		last.Error = err.Error()
	}
	_ = enc.Encode(last)
}

// does answers a request with what f makes of its body, which is JSON.
func does[In, Out any](f func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if read(w, r, &in) {
			out, err := f(r.Context(), in)
			answer(w, out, err)
		}
	}
}

// tells answers a request that has no body.
func tells[Out any](f func(context.Context) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := f(r.Context())
		answer(w, out, err)
	}
}

func read(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		status := http.StatusInternalServerError
		switch {
		case errors.Is(err, history.ErrRefused):
			status = statusRefused
		case errors.Is(err, history.ErrRace):
			status = statusRace
		case errors.Is(err, builder.ErrPrecondition):
			status = statusMoved
		}
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone, or everything is well
}
