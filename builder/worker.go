package builder

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Worker takes jobs from the queue and does them, for as long as it runs.
type Worker struct {
	Builder *Builder
	// Hide is how long a job is hidden from other workers; it is renewed while the job is being done.
	Hide time.Duration
	// Wait is how long to wait for a job at a time.
	Wait time.Duration
	// Concurrency is how many jobs are done at a time.
	Concurrency int
}

// Run works until ctx is done; jobs in hand are then given back. It returns nil: what goes wrong with
// a job is logged, and the job is tried again.
func (w *Worker) Run(ctx context.Context) error {
	var g errgroup.Group
	for range max(1, w.Concurrency) {
		g.Go(func() error {
			for ctx.Err() == nil {
				w.once(ctx)
			}
			return nil
		})
	}
	return g.Wait()
}

// once waits for a job and does it.
func (w *Worker) once(ctx context.Context) {
	log := w.Builder.opt.Log
	messages, err := w.Builder.Queue.Receive(ctx, 1, w.Hide, w.Wait)
	if err != nil {
		if ctx.Err() == nil {
			log.ErrorContext(ctx, "receive job", "error", err)
			pause(ctx, time.Second)
		}
		return
	}
	for _, m := range messages {
		w.do(ctx, m)
	}
}

// do handles one message, keeping it hidden meanwhile.
func (w *Worker) do(ctx context.Context, m Message) {
	b := w.Builder
	jobCtx, cancel := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		tick := time.NewTicker(w.Hide / 3)
		defer tick.Stop()
		for {
			select {
			case <-jobCtx.Done():
				return
			case <-tick.C:
				if err := b.Queue.Extend(jobCtx, m.Receipt, w.Hide); err != nil && jobCtx.Err() == nil {
					b.opt.Log.WarnContext(ctx, "keep job hidden", "job", m.ID, "error", err)
				}
			}
		}
	})
	err := b.Handle(jobCtx, m)
	cancel()
	renewing.Wait()

	// The job's outcome is recorded even while shutting down.
	endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	switch {
	case err == nil:
		if err := b.Queue.Delete(endCtx, m.Receipt); err != nil {
			b.opt.Log.ErrorContext(ctx, "delete finished job", "job", m.ID, "error", err)
		}
	case ctx.Err() != nil:
		_ = b.Queue.Extend(endCtx, m.Receipt, 0) // it becomes visible by itself otherwise, only later
	default:
		b.opt.Log.ErrorContext(ctx, "job failed", "job", m.ID, "receives", m.Receives, "error", err)
		if err := b.Queue.Extend(endCtx, m.Receipt, Backoff(m.Receives)); err != nil {
			b.opt.Log.WarnContext(ctx, "delay failed job", "job", m.ID, "error", err)
		}
	}
}

// Backoff is how long a job waits after its nth failed delivery: 1 s, 2 s, 4 s, at most 1 min.
func Backoff(receives int) time.Duration {
	return min(time.Second<<min(max(receives-1, 0), 6), time.Minute)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
