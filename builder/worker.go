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
	// Visibility is how long a job is hidden from other workers; it is renewed while the job is being done.
	Visibility time.Duration
	// Wait is how long to wait for a job at a time.
	Wait time.Duration
	// Concurrency is how many jobs are done at a time.
	Concurrency int
	// Outage is told when a job has failed because something fails that every job needs; nil: nobody is.
	Outage func(error)
}

// Run works until ctx is done; jobs in hand are then given back. It returns nil: what goes wrong with
// a job is logged, and the job is tried again.
func (w *Worker) Run(ctx context.Context) error {
	var g errgroup.Group
	for range max(1, w.Concurrency) {
		g.Go(func() error {
			outages := 0 // in a row
			for ctx.Err() == nil {
				if !w.once(ctx) {
					outages = 0
					continue
				}
				outages++
				pause(ctx, Backoff(min(outages, maxOutages)))
			}
			return nil
		})
	}
	return g.Wait()
}

// maxOutages bounds how long a worker rests from an outage: it goes on 8 s after the end at the latest.
const maxOutages = 4

// once waits for a job and does it. It tells whether that failed for reasons that the next one will have, too.
func (w *Worker) once(ctx context.Context) (outage bool) {
	log := w.Builder.opt.Log
	messages, err := w.Builder.Queue.Receive(ctx, 1, w.Visibility, w.Wait)
	if err != nil {
		if ctx.Err() == nil {
			log.ErrorContext(ctx, "receive job", "error", err)
			pause(ctx, time.Second)
		}
		return false
	}
	for _, m := range messages {
		outage = w.do(ctx, m) || outage
	}
	return outage
}

// do handles one message, keeping it hidden meanwhile.
func (w *Worker) do(ctx context.Context, m Message) (outage bool) {
	b := w.Builder
	jobCtx, cancel := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		tick := time.NewTicker(w.Visibility / 3)
		defer tick.Stop()
		for {
			select {
			case <-jobCtx.Done():
				return
			case <-tick.C:
				if err := b.Queue.Extend(jobCtx, m.Receipt, w.Visibility); err != nil && jobCtx.Err() == nil {
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
		outage = b.outage(ctx, err)
		b.opt.Log.ErrorContext(ctx, "job failed", "job", m.ID, "receives", m.Receives, "outage", outage, "error", err)
		if outage && w.Outage != nil {
			w.Outage(err)
		}
		if outage && m.Receives >= b.opt.Attempts-unseen && w.renew(endCtx, m) {
			return outage
		}
		if err := b.Queue.Extend(endCtx, m.Receipt, Backoff(m.Receives)); err != nil {
			b.opt.Log.WarnContext(ctx, "delay failed job", "job", m.ID, "error", err)
		}
	}
	return outage
}

// unseen is how many of a job's receives are left to those of which nobody knows: whose answer was lost, or
// whose worker has died.
const unseen = 2

// renew puts a job into the queue again as a new message, before it is received once more and becomes a dead
// letter. The old message goes after the new one is there: a crash in between costs a job done twice.
func (w *Worker) renew(ctx context.Context, m Message) bool {
	log := w.Builder.opt.Log
	if err := w.Builder.Queue.Send(ctx, m.Body); err != nil {
		log.WarnContext(ctx, "renew job", "job", m.ID, "error", err)
		return false
	}
	if err := w.Builder.Queue.Delete(ctx, m.Receipt); err != nil {
		log.WarnContext(ctx, "delete renewed job", "job", m.ID, "error", err)
	}
	return true
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
