// Package trigger turns changes of the catalog into plan jobs, many changes into one.
package trigger

import (
	"context"
	"log/slog"
	"time"

	"github.com/precast-ota/precast/builder"
)

// ChangeLog is a catalog's numbered changes. It outlives the process that reads it.
type ChangeLog interface {
	// Wait blocks until there is a change after number after, or wait has passed, and returns the
	// number of the newest change (after itself if there is none).
	Wait(ctx context.Context, after uint64, wait time.Duration) (uint64, error)
	// Cursor returns the number up to which changes have been turned into jobs.
	Cursor(ctx context.Context) (uint64, error)
	// Advance records that number. Changes up to it may be forgotten.
	Advance(ctx context.Context, seq uint64) error
}

// Watcher asks for a plan whenever the catalog has changed.
type Watcher struct {
	Log    ChangeLog
	Ledger builder.Ledger
	Queue  builder.Queue
	// Window is how long to wait for more changes after the first: one plan serves all of them.
	Window time.Duration
	Logger *slog.Logger
}

// Run watches until ctx is done, and then returns nil. It asks for one plan at the beginning, which
// mends whatever was lost, and costs next to nothing if nothing was.
func (w *Watcher) Run(ctx context.Context) error {
	look := func(ctx context.Context) error {
		_, err := builder.RequestPlan(ctx, w.Ledger, w.Queue, builder.Request{})
		return err
	}
	for ctx.Err() == nil {
		err := look(ctx)
		if err == nil {
			look = w.once
		} else if ctx.Err() == nil { // on a full disk, what is published is served all the same
			w.Logger.ErrorContext(ctx, "watch catalog", "error", err)
			_ = builder.Pause(ctx, time.Second)
		}
	}
	return nil
}

func (w *Watcher) once(ctx context.Context) error {
	cursor, err := w.Log.Cursor(ctx)
	if err != nil {
		return err
	}
	newest, err := w.Log.Wait(ctx, cursor, time.Minute)
	if err != nil || newest == cursor {
		return err
	}
	_ = builder.Pause(ctx, w.Window)
	if newest, err = w.Log.Wait(ctx, cursor, 0); err != nil {
		return err
	}
	// Job first, cursor after: a crash between them costs a plan that finds nothing to do.
	if _, err := builder.RequestPlan(ctx, w.Ledger, w.Queue, builder.Request{}); err != nil {
		return err
	}
	return w.Log.Advance(ctx, newest)
}
