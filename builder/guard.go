package builder

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// heldBackPrefix begins the pin that a builder sets itself.
const heldBackPrefix = "held back: "

// IsHeldBack tells whether a pin was set by a builder, because a plan would have dropped most of what is published.
func IsHeldBack(pin string) bool { return strings.HasPrefix(pin, heldBackPrefix) }

// fewestDropped is how many items a plan has to drop before it is held back: removing one or two is everyday work, also
// where few are published.
const fewestDropped = 3

// DropsMost counts what a catalog with these items lacks of a published index, and tells whether that is so much that a
// plan is held back: it is more often a lost, emptied or half-read catalog than what somebody wants.
func DropsMost(published *index.Index, has map[catalog.Key]bool) (dropped int, most bool) {
	for _, it := range published.Items {
		if it.Role == index.Current && !has[keyOf(it)] {
			dropped++
		}
	}
	return dropped, dropped >= fewestDropped && 2*dropped > published.Len()
}

// heldBack returns the pin that keeps a plan from being published over an index, empty if it may be. Writers of a
// catalog's table pass no other guard.
func heldBack(published, target *index.Index) string {
	if published == nil {
		return ""
	}
	kept := make(map[catalog.Key]bool)
	for _, it := range target.Items {
		kept[keyOf(it)] = true
	}
	dropped, most := DropsMost(published, kept)
	if !most {
		return ""
	}
	items := "items"
	if target.Len() == 1 {
		items = "item"
	}
	return fmt.Sprintf("%sthe catalog has %d %s, %d are published, and %d of these would be gone; mend the catalog and run precast unpin, or publish it all the same with precast unpin --accept-removals",
		heldBackPrefix, target.Len(), items, published.Len(), dropped)
}

// holdBack pins what is published. It tells whether something else was published meanwhile.
func (b *Builder) holdBack(ctx context.Context, now current, sequence uint64, pin string) (outdated bool, err error) {
	pinned := *now.Index
	pinned.Pin = pin
	_, err = b.Objects.Put(ctx, layout.IndexKey, BytesBody(pinned.Encode()), PutOptions{IfMatch: now.etag})
	if errors.Is(err, ErrPrecondition) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("pin generation %d: %w", now.Generation, err)
	}
	b.opt.Log.ErrorContext(ctx, "a plan would drop most of what is published, which is pinned now", "generation", now.Generation, "sequence", sequence, "reason", pin)
	return false, nil
}
