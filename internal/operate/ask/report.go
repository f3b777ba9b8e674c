package ask

import (
	"cmp"
	"context"
	"slices"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// Report is the answer to a device, and what may come instead.
type Report struct {
	Of    string   `json:"of"`             // the installation, or the URL
	Query string   `json:"query"`          // canonical; as it was given if it is refused
	Slot  *int     `json:"slot,omitempty"` // missing: none is sent
	Held  []string `json:"held"`           // digests
	Pin   string   `json:"pin,omitempty"`  // why nothing is published over what answers
	Answer
	// Slots are the other answers that devices of the query may get: those that send a slot, if this one does not.
	Slots []OfSlots `json:"slots,omitempty"`
	// More counts the slots whose answers are left out.
	More    int               `json:"moreSlots,omitempty"`
	Waiting *Waiting          `json:"waiting,omitempty"` // missing: it was not looked for
	Headers map[string]string `json:"headers,omitempty"` // of the answer, if a URL was asked
}

// OfSlots is the answer to devices with some of the slots.
type OfSlots struct {
	Slots   int     `json:"slots"` // how many, of index.Slots
	Example int     `json:"slot"`  // one of them
	Answer  Answer  `json:"answer"`
	Waiting *Answer `json:"waiting,omitempty"` // after the changes that wait
}

// Waiting is what comes once the changes of the catalog are published that are not published yet.
type Waiting struct {
	Changed bool `json:"changed"` // there are some
	// HeldBack is why they are not published by themselves: a pin, or what the plan says.
	HeldBack string `json:"heldBack,omitempty"`
	// Rejected are the items that would be left out.
	Rejected []builder.Rejection `json:"rejected"`
	Same     bool                `json:"same"` // the answer stays
	Answer   *Answer             `json:"answer,omitempty"`
}

// Source is where answers come from.
type Source struct {
	Objects builder.Objects
	Index   *index.Index  // what is published; nil: nothing
	Plan    *builder.Plan // of the catalog as it is; nil: it is not known
}

// maxOfSlots bounds how many answers a report has for slots.
const maxOfSlots = 12

// Ask answers a question.
func (s Source) Ask(ctx context.Context, q Question) (*Report, error) {
	now, next := edge.TableOf(s.Index), edge.Table{}
	if s.Plan != nil {
		next = edge.TableOf(s.Plan.Target)
	}
	selection, slot, err := edge.ParseQuery(q.Query)
	rep := &Report{Query: q.Query, Held: []string{}, Answer: decide(now, q, edge.NoSlot)}
	if err == nil {
		rep.Query = selection.String()
	}
	if slot != edge.NoSlot {
		rep.Slot = &slot
	}
	if held, err := edge.ParseTags(q.Held); err == nil {
		rep.Held = append(rep.Held, held...)
	}
	if s.Index != nil {
		rep.Pin = s.Index.Pin
	}
	if s.Plan != nil {
		rep.Waiting = s.waiting(next, q, &rep.Answer)
	}
	if err == nil && slot == edge.NoSlot {
		s.ofSlots(rep, now, next, selection, q)
	}
	composer := builder.NewComposer(s.Objects)
	published, planned := []*Answer{&rep.Answer}, []*Answer{}
	if rep.Waiting != nil && rep.Waiting.Answer != nil {
		planned = append(planned, rep.Waiting.Answer)
	}
	for i := range rep.Slots {
		published = append(published, &rep.Slots[i].Answer)
		if rep.Slots[i].Waiting != nil {
			planned = append(planned, rep.Slots[i].Waiting)
		}
	}
	for _, a := range append(planned, published...) {
		a.explain()
	}
	for _, a := range published {
		if err := a.locate(ctx, s.Objects, composer); err != nil {
			return nil, err
		}
	}
	return rep, nil
}

func (s Source) waiting(next edge.Table, q Question, now *Answer) *Waiting {
	w := &Waiting{Changed: s.Plan.Changed() && !s.Plan.AllLeftOut(), HeldBack: s.Plan.HeldBack, Rejected: append([]builder.Rejection{}, s.Plan.Rejected...), Same: true}
	if !w.Changed {
		return w
	}
	if s.Index != nil && s.Index.Pin != "" {
		w.HeldBack = s.Index.Pin
	}
	after := decide(next, q, edge.NoSlot)
	w.Same, w.Answer = after.Same(now), &after
	return w
}

// ofSlots adds the answers to devices with a slot that differ from that to a device without one, now or after the
// changes that wait. Those with the same answers are counted together.
func (s Source) ofSlots(rep *Report, now, next edge.Table, selection edge.Selection, q Question) {
	if len(now.Lines)+len(next.Lines) == 0 {
		return
	}
	known := make(map[string]int) // rollouts -> place in all
	var all []OfSlots
	for slot := range index.Slots {
		rollouts := now.Cohort(selection, slot).String() + " " + next.Cohort(selection, slot).String()
		at, ok := known[rollouts]
		if !ok {
			one := OfSlots{Example: slot, Answer: decide(now, q, slot)}
			if rep.Waiting != nil && rep.Waiting.Changed {
				after := decide(next, q, slot)
				one.Waiting = &after
			}
			at = slices.IndexFunc(all, func(o OfSlots) bool {
				return o.Answer.Same(&one.Answer) && (o.Waiting == nil || o.Waiting.Same(one.Waiting))
			})
			if at < 0 {
				at = len(all)
				all = append(all, one)
			}
			known[rollouts] = at
		}
		all[at].Slots++
	}
	all = slices.DeleteFunc(all, func(o OfSlots) bool {
		return o.Answer.Same(&rep.Answer) && (o.Waiting == nil || o.Waiting.Same(rep.Waiting.Answer))
	})
	slices.SortStableFunc(all, func(a, b OfSlots) int { return cmp.Compare(b.Slots, a.Slots) })
	for len(all) > maxOfSlots {
		last := len(all) - 1
		rep.More += all[last].Slots
		all = all[:last]
	}
	rep.Slots = all
}
