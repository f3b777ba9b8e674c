package streampoll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
)

// load remembers the checkpoint until the shards are known.
func (p *Poller) load(ctx context.Context) error {
	c, err := p.Checkpoints.Load(ctx)
	if err != nil {
		return err
	}
	p.resume, p.loaded = &c, true
	return nil
}

// discover brings the shards up to date. They come and go while the table is used: each is closed
// after some hours, or when its partition is split, and its children take over.
func (p *Poller) discover(ctx context.Context) error {
	if p.ask {
		arn, err := p.Stream(ctx)
		if err != nil {
			return err
		}
		p.follow(ctx, arn)
	}
	shards, status, err := p.list(ctx)
	if err != nil {
		var gone *types.ResourceNotFoundException
		p.ask = p.ask || errors.As(err, &gone)
		return fmt.Errorf("describe stream %s: %w", p.arn, err)
	}
	// A disabled stream gets no more records, and stays readable for a day. What changes until
	// another is enabled is in none.
	disabled := status == types.StreamStatusDisabled || status == types.StreamStatusDisabling
	if disabled && !p.disabled {
		p.Logger.WarnContext(ctx, "the stream is disabled: changes of the catalog are not seen", "stream", p.arn)
		p.discovery.at = time.Now().Add(p.Every) // another may have been enabled already
	}
	p.ask, p.disabled = disabled, disabled
	p.merge(shards)
	return nil
}

// follow turns to a stream. What was not read of the one before, and what happened between them, is
// in the catalog: the plan will see it. (The new stream may have no shard that would ask for one.)
func (p *Poller) follow(ctx context.Context, arn string) {
	if arn == p.arn {
		return
	}
	p.Logger.InfoContext(ctx, "following stream", "stream", arn)
	if p.resume != nil && p.resume.Stream != arn {
		p.resume = nil
	}
	p.arn, p.disabled = arn, false
	clear(p.shards)
	p.want(time.Now())
}

// list returns all shards or none: with some it could take a shard for one without parents.
func (p *Poller) list(ctx context.Context) ([]types.Shard, types.StreamStatus, error) {
	in := &dynamodbstreams.DescribeStreamInput{StreamArn: &p.arn}
	var all []types.Shard
	for {
		out, err := p.Client.DescribeStream(ctx, in)
		if err != nil {
			return nil, "", err
		}
		d := out.StreamDescription
		if d == nil {
			return nil, "", errors.New("the answer has no description")
		}
		all = append(all, d.Shards...)
		if aws.ToString(d.LastEvaluatedShardId) == "" {
			return all, d.StreamStatus, nil
		}
		in.ExclusiveStartShardId = d.LastEvaluatedShardId
	}
}

// merge adds the shards that are new, where the checkpoint has them or at their beginning, and drops
// those that the stream has forgotten.
func (p *Poller) merge(listed []types.Shard) {
	known := make(map[string]bool, len(listed))
	for _, l := range listed {
		id := aws.ToString(l.ShardId)
		known[id] = true
		s := p.shards[id]
		if s == nil {
			s = &shard{id: id, parent: aws.ToString(l.ParentShardId)}
			if p.resume != nil {
				s.Position = p.resume.Shards[id]
			}
			p.shards[id] = s
		}
		s.closed = l.SequenceNumberRange != nil && l.SequenceNumberRange.EndingSequenceNumber != nil
	}
	p.resume = nil
	for id, s := range p.shards {
		if known[id] {
			continue
		}
		if !s.Ended {
			p.want(time.Now()) // it had records that nobody has read
		}
		delete(p.shards, id)
		p.dirty = true
	}
}
