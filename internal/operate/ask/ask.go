// Package ask tells what a device gets, and why. It selects nothing itself: the answer is the edge's, and so are the
// reasons, which it finds by asking the edge for one parameter of the query at a time.
package ask

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Question is what a device sends.
type Question struct {
	Query string // what follows the question mark of its URL
	Held  string // its If-None-Match
}

// Answer is what it gets.
type Answer struct {
	Generation uint64 `json:"generation"` // 0: what is planned, or nothing is published
	Status     int    `json:"status"`
	Error      string `json:"error,omitempty"`
	// Kind is bundle, manifest or statement. Key is the object's, ETag what precast serve calls it.
	Kind string `json:"kind,omitempty"`
	Key  string `json:"key,omitempty"`
	ETag string `json:"etag,omitempty"`
	// Source says how it is made: prebuilt, composed or signed; empty: it is not known. Size is in bytes, 0 if it is not
	// known.
	Source   string  `json:"source,omitempty"`
	Size     int64   `json:"size,omitempty"`
	Problem  string  `json:"problem,omitempty"` // why it cannot be sent
	Items    []Item  `json:"items"`             // what the device is to have
	Unmet    []Unmet `json:"unmet"`             // parameters that bring nothing
	Near     []Near  `json:"near"`              // items that it does not get, the nearest first
	MoreNear int     `json:"moreNear,omitempty"`

	decision edge.Decision
	device   device
	identity string // of all that a device notices
}

// Same tells whether a device would notice no difference.
func (a *Answer) Same(b *Answer) bool { return a.identity == b.identity }

// decide answers a question from an index, without looking at any object: for a device with this slot, or edge.NoSlot for
// what the query says. It does not say why.
func decide(t edge.Table, q Question, slot int) Answer {
	selection, own, err := edge.ParseQuery(q.Query)
	d := t.Decide(q.Query, q.Held)
	if err == nil && slot != edge.NoSlot {
		own = slot
		d = edge.DecideCohort(t.Index, q.Query, t.Cohort(selection, slot).String(), q.Held)
	}
	held, _ := edge.ParseTags(q.Held) // has been read by Decide
	a := Answer{Status: d.Status, Error: d.Error, Items: []Item{}, Unmet: []Unmet{}, Near: []Near{}, decision: d, device: device{t, selection, own, held}}
	if t.Index != nil {
		a.Generation = t.Index.Generation
	}
	switch {
	case d.Status == edge.StatusNotModified:
		a.Kind = "bundle"
		if d.Selection.Payload == edge.MetadataOnly {
			a.Kind = "manifest"
		}
	case d.Status == edge.StatusOK:
		a.object(q)
	}
	a.identity = fmt.Sprint(a.Status, a.Error, a.Kind, a.Key)
	for i := range d.Set.Len() {
		it := d.Set.Item(i)
		a.identity += fmt.Sprintf(" %q %q %x %t", it.App, it.Version, it.SHA256, d.Mask.Has(i))
	}
	return a
}

// object fills in what is sent.
func (a *Answer) object(q Question) {
	kind, key := a.decision.Object()
	switch kind {
	case layout.Manifest:
		a.Kind = "manifest"
	case layout.Statement: // its key has its epoch, which the signing server knows
		a.Kind, a.Source = "statement", "signed"
		return
	default:
		a.Kind = "bundle"
	}
	a.Key, a.ETag = key, layout.ETag(key)
	if tag, ok := edge.SingleTag(q.Held); ok && tag == a.ETag {
		a.Status = edge.StatusNotModified // the device has this very answer
	}
}

// explain fills in the items, and why they are those.
func (a *Answer) explain() {
	if a.Status == edge.StatusBadRequest || a.Status == edge.StatusUnavailable {
		return
	}
	r := reasonsOf(a.device)
	a.Items, a.Unmet = r.items(a.decision), r.unmet()
	a.Near, a.MoreNear = r.near(a.Status == edge.StatusNotFound)
}

// locate finds out how an answer is made, and its size.
func (a *Answer) locate(ctx context.Context, objects builder.Objects, composer *builder.Composer) error {
	if a.Key == "" || a.Status != edge.StatusOK {
		return nil
	}
	d := a.decision
	if d.Set.Index.Params.Copies() {
		info, err := objects.Stat(ctx, a.Key)
		if err == nil {
			a.Source, a.Size = "prebuilt", info.Size
			return nil
		}
		if !errors.Is(err, builder.ErrNotExist) {
			return err
		}
	}
	kind, _ := d.Object()
	composed, err := composer.Compose(ctx, kind, d.Set, d.Mask)
	if err != nil {
		a.Problem = err.Error()
		if !canBeMade(ctx, objects, composer, d) {
			a.Status, a.Error = edge.StatusUnavailable, edge.ErrNotAvailable
			return ctx.Err()
		}
		a.Source, a.Problem = "composed", a.Problem+": it is made again from its binary first"
		return nil
	}
	a.Source, a.Size = "composed", composed.Size
	return composed.Close()
}

// canBeMade tells whether the binary of every piece is there that is missing or damaged: a server makes it again of that.
func canBeMade(ctx context.Context, objects builder.Objects, composer *builder.Composer, d edge.Decision) bool {
	if _, ok := builder.Encoder(d.Set.Index); !ok {
		return false
	}
	for i, p := range d.Set.Positions {
		if d.Mask.Has(i) {
			continue
		}
		alone := edge.Set{Index: d.Set.Index, Positions: []int32{p}}
		if composed, err := composer.Compose(ctx, layout.Bundle, alone, edge.Mask{}); err == nil {
			_ = composed.Close() // it was only planned
			continue
		}
		if _, err := objects.Stat(ctx, builder.BinaryKey(d.Set.Item(i))); err != nil {
			return false
		}
	}
	return true
}

// Query returns the query in what people have at hand: a query, with its question mark or without, a path, or a URL.
func Query(text string) string {
	text = strings.TrimSpace(text)
	before, after, found := strings.Cut(text, "?")
	switch {
	case found && !strings.ContainsAny(before, "=&"):
		text = after
	case strings.HasPrefix(text, "/") || strings.Contains(before, "://") && !strings.ContainsAny(before, "=&"):
		return "" // a URL without a query
	}
	text, _, _ = strings.Cut(text, "#")
	return text
}

// Percent is a number of slots as a part of all.
func Percent(slots int) float64 { return float64(slots) * 100 / index.Slots }
