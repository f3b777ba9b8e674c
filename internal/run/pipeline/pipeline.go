// Package pipeline runs everything that publishes a change of the catalog in one process: the trigger, the queue's
// workers and the builder, over a set of drivers.
package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/backup"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/settings"
)

// Drivers are all that a pipeline needs from its environment.
type Drivers struct {
	builder.Ports
	Writer      builder.CatalogWriter
	DeadLetters builder.DeadLetters
	Numbers     backup.Numbers // those of the ledger
	// Actor says who this process is to those who run it, as they prove; empty if that is not known. Nil: nothing
	// proves it.
	Actor func(ctx context.Context) string
	// NewTrigger makes what asks for plans when the catalog changes, for one plan when many changes come
	// within the window; nil if plans are triggered elsewhere.
	NewTrigger func(window time.Duration, log *slog.Logger) (Trigger, error)
	// Disk is the file system that the objects are on; nil: they are not on one of this machine's.
	Disk Disk
	// Remote: others work on the queue too, and its depth is an approximation, a minute late at most
	// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html).
	Remote bool
	// ReadOnly: what is stored can be read, and nothing can be built or changed.
	ReadOnly bool
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
	// MinFree is how much of the disk builds leave free.
	MinFree settings.MinFree
	// History is for how long binaries of older releases are kept. 0: Run removes nothing by itself.
	History time.Duration
}

// Pipeline is a complete pipeline in one process.
type Pipeline struct {
	Drivers
	Builder *builder.Builder

	cfg    Config
	events *events
}

// New makes a pipeline. Its builder reports to cfg.Builder.Observer and to the pipeline's subscribers.
func New(d Drivers, cfg Config) *Pipeline {
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
	p := &Pipeline{Drivers: d, events: &events{next: cfg.Builder.Observer}}
	if d.Disk != nil {
		cfg.Builder.Room = p.Room
	}
	cfg.Builder.Observer = p.events
	p.cfg = cfg
	p.Builder = builder.New(d.Ports, cfg.Builder)
	return p
}

// Snapshot returns the items of the catalog.
func (p *Pipeline) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	return p.Catalog.Snapshot(ctx)
}

// Preview works out what an edit changes for devices, and what it would be refused for.
func (p *Pipeline) Preview(ctx context.Context, edit catalog.Edit) (release.Difference, error) {
	return release.Guard(ctx, p.Objects, p.Catalog, edit)
}

// Apply changes the catalog, unless the guards refuse the edit: with a release.Refusal. Every edit of a person passes
// here, whether this process was asked or a server.
func (p *Pipeline) Apply(ctx context.Context, edit catalog.Edit) error {
	d, err := p.Preview(ctx, edit)
	if err == nil {
		err = d.Refusal()
	}
	if err != nil {
		return err
	}
	return p.write(ctx, edit)
}

// write makes an edit, with who this process is if nobody else has proven to be its author.
func (p *Pipeline) write(ctx context.Context, edit catalog.Edit) error {
	if edit.By.Actor == "" && p.Actor != nil {
		edit.By.Actor = p.Actor(ctx)
	}
	return p.Writer.Apply(ctx, edit)
}

// Head returns where the catalog's log ends.
func (p *Pipeline) Head(ctx context.Context) (catalog.Head, error) { return p.Catalog.Head(ctx) }

// Log passes the entries of the catalog's log on; see builder.CatalogWriter.
func (p *Pipeline) Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
	return p.Writer.Log(ctx, after, yield)
}

// Redrive puts the dead letters back into the queue and returns how many there were.
func (p *Pipeline) Redrive(ctx context.Context) (int, error) { return p.DeadLetters.Redrive(ctx) }

// Run watches and works until ctx is done. Jobs in progress are handed back.
func (p *Pipeline) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if p.NewTrigger != nil {
		t, err := p.NewTrigger(p.cfg.Window, p.cfg.Builder.Log)
		if err != nil {
			return err
		}
		g.Go(func() error { return t.Run(ctx) })
	}
	g.Go(func() error { return p.work(ctx, runWait, nil) })
	g.Go(func() error { p.schedule(ctx); return nil })
	if p.Disk != nil && p.cfg.History > 0 {
		g.Go(func() error { p.collect(ctx); return nil })
	}
	return g.Wait()
}

// retryLook is how often schedule looks whether a source is to be tried again.
const retryLook = 5 * time.Second

// schedule asks for plans by the clock, and when a source is to be tried again.
func (p *Pipeline) schedule(ctx context.Context) {
	tick := time.NewTicker(p.cfg.Every)
	defer tick.Stop()
	look := time.NewTicker(min(retryLook, p.cfg.Every))
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-look.C:
			if !p.events.retryDue(p.cfg.Builder.Clock.Now()) {
				continue
			}
		}
		if _, err := builder.RequestPlan(ctx, p.Ledger, p.Queue, builder.Request{}); err != nil && ctx.Err() == nil {
			p.cfg.Builder.Log.ErrorContext(ctx, "ask for the scheduled plan", "error", err)
		}
	}
}

