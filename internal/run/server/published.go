package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Published holds the published index and keeps it fresh. Whatever happens to the stored one, the
// last good index stays in use.
type Published struct {
	objects builder.Objects
	log     *slog.Logger

	current atomic.Pointer[edge.Table]
	etag    string // of current; used by Run's goroutine and Refresh only
	poke    chan struct{}
	first   chan struct{} // closed when there is an index
}

// NewPublished makes a Published that has not read anything yet.
func NewPublished(objects builder.Objects, log *slog.Logger) *Published {
	return &Published{objects: objects, log: log, poke: make(chan struct{}, 1), first: make(chan struct{})}
}

// Index returns the published index, nil before the first publish.
func (p *Published) Index() *index.Index { return p.Table().Index }

// Table returns the published index with its table of rollouts.
func (p *Published) Table() edge.Table {
	if t := p.current.Load(); t != nil {
		return *t
	}
	return edge.Table{}
}

// First is closed once there is an index to answer from.
func (p *Published) First() <-chan struct{} { return p.first }

// Poke makes Run look at once.
func (p *Published) Poke() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// Run looks for a newer index every interval until ctx is done.
func (p *Published) Run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := p.Refresh(ctx); err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "refresh index: the last good one stays in use", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.poke:
		}
	}
}

// Refresh reads the stored index if it has changed. It must not be called while Run runs.
func (p *Published) Refresh(ctx context.Context) error {
	info, err := p.objects.Stat(ctx, layout.IndexKey)
	if errors.Is(err, builder.ErrNotExist) && p.current.Load() == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if info.ETag == p.etag {
		return nil
	}
	ix, etag, err := builder.ReadIndex(ctx, p.objects)
	if err != nil {
		return err
	}
	if ix == nil {
		return errors.New("the published index has vanished")
	}
	now := p.Index()
	if err := ix.Replaces(now); err != nil {
		return fmt.Errorf("use generation %d, plan %d, after generation %d, plan %d: %w", ix.Generation, ix.Sequence, now.Generation, now.Sequence, err)
	}
	table := edge.TableOf(ix)
	if p.current.Swap(&table) == nil {
		close(p.first)
	}
	p.etag = etag
	return nil
}
