package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/history"
)

// Status tells how far what is published is behind the catalog.
type Status struct {
	Generation uint64 `json:"generation"` // published; 0: none
	Sequence   uint64 `json:"sequence"`   // of the plan it came from
	Items      int    `json:"items"`      // published
	UpToDate   bool   `json:"upToDate"`   // what is published is what the catalog says
	// Pin is why nothing is published over it, empty if something may be.
	Pin string `json:"pin,omitempty"`
	// Ready: everything that the catalog says is built, and waits for the pin to be taken off.
	Ready bool `json:"ready,omitempty"`
	// OldestChange is when the first of the items was changed that are not served as the catalog says; zero if
	// there are none, or others than Precast changed them.
	OldestChange time.Time `json:"oldestChange,omitzero"`
	Waiting      int       `json:"waiting"` // jobs
	InFlight     int       `json:"inFlight"`
	Dead         int       `json:"dead"`
	// Rejected are the items of the catalog that cannot be published.
	Rejected []builder.Rejection `json:"rejected"`
	// DeadLetters are the newest few.
	DeadLetters []DeadLetter `json:"deadLetters"`
	Disk        *DiskStatus  `json:"disk,omitempty"` // not on AWS
}

// DeadLetter is a job that was given up.
type DeadLetter struct {
	ID       string          `json:"id"`
	Receives int             `json:"receives"`
	Job      json.RawMessage `json:"job"`
}

// Status looks at catalog, index and queue.
func (p *Pipeline) Status(ctx context.Context) (Status, error) {
	st, err := p.status(ctx)
	if err != nil {
		return st, fmt.Errorf("read status: %w", err)
	}
	return st, nil
}

func (p *Pipeline) status(ctx context.Context) (Status, error) {
	var st Status
	items, err := p.Catalog.Snapshot(ctx)
	if err != nil {
		return st, err
	}
	plan, err := p.Builder.Plan(ctx, items, builder.PlanOptions{})
	if err != nil {
		return st, err
	}
	if plan.Base != nil {
		st.Generation, st.Sequence, st.Items = plan.Base.Generation, plan.Base.Sequence, plan.Base.Len()
	}
	st.UpToDate = !plan.Changed()
	if plan.Base != nil && plan.Base.Pin != "" {
		st.Pin = plan.Base.Pin
		if st.Ready, err = p.ready(ctx, plan); err != nil {
			return st, err
		}
	}
	st.Rejected = append([]builder.Rejection{}, plan.Rejected...)
	st.OldestChange = oldestChange(items, plan)
	if st.Waiting, st.InFlight, st.Dead, err = p.DeadLetters.Depth(ctx); err != nil {
		return st, err
	}
	if st.Disk, err = p.diskStatus(ctx); err != nil {
		return st, err
	}
	letters, err := p.DeadLetters.Dead(ctx, 10)
	if err != nil {
		return st, err
	}
	st.DeadLetters = []DeadLetter{}
	for _, m := range letters {
		job := json.RawMessage(m.Body)
		if !json.Valid(job) {
			job, _ = json.Marshal(string(m.Body)) // a string always can be
		}
		st.DeadLetters = append(st.DeadLetters, DeadLetter{m.ID, m.Receives, job})
	}
	return st, nil
}

// maxReadyLooks bounds how many objects a status looks up: beyond, a plan is never called ready.
const maxReadyLooks = 2000

// ready tells whether all that a plan needs is stored.
func (p *Pipeline) ready(ctx context.Context, plan *builder.Plan) (bool, error) {
	if !plan.Changed() || len(plan.Pieces) > 0 {
		return false, nil
	}
	var keys []string
	for _, set := range plan.Missing {
		for _, m := range set.Masks {
			keys = append(keys, layout.BundleKey(set.ID, m.String()), layout.ManifestKey(set.ID, m.String()))
		}
	}
	if len(keys) > maxReadyLooks {
		return false, nil
	}
	absent, err := history.Absent(ctx, p.Objects, keys)
	return len(absent) == 0, err
}

// oldestChange looks for items that are not published in the release that the catalog says.
func oldestChange(items []catalog.Item, p *builder.Plan) time.Time {
	wanted, published := history.ByKey(p.Target), make(map[catalog.Key][]index.Item)
	if p.Base != nil {
		published = history.ByKey(p.Base)
	}
	rejected := func(k catalog.Key) bool {
		return slices.ContainsFunc(p.Rejected, func(r builder.Rejection) bool { return r.Key == k })
	}
	var oldest time.Time
	for _, it := range items {
		k := it.Key()
		if it.Changed.IsZero() || published[k] != nil && !rejected(k) && reflect.DeepEqual(published[k], wanted[k]) {
			continue
		}
		if oldest.IsZero() || it.Changed.Before(oldest) {
			oldest = it.Changed
		}
	}
	return oldest
}
