package builder

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Worker takes jobs from the queue and does them, for as long as it runs.
type Worker struct {
	DeliveryPolicy
	// Wait is how long to wait for a job at a time.
	Wait time.Duration
	// Concurrency is how many jobs are done at a time.
	Concurrency int

	slow     atomic.Int32   // jobs that wait for slow sources, beside those that Concurrency bounds
	detached sync.WaitGroup // all jobs
}

// maxSlow bounds how many jobs wait for slow sources: further ones give theirs up for a while.
const maxSlow = 8

// Run works until ctx is done; jobs in hand are then handed back. It returns nil: what goes wrong with
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
				_ = Pause(ctx, backoff(min(outages, maxOutages)))
			}
			return nil
		})
	}
	err := g.Wait()
	w.detached.Wait()
	return err
}

// maxOutages bounds how long a worker rests from an outage: it resumes 8 s after the end at the latest.
const maxOutages = 4

// once waits for a job and does it. It tells whether that failed for reasons that the next one will have, too.
func (w *Worker) once(ctx context.Context) (outage bool) {
	messages, err := w.Builder.Queue.Receive(ctx, 1, w.Visibility, w.Wait)
	if err != nil {
		if ctx.Err() == nil {
			w.Builder.opt.Log.ErrorContext(ctx, "receive job", "error", err)
			_ = Pause(ctx, time.Second)
		}
		return false
	}
	for _, m := range messages {
		outage = w.doOne(ctx, m) || outage
	}
	return outage
}

// doOne does a job. It returns before the job is done if that waits for a slow source: then the worker is free for
// others.
func (w *Worker) doOne(ctx context.Context, m Message) (outage bool) {
	done, aside := make(chan bool, 1), make(chan struct{})
	w.detached.Go(func() {
		slow := false
		finished, failed := w.do(ctx, m, func() bool {
			if slow = w.slow.Add(1) <= maxSlow; !slow {
				w.slow.Add(-1)
				return false
			}
			close(aside)
			return true
		})
		if slow {
			w.slow.Add(-1)
		}
		if finished {
			w.delete(ctx, m)
		}
		done <- failed
	})
	select {
	case outage = <-done:
	case <-aside:
	}
	return outage
}

// delete deletes a message, even if the worker is to stop.
func (w *Worker) delete(ctx context.Context, m Message) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := w.Builder.Queue.Delete(ctx, m.Receipt); err != nil {
		w.Builder.opt.Log.ErrorContext(ctx, "delete finished job", "job", m.ID, "error", err)
	}
}
