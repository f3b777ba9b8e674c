package edge

import (
	"slices"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/internal/format/index"
)

// maxDevices bounds how many devices of one selection are told apart. What the others get is composed on request.
const maxDevices = 64

// Devices returns devices of a selection that may get different answers: one for every mixture of the rollouts that
// a device can be in and the floors that it can have passed. The device that is in no rollout and has passed every
// floor comes first, then those that differ from it in one thing, then in two. All says whether these are all of them.
// Their Held holds no more than it takes to have passed floors.
func (d Dimensions) Devices(s Selection) (devices []Device, all bool) {
	if !d.table.Index.HasVariants() {
		return []Device{{Selection: s}}, true
	}
	all = true
	for _, c := range d.cohorts(s) {
		device := Device{Selection: s, Cohort: c.cohort}
		for _, held := range stages(d.table.Index, device) {
			if len(devices) == maxDevices {
				return devices, false
			}
			device.Held = held
			devices = append(devices, device)
		}
	}
	return devices, all
}

// Index returns the index that the dimensions are of.
func (d Dimensions) Index() *index.Index { return d.table.Index }

// Slot returns a slot that has this cohort among those of a selection, NoSlot for the empty cohort.
func (d Dimensions) Slot(device Device) int {
	for _, c := range d.cohorts(device.Selection) {
		if c.cohort.String() == device.Cohort.String() {
			return c.slot
		}
	}
	return NoSlot
}

// Query returns a query that a device may send. What it holds goes into If-None-Match.
func (d Dimensions) Query(device Device) string {
	query := device.Selection.String()
	if slot := d.Slot(device); slot != NoSlot {
		query += "&" + keySlot + "=" + strconv.Itoa(slot)
	}
	return query
}

// cohortSlot is a cohort and a slot that is in it.
type cohortSlot struct {
	cohort Cohort
	slot   int // the smallest; NoSlot for the empty cohort
}

// cohorts returns the cohorts that devices of a selection are in, those with the fewest rollouts first. It tries every
// slot: of two rollouts to one device in a hundred, there may be no device in both.
func (d Dimensions) cohorts(s Selection) []cohortSlot {
	claims := ClaimsOf(d.table.Index, Device{Selection: s}).Rollouts
	if len(claims) == 0 {
		return []cohortSlot{{nil, NoSlot}}
	}
	var key strings.Builder
	for _, c := range claims {
		key.WriteString(c.Salt + " " + strconv.Itoa(int(c.Places)) + "\n")
	}
	if known, ok := d.known[key.String()]; ok {
		return known
	}
	found := []cohortSlot{{nil, NoSlot}}
	seen := map[string]bool{"": true}
	for slot := range index.Slots {
		c := d.table.Cohort(s, slot)
		if text := c.String(); !seen[text] {
			seen[text] = true
			found = append(found, cohortSlot{c, slot})
		}
	}
	slices.SortStableFunc(found, func(a, b cohortSlot) int { return len(a.cohort) - len(b.cohort) })
	d.known[key.String()] = found
	return found
}

// stages returns what devices of a selection and cohort may hold, as far as it matters to floors.
func stages(ix *index.Index, d Device) []Tags {
	type stage struct {
		held    Tags
		differs int
	}
	all := []stage{{}}
	seen := make(map[int32]bool)
	each(ix, d, func(release, _ int32) {
		if seen[release] || !isFloor(ix, release+1) {
			return
		}
		seen[release] = true
		// Who holds a floor has passed it; who holds none has the oldest one to come.
		var holds []Tags
		for i := release + 1; isFloor(ix, i); i++ {
			holds = append(holds, Tags{Hex(ix.Items[i].SHA256[:])})
		}
		holds = append(holds, nil)
		var more []stage
		for _, s := range all {
			for i, h := range holds {
				differs := s.differs
				if i > 0 {
					differs++
				}
				if len(more) < maxDevices*len(holds) {
					held := slices.Concat(s.held, h)
					slices.Sort(held)
					more = append(more, stage{slices.Compact(held), differs})
				}
			}
		}
		slices.SortStableFunc(more, func(a, b stage) int { return a.differs - b.differs })
		all = more[:min(len(more), maxDevices+1)]
	})
	held := make([]Tags, len(all))
	for i, s := range all {
		held[i] = s.held
	}
	return held
}
