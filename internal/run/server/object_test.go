package server_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/server"
)

// hangUp is a store whose reader goes away while an object is being opened.
type hangUp struct {
	builder.Objects
	goes   func()
	opened int // minus what was closed
}

type countedBody struct {
	io.ReadCloser
	opened *int
}

func (b countedBody) Close() error {
	*b.opened--
	return b.ReadCloser.Close()
}

func (h *hangUp) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	body, info, err := h.Objects.Get(ctx, key, off, n)
	if err == nil {
		h.opened++
		body = countedBody{body, &h.opened}
	}
	h.goes()
	return body, info, err
}

// A device that goes away while its answer is opened leaves no open file behind.
func TestOpenedObjectIsClosedWhenTheDeviceHasGone(t *testing.T) {
	s := newSite(t, builder.Options{}, sample(100))
	ctx, cancel := context.WithCancel(t.Context())
	h := &hangUp{Objects: s.store.Objects(), goes: cancel}
	handler := server.New(h, s.pub, server.NewMetrics(), slog.New(slog.DiscardHandler)).Handler()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/package?cpuArch=armv8", nil))
	if ctx.Err() == nil || h.opened != 0 || w.Body.Len() > 0 {
		t.Errorf("%v, %d bodies are open, %d bytes were sent", ctx.Err(), h.opened, w.Body.Len())
	}
}
