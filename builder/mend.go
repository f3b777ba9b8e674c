package builder

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/internal/format/index"
)

// CoverPublished returns what is prebuilt for a published index: Cover with the generations before it
// that its Params retain.
func CoverPublished(ctx context.Context, objects Objects, ix *index.Index) (Coverage, error) {
	before, err := Earlier(ctx, objects, ix.Generation, ix.Params.Retain)
	if err != nil {
		return Coverage{}, err
	}
	return Cover(ix, before), nil
}

// RequestMend queues a job that builds the missing prebuilt objects of a published generation. A rollback needs them:
// devices that have taken what was rolled back get bundles that no plan had a reason to build.
func RequestMend(ctx context.Context, queue Queue, generation uint64) error {
	if err := send(ctx, queue, job{Kind: jobMend, Base: generation}); err != nil {
		return fmt.Errorf("request objects of generation %d: %w", generation, err)
	}
	return nil
}

// handleMend makes one piece again, or builds the missing prebuilt objects of the published generation.
func (b *Builder) handleMend(ctx context.Context, j job) error {
	if j.Item != nil {
		return b.handleMendPiece(ctx, *j.Item)
	}
	if !b.opt.Params.Copies() {
		return nil // what a generation from before had is composed now
	}
	ix, _, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return err
	}
	if ix == nil || ix.Generation != j.Base {
		return nil // another generation has been published, with all of its objects
	}
	if _, ok := Encoder(ix); !ok {
		b.opt.Log.WarnContext(ctx, "cannot compose for the published index", "format", ix.Format, "own", FormatID)
		return nil
	}
	if err := b.room(ctx, 0); err != nil {
		return err
	}
	coverage, err := CoverPublished(ctx, b.Objects, ix)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(b.opt.Concurrency)
	for _, s := range coverage.Sets {
		for _, m := range s.Masks {
			g.Go(func() error { return b.storeBundle(gctx, s.Set, s.ID, m) })
		}
	}
	return g.Wait()
}
