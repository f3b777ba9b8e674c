package history

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
)

// readAhead is how many generations are read at a time. An index of 10,000 items takes some megabytes of memory.
const readAhead = 8

// Past reads the newest generations of the history before one, most of them at most, and returns what pick takes from
// each, the newest first. A generation that cannot be read gives nothing: the zero value.
func Past[T any](ctx context.Context, objects builder.Objects, before uint64, most int, pick func(*index.Index) T) ([]T, error) {
	kept, err := Kept(ctx, objects)
	if err != nil {
		return nil, err
	}
	kept = slices.DeleteFunc(kept, func(e Entry) bool { return e.Generation >= before })
	kept = kept[max(0, len(kept)-most):]
	slices.Reverse(kept)
	picked := make([]T, len(kept))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readAhead)
	for i, k := range kept {
		g.Go(func() error {
			ix, err := builder.ReadGeneration(ctx, objects, k.Generation)
			if err == nil {
				picked[i] = pick(ix)
			} else if !unreadable(err) {
				return err
			}
			return nil
		})
	}
	return picked, g.Wait()
}
