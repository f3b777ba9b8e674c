package history

import (
	"context"
	"maps"
	"slices"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// Log is the log of the catalog's changes; see builder.CatalogWriter.
type Log interface {
	Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error
}

// Explain fills in the edits of generations that List returned, each those that came between the generation before and
// it. A rollback is its own.
func Explain(ctx context.Context, objects builder.Objects, log Log, all []Generation) error {
	if len(all) == 0 {
		return nil
	}
	seen := make(map[uint64]uint64)
	look := func(generation uint64) (known bool, err error) {
		n, known, err := builder.PlannedFrom(ctx, objects, generation)
		if known {
			seen[generation] = n
		}
		return known, err
	}
	for _, g := range all {
		if _, err := look(g.Number); err != nil {
			return err
		}
	}
	// Of a rollback that is not noted: what it took back has seen no less.
	oldest := all[len(all)-1]
	for g, tries := oldest.Before, 0; g > 0 && tries < farBack; g, tries = g-1, tries+1 {
		if known, err := look(g); known || err != nil {
			if err != nil {
				return err
			}
			break
		}
	}
	var after uint64
	if len(seen) > 0 && oldest.Number > 1 {
		after = slices.Min(slices.Collect(maps.Values(seen)))
	}
	return log.Log(ctx, after, func(e catalog.LogEntry) error {
		if g := generationOf(all, seen, e); g != nil {
			g.Edits = append(g.Edits, e)
		}
		return nil
	})
}

// farBack bounds how many rollbacks in a row are looked past.
const farBack = 10

// generationOf returns the first generation that has seen an edit, nil if none has or there was none before it.
func generationOf(all []Generation, seen map[uint64]uint64, e catalog.LogEntry) *Generation {
	for i := range slices.Backward(all) { // the oldest first
		g := &all[i]
		if e.Act != nil && e.Act.Of != 0 {
			if g.Number == e.Act.Generation {
				return g
			}
			continue
		}
		if n, known := seen[g.Number]; known && n >= e.Number {
			return g
		}
	}
	return nil
}

// Edits returns the edits that came between two generations, whichever is the later one.
func Edits(ctx context.Context, log Log, from, to uint64) ([]catalog.LogEntry, error) {
	var edits []catalog.LogEntry
	err := log.Log(ctx, min(from, to), func(e catalog.LogEntry) error {
		if e.Number <= max(from, to) {
			edits = append(edits, e)
		}
		return nil
	})
	return edits, err
}
