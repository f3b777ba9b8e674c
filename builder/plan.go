package builder

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
)

// Plan is what it takes to publish a snapshot of the catalog.
type Plan struct {
	Base     *index.Index // published when the plan was made; nil: nothing
	Target   *index.Index // to be published
	Coverage Coverage     // of the target
	Missing  []CoveredSet // of the coverage, not covered by the base
	Pieces   []catalog.Item
	Found    []catalog.Item // not in the base, and stored already
	Rejected []Rejection
	// HeldBack is why the plan is not published over its base: it drops most of it. Empty: it is published.
	HeldBack string

	Rollouts []Rollout
	Floors   []Floor

	etag      string // of the base
	postponed []postponed
}

// A Rejection is an item that cannot be published, and why. The release of it that is published, if
// any, stays.
type Rejection struct {
	Key     catalog.Key `json:"key"`
	Version string      `json:"version"`
	Reason  string      `json:"reason"`
	// Retry is when it is tried again by itself; zero: when the item changes, or somebody asks for it.
	Retry time.Time `json:"retry,omitzero"`
	Tries int       `json:"tries,omitempty"` // so far, if it is
}

// Changed tells whether the plan's target differs from what is published.
func (p *Plan) Changed() bool { return p.Base == nil || !sameContent(p.Base, p.Target) }

// AllLeftOut tells whether nothing is published, and nothing can be, as every item of the catalog is rejected.
func (p *Plan) AllLeftOut() bool { return p.Base == nil && p.Target.Len() == 0 && len(p.Rejected) > 0 }

// sameContent compares all that devices can tell.
func sameContent(a, b *index.Index) bool {
	x, y := *a, *b
	x.Pin, y.Pin = "", ""
	x.Generation, x.Sequence, y.Generation, y.Sequence = 0, 0, 0, 0
	return bytes.Equal(x.Encode(), y.Encode())
}

// Report is a plan in numbers.
type Report struct {
	Generation   uint64      `json:"generation"` // published now; 0: none
	Sequence     uint64      `json:"sequence"`   // of this plan; 0: a dry run
	Changed      bool        `json:"changed"`
	Items        int         `json:"items"`
	Combinations float64     `json:"combinations"`
	Considered   int         `json:"considered"`
	Variants     int         `json:"variants"` // looked at beside those: in other rollouts, or before other floors
	Matching     int         `json:"matching"`
	Sets         int         `json:"sets"`
	Copies       bool        `json:"copies"`  // bundles are written as files; otherwise all are composed
	Bundles      int         `json:"bundles"` // covered, built or not; as many manifests
	Bytes        int64       `json:"bytes"`   // of the binaries in them, before compression
	Build        Work        `json:"build"`
	LeftOut      LeftOut     `json:"leftOut"`
	Rollouts     []Rollout   `json:"rollouts"`
	Floors       []Floor     `json:"floors"`
	Rejected     []Rejection `json:"rejected"`
	HeldBack     string      `json:"heldBack,omitempty"` // why it is not published: see Plan
}

// A Rollout is a release that is for a part of the fleet.
type Rollout struct {
	Key     catalog.Key `json:"key"`
	Version string      `json:"version"`
	Percent float64     `json:"percent"` // of the devices with a slot
	Salt    string      `json:"salt"`
	Over    string      `json:"over,omitempty"` // version that the others get; empty: nothing
	// NoRoom: the table that the edge has of rollouts has no room for it, so that nobody gets it.
	NoRoom bool `json:"noRoom,omitempty"`
}

// A Floor is a release that has to be passed through.
type Floor struct {
	Key     catalog.Key `json:"key"`
	Version string      `json:"version"`
	Before  string      `json:"before"` // version
}

