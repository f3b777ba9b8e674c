package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Limits bound what a source outside of this pipeline's own store may keep its reader waiting. Zero means the default.
type Limits struct {
	// Open is how long it may take to connect and to answer, until the body can be read; default 30 s.
	Open time.Duration
	// While the reader waits for Window, at least Least bytes have to come; default 30 s and 300 KiB, which is
	// 10 KiB a second. The time that the reader itself takes does not count.
	Window time.Duration
	Least  int64
}

// ErrSlow: the source kept its reader waiting for longer than the limits.
var ErrSlow = errors.New("the source is too slow")

func (l Limits) orDefaults() Limits {
	if l.Open <= 0 {
		l.Open = 30 * time.Second
	}
	if l.Window <= 0 {
		l.Window = 30 * time.Second
	}
	if l.Least <= 0 {
		l.Least = 300 << 10
	}
	return l
}

// within opens a source within the limits, and holds what is read of it to them.
func (l Limits) within(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	l = l.orDefaults()
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(l.Open, func() { cancel(fmt.Errorf("%w: it has not answered for %s", ErrSlow, l.Open)) })
	body, err := open(ctx)
	if !timer.Stop() && err == nil { // it came just when the time was up: the body is dead
		body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		err = causeOf(ctx, err)
		cancel(nil)
		return nil, err
	}
	return &paced{body: body, ctx: ctx, cancel: cancel, limits: l, left: l.Window}, nil
}

// causeOf returns why ctx was cancelled for being slow, or else the error itself.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrSlow) {
		return cause
	}
	return err
}

// paced is a body that has to come at the least rate.
type paced struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	limits Limits

	got  int64         // since the window began
	left time.Duration // of the window, of waiting
}

// Read implements io.Reader.
func (p *paced) Read(b []byte) (int, error) {
	timer := time.AfterFunc(p.left, func() {
		p.cancel(fmt.Errorf("%w: it sent less than %d bytes in %s", ErrSlow, p.limits.Least, p.limits.Window))
	})
	start := time.Now()
	n, err := p.body.Read(b)
	timer.Stop()
	p.left -= time.Since(start)
	if p.got += int64(n); p.got >= p.limits.Least {
		p.got, p.left = 0, p.limits.Window
	}
	if err != nil && err != io.EOF {
		err = causeOf(p.ctx, err)
	}
	return n, err
}

// Close implements io.Closer.
func (p *paced) Close() error {
	p.cancel(nil)
	return p.body.Close()
}
