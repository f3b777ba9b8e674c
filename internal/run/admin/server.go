package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// maxRequest bounds a request: a catalog of 100,000 items is about 30 MB.
const maxRequest = 256 << 20

// Statuses of errors where nothing went wrong, and the answer is no.
const (
	statusRefused = http.StatusUnprocessableEntity // history.ErrRefused, and so release.Refusal
	statusRace    = http.StatusPreconditionFailed  // history.ErrRace
	statusMoved   = http.StatusConflict            // builder.ErrPrecondition
	statusAbsent  = http.StatusGone                // builder.ErrNotExist (404 is a request that the server does not know)
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

// api is the admin API of a pipeline.
type api struct {
	pipeline *pipeline.Pipeline
	tokens   func() Tokens
	log      *slog.Logger
}

// Handler serves the admin API of a pipeline to clients that have one of the tokens. It calls tokens at every request.
func Handler(p *pipeline.Pipeline, tokens func() Tokens, log *slog.Logger) http.Handler {
	a := &api{pipeline: p, tokens: tokens, log: log}
	mux := http.NewServeMux()
	for _, r := range a.routes() {
		mux.HandleFunc(r.pattern, func(w http.ResponseWriter, req *http.Request) {
			if !allowed(w, req, r.role) {
				return
			}
			if who := identity(req.Context()); who.Name != "" && r.role > Read {
				log.InfoContext(req.Context(), "admin request", "actor", who.Name, "method", req.Method, "path", req.URL.Path)
			}
			r.handle(w, req)
		})
	}
	return a.known(mux)
}

// OwnHandler serves the admin API of a pipeline to commands that read the server's token in the data folder.
func OwnHandler(p *pipeline.Pipeline, token string, log *slog.Logger) http.Handler {
	tokens := only(token, Identity{Role: Admin})
	return Handler(p, func() Tokens { return tokens }, log)
}

// route is one request of the admin API, and what a token needs for it.
type route struct {
	pattern string
	role    Role
	handle  http.HandlerFunc
}

// routes are all of them. docs/operations.md has the same table.
func (a *api) routes() []route {
	p := a.pipeline
	return []route{
		{"GET /v1/catalog", Read, tells(p.Snapshot)},
		{"GET /v1/head", Read, tells(p.Head)},
		{"GET /v1/log", Read, a.writeLog},
		{"GET /v1/status", Read, tells(p.Status)},
		{"GET /v1/list", Read, a.listObjects},
		{"GET /v1/objects/{key...}", Read, a.readObject},
		{"POST /v1/preview", Read, does(p.Preview)},
		{"POST /v1/changes", Release, does(a.edit)},
		{"POST /v1/rollback", Release, does(func(ctx context.Context, r history.Request) (pipeline.RolledBack, error) {
			r.By.Actor = identity(ctx).Name
			return p.Rollback(ctx, r)
		})},
		{"POST /v1/pin", Release, by(p.Pin)},
		{"POST /v1/unpin", Release, by(p.Unpin)},
		{"POST /v1/build", Release, a.build},                 // with verify: admin
		{"PUT /v1/objects/{key...}", Release, a.writeObject}, // other than binaries: admin
		{"POST /v1/redrive", Admin, tells(p.Redrive)},
		{"POST /v1/delete", Admin, does(a.deleteObjects)},
	}
}

// by is does for what somebody does to the pin.
func by(f func(context.Context, catalog.Author) (history.Pinned, error)) http.HandlerFunc {
	return does(func(ctx context.Context, who catalog.Author) (history.Pinned, error) {
		who.Actor = identity(ctx).Name
		return f(ctx, who)
	})
}

type identityKey struct{}

// known finds out who asks.
func (a *api) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		who, known := a.tokens().find(token)
		if !ok || !known {
			http.Error(w, "wrong token", http.StatusUnauthorized)
			return
		}
		if v, _ := strconv.ParseUint(r.Header.Get(versionHeader), 10, 64); v != catalog.Version {
			http.Error(w, mismatch(max(v, 1), catalog.Version).Error(), http.StatusUpgradeRequired)
			return
		}
		if r.Method != http.MethodPut { // an object has a limit of its own
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)))
	})
}

func identity(ctx context.Context) Identity {
	who, _ := ctx.Value(identityKey{}).(Identity)
	return who
}

// allowed tells whether the token of a request has a role, and answers the request if not.
func allowed(w http.ResponseWriter, r *http.Request, role Role) bool {
	who := identity(r.Context())
	if who.Role >= role {
		return true
	}
	http.Error(w, fmt.Sprintf("the token of %s has the role %s; this needs the role %s", who.Name, who.Role, role), http.StatusForbidden)
	return false
}

// edit makes an edit, by the name of the token, and reads it back: a change that is said to be made is in the log.
func (a *api) edit(ctx context.Context, edit catalog.Edit) (struct{}, error) {
	who := identity(ctx)
	edit.By.Actor = who.Name
	if who.Role < Admin {
		if err := a.knownFiles(ctx, edit); err != nil {
			return struct{}{}, err
		}
	}
	before, err := a.pipeline.Head(ctx)
	if err != nil {
		return struct{}{}, err
	}
	if err := a.pipeline.Apply(ctx, edit); err != nil || len(edit.Changes) == 0 {
		return struct{}{}, err
	}
	after, err := a.pipeline.Head(ctx)
	if err == nil && after == before {
		err = errors.New("the catalog's log does not show it")
	}
	if err != nil {
		return struct{}{}, fmt.Errorf("read the change back: %w", err)
	}
	return struct{}{}, nil
}

// knownFiles refuses an edit that names a file of this machine which the catalog does not name yet: it would be
// published, whatever secrets it holds.
func (a *api) knownFiles(ctx context.Context, edit catalog.Edit) error {
	var items []catalog.Item
	for _, c := range edit.Changes {
		if c.Item == nil || !isFile(c.Item.URL) {
			continue
		}
		if items == nil {
			var err error
			if items, err = a.pipeline.Snapshot(ctx); err != nil {
				return err
			}
		}
		if !slices.ContainsFunc(items, func(it catalog.Item) bool { return it.URL == c.Item.URL }) {
			return release.Refusal(fmt.Sprintf("%s names %s, a file of the server's machine, and the token of %s has the role %s: "+
				"send the file with precast catalog put, or use a token with the role admin", c.Key, strconv.Quote(c.Item.URL), identity(ctx).Name, identity(ctx).Role))
		}
	}
	return nil
}

func isFile(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "file"
}

// writeLog streams the catalog's log, one entry a line. The last line is an entry without a number: an answer that
// breaks off has none.
func (a *api) writeLog(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(r.FormValue("after"), 10, 64)
	if err != nil {
		http.Error(w, "after is not a number", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, begun := json.NewEncoder(w), false
	err = a.pipeline.Log(r.Context(), after, func(e catalog.LogEntry) error { begun = true; return enc.Encode(e) })
	switch {
	case err == nil:
		_ = enc.Encode(catalog.LogEntry{})
	case !begun:
		answer(w, nil, err)
	}
}

func (a *api) build(w http.ResponseWriter, r *http.Request) {
	var opt builder.PlanOptions
	if read(w, r, &opt) && (!opt.Verify || allowed(w, r, Admin)) {
		build(w, r.Context(), a.pipeline, opt)
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
		case errors.Is(err, builder.ErrNotExist):
			status = statusAbsent
		case errors.Is(err, builder.ErrPaused):
			status = http.StatusInsufficientStorage
		}
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone, or everything is well
}
