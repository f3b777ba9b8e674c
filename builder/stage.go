package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/precast-ota/precast/internal/format/index"
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
	head, err := b.Catalog.Head(ctx)
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
	if err := b.retryDue(ctx, p, j.origin()); err != nil {
		return err
	}
	log := b.opt.Log.With("sequence", sequence)
	for _, r := range p.Rejected {
		log.WarnContext(ctx, "item rejected", "item", r.Key.String(), "version", r.Version, "reason", r.Reason)
		b.opt.Observer.Rejected(ctx, r)
	}
	report := p.Report()
	log.InfoContext(ctx, "planned", "changed", report.Changed, "items", report.Items, "sets", report.Sets,
		"bundles", report.Bundles, "buildPieces", report.Build.Pieces, "buildBundles", report.Build.Bundles)
	b.opt.Observer.Planned(ctx, report)
	o := j.origin()
	o.log = head.Number
	if p.AllLeftOut() {
		// Devices are to come back, not to be told that there is nothing for them.
		log.ErrorContext(ctx, "nothing is published: every item of the catalog was left out", "items", len(p.Rejected))
	} else if err := b.start(ctx, p, o); err != nil {
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
	target := b.remember(p.Target)
	if p.Changed() {
		if err := b.announce(ctx, target); err != nil {
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
		return b.stageBundles(ctx, target, current{p.Base, p.etag}, o)
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

// target is a planned index.
type target struct {
	*index.Index
	announced atomic.Bool // by this process
}

// announce stores a planned index for the workers of its jobs, and keeps what it needs from being
// removed; see Announce. Nothing may be taken for stored on a plan's behalf before that.
func (b *Builder) announce(ctx context.Context, t *target) error {
	if t.announced.Load() {
		return nil
	}
	if err := Announce(ctx, b.Objects, t.Index, b.opt.Clock, b.opt.SweepWait); err != nil {
		return err
	}
	t.announced.Store(true)
	return nil
}

// target returns the planned index of a sequence.
func (b *Builder) target(ctx context.Context, sequence uint64) (*target, error) {
	if known, ok := b.targets.Get(sequence); ok {
		return known, nil
	}
	ix, err := ReadPlan(ctx, b.Objects, sequence)
	if err != nil {
		return nil, err
	}
	return b.remember(ix), nil
}

// remember keeps the planned indexes of the last few plans.
func (b *Builder) remember(plan *index.Index) *target {
	t := &target{Index: plan}
	if known, ok, _ := b.targets.PeekOrAdd(plan.Sequence, t); ok {
		return known
	}
	return t
}

// stageBundles continues a plan whose pieces are all stored. It sends the jobs for what the plan lacks, compared with
// what is published now; with nothing lacking it publishes the plan. If now is out of date, nothing is published, and
// the plan is compared again.
func (b *Builder) stageBundles(ctx context.Context, t *target, now current, o origin) error {
	for !now.supersedes(t.Sequence) {
		sent, err := b.sendMissing(ctx, t, now, o)
		if err != nil || sent {
			return err
		}
		outdated, err := b.publish(ctx, t, now, now.generation(), o)
		if err != nil || !outdated {
			return err
		}
		if now, err = b.current(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sendMissing sends the jobs for what a plan lacks, compared with what is published. It tells whether there are any.
func (b *Builder) sendMissing(ctx context.Context, t *target, now current, o origin) (sent bool, err error) {
	if now.Index == nil || !sameContent(now.Index, t.Index) {
		if err := b.announce(ctx, t); err != nil {
			return false, err
		}
	}
	_, missing, err := b.missing(ctx, t.Index, now.Index, o.verify)
	if err != nil || len(missing) == 0 {
		return false, err
	}
	if err := b.announce(ctx, t); err != nil { // its jobs need it, changed or not
		return false, err
	}
	parts := split(missing, b.opt.PartBytes)
	encoded, err := json.Marshal(parts)
	if err != nil {
		return false, fmt.Errorf("encode parts: %w", err)
	}
	// The entry's name covers the parts: should a second run of this stage split the work in another
	// way, it counts for itself.
	sum := sha256.Sum256(encoded)
	entry := fmt.Sprintf("%d/bundles/%d/%s", t.Sequence, now.generation(), hex.EncodeToString(sum[:8]))
	if err := b.Ledger.Open(ctx, entry, len(parts)); err != nil {
		return false, err
	}
	jobs := make([]job, len(parts))
	for i, sets := range parts {
		jobs[i] = job{Kind: jobBundles, Sequence: t.Sequence, Entry: entry, Part: i, Base: now.generation(), Sets: sets}
		o.onto(&jobs[i])
	}
	return true, send(ctx, b.Queue, jobs...)
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
