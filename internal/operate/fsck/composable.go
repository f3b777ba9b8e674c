package fsck

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

const unanswered = "they get 503"

// composable checks that every answer of an index without copies can be composed, once its pieces have been checked. A
// device that holds something gets a bundle of fewer of the same pieces.
func (c *checker) composable(ctx context.Context, ix *index.Index, coverage builder.Coverage) error {
	if _, ok := builder.Encoder(ix); !ok {
		c.problem(Problem{Kind: Unexpected, Key: layout.IndexKey, Devices: unanswered,
			Detail: fmt.Sprintf("it was published in format %q, this program composes %q: precast build publishes it again", ix.Format, builder.FormatID)})
		return nil
	}
	unsound := make(map[string]bool)
	for _, p := range c.rep.Problems {
		unsound[p.Key] = true
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.opt.Concurrency)
	for _, s := range coverage.Sets {
		g.Go(func() error {
			_, err := c.composer.Bundle(ctx, s.Set, edge.Mask{})
			if err == nil || ctx.Err() != nil {
				return ctx.Err()
			}
			for i := range s.Set.Len() {
				if key, _ := builder.PieceKeyIn(ix, s.Set.Item(i)); unsound[key] {
					return nil // it has been reported
				}
			}
			return c.failed(ctx, err, Problem{Key: layout.BundleKey(s.ID, edge.Mask{}.String()), Devices: unanswered, of: what{set: s.Set}})
		})
	}
	return g.Wait()
}
