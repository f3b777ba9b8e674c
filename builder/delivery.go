package builder

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// DeliveryPolicy does a job that the queue has delivered, and decides what becomes of its message. Every
// worker goes by it: Worker, and the Lambda function on the queue.
type DeliveryPolicy struct {
	Builder *Builder
	// Visibility is for how long a job is invisible to other workers; it is extended while the job is being
	// done. 0: never, as the queue's own visibility timeout is longer than any job takes.
	Visibility time.Duration
	// Margin is how long before its context's deadline a job is stopped and handed back.
	Margin time.Duration
	// Outage is told when a job has failed for a reason that every job has; nil: nobody is.
	Outage func(error)
}

// verdict is what becomes of a message after its job was done, or was not.
type verdict int

const (
	remove   verdict = iota // the job is done
	backOff                 // the job comes again after a while
	handBack                // somebody else may take it at once
	renew                   // a new message takes the place of this one, which has been received too often
)

// reservedReceives is how many of a message's receives are kept back for deliveries whose outcome was never
// recorded: the worker died, or its answer was lost.
const reservedReceives = 2

// decide is the policy. An outage is not the job's fault: however long it lasts, it makes no dead letter.
func decide(err error, outage, stopped bool, receives, attempts int) verdict {
	switch {
	case err == nil:
		return remove
	case outage && receives >= attempts-reservedReceives:
		return renew
	case stopped:
		return handBack
	default:
		return backOff
	}
}

// settleTimeout bounds what is done for a message after its job: that happens even if the worker is to stop.
const settleTimeout = 10 * time.Second

// Do does one job until ctx is done, or its deadline is near. It tells whether the message is to be deleted,
// and whether the job failed for a reason that the next one will meet, too.
func (p *DeliveryPolicy) Do(ctx context.Context, m Message) (finished, outage bool) {
	return p.do(ctx, m, func() bool { return true })
}

// do is Do for a worker that may do other jobs while this one waits for a slow source.
func (p *DeliveryPolicy) do(ctx context.Context, m Message, detach func() bool) (finished, outage bool) {
	log := p.Builder.opt.Log.With("job", m.ID, "receives", m.Receives)
	stopped, err := p.work(ctx, m, detach)

	settled := time.Now().Add(settleTimeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(settled) {
		settled = deadline
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), settled)
	defer cancel()
	switch {
	case err == nil:
	case !stopped:
		outage = p.Builder.outage(ctx, err)
		log.ErrorContext(ctx, "job failed", "outage", outage, "error", err)
		if outage && p.Outage != nil {
			p.Outage(err)
		}
	case m.Receives >= p.Builder.opt.Attempts-reservedReceives:
		outage = p.Builder.outage(ctx, err) // a service that does not answer uses up the time
	}
	return p.settle(ctx, log, m, decide(err, outage, stopped, m.Receives, p.Builder.opt.Attempts)), outage
}

// work does the job, which stays invisible meanwhile. It tells whether the time was up.
func (p *DeliveryPolicy) work(ctx context.Context, m Message, detach func() bool) (stopped bool, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-p.Margin))
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return true, err
	}
	extending, stop := context.WithCancel(ctx)
	var extender sync.WaitGroup
	defer extender.Wait()
	defer stop()
	if p.Visibility > 0 {
		extender.Go(func() { p.extend(extending, m) })
	}
	err = p.Builder.handle(ctx, m, detach)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		p.Builder.opt.Log.WarnContext(ctx, "job stopped before the deadline", "job", m.ID, "receives", m.Receives)
	}
	return ctx.Err() != nil, err
}

// extend keeps a message invisible until ctx is done.
func (p *DeliveryPolicy) extend(ctx context.Context, m Message) {
	for Pause(ctx, p.Visibility/3) == nil {
		if err := p.Builder.Queue.Extend(ctx, m.Receipt, p.Visibility); err != nil && ctx.Err() == nil {
			p.Builder.opt.Log.WarnContext(ctx, "keep job invisible", "job", m.ID, "error", err)
		}
	}
}

// settle carries a verdict out. It tells whether the message is to be deleted: after the new one is there, so
// that a crash in between costs a job done twice.
func (p *DeliveryPolicy) settle(ctx context.Context, log *slog.Logger, m Message, v verdict) (finished bool) {
	delay := backoff(m.Receives)
	switch v {
	case remove:
		return true
	case renew:
		err := p.Builder.Queue.Send(ctx, m.Body)
		if err == nil {
			return true
		}
		log.WarnContext(ctx, "renew job", "error", err)
	case handBack:
		delay = 0
	case backOff:
	}
	if err := p.Builder.Queue.Extend(ctx, m.Receipt, delay); err != nil {
		log.WarnContext(ctx, "hand job back; it stays invisible until its time is up", "error", err)
	}
	return false
}

// backoff is how long a job waits after its nth failed delivery: 1 s, 2 s, 4 s, at most 1 min.
func backoff(receives int) time.Duration {
	return min(time.Second<<min(max(receives-1, 0), 6), time.Minute)
}