// recordRollouts fills in the target's rollouts and floors. A rollout that the edge's table has no room for gets a share
// of 0.
func (p *Plan) recordRollouts() {
	ix := p.Target
	leftOut := edge.TableOf(ix).LeftOut
	var release *index.Item
	for i := range ix.Items {
		it := &ix.Items[i]
		key := keyOf(*it)
		if it.Role == index.Floor {
			p.Floors = append(p.Floors, Floor{key, it.Version, release.Version})
			continue
		}
		if it.Role == index.Previous {
			p.Rollouts[len(p.Rollouts)-1].Over = it.Version
		}
		if release = it; it.Salt == "" {
			continue
		}
		r := Rollout{Key: key, Version: it.Version, Percent: float64(it.Share) * 100 / index.Slots, Salt: it.Salt}
		if r.NoRoom = slices.Contains(leftOut, int32(i)); r.NoRoom {
			it.Share = 0
		}
		p.Rollouts = append(p.Rollouts, r)
	}
}

// Work is what a plan has to write.
type Work struct {
	Pieces      int   `json:"pieces"`      // binaries to check and compress
	PieceBytes  int64 `json:"pieceBytes"`  // before compression
	Bundles     int   `json:"bundles"`     // as many manifests
	BundleBytes int64 `json:"bundleBytes"` // of the binaries in them, before compression
}

// Report sums the plan up.
func (p *Plan) Report() Report {
	r := Report{
		Sequence:     p.Target.Sequence,
		Changed:      p.Changed(),
		Items:        p.Target.Len(),
		Combinations: p.Coverage.Combinations,
		Considered:   p.Coverage.Considered,
		Variants:     p.Coverage.Variants,
		Matching:     p.Coverage.Matching,
		Sets:         len(p.Coverage.Sets),
		Copies:       p.Target.Params.Copies(),
		Bundles:      p.Coverage.Bundles,
		Bytes:        p.Coverage.Bytes,
		LeftOut:      p.Coverage.LeftOut,
		Rejected:     append([]Rejection{}, p.Rejected...),
		HeldBack:     p.HeldBack,
	}
	r.Rollouts, r.Floors = append([]Rollout{}, p.Rollouts...), append([]Floor{}, p.Floors...)
	if p.Base != nil {
		r.Generation = p.Base.Generation
	}
	r.Build.Pieces = len(p.Pieces)
	for _, it := range p.Pieces {
		r.Build.PieceBytes += it.Size
	}
	for _, s := range p.Missing {
		for _, m := range s.Masks {
			r.Build.Bundles++
			r.Build.BundleBytes += bundleBytes(s.Set, m)
		}
	}
	return r
}

// Plan plans items without writing anything.
func (b *Builder) Plan(ctx context.Context, items []catalog.Item, opt PlanOptions) (*Plan, error) {
	base, etag, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	p := &Plan{Base: base, etag: etag}
	accepted, err := b.accept(ctx, p, items, opt)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	p.Target = index.New(index.Index{
		Format:  FormatID,
		BaseURL: b.opt.BaseURL,
		Params:  b.opt.Params,
		Items:   accepted,
	})
	p.recordRollouts()
	if !opt.AcceptRemovals {
		p.HeldBack = heldBack(base, p.Target)
	}
	if n := len(p.Target.Encode()); n > index.MaxEncoded-1024 { // room for greater numbers and a pin
		return nil, fmt.Errorf("plan: the catalog makes an index of %d bytes, more than the %d that readers accept: it has too many items", n, index.MaxEncoded)
	}
	p.Coverage, p.Missing, err = b.missing(ctx, p.Target, base, opt.Verify)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}

// missing returns what is covered for target and what of it is not covered for base. That the
// objects of a published index exist is what publishing means; verify does not believe it.
func (b *Builder) missing(ctx context.Context, target, base *index.Index, verify bool) (Coverage, []CoveredSet, error) {
	var built Coverage
	var history []*index.Index
	if base != nil {
		before, err := earlier(base.Generation, max(base.Params.Retain, target.Params.Retain), func(g uint64) (*index.Index, error) {
			return b.readGeneration(ctx, g)
		})
		if err != nil {
			return Coverage{}, nil, err
		}
		if !verify {
			built = Cover(base, before[:min(len(before), int(base.Params.Retain))])
		}
		// A target that equals its base will not become a generation of its own.
		if history = before; !sameContent(target, base) {
			history = append([]*index.Index{base}, before...)
		}
		history = history[:min(len(history), int(target.Params.Retain))]
	}
	coverage := Cover(target, history)
	return coverage, coverage.without(built), nil
}
