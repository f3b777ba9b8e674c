package station

import (
	"context"
	"encoding/json"
	"fmt"

	"precast/builder"
)

// Status tells how far what is published is behind the catalog.
type Status struct {
	Generation uint64 `json:"generation"` // published; 0: none
	Sequence   uint64 `json:"sequence"`   // of the plan it came from
	Items      int    `json:"items"`      // published
	UpToDate   bool   `json:"upToDate"`   // what is published is what the catalog says
	Waiting    int    `json:"waiting"`    // jobs
	InFlight   int    `json:"inFlight"`
	Dead       int    `json:"dead"`
	// Rejected are the items of the catalog that cannot be published.
	Rejected []builder.Rejection `json:"rejected"`
	// DeadLetters are the newest few.
	DeadLetters []DeadLetter `json:"deadLetters"`
}

// DeadLetter is a job that was given up.
type DeadLetter struct {
	ID       string          `json:"id"`
	Receives int             `json:"receives"`
	Job      json.RawMessage `json:"job"`
}

// Status looks at catalog, index and queue.
func (s *Station) Status(ctx context.Context) (Status, error) {
	st, err := s.status(ctx)
	if err != nil {
		return st, fmt.Errorf("read status: %w", err)
	}
	return st, nil
}

func (s *Station) status(ctx context.Context) (Status, error) {
	var st Status
	items, err := s.Catalog.Snapshot(ctx)
	if err != nil {
		return st, err
	}
	p, err := s.Builder.Plan(ctx, items, builder.PlanOptions{})
	if err != nil {
		return st, err
	}
	if p.Base != nil {
		st.Generation, st.Sequence, st.Items = p.Base.Generation, p.Base.Sequence, len(p.Base.Items)
	}
	st.UpToDate = !p.Changed()
	st.Rejected = append([]builder.Rejection{}, p.Rejected...)
	if st.Waiting, st.InFlight, st.Dead, err = s.DeadLetters.Depth(ctx); err != nil {
		return st, err
	}
	letters, err := s.DeadLetters.Dead(ctx, 10)
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
