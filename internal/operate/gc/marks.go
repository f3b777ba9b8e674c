package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// marks is what is needed. It only grows: read again, it adds what has come to be needed.
//
// A set is needed whole, whatever the held mask: a device may hold anything, and what was composed for it
// and kept is worth as much as what was prebuilt. It also makes what a plan needs independent of what
// is published by the time it is. Without copies, bundles and manifests are not needed: every answer is composed.
type marks struct {
	keep   uint64
	young  time.Time // generations that were written since then stay, and what they need
	sooner bool      // pieces and copies are given up sooner: Options.Rebuilt

	current  uint64          // generation
	floor    uint64          // generations from here on are kept
	built    uint64          // and from here on with their pieces and copies
	sequence uint64          // published: plans up to it are done with
	indexed  map[string]bool // indexes that are in the marks
	sets     map[string]bool
	binaries map[string]bool // keys
	contents map[string]bool // SHA-256, of pieces
	formats  map[string]bool // of indexes: they end in the encoder
	rejects  map[string]bool // keys
}

func newMarks(opt Options, now time.Time) *marks {
	return &marks{
		keep: opt.Keep, young: now.Add(-opt.History), sooner: opt.Rebuilt > 0, indexed: make(map[string]bool), sets: make(map[string]bool), binaries: make(map[string]bool),
		contents: make(map[string]bool), formats: map[string]bool{builder.FormatID: true}, rejects: make(map[string]bool),
	}
}

// read adds what is needed now: first the published index, then plans, then the catalog. Whoever moves
// content goes the other way, from the catalog into a plan and from there into the index, so that nothing
// slips through.
func (m *marks) read(ctx context.Context, objects builder.Objects, items Catalog) error {
	current, _, err := builder.ReadIndex(ctx, objects)
	if err != nil {
		return err
	}
	if current == nil {
		return ErrNothing
	}
	first := m.current == 0
	copies := current.Params.Copies()
	m.add(fmt.Sprintf("index %d %d", current.Generation, current.Sequence), current, true, copies)
	m.current, m.sequence = current.Generation, current.Sequence
	if first {
		// Later ones are never older, and what was kept stays so.
		m.floor = back(current.Generation, near(m.keep, current.Params.Retain))
		if m.sooner {
			m.built = back(current.Generation, near(0, current.Params.Retain))
		}
	}
	err = m.indexes(ctx, objects, layout.HistoryPrefix, func(o builder.ObjectInfo) bool {
		g, err := layout.HistoryGeneration(o.Key)
		return err == nil && (g >= m.floor || !o.Modified.Before(m.young))
	}, func(key string, ix *index.Index) { m.add(key, ix, ix.Generation >= m.built, copies) })
	if err != nil {
		return err
	}
	err = m.indexes(ctx, objects, layout.PlanPrefix, func(o builder.ObjectInfo) bool { return m.waiting(o.Key) },
		func(key string, ix *index.Index) { m.add(key, ix, true, true) })
	if err != nil {
		return err
	}
	all, err := items.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, it := range all {
		for _, release := range it.Steps() {
			m.rejects[builder.RejectKey(release.Item)] = true
			if key, ok := strings.CutPrefix(release.URL, catalog.StorePrefix); ok {
				m.binaries[key] = true
			}
		}
	}
	return nil
}

// indexes adds those below a prefix that are needed. One that cannot be read might need anything.
func (m *marks) indexes(ctx context.Context, objects builder.Objects, prefix string, needed func(o builder.ObjectInfo) bool, add func(key string, ix *index.Index)) error {
	return objects.List(ctx, prefix, func(o builder.ObjectInfo) error {
		if m.indexed[o.Key] || !needed(o) {
			return nil
		}
		ix, err := readIndex(ctx, objects, o.Key)
		if errors.Is(err, builder.ErrNotExist) {
			return nil // another sweep
		}
		if err != nil {
			return fmt.Errorf("%w: precast fsck tells more", err)
		}
		add(o.Key, ix)
		return nil
	})
}

func readIndex(ctx context.Context, objects builder.Objects, key string) (*index.Index, error) {
	if g, err := layout.HistoryGeneration(key); err == nil {
		return builder.ReadGeneration(ctx, objects, g)
	}
	sequence, err := layout.PlanSequence(key)
	if err != nil {
		return nil, err
	}
	return builder.ReadPlan(ctx, objects, sequence)
}

// waiting tells whether a plan may still be published.
func (m *marks) waiting(key string) bool {
	sequence, err := layout.PlanSequence(key)
	return err == nil && sequence > m.sequence
}

// back is the generation that is so many before another, or the first.
func back(generation, by uint64) uint64 {
	if generation > by {
		return generation - by
	}
	return 1
}

// add marks what an index needs: its binaries, its pieces if it is to be kept built, its copies if it has any and they are
// wanted.
func (m *marks) add(name string, ix *index.Index, built, copies bool) {
	if m.indexed[name] {
		return
	}
	m.indexed[name] = true
	m.formats[ix.Format] = true
	for i := range ix.Items {
		it := &ix.Items[i]
		m.binaries[builder.BinaryKey(it)] = true
		if built {
			m.contents[edge.Hex(it.SHA256[:])] = true
		}
	}
	if !built || !copies || !ix.Params.Copies() {
		return
	}
	var last []int32
	for v := range edge.NewWalk(ix, ix.Params.MaxCombinations).Visits {
		set, err := v.Resolve()
		if err == nil && set.Len() > 0 && !slices.Equal(set.Positions, last) { // neighbours are often the same
			last = set.Positions
			m.sets[set.ID()] = true
		}
	}
}

// needs tells whether an object is needed.
func (m *marks) needs(key string) bool {
	kind, _ := layout.KindOf(key) // an unknown one is kept
	_, rest, _ := strings.Cut(key, "/")
	first, second, _ := strings.Cut(rest, "/")
	switch kind {
	case layout.Bundle, layout.Manifest:
		return m.sets[first]
	case layout.Piece:
		return m.contents[first] && m.encodes(second)
	case layout.Binary:
		return m.binaries[key]
	case layout.IndexHistory:
		g, err := layout.HistoryGeneration(key)
		return err != nil || g >= m.floor || m.indexed[key]
	case layout.Plan:
		return m.indexed[key] || m.waiting(key)
	case layout.Reject:
		return m.rejects[key]
	}
	return true
}

// encodes tells whether a needed index is made of an encoder's pieces.
func (m *marks) encodes(encoder string) bool {
	for format := range m.formats {
		if strings.HasSuffix(format, "."+encoder) {
			return true
		}
	}
	return false
}
