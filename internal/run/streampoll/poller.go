// Package streampoll is the trigger of a pipeline without Lambda, for containers and plain hosts: it
// reads the change stream of the catalog's DynamoDB table and asks for a plan when something has
// changed, for one plan when many things have.
//
// What makes it lose nothing is that a plan reads the whole catalog, not the records. Every position
// in the stream that is taken anew, whatever for (a start, a new shard, an iterator that expired,
// records that were trimmed), is followed by a plan. That plan has seen every change before the
// position, those that the stream has already forgotten included, and the records after it are read.
// A checkpoint therefore only saves work: without one, the last day's changes are read again, and
// the delay from change to publication is counted from the oldest of them.
package streampoll

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/precast-ota/precast/builder"
)

const (
	defaultEvery = time.Second

	// A shard with more to give is read four times a second. Five are allowed, to all its readers
	// together (https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html, the
	// service that this one is modelled on).
	pagePace = 250 * time.Millisecond

	// A shard that ends has its children looked for at once; this is for what that misses.
	discoverEvery = 10 * time.Second

	// For each step, the SDK's own attempts included: a connection that hangs must not stop the rest.
	callTimeout = 30 * time.Second
)

// Config is what a Poller works with. All but Window, Every and Random must be set.
type Config struct {
	Client Client
	// Stream returns the ARN of the table's stream, see LatestStream. It is asked again whenever the
	// stream turns out to be disabled or gone: one that is enabled again has another ARN.
	Stream      func(ctx context.Context) (arn string, err error)
	Checkpoints Checkpoints
	Ledger      builder.Ledger
	Queue       builder.Queue
	// Window is how long to wait for more changes after the first: one plan serves all of them.
	Window time.Duration
	// Every is how long after a shard had nothing it is asked again; 0 means a second. What this
	// package waits for anyway, 250 ms, is its least value.
	Every  time.Duration
	Logger *slog.Logger
	// Random returns numbers in [0, 1) for the jitter of retries; nil means math/rand.
	Random func() float64
}

// Poller asks for plans. It is for one Run at a time. Several Pollers of one stream, in one process
// or in many, do no harm: they ask for more plans, and each shard bears two readers
// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html).
type Poller struct {
	Config

	arn string // of the stream that is read; empty at first
	ask bool   // whether Config.Stream is to be asked before the shards are listed again
	// disabled: the stream was disabled when its shards were last listed.
	disabled bool
	shards   map[string]*shard
	// resume holds the checkpoint until the shards are known.
	resume *Checkpoint
	loaded bool

	pending pending
	dirty   bool // positions have changed since the checkpoint was saved

	loading, discovery, flushing pace
}

// New returns a Poller that has not begun.
func New(c Config) (*Poller, error) {
	if c.Client == nil || c.Stream == nil || c.Checkpoints == nil || c.Ledger == nil || c.Queue == nil || c.Logger == nil {
		return nil, errors.New("make stream poller: client, stream, checkpoints, ledger, queue and logger are all needed")
	}
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	c.Every = max(c.Every, pagePace)
	if c.Random == nil {
		c.Random = rand.Float64
	}
	return &Poller{Config: c}, nil
}

// Run polls until ctx is done, and then returns nil. It asks for one plan at the beginning, which
// mends whatever was lost, and costs next to nothing if nothing was. Whatever fails is logged and
// tried again, later each time.
func (p *Poller) Run(ctx context.Context) error {
	*p = Poller{Config: p.Config, ask: true, shards: make(map[string]*shard)}
	p.pending.wanted = true // and due at once
	for ctx.Err() == nil {
		p.round(ctx)
		_ = builder.Pause(ctx, time.Until(p.next()))
	}
	return nil
}

// round does what is due. The plan comes last, so that what has just been read is in it.
func (p *Poller) round(ctx context.Context) {
	if !p.loaded {
		p.try(ctx, "load checkpoint", &p.loading, 0, p.load)
	}
	if p.loaded {
		p.try(ctx, "discover shards", &p.discovery, discoverEvery, p.discover)
	}
	for _, id := range slices.Sorted(maps.Keys(p.shards)) {
		s := p.shards[id]
		if !p.readable(s) {
			continue
		}
		p.try(ctx, "poll stream", &s.pace, p.Every, func(ctx context.Context) error { return p.read(ctx, s) })
	}
	if due, ok := p.flushDue(); ok && !time.Now().Before(due) {
		p.try(ctx, "request plan", &p.flushing, 0, p.flush)
	}
}

// try runs a step if its time has come, and sets the time of the next: after every, unless the step
// itself has asked for less, or after a while that grows with each failure.
func (p *Poller) try(ctx context.Context, what string, next *pace, every time.Duration, step func(context.Context) error) {
	if ctx.Err() != nil || !next.due(time.Now()) {
		return
	}
	next.at = time.Time{}
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := step(limited); err != nil {
		delay := next.failed(time.Now(), p.Random())
		if ctx.Err() == nil {
			p.Logger.WarnContext(ctx, what, "error", err, "again_in", delay)
		}
		return
	}
	next.worked(time.Now(), every)
}

// next is when something is due again.
func (p *Poller) next() time.Time {
	next := p.discovery.at
	if !p.loaded {
		next = p.loading.at
	}
	for _, s := range p.shards {
		if p.readable(s) {
			next = earlier(next, s.pace.at)
		}
	}
	if due, ok := p.flushDue(); ok {
		next = earlier(next, due)
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
