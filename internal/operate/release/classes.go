package release

import (
	"slices"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// class are the slots that are in the same rollouts.
type class struct {
	slot  int // one of them, or edge.NoSlot
	slots int // how many
}

// classes divides the slots by the rollouts of an item, before and after.
func classes(items ...[]index.Item) []class {
	var shares []edge.Share
	for _, releases := range items {
		for i := range releases {
			if s := (edge.Share{Salt: releases[i].Salt, Places: releases[i].Share}); s.Salt != "" && !slices.Contains(shares, s) {
				shares = append(shares, s)
			}
		}
	}
	all := []class{{slot: edge.NoSlot}}
	if len(shares) == 0 {
		return append(all, class{0, index.Slots})
	}
	// A place is a linear function of the slot: it is known from two of them.
	type line struct{ place, step int }
	lines := make([]line, len(shares))
	for i, s := range shares {
		lines[i].place = edge.Place(s.Salt, 0)
		lines[i].step = edge.Place(s.Salt, 1) - lines[i].place + index.Slots
	}
	at := make(map[uint64]int)
	for slot := range index.Slots {
		var in uint64
		for i := range lines {
			if lines[i].place < int(shares[i].Places) {
				in |= 1 << i
			}
			lines[i].place = (lines[i].place + lines[i].step) % index.Slots
		}
		if _, ok := at[in]; !ok {
			at[in] = len(all)
			all = append(all, class{slot: slot})
		}
		all[at[in]].slots++
	}
	return all
}
