// Package pipeline runs the whole way of a change in one process: the catalog's watcher, the queue's
// workers and the builder, over a set of drivers.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
)

// Drivers are all that a pipeline stands on.
type Drivers struct {
	builder.Ports
	Writer      builder.CatalogWriter
	DeadLetters builder.DeadLetters
	// NewTrigger makes what asks for plans when the catalog changes, for one plan when many changes come
	// within the window; nil: nobody does, or others do.
	NewTrigger func(window time.Duration, log *slog.Logger) (Trigger, error)
	// Remote: others work on the queue too, and its depth is an approximation, a minute late at most
	// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html).
	Remote bool
}

// Trigger turns changes of the catalog into plan jobs.
type Trigger interface {
	// Run does so until ctx is done, and then returns nil.
	Run(ctx context.Context) error
}

// Config are a pipeline's settings.
type Config struct {
	Builder    builder.Options
	Workers    int           // jobs done at a time
	Window     time.Duration // of the trigger
	Visibility time.Duration // see builder.DeliveryPolicy
	// Every is how often a plan is asked for though nothing tells of a change: it mends whatever was lost, and
	// costs next to nothing if nothing was. 0: every hour.
	Every time.Duration
}

// Station is the running whole.
type Station struct {
	Drivers
	Builder *builder.Builder

	cfg    Config
	events *events
}

// New makes a pipeline. Its builder reports to cfg.Builder.Observer and to the pipeline's subscribers.
func New(d Drivers, cfg Config) *Station {
	if cfg.Workers <= 0 {
		cfg.Workers = 2
	}
	if cfg.Visibility <= 0 {
		cfg.Visibility = 30 * time.Second
	}
	if cfg.Every <= 0 {
		cfg.Every = time.Hour
	}
	if cfg.Builder.Log == nil {
		cfg.Builder.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Builder.Observer == nil {
		cfg.Builder.Observer = builder.Silent{}
	}
	s := &Station{Drivers: d, cfg: cfg, events: &events{next: cfg.Builder.Observer}}
	cfg.Builder.Observer = s.events
	s.Builder = builder.New(d.Ports, cfg.Builder)
	return s
}

// Run watches and works until ctx is done. Jobs in hand are given back.
func (s *Station) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if s.NewTrigger != nil {
		t, err := s.NewTrigger(s.cfg.Window, s.cfg.Builder.Log)
		if err != nil {
			return err
		}
		g.Go(func() error { return t.Run(ctx) })
	}
	g.Go(func() error { return s.work(ctx, runWait, nil) })
	g.Go(func() error { s.schedule(ctx); return nil })
	return g.Wait()
}

// schedule asks for plans by the clock.
func (s *Station) schedule(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := builder.RequestPlan(ctx, s.Ledger, s.Queue, builder.Request{}); err != nil && ctx.Err() == nil {
			s.cfg.Builder.Log.ErrorContext(ctx, "ask for the scheduled plan", "error", err)
		}
	}
}

// How long to wait for a job at a time. A remote queue may give a job to a wait whose asker has just ended,
// where it stays hidden for a while: a build, which ends soon, waits shortly.
const (
	runWait   = 20 * time.Second
	buildWait = time.Second
)

func (s *Station) work(ctx context.Context, wait time.Duration, outage func(error)) error {
	policy := builder.DeliveryPolicy{Builder: s.Builder, Visibility: s.cfg.Visibility, Outage: outage}
	w := &builder.Worker{DeliveryPolicy: policy, Wait: wait, Concurrency: s.cfg.Workers}
	return w.Run(ctx)
}

// PinnedError: everything was built, and nothing published, as what is published is pinned.
type PinnedError struct {
	Generation uint64 `json:"generation"`
	Reason     string `json:"reason"`
}

func (e *PinnedError) Error() string {
	return fmt.Sprintf("generation %d stays published: it is pinned: %s", e.Generation, e.Reason)
}

// ErrIncomplete: a build ended with jobs that could not be done.
var ErrIncomplete = errors.New("the build could not be completed")

// Build asks for a plan and waits until it, or a newer one, is published, or its jobs have ended and a
// pin keeps it from being published: that is a PinnedError. Every event on the way is
// passed to observe (nil: none), by one goroutine at a time. With alone, nobody else works on the
// queue and Build does.
func (s *Station) Build(ctx context.Context, opt builder.PlanOptions, alone bool, observe func(Event)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel(nil)
	unsubscribe := func() {}
	if observe != nil {
		unsubscribe = s.events.subscribe(observe)
	}
	defer unsubscribe()
	after, err := builder.RequestPlan(ctx, s.Ledger, s.Queue, builder.Request{PlanOptions: opt})
	if err != nil {
		return err
	}
	if alone {
		var outage func(error)
		if !s.Remote { // a service may come back while one waits; a full disk wants its owner
			outage = func(err error) { cancel(fmt.Errorf("build: %w", err)) }
		}
		workers.Go(func() { _ = s.work(ctx, buildWait, outage) }) // logs its errors
	}
	err = s.await(ctx, after)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// How often to look whether a build is done, and for how long a queue must have been empty before one
// that has not published is given up. A local look costs microseconds, and is exact.
const (
	localLook   = 20 * time.Millisecond
	remoteLook  = time.Second
	remoteGrace = 90 * time.Second
)

// await looks until what was asked for is published, or cannot be any more.
func (s *Station) await(ctx context.Context, after uint64) error {
	look, grace := localLook, time.Duration(0)
	if s.Remote {
		look, grace = remoteLook, remoteGrace
	}
	_, _, deadBefore, err := s.DeadLetters.Depth(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	var idleFor time.Duration
	for {
		waiting, inFlight, dead, err := s.DeadLetters.Depth(ctx)
		if err != nil {
			return err
		}
		// The queue is looked at first: a job is deleted after what it published.
		ix, _, err := builder.ReadIndex(ctx, s.Objects)
		if err != nil {
			return err
		}
		idle := waiting+inFlight == 0
		switch {
		case (idle || s.Remote) && ix != nil && ix.Sequence > after:
			return nil
		case dead <= deadBefore && idle && idleFor >= grace && ix != nil && ix.Pin != "":
			return &PinnedError{ix.Generation, ix.Pin}
		case dead > deadBefore || idle && idleFor >= grace:
			return fmt.Errorf("%w: %d dead letters; see the log, then `precast status`", ErrIncomplete, dead)
		case idle:
			idleFor += look
		default:
			idleFor = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
