package streampoll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"github.com/aws/smithy-go"
)

// The most that GetRecords returns
// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
const pageSize = 1000

// shard is one of the stream's, and how far it has been read.
type shard struct {
	Position
	id, parent string
	closed     bool // it gets no more records
	iterator   string
	pace       pace
}

// readable tells whether a shard may have something to give, and its turn has come: a parent is read to
// its end before its children are
// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html). A parent that is no
// longer listed has nothing left.
func (p *Poller) readable(s *shard) bool {
	if s.Ended {
		return false
	}
	parent := p.shards[s.parent]
	return parent == nil || parent.Ended
}

// read reads one page of a shard.
func (p *Poller) read(ctx context.Context, s *shard) error {
	if s.iterator == "" {
		if err := p.open(ctx, s); err != nil {
			return fmt.Errorf("open shard %s: %w", s.id, p.locate(s, err))
		}
	}
	out, err := p.Client.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: &s.iterator, Limit: aws.Int32(pageSize)})
	if err != nil {
		return fmt.Errorf("read shard %s: %w", s.id, p.locate(s, err))
	}
	now := time.Now()
	for _, r := range out.Records {
		p.add(now, r)
		if r.Dynamodb != nil && r.Dynamodb.SequenceNumber != nil {
			s.After = *r.Dynamodb.SequenceNumber
			p.dirty = true
		}
	}
	s.iterator = aws.ToString(out.NextShardIterator)
	if s.iterator == "" {
		s.Ended, p.dirty = true, true
		p.discovery.soon(now) // for its children
		return nil
	}
	if len(out.Records) > 0 || s.closed {
		s.pace.at = now.Add(pagePace)
	}
	return nil
}

// open takes a position in a shard: where reading ended, or the oldest record that there is.
func (p *Poller) open(ctx context.Context, s *shard) error {
	in := &dynamodbstreams.GetShardIteratorInput{StreamArn: &p.arn, ShardId: &s.id, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	if s.After != "" {
		in.ShardIteratorType, in.SequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &s.After
	}
	out, err := p.Client.GetShardIterator(ctx, in)
	if err != nil {
		return err
	}
	if s.iterator = aws.ToString(out.ShardIterator); s.iterator == "" {
		return errors.New("the answer has no iterator")
	}
	// Records before the position may have been trimmed unread, and nothing tells.
	p.want(time.Now())
	return nil
}

// locate gives a position up that the service refuses, so that another is taken, and returns err. After
// any other error the same position is good again.
func (p *Poller) locate(s *shard, err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return err
	}
	switch api.ErrorCode() {
	case "ExpiredIteratorException":
		s.iterator = ""
	case "TrimmedDataAccessException", // 24 hours have passed
		"ValidationException": // the checkpoint's number is none of this shard's
		s.iterator, s.After = "", ""
	case "ResourceNotFoundException": // the shard or the whole stream is gone; the list will tell
		s.iterator = ""
		p.discovery.soon(time.Now())
	}
	return err
}
