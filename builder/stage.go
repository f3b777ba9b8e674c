package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// handlePlan makes a plan and sends its jobs.
func (b *Builder) handlePlan(ctx context.Context, j job) error {
	b.mu.Lock()
	covered := b.planned > j.After && j.PlanOptions == (PlanOptions{})
	b.mu.Unlock()
	if covered {
		return nil
	}
	published, _, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return err
	}
	if published != nil && published.Sequence > j.After && j.PlanOptions == (PlanOptions{}) {
		return nil
	}
	// The number comes first, then the snapshot: of two plans, the one with the greater number has
	// seen every change that was acknowledged before that number was taken.
	sequence, err := b.Ledger.Next(ctx)
	if err != nil {
		return err
	}
	items, err := b.Catalog.Snapshot(ctx)
	if err != nil {
		return err
	}
	p, err := b.Plan(ctx, items, j.PlanOptions)
	if err != nil {
		return err
	}
	p.Target.Sequence = sequence
	log := b.opt.Log.With("sequence", sequence)
	for _, r := range p.Rejected {
		log.WarnContext(ctx, "item rejected", "item", r.Key.String(), "version", r.Version, "reason", r.Reason)
		b.opt.Observer.Rejected(ctx, r)
	}
	report := p.Report()
	log.InfoContext(ctx, "planned", "changed", report.Changed, "items", report.Items, "sets", report.Sets,
		"bundles", report.Bundles, "buildPieces", report.Build.Pieces, "buildBundles", report.Build.Bundles)
	b.opt.Observer.Planned(ctx, report)
	if err := b.start(ctx, p, j.origin()); err != nil {
		return err
	}
	b.mu.Lock()
	b.planned = max(b.planned, sequence)
	b.mu.Unlock()
	return nil
}

// start sends a plan's first jobs. A plan that changes nothing is published all the same, under the
// generation that is there: its sequence tells plans that saw an older catalog, and are still being
// built, that they are superseded.
func (b *Builder) start(ctx context.Context, p *Plan, o origin) error {
	sequence := p.Target.Sequence
	b.remember(p.Target)
	if p.Changed() {
		if err := b.announce(ctx, p.Target); err != nil {
			return err
		}
		// What was there when the plan was made may have been removed before it was announced.
		gone, err := b.gone(ctx, p.Found)
		if err != nil {
			return err
		}
		p.Pieces = append(p.Pieces, gone...)
	}
	if len(p.Pieces) == 0 {
		return b.stageBundles(ctx, sequence, o)
	}
	entry := fmt.Sprintf("%d/pieces", sequence)
	jobs := make([]job, len(p.Pieces))
	for i, it := range p.Pieces {
		jobs[i] = job{Kind: jobPiece, Sequence: sequence, Entry: entry, Part: i, Item: &it}
		o.onto(&jobs[i])
	}
	if err := b.Ledger.Open(ctx, entry, len(jobs)); err != nil {
		return err
	}
	return send(ctx, b.Queue, jobs...)
}

// announce stores a planned index for the workers of its jobs, and keeps what it needs from being
// removed; see Announce. Nothing may be taken for stored on a plan's behalf before that.
func (b *Builder) announce(ctx context.Context, plan *index.Index) error {
	b.mu.Lock()
	known := b.targets[plan.Sequence]
	done := known != nil && known.announced
	b.mu.Unlock()
	if done {
		return nil
	}
	if err := Announce(ctx, b.Objects, plan, b.opt.Clock, b.opt.SweepWait); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if known := b.targets[plan.Sequence]; known != nil {
		known.announced = true
	}
	return nil
}

// target is a planned index.
type target struct {
	*index.Index
	announced bool // by this process
}

// target returns the planned index of a sequence.
func (b *Builder) target(ctx context.Context, sequence uint64) (*index.Index, error) {
	b.mu.Lock()
	known := b.targets[sequence]
	b.mu.Unlock()
	if known != nil {
		return known.Index, nil
	}
	ix, _, err := readIndex(ctx, b.Objects, layout.PlanKey(sequence))
	if err != nil {
		return nil, err
	}
	b.remember(ix)
	return ix, nil
}

// remember keeps the planned indexes of the newest few plans.
func (b *Builder) remember(plan *index.Index) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.targets[plan.Sequence] == nil {
		b.targets[plan.Sequence] = &target{Index: plan}
	}
	for len(b.targets) > 4 {
		oldest := plan.Sequence
		for s := range b.targets {
			oldest = min(oldest, s)
		}
		delete(b.targets, oldest)
	}
}

// stageBundles sends the jobs for what a plan lacks, compared with what is published now; with
// nothing lacking it publishes.
func (b *Builder) stageBundles(ctx context.Context, sequence uint64, o origin) error {
	target, err := b.target(ctx, sequence)
	if err != nil {
		return err
	}
	base, _, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return err
	}
	var generation uint64
	if base != nil {
		if base.Sequence >= sequence {
			return nil // superseded, or published already
		}
		generation = base.Generation
	}
	if base == nil || !sameContent(base, target) {
		if err := b.announce(ctx, target); err != nil {
			return err
		}
	}
	_, missing, err := b.missing(ctx, target, base, o.verify)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		return b.publish(ctx, sequence, generation, o)
	}
	if err := b.announce(ctx, target); err != nil { // its jobs need it, changed or not
		return err
	}
	parts := split(missing, b.opt.PartBytes)
	encoded, err := json.Marshal(parts)
	if err != nil {
		return fmt.Errorf("encode parts: %w", err)
	}
	// The entry's name covers the parts: should a second run of this stage split the work in another
	// way, it counts for itself.
	sum := sha256.Sum256(encoded)
	entry := fmt.Sprintf("%d/bundles/%d/%s", sequence, generation, hex.EncodeToString(sum[:8]))
	if err := b.Ledger.Open(ctx, entry, len(parts)); err != nil {
		return err
	}
	jobs := make([]job, len(parts))
	for i, sets := range parts {
		jobs[i] = job{Kind: jobBundles, Sequence: sequence, Entry: entry, Part: i, Base: generation, Sets: sets}
		o.onto(&jobs[i])
	}
	return send(ctx, b.Queue, jobs...)
}

// Limits of one job's message, which must stay below 256 KiB: SQS long had that limit, and other
// queues still do.
const (
	maxPartBundles = 500
	maxPartJSON    = 128 << 10 // bytes, roughly
)

// split cuts missing bundles into parts of about size bytes of binaries.
func split(missing []CoveredSet, size int64) [][]setJob {
	var parts [][]setJob
	var part []setJob
	var bundles, encoded int
	var bytes int64
	for _, s := range missing {
		next := setJob{Positions: s.Set.Positions}
		encoded += 8 * len(next.Positions)
		for _, m := range s.Masks {
			next.Masks = append(next.Masks, m.String())
			bundles++
			bytes += bundleBytes(s.Set, m)
			encoded += 3 + len(next.Masks[len(next.Masks)-1])
			if bytes >= size || bundles >= maxPartBundles || encoded >= maxPartJSON {
				parts = append(parts, append(part, next))
				part, next.Masks, bundles, bytes, encoded = nil, nil, 0, 0, 8*len(next.Positions)
			}
		}
		if len(next.Masks) > 0 {
			part = append(part, next)
		}
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts
}
