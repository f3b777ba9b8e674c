package builder

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// Kinds of jobs.
const (
	jobPlan    = "plan"    // take a snapshot, plan it, send what is missing
	jobPiece   = "piece"   // check and compress one binary
	jobBundles = "bundles" // write some bundles and manifests
	jobMend    = "mend"    // write what the published index lacks, or one damaged piece
)

// job is a queued message.
type job struct {
	Kind string `json:"kind"`

	// Plan jobs. After is a ledger number taken after the change that asks for the plan: any plan
	// with a greater sequence has seen the change.
	After uint64 `json:"after,omitempty"`
	PlanOptions
	// Since is when the oldest change that asked for the work was made, for all kinds of jobs: Unix
	// milliseconds, 0 if nobody knows.
	Since int64 `json:"since,omitempty"`
	// Log is the number of the last edit that the plan is sure to have seen, for jobs that follow from one.
	Log uint64 `json:"log,omitempty"`

	// Piece and bundle jobs: part Part of the ledger entry Entry of plan Sequence.
	Sequence uint64 `json:"sequence,omitempty"`
	Entry    string `json:"entry,omitempty"`
	Part     int    `json:"part,omitempty"`

	Item *catalog.Item `json:"item,omitempty"` // the piece's; of a mend job, if it is for one piece
	// Tries counts how often the piece's binary has been tried; Entry is empty then, as no plan waits for it.
	Tries int `json:"tries,omitempty"`

	// Bundle jobs: the generation that the plan was compared with, and what it lacks. Mend jobs: the
	// generation.
	Base uint64   `json:"base,omitempty"`
	Sets []setJob `json:"sets,omitempty"`
}

// setJob names bundles of one set, by positions in the planned index.
type setJob struct {
	Positions []int32  `json:"positions"`
	Masks     []string `json:"masks"`
}

// PlanOptions change how a plan is made.
type PlanOptions struct {
	// Verify looks every object up instead of believing that what is published is there.
	Verify bool `json:"verify,omitempty"`
	// Retry tries again the items that were rejected because of their binary.
	Retry bool `json:"retry,omitempty"`
	// AcceptRemovals publishes the plan even if it drops most of what is published.
	AcceptRemovals bool `json:"acceptRemovals,omitempty"`
}

// Request is what asks for a plan.
type Request struct {
	PlanOptions
	// Since is when the oldest change behind it was made; zero if nobody knows.
	Since time.Time
}

// origin is what a plan's jobs inherit from the job that asked for it, and where the catalog's log ended when the plan
// was made.
type origin struct {
	verify         bool
	retry          bool
	acceptRemovals bool
	since          time.Time
	log            uint64
}

func (j job) since() time.Time {
	if j.Since == 0 {
		return time.Time{}
	}
	return time.UnixMilli(j.Since)
}

func (j job) origin() origin { return origin{j.Verify, j.Retry, j.AcceptRemovals, j.since(), j.Log} }

func (o origin) onto(j *job) {
	j.Verify, j.Retry, j.AcceptRemovals, j.Log = o.verify, o.retry, o.acceptRemovals, o.log
	if !o.since.IsZero() {
		j.Since = o.since.UnixMilli()
	}
}

// RequestPlan asks for a plan that has seen everything that the catalog has acknowledged so far. The
// published index whose sequence is greater than the number returned has seen it.
func RequestPlan(ctx context.Context, ledger Ledger, queue Queue, r Request) (after uint64, err error) {
	after, err = ledger.Next(ctx)
	if err != nil {
		return 0, fmt.Errorf("request plan: %w", err)
	}
	j := job{Kind: jobPlan, After: after, PlanOptions: r.PlanOptions}
	if !r.Since.IsZero() {
		j.Since = r.Since.UnixMilli()
	}
	if err := send(ctx, queue, j); err != nil {
		return 0, fmt.Errorf("request plan: %w", err)
	}
	return after, nil
}

func send(ctx context.Context, queue Queue, jobs ...job) error {
	bodies := make([][]byte, len(jobs))
	for i, j := range jobs {
		data, err := json.Marshal(j)
		if err != nil {
			return fmt.Errorf("encode %s job: %w", j.Kind, err)
		}
		bodies[i] = data
	}
	return queue.Send(ctx, bodies...)
}

// Handle does one job. When it returns nil the message may be deleted; otherwise it is to be
// delivered again. Handling a job twice, or two at once, does no harm.
func (b *Builder) Handle(ctx context.Context, m Message) error {
	return b.handle(ctx, m, func() bool { return true })
}

// handle is Handle for a worker that may do other jobs while this one waits for a slow source: detach says whether it does.
func (b *Builder) handle(ctx context.Context, m Message, detach func() bool) error {
	var j job
	if err := json.Unmarshal(m.Body, &j); err != nil {
		return fmt.Errorf("decode job %s: %w", m.ID, err)
	}
	var err error
	switch j.Kind {
	case jobPlan:
		err = b.handlePlan(ctx, j)
	case jobPiece:
		err = b.handlePiece(ctx, j, m.Receives, detach)
	case jobMend:
		err = b.handleMend(ctx, j)
	case jobBundles:
		err = b.handleBundles(ctx, j)
	default:
		err = fmt.Errorf("unknown kind %q", j.Kind)
	}
	if err != nil {
		return fmt.Errorf("do %s job %s: %w", j.Kind, m.ID, err)
	}
	return nil
}
