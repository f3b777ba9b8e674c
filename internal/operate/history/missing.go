package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
)

// missing returns the keys of the pieces and binaries that an index needs and the store lacks.
func (k *Keeper) missing(ctx context.Context, ix *index.Index) ([]string, error) {
	var keys []string
	for i := range ix.Items {
		keys = append(keys, builder.BinaryKey(&ix.Items[i]))
		if key, ok := builder.PieceKeyIn(ix, &ix.Items[i]); ok {
			keys = append(keys, key)
		}
	}
	return Absent(ctx, k.Objects, keys)
}

// Absent returns those of the keys that do not exist, sorted, each once.
func Absent(ctx context.Context, objects builder.Objects, keys []string) ([]string, error) {
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	absent := []string{}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, key := range keys {
		g.Go(func() error {
			_, err := objects.Stat(ctx, key)
			if errors.Is(err, builder.ErrNotExist) {
				mu.Lock()
				defer mu.Unlock()
				absent = append(absent, key)
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(absent)
	return absent, nil
}

// rebuild makes the missing pieces of those items whose binary is there, and returns how many. What it fails to make stays
// missing.
func (k *Keeper) rebuild(ctx context.Context, ix *index.Index, res *Result) (rebuilt int, failed error) {
	if k.Rebuild == nil {
		return 0, nil
	}
	gone := make(map[string]bool)
	for _, key := range res.Missing {
		gone[key] = true
	}
	for i := range ix.Items {
		it := &ix.Items[i]
		key := builder.PieceKey(it)
		if !gone[key] || gone[builder.BinaryKey(it)] {
			continue
		}
		delete(gone, key)
		if err := k.Rebuild(ctx, it); err != nil {
			failed = errors.Join(failed, fmt.Errorf("make %s again: %w", key, err))
			continue
		}
		rebuilt++
		res.Missing = slices.DeleteFunc(res.Missing, func(missing string) bool { return missing == key })
	}
	return rebuilt, failed
}
