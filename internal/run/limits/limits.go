// Package limits bounds what clients of an HTTP server can hold up: every request and every answer has a deadline,
// and connections have a limit. No limit counts by address: a proxy, or a carrier's network, is one address.
package limits

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"time"
)

// What a client gets, whatever it asks for.
const (
	// MaxHeader bounds the request line with all headers; a longer one is answered with 431.
	MaxHeader = 64 << 10
	// slack is what net/http reads beyond its own limit: 4 KiB, and its buffer on a connection that is used again.
	slack = 8 << 10

	headerTimeout = 10 * time.Second // for a request's headers, and for a TLS handshake
	idleTimeout   = 2 * time.Minute  // between two requests

	// A client has to take, or send, step bytes in every stall. One that does not is cut off, and can resume with
	// Range. A short answer has one stall.
	step  = 128 << 10
	stall = 30 * time.Second
)

// HTTP returns an http.Server for a handler. It speaks HTTP/1.1 only: an HTTP/2 connection has many streams, which
// would need limits of their own, and one device asks one thing at a time.
func HTTP(h http.Handler, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           pace(h),
		Protocols:         &protocols,
		MaxHeaderBytes:    MaxHeader - slack,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      stall, // of what net/http answers by itself
		IdleTimeout:       idleTimeout,
		ConnContext:       remember,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

type connKey struct{}

func remember(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(*tls.Conn); ok {
		c = over.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// Conn returns the TCP connection of a request to a server made by HTTP; nil if there is none.
func Conn(ctx context.Context) *net.TCPConn {
	switch c := ctx.Value(connKey{}).(type) {
	case *conn:
		return c.TCPConn
	case *net.TCPConn:
		return c
	}
	return nil
}

// pace gives every answer of a handler, and every body sent to it, deadlines that move while there is progress.
func pace(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(*conn)
		c.answers(true)
		defer c.answers(false)
		control := http.NewResponseController(w)
		if r.ContentLength == 0 {
			// The deadline for the request would end a long answer.
			_ = control.SetReadDeadline(time.Time{})
		} else {
			r = r.WithContext(r.Context()) // net/http has to find its own body in its request: it tells by the type what to do
			r.Body = &reader{ReadCloser: r.Body, meter: meter{set: control.SetReadDeadline, conn: c}}
		}
		h.ServeHTTP(&writer{ResponseWriter: w, control: control, meter: meter{set: control.SetWriteDeadline, conn: c}}, r)
	})
}

// meter counts a client's progress. Only time spent waiting for the client counts.
type meter struct {
	set   func(time.Time) error // the deadline; only tests have connections that have none
	conn  *conn
	bytes int64         // of this step
	spent time.Duration // of this stall
	began time.Time
}

// rest is how many bytes are left of this step.
func (m *meter) rest() int64 { return step - m.bytes }

func (m *meter) begin() {
	m.began = time.Now()
	_ = m.set(m.began.Add(stall - m.spent))
}

func (m *meter) end(n int64) {
	m.bytes += n
	m.spent += time.Since(m.began)
	if m.bytes >= step {
		m.bytes, m.spent = 0, 0
	}
	if n > 0 {
		m.conn.progress()
	}
}

type reader struct {
	io.ReadCloser
	meter
}

func (r *reader) Read(p []byte) (int, error) {
	r.begin()
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.rest())])
	r.end(int64(n))
	return n, err
}

type writer struct {
	http.ResponseWriter
	meter
	control *http.ResponseController
}

func (w *writer) WriteHeader(status int) {
	w.begin()
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (written int, err error) {
	for {
		part := p[written:min(int64(len(p)), int64(written)+w.rest())]
		w.begin()
		n, err := w.ResponseWriter.Write(part)
		w.end(int64(n))
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// ReadFrom keeps the way to sendfile open, which takes an *os.File, or an *io.LimitedReader of one.
func (w *writer) ReadFrom(src io.Reader) (written int64, err error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	for limited.N > 0 {
		part := &io.LimitedReader{R: limited.R, N: min(limited.N, w.rest())}
		asked := part.N
		w.begin()
		n, err := io.Copy(w.ResponseWriter, part)
		w.end(n)
		limited.N -= n
		if written += n; err != nil || n < asked {
			return written, err
		}
	}
	return written, nil
}

func (w *writer) FlushError() error {
	w.begin()
	err := w.control.Flush()
	w.end(0)
	return err
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
