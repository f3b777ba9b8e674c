package rig

import (
	"context"
	"time"

	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/cdn"
)

// Watch invalidates as the builder's function does after a publish, for objects that another process builds:
// it looks every interval, until ctx is done, whether the index is still the one of the rig's start.
func (r *Rig) Watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last := r.index
	var again time.Time // of the second invalidation, see cdn.Settled
	for {
		if info, err := r.opt.Objects.Stat(ctx, layout.IndexKey); err == nil && info.ETag != last {
			r.Invalidate(cdn.Paths)
			last, again = info.ETag, r.Now().Add(cdn.Settled)
		}
		if !again.IsZero() && !r.Now().Before(again) {
			r.Invalidate(cdn.Paths)
			again = time.Time{}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