// How long to wait for a job at a time. A remote queue may give a job to a wait whose asker has just ended,
// where it stays invisible for a while: a build, which ends soon, waits shortly.
const (
	runWait   = 20 * time.Second
	buildWait = time.Second
)

func (p *Pipeline) work(ctx context.Context, wait time.Duration, outage func(error)) error {
	policy := builder.DeliveryPolicy{Builder: p.Builder, Visibility: p.cfg.Visibility, Outage: outage}
	w := &builder.Worker{DeliveryPolicy: policy, Wait: wait, Concurrency: p.cfg.Workers}
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

// LeftOutError: nothing was published before, and nothing is, as every item of the catalog had to be left out.
type LeftOutError struct {
	Rejected []builder.Rejection `json:"rejected"`
}

func (e *LeftOutError) Error() string {
	const most = 10
	var all []string
	for i, r := range e.Rejected {
		if i == most {
			all = append(all, fmt.Sprintf("and %d more", len(e.Rejected)-most))
			break
		}
		all = append(all, fmt.Sprintf("%s %s: %s", r.Key, r.Version, r.Reason))
	}
	return "nothing is published, as every item of the catalog was left out: " + strings.Join(all, "; ")
}

// ErrIncomplete: a build ended with jobs that could not be done.
var ErrIncomplete = errors.New("the build could not be completed")

// Build asks for a plan, does the jobs that follow from it and waits for the result, as Follow does. It is for a
// pipeline that does not Run.
func (p *Pipeline) Build(ctx context.Context, opt builder.PlanOptions, observe func(Event)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel(nil)
	var outage func(error)
	if !p.Remote { // a service may come back while one waits; a full disk wants its owner
		outage = func(err error) { cancel(fmt.Errorf("build: %w", cmp.Or(p.Builder.Paused(), err))) }
	}
	err := p.follow(ctx, opt, observe, func() {
		workers.Go(func() { _ = p.work(ctx, buildWait, outage) }) // logs its errors
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// Follow asks for a plan and waits until it, or a newer one, is published. If a pin keeps it from being published, it
// returns a PinnedError once the jobs have ended; a LeftOutError if nothing can be published for the first time. The jobs are done by Run. Every event on the way is passed to
// observe (nil: none), by one goroutine at a time.
func (p *Pipeline) Follow(ctx context.Context, opt builder.PlanOptions, observe func(Event)) error {
	return p.follow(ctx, opt, observe, func() {})
}

// follow calls work once the plan has been asked for.
func (p *Pipeline) follow(ctx context.Context, opt builder.PlanOptions, observe func(Event), work func()) error {
	if observe != nil {
		defer p.events.subscribe(observe)()
	}
	after, err := builder.RequestPlan(ctx, p.Ledger, p.Queue, builder.Request{PlanOptions: opt})
	if err != nil {
		return err
	}
	work()
	return p.await(ctx, after)
}

// How often to look whether a build is done, and for how long a queue must have been empty before one
// that has not published is given up. A local look costs microseconds, and is exact.
const (
	localLook   = 20 * time.Millisecond
	remoteLook  = time.Second
	remoteGrace = 90 * time.Second
)

// await looks until a plan newer than after is published, or cannot be any more.
func (p *Pipeline) await(ctx context.Context, after uint64) error {
	look, grace := localLook, time.Duration(0)
	if p.Remote {
		look, grace = remoteLook, remoteGrace
	}
	_, _, deadBefore, err := p.DeadLetters.Depth(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	var idleFor time.Duration
	for {
		waiting, inFlight, dead, err := p.DeadLetters.Depth(ctx)
		if err != nil {
			return err
		}
		idle := waiting+inFlight == 0
		// The queue is looked at first: a job is deleted after what it published.
		ix, _, err := builder.ReadIndex(ctx, p.Objects)
		if err != nil {
			return err
		}
		if ix != nil && ix.Sequence > after && (idle || p.Remote) {
			return nil
		}
		failed := dead > deadBefore
		if err := p.Builder.Paused(); err != nil {
			return fmt.Errorf("build: %w", err)
		}
		if failed || idle && idleFor >= grace {
			return p.unpublished(ctx, ix, dead, failed)
		}
		if idleFor += look; !idle {
			idleFor = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// unpublished says why a build that has ended has published nothing.
func (p *Pipeline) unpublished(ctx context.Context, ix *index.Index, dead int, failed bool) error {
	if ix != nil && ix.Pin != "" && !failed {
		return &PinnedError{ix.Generation, ix.Pin}
	}
	if ix == nil && !failed {
		items, err := p.Catalog.Snapshot(ctx)
		if err != nil {
			return err
		}
		plan, err := p.Builder.Plan(ctx, items, builder.PlanOptions{})
		if err != nil {
			return err
		}
		if plan.AllLeftOut() {
			return &LeftOutError{plan.Rejected}
		}
	}
	return fmt.Errorf("%w; dead letters: %d; see the log, then `precast status`", ErrIncomplete, dead)
}
