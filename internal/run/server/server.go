// Package server answers devices over HTTP: /package from the published index, /binaries/ from the
// object store. It is the whole way of a request in one process, without a CDN.
package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/answer"
	"github.com/precast-ota/precast/internal/trust/issuer"
)

// Server answers devices. Make one with New.
type Server struct {
	objects   builder.Objects
	composer  *builder.Composer
	published *Published
	metrics   *Metrics
	log       *slog.Logger

	statements *issuer.Issuer // nil: nothing is signed here
	apart      bool           // see MetricsApart
	access     *slog.Logger   // nil: requests are not logged
}

// New makes a server of what is published in objects.
func New(objects builder.Objects, published *Published, metrics *Metrics, log *slog.Logger) *Server {
	return &Server{
		objects: objects,
		composer: builder.NewMendingComposer(objects,
			builder.PieceMaker{Objects: objects, Log: log, Observer: metrics}, builder.Clock{}),
		published: published,
		metrics:   metrics,
		log:       log,
	}
}

// Handler returns the routes for devices and of Watch.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/package", s.counted("package", s.servePackage))
	mux.HandleFunc("/binaries/", s.counted("binary", s.serveBinary))
	mux.HandleFunc("/keyring", s.counted("keyring", s.serveKeyring))
	mux.HandleFunc("/keyring.d/", s.counted("keyring", s.serveKeyring))
	s.probes(mux)
	if !s.apart {
		mux.Handle("/metrics", s.metrics.handler())
	}
	mux.HandleFunc("/", s.counted("other", func(w http.ResponseWriter, r *http.Request) {
		answer.Fail(w, http.StatusNotFound, "Not found: devices ask for /package?cpuArch=...")
	}))
	// The mux answers a path such as /binaries/../x with a redirect to the clean one; a device that
	// sends one is broken or hostile, and is told so.
	unclean := s.counted("other", func(w http.ResponseWriter, r *http.Request) {
		answer.Fail(w, http.StatusBadRequest, "Path is not clean")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "//") || strings.Contains(r.URL.Path, "/.") {
			unclean(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) servePackage(w http.ResponseWriter, r *http.Request) {
	if !answer.ReadOnly(w, r) {
		return
	}
	held := strings.Join(r.Header.Values("If-None-Match"), ",")
	table := s.published.Table()
	d := table.Decide(r.URL.RawQuery, held)
	s.noteSelection(w, table.Index, r.URL.RawQuery)
	if d.Status != edge.StatusOK {
		answer.Write(w, d.Response())
		return
	}
	if d.Selection.Payload == edge.Statement {
		s.serveStatement(w, r, d)
		return
	}
	s.serveAnswer(w, r, d)
}

// serveAnswer sends the bundle or manifest of a decision, prebuilt or else composed. Without copies nothing is prebuilt:
// what is still there from before is not looked at.
func (s *Server) serveAnswer(w http.ResponseWriter, r *http.Request, d edge.Decision) {
	kind, key := d.Object()
	s.serveObject(w, r, object{
		kind: kind, key: key, etag: layout.ETag(key), vary: true, unavailable: edge.ErrNotAvailable,
		open: func(ctx context.Context) (content, error) {
			if d.Set.Index.Params.Copies() {
				body, err := s.stored(ctx, key)
				if !errors.Is(err, builder.ErrNotExist) {
					return content{body: body, source: "prebuilt"}, err
				}
			}
			composed, err := s.composer.Compose(ctx, kind, d.Set, d.Mask)
			return content{body: composed, source: "composed"}, err
		},
	})
}

// stored opens an object for reading anywhere. A driver whose bodies cannot seek is read by range.
func (s *Server) stored(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	body, info, err := s.objects.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	if seekable, ok := body.(io.ReadSeekCloser); ok {
		return seekable, nil
	}
	return &rangeReader{ctx: ctx, objects: s.objects, key: key, size: info.Size, body: body}, nil
}

func (s *Server) serveBinary(w http.ResponseWriter, r *http.Request) {
	if !answer.ReadOnly(w, r) {
		return
	}
	key := strings.TrimPrefix(r.URL.Path, "/")
	if kind, err := layout.KindOf(key); err != nil || kind != layout.Binary {
		answer.Fail(w, http.StatusNotFound, "No such binary")
		return
	}
	s.serveObject(w, r, object{
		kind: layout.Binary, key: key,
		notFound: "No such binary", unavailable: "The binary is not available right now",
		open: func(ctx context.Context) (content, error) {
			body, err := s.stored(ctx, key)
			sum, _, _ := strings.Cut(strings.TrimPrefix(key, layout.BinaryPrefix), "/")
			return content{body: body, etag: sum}, err
		},
	})
}
