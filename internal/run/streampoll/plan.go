package streampoll

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/precast-ota/precast/builder"
)

// pending is the plan that is to be asked for.
type pending struct {
	wanted  bool
	due     time.Time
	records int
	since   time.Time // the oldest record's; zero if there is none
}

// want asks for a plan, within the window.
func (p *Poller) want(now time.Time) {
	if !p.pending.wanted {
		p.pending.wanted, p.pending.due = true, now.Add(p.Window)
	}
}

// add asks for a plan because of a record. The change itself is not looked at, since a plan reads the
// whole catalog: no content of a record can make it fail.
func (p *Poller) add(now time.Time, r types.Record) {
	p.want(now)
	p.pending.records++
	if r.Dynamodb == nil || r.Dynamodb.ApproximateCreationDateTime == nil {
		return
	}
	if t := *r.Dynamodb.ApproximateCreationDateTime; p.pending.since.IsZero() || t.Before(p.pending.since) {
		p.pending.since = t
	}
}

// flushDue is when flush has something to do, if it has.
func (p *Poller) flushDue() (time.Time, bool) {
	due := p.pending.due
	if !p.pending.wanted {
		due = time.Time{}
	}
	if due.Before(p.flushing.at) {
		due = p.flushing.at
	}
	return due, p.pending.wanted || p.dirty
}

// flush asks for the plan, and then saves how far the stream has been read. Plan first, checkpoint
// after: a crash between them costs a plan that finds nothing to do. Nothing is read between them, so
// the checkpoint never goes beyond what a plan was asked for.
func (p *Poller) flush(ctx context.Context) error {
	if p.pending.wanted {
		after, err := builder.RequestPlan(ctx, p.Ledger, p.Queue, builder.Request{Since: p.pending.since})
		if err != nil {
			return err
		}
		p.Logger.InfoContext(ctx, "enqueued", "records", p.pending.records, "after", after)
		p.pending = pending{}
	}
	if !p.dirty {
		return nil
	}
	if err := p.Checkpoints.Save(ctx, p.checkpoint()); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	p.dirty = false
	return nil
}

// checkpoint holds the shards that have been read from. Those that have not, begin at the beginning.
func (p *Poller) checkpoint() Checkpoint {
	c := Checkpoint{Stream: p.arn, Shards: make(map[string]Position)}
	for id, s := range p.shards {
		if s.Position != (Position{}) {
			c.Shards[id] = s.Position
		}
	}
	return c
}
