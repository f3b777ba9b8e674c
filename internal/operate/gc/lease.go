package gc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// lease is a fence that this sweep has put up.
type lease struct {
	fence builder.Fence
	etag  string
}

// left is how long objects may still be removed.
func (l *lease) left(opt Options) time.Duration {
	return l.fence.Until.Add(-opt.Margin).Sub(opt.Clock.Now())
}

// take puts the fence up. It fails with ErrBusy while another sweep has.
func (c *Collector) take(ctx context.Context) (*lease, error) {
	was, etag, err := builder.ReadFence(ctx, c.Objects)
	if err != nil {
		return nil, err
	}
	now := c.opt.Clock.Now()
	// Its clock may be behind ours.
	if was.Running && now.Before(was.Until.Add(c.opt.Margin)) {
		return nil, fmt.Errorf("%w: number %d, until %s at most", ErrBusy, was.Epoch, was.Until.UTC().Format(time.RFC3339))
	}
	l := &lease{fence: builder.Fence{Epoch: was.Epoch + 1, Running: true, Until: now.Add(c.opt.Lease).UTC(), By: c.opt.ID}}
	if l.etag, err = c.write(ctx, l.fence, etag); err != nil {
		return nil, err
	}
	return l, nil
}

// give takes the fence down, if it is still ours.
func (c *Collector) give(ctx context.Context, l *lease) error {
	// Also when the sweep is being interrupted: builds wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opt.Lease)
	defer cancel()
	_, err := c.write(ctx, builder.Fence{Epoch: l.fence.Epoch}, l.etag)
	return err
}

// write replaces the fence that has this ETag, or that is not there yet.
func (c *Collector) write(ctx context.Context, f builder.Fence, etag string) (string, error) {
	data, err := f.Encode()
	if err != nil {
		return "", err
	}
	info, err := c.Objects.Put(ctx, layout.SweepKey, builder.BytesBody(data), builder.PutOptions{IfMatch: etag, IfAbsent: etag == ""})
	if err == nil {
		return info.ETag, nil
	}
	// A driver may try again what had been done, and be refused: then it is ours that is there.
	now, etag, readErr := builder.ReadFence(ctx, c.Objects)
	if readErr == nil && now.Epoch == f.Epoch && now.Running == f.Running && now.By == f.By && now.Until.Equal(f.Until) {
		return etag, nil
	}
	if errors.Is(err, builder.ErrPrecondition) {
		return "", ErrBusy
	}
	return "", err
}
