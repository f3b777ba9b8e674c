// Package history is the generations that were published: what they changed, going back to one of them,
// and pinning what is published. All of it is one conditional write of the index, which is why nothing
// in the pipeline can undo it by accident.
package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Near is how many generations before the published one are never given up (package gc): to those a
// rollback needs no word to anybody beforehand.
const Near = 3

// Generation is one published state of the catalog.
type Generation struct {
	Number   uint64    `json:"generation"`
	Sequence uint64    `json:"sequence"`          // of the plan that it came from
	When     time.Time `json:"when,omitzero"`     // it was published, or copied into the history; UTC
	Items    int       `json:"items"`             //
	Before   uint64    `json:"before"`            // the generation that Changes are against; 0: none is known
	Changes  []Change  `json:"changes"`           // by app and track
	Current  bool      `json:"current"`           //
	Pin      string    `json:"pin,omitempty"`     // why nothing is published over it
	Problem  string    `json:"problem,omitempty"` // why it cannot be read
	// Edits of the catalog that came between the generation before and this one; see Explain.
	Edits []catalog.LogEntry `json:"edits,omitempty"`
}

// Change is an item that differs between two generations.
type Change struct {
	Key  catalog.Key `json:"key"`
	From string      `json:"from,omitempty"` // its version before; empty: it was not there
	To   string      `json:"to,omitempty"`   // empty: it is not there any more
	What string      `json:"what"`           // added, removed, version, content, attributes, rollout or floors
}

// List returns the last n generations, the newest first, the published one among them.
func List(ctx context.Context, objects builder.Objects, n int) ([]Generation, error) {
	current, _, err := builder.ReadIndex(ctx, objects)
	if err != nil {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	kept, err := Kept(ctx, objects)
	if err != nil {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	if current != nil && !slices.ContainsFunc(kept, func(k Entry) bool { return k.Generation == current.Generation }) {
		info, err := objects.Stat(ctx, layout.IndexKey)
		if err != nil {
			return nil, fmt.Errorf("list generations: %w", err)
		}
		kept = append(kept, Entry{current.Generation, info.Modified})
	}
	slices.SortFunc(kept, func(a, b Entry) int { return cmp.Compare(b.Generation, a.Generation) })
	var all []Generation
	var newer *index.Index // of all[at]: waits for the one to compare it with
	var at int
	for _, k := range kept {
		if current == nil || k.Generation > current.Generation {
			continue // of an index that was lost
		}
		if len(all) >= n && newer == nil {
			break
		}
		ix, problem := current, ""
		if k.Generation != current.Generation {
			ix, err = builder.ReadGeneration(ctx, objects, k.Generation)
			if err != nil && !unreadable(err) {
				return nil, fmt.Errorf("list generations: %w", err)
			}
			if err != nil {
				problem = err.Error()
			}
		}
		if newer != nil && ix != nil {
			all[at].Before, all[at].Changes = k.Generation, Compare(ix, newer)
			newer = nil
		}
		if len(all) >= n {
			continue
		}
		g := Generation{Number: k.Generation, When: k.Modified.UTC().Truncate(time.Second), Changes: []Change{}, Problem: problem}
		if ix != nil {
			g.Sequence, g.Items = ix.Sequence, ix.Len()
			newer, at = ix, len(all)
		}
		if g.Current = k.Generation == current.Generation; g.Current {
			g.Pin = current.Pin
		}
		all = append(all, g)
	}
	return all, nil
}

// unreadable tells what is wrong with an index itself from what is wrong with the store.
func unreadable(err error) bool {
	return errors.Is(err, index.ErrCorrupt) || errors.Is(err, index.ErrVersion) || errors.Is(err, builder.ErrNotExist)
}

// Entry is a generation in the history.
type Entry struct {
	Generation uint64
	Modified   time.Time
}

// Kept returns what is in the history, the oldest first.
func Kept(ctx context.Context, objects builder.Objects) ([]Entry, error) {
	var all []Entry
	err := objects.List(ctx, layout.HistoryPrefix, func(o builder.ObjectInfo) error {
		g, err := layout.HistoryGeneration(o.Key)
		all = append(all, Entry{g, o.Modified})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the history: %w", err)
	}
	return all, nil
}

// Compare returns the items that differ between two indexes, by app and track.
func Compare(from, to *index.Index) []Change {
	before, after := ByKey(from), ByKey(to)
	changes := []Change{}
	for key, releases := range after {
		was, ok := before[key]
		delete(before, key)
		var old index.Item
		if ok {
			old = was[0]
		}
		it := releases[0]
		c := Change{Key: key, From: old.Version, To: it.Version}
		switch {
		case !ok:
			c.What = "added"
		case old.Version != it.Version:
			c.What = "version"
		case old.SHA256 != it.SHA256 || old.MD5 != it.MD5 || old.Size != it.Size:
			c.What = "content"
		case !slices.Equal(old.Attrs, it.Attrs):
			c.What = "attributes"
		case !reflect.DeepEqual(without(was, index.Floor), without(releases, index.Floor)):
			c.What = "rollout"
		case !reflect.DeepEqual(was, releases):
			c.What = "floors"
		default:
			continue
		}
		changes = append(changes, c)
	}
	for key, old := range before {
		changes = append(changes, Change{Key: key, From: old[0].Version, What: "removed"})
	}
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Key.App, b.Key.App), cmp.Compare(a.Key.Track, b.Key.Track))
	})
	return changes
}

// ByKey returns the releases of each item, the current one first.
func ByKey(ix *index.Index) map[catalog.Key][]index.Item {
	all := make(map[catalog.Key][]index.Item)
	for i := int32(0); int(i) < len(ix.Items); i = ix.Next(i) {
		it := &ix.Items[i]
		all[catalog.Key{App: it.App, Track: it.Track}] = ix.Items[i:ix.Next(i)]
	}
	return all
}

func without(releases []index.Item, role index.Role) []index.Item {
	return slices.DeleteFunc(slices.Clone(releases), func(it index.Item) bool { return it.Role == role })
}

// numbers writes generations as ranges: "1-4, 7".
func numbers(kept []Entry) string {
	var parts []string
	for i := 0; i < len(kept); {
		j := i
		for j+1 < len(kept) && kept[j+1].Generation == kept[j].Generation+1 {
			j++
		}
		part := fmt.Sprint(kept[i].Generation)
		if j > i {
			part += fmt.Sprintf("-%d", kept[j].Generation)
		}
		parts = append(parts, part)
		i = j + 1
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
