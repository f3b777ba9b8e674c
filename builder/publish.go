package builder

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// handleBundles writes the bundles and manifests of one part of a plan.
func (b *Builder) handleBundles(ctx context.Context, j job) error {
	superseded, err := b.isSuperseded(ctx, j.Sequence)
	if superseded || err != nil {
		return err
	}
	if err := b.room(ctx, 0); err != nil {
		return err
	}
	target, err := b.target(ctx, j.Sequence)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(b.opt.Concurrency)
	for _, s := range j.Sets {
		set := edge.Set{Index: target.Index, Positions: s.Positions}
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
	// Read again: building takes a while.
	now, err := b.current(ctx)
	if err != nil {
		return err
	}
	outdated, err := b.publish(ctx, target, now, j.Base, j.origin())
	if err != nil {
		return err
	}
	if outdated {
		if now, err = b.current(ctx); err != nil {
			return err
		}
		if err := b.stageBundles(ctx, target, now, j.origin()); err != nil {
			return err
		}
	}
	return b.Ledger.Close(ctx, j.Entry)
}

// done counts a part and returns how many are left. An entry that is gone has been closed by a worker that
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

// storeBundle writes one bundle and its manifest, whichever is missing or known to be damaged.
func (b *Builder) storeBundle(ctx context.Context, set edge.Set, id string, held edge.Mask) error {
	for _, object := range []struct {
		kind layout.Kind
		key  string
	}{
		{layout.Manifest, layout.ManifestKey(id, held.String())},
		{layout.Bundle, layout.BundleKey(id, held.String())},
	} {
		info, exists, damaged, err := b.find(ctx, object.key)
		if err != nil {
			return err
		}
		if exists {
			b.opt.Observer.Stored(ctx, Stored{Key: object.key, Size: info.Size, Existed: true})
			continue
		}
		info, err = b.composer.Store(ctx, object.key, object.kind, set, held, PutOptions{IfAbsent: !damaged})
		existed := errors.Is(err, ErrPrecondition) // by now: as good
		if err != nil && !existed {
			return err
		}
		b.opt.Observer.Stored(ctx, Stored{Key: object.key, Size: info.Size, Existed: existed})
	}
	return nil
}

// current is the published index, as it was read.
type current struct {
	*index.Index // nil: nothing is published
	etag         string
}

func (b *Builder) current(ctx context.Context) (current, error) {
	ix, etag, err := ReadIndex(ctx, b.Objects)
	return current{ix, etag}, err
}

// supersedes tells whether a plan, or a newer one, is published.
func (c current) supersedes(sequence uint64) bool { return c.Index != nil && c.Sequence >= sequence }

// generation is 0 if nothing is published.
func (c current) generation() uint64 {
	if c.Index == nil {
		return 0
	}
	return c.Generation
}

// isSuperseded tells whether a plan, or a newer one, is published now.
func (b *Builder) isSuperseded(ctx context.Context, sequence uint64) (bool, error) {
	now, err := b.current(ctx)
	if now.supersedes(sequence) {
		b.unpause(ctx)
	}
	return now.supersedes(sequence), err
}

// publish makes a planned index the current one, if it is newer and not pinned, and does not drop most of what is
// published: then that becomes pinned. Every object that it needs exists,
// unless a generation other than base has been published since the plan's missing objects were compared with that:
// then publish writes nothing and tells that the comparison is outdated.
func (b *Builder) publish(ctx context.Context, t *target, now current, base uint64, o origin) (outdated bool, err error) {
	switch {
	case now.supersedes(t.Sequence):
		return false, nil
	case now.Index != nil && now.Pin != "" && !(o.acceptRemovals && IsHeldBack(now.Pin)):
		// The plan is built and stays announced. Unpinning asks for another one, which will find
		// everything there.
		b.opt.Log.InfoContext(ctx, "pinned", "generation", now.Generation, "reason", now.Pin, "sequence", t.Sequence)
		return false, nil
	case now.Index != nil && now.Generation != base:
		return true, nil
	}
	if pin := heldBack(now.Index, t.Index); pin != "" && !o.acceptRemovals {
		return b.holdBack(ctx, now, t.Sequence, pin)
	}
	generation, err := b.nextGeneration(ctx, t, now)
	if err != nil {
		return false, err
	}
	next := t.With(generation)
	_, err = b.Objects.Put(ctx, layout.IndexKey, BytesBody(next.Encode()), PutOptions{IfMatch: now.etag, IfAbsent: now.Index == nil})
	if errors.Is(err, ErrPrecondition) {
		return true, nil // somebody else published
	}
	if err != nil {
		return false, fmt.Errorf("write generation %d of the index: %w", generation, err)
	}
	p := Published{Generation: generation, Sequence: t.Sequence, Changed: generation != now.generation(), Since: o.since}
	b.opt.Log.InfoContext(ctx, "published", "generation", p.Generation, "sequence", p.Sequence, "changed", p.Changed)
	if p.Changed {
		// So that a rollback needs one write alone. Without it, all is well.
		if err := remember(ctx, b.Objects, next, map[string]string{metaLog: strconv.FormatUint(o.log, 10)}); err != nil {
			b.opt.Log.WarnContext(ctx, "copy the published index into the history", "generation", generation, "error", err)
		}
	}
	b.opt.Observer.Published(ctx, p)
	return false, nil
}

// nextGeneration returns the generation that a plan is published as. What it replaces is in the history then.
func (b *Builder) nextGeneration(ctx context.Context, t *target, now current) (uint64, error) {
	if now.Index == nil {
		// After a first publish there is always an index. Should it ever be lost, generations still
		// only go up. The history has every one but the lost one for certain: its number is left out, as
		// devices may have seen other content under it.
		last, err := b.lastSuperseded(ctx)
		if last > 0 {
			last++
		}
		return last + 1, err
	}
	if sameContent(now.Index, t.Index) {
		return now.Generation, nil // not a new generation, only a newer sequence
	}
	// Its publisher should have copied it into the history, and may have died before: the
	// history has every generation but the current one for certain.
	return now.Generation + 1, Remember(ctx, b.Objects, now.Index)
}

// Remember copies a published index into the history, if it is not there yet. What is remembered is what
// devices get, not whether it was pinned.
func Remember(ctx context.Context, objects Objects, ix *index.Index) error {
	return remember(ctx, objects, ix, nil)
}

// metaLog is kept with a generation in the history: the number of the last edit that its plan is sure to have seen.
const metaLog = "log"

// PlannedFrom returns the number of the last edit of the catalog that a generation is sure to have seen; false if
// nobody noted it, as of a rollback.
func PlannedFrom(ctx context.Context, objects Objects, generation uint64) (uint64, bool, error) {
	info, err := objects.Stat(ctx, layout.HistoryKey(generation))
	if errors.Is(err, ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	n, err := strconv.ParseUint(info.Meta[metaLog], 10, 64)
	return n, err == nil, nil
}

func remember(ctx context.Context, objects Objects, ix *index.Index, meta map[string]string) error {
	unpinned := *ix
	unpinned.Pin = ""
	_, err := objects.Put(ctx, layout.HistoryKey(ix.Generation), BytesBody(unpinned.Encode()), PutOptions{IfAbsent: true, Meta: meta})
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
