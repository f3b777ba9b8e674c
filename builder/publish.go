package builder

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// handleBundles writes the bundles and manifests of one part of a plan.
func (b *Builder) handleBundles(ctx context.Context, j job) error {
	superseded, err := b.superseding(ctx, j.Sequence)
	if superseded || err != nil {
		return err
	}
	target, err := b.target(ctx, j.Sequence)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(b.opt.Concurrency)
	for _, s := range j.Sets {
		set := edge.Set{Index: target, Positions: s.Positions}
		for _, p := range s.Positions {
			if p < 0 || int(p) >= len(target.Items) {
				return fmt.Errorf("plan %d has no item %d", j.Sequence, p)
			}
		}
		id := set.ID()
		for _, text := range s.Masks {
			held, ok := edge.ParseMask(text)
			if !ok {
				return fmt.Errorf("%q is not a held mask", text)
			}
			g.Go(func() error { return b.storeBundle(gctx, set, id, held) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	left, err := b.done(ctx, j)
	if err != nil || left > 0 {
		return err
	}
	if err := b.publish(ctx, j.Sequence, j.Base, j.origin()); err != nil {
		return err
	}
	return b.Ledger.Close(ctx, j.Entry)
}

// done counts a part and returns how many are left. An entry that is gone has been closed by whoever
// finished it, or forgotten long after its plan: the late delivery has nothing left to do.
func (b *Builder) done(ctx context.Context, j job) (left int, err error) {
	left, err = b.Ledger.Done(ctx, j.Entry, j.Part)
	if errors.Is(err, ErrNotExist) {
		b.opt.Log.InfoContext(ctx, "late job of a finished build", "sequence", j.Sequence, "entry", j.Entry, "part", j.Part)
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count part %d of plan %d: %w", j.Part, j.Sequence, err)
	}
	return left, nil
}

// storeBundle writes one bundle and its manifest, whichever is missing.
func (b *Builder) storeBundle(ctx context.Context, set edge.Set, id string, held edge.Mask) error {
	for _, object := range []struct {
		kind layout.Kind
		key  string
	}{
		{layout.Manifest, layout.ManifestKey(id, held.String())},
		{layout.Bundle, layout.BundleKey(id, held.String())},
	} {
		missing, err := b.lacks(ctx, object.key)
		if err != nil {
			return err
		}
		if !missing {
			continue
		}
		answer, err := b.composer.Compose(ctx, object.kind, set, held)
		if err != nil {
			return err
		}
		err = b.put(ctx, object.key, answer.Body(), nil)
		answer.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// lacks tells whether the store lacks an object, and reports one that it has.
func (b *Builder) lacks(ctx context.Context, key string) (bool, error) {
	info, err := b.Objects.Stat(ctx, key)
	if errors.Is(err, ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("find %s: %w", key, err)
	}
	b.opt.Observer.Stored(ctx, Stored{Key: key, Size: info.Size, Existed: true})
	return false, nil
}

// publish makes a planned index the current one, if it is newer and every object that it needs
// exists. base is the generation that the plan's missing objects were compared with; if another has
// been published since, the comparison is made again.
func (b *Builder) publish(ctx context.Context, sequence, base uint64, o origin) error {
	target, err := b.target(ctx, sequence)
	if err != nil {
		return err
	}
	current, etag, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return err
	}
	var generation uint64
	switch {
	case current == nil:
		// After a first publish there is always an index. Should it ever be lost, generations still
		// only go up. The history has every one but the lost one for certain: its number is left out, as
		// devices may have seen other content under it.
		if generation, err = b.lastSuperseded(ctx); err != nil {
			return err
		}
		if generation > 0 {
			generation++
		}
	case current.Sequence >= sequence:
		return nil
	case current.Pin != "":
		// The plan is built and stays announced. Whoever unpins asks for another one, which will find
		// everything there.
		b.opt.Log.InfoContext(ctx, "pinned", "generation", current.Generation, "reason", current.Pin, "sequence", sequence)
		return nil
	case current.Generation != base:
		return b.stageBundles(ctx, sequence, o)
	case sameContent(current, target):
		generation = current.Generation - 1 // not a new generation, only a newer sequence
	default:
		generation = current.Generation
		// Whoever published it should have copied it into the history, and may have died before: the
		// history has every generation but the current one for certain.
		if err := Remember(ctx, b.Objects, current); err != nil {
			return err
		}
	}
	next := target.With(generation + 1)
	opt := PutOptions{IfMatch: etag, IfAbsent: current == nil}
	_, err = b.Objects.Put(ctx, layout.IndexKey, bytesBody(next.Encode()), opt)
	if errors.Is(err, ErrPrecondition) {
		return b.stageBundles(ctx, sequence, o) // somebody else published
	}
	if err != nil {
		return fmt.Errorf("write generation %d of the index: %w", next.Generation, err)
	}
	p := Published{
		Generation: next.Generation,
		Sequence:   sequence,
		Changed:    current == nil || next.Generation != current.Generation,
		Since:      o.since,
	}
	b.opt.Log.InfoContext(ctx, "published", "generation", p.Generation, "sequence", sequence, "changed", p.Changed)
	if p.Changed {
		// So that a rollback needs one write alone. Without it, all is well.
		if err := Remember(ctx, b.Objects, next); err != nil {
			b.opt.Log.WarnContext(ctx, "copy the published index into the history", "generation", next.Generation, "error", err)
		}
	}
	b.opt.Observer.Published(ctx, p)
	return nil
}

// Remember copies a published index into the history, if it is not there yet. What is remembered is what
// devices get, not whether it was pinned.
func Remember(ctx context.Context, objects Objects, ix *index.Index) error {
	unpinned := *ix
	unpinned.Pin = ""
	_, err := objects.Put(ctx, layout.HistoryKey(ix.Generation), bytesBody(unpinned.Encode()), PutOptions{IfAbsent: true})
	if err != nil && !errors.Is(err, ErrPrecondition) {
		return fmt.Errorf("copy generation %d into the history: %w", ix.Generation, err)
	}
	return nil
}

func (b *Builder) lastSuperseded(ctx context.Context) (uint64, error) {
	var last uint64
	err := b.Objects.List(ctx, layout.HistoryPrefix, func(o ObjectInfo) error {
		g, err := layout.HistoryGeneration(o.Key)
		last = max(last, g)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("list the history: %w", err)
	}
	return last, nil
}
