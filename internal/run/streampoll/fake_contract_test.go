package streampoll

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"github.com/aws/smithy-go"
)

func (f *fakeTable) iterator(t *testing.T, shard string, kind types.ShardIteratorType, seq string) (*string, error) {
	t.Helper()
	in := &dynamodbstreams.GetShardIteratorInput{StreamArn: &f.current().arn, ShardId: &shard, ShardIteratorType: kind}
	if seq != "" {
		in.SequenceNumber = &seq
	}
	out, err := f.GetShardIterator(t.Context(), in)
	if err != nil {
		return nil, err
	}
	return out.ShardIterator, nil
}

func (f *fakeTable) get(t *testing.T, it *string, limit int32) (n int, next *string, err error) {
	t.Helper()
	out, err := f.GetRecords(t.Context(), &dynamodbstreams.GetRecordsInput{ShardIterator: it, Limit: &limit})
	if err != nil {
		return 0, nil, err
	}
	return len(out.Records), out.NextShardIterator, nil
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("%v, want %s", err, code)
	}
}

// What the fake refuses, or notes, is what makes the other tests tests.
func TestFakeKeepsTheContract(t *testing.T) {
	const horizon, after, latest = types.ShardIteratorTypeTrimHorizon, types.ShardIteratorTypeAfterSequenceNumber, types.ShardIteratorTypeLatest
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.change(0, 3)
		root := f.current().shards[0]
		it, err := f.iterator(t, root.id, horizon, "")
		if err != nil {
			t.Fatal(err)
		}
		n, next, err := f.get(t, it, 2)
		if n != 2 || next == nil || err != nil {
			t.Fatalf("GetRecords = %d, %v, %v", n, next, err)
		}
		if n, next, err = f.get(t, next, 1000); n != 1 || next == nil || err != nil {
			t.Fatalf("GetRecords of the rest = %d, %v, %v", n, next, err)
		}
		if n, _, err = f.get(t, it, 1000); n != 3 || err != nil { // an iterator can be used again
			t.Fatalf("GetRecords of the first iterator = %d, %v", n, err)
		}
		it, _ = f.iterator(t, root.id, after, root.records[1].seq)
		if n, _, err = f.get(t, it, 1000); n != 1 || err != nil {
			t.Fatalf("GetRecords after the second = %d, %v", n, err)
		}
		it, _ = f.iterator(t, root.id, latest, "")
		if n, _, err = f.get(t, it, 1000); n != 0 || err != nil {
			t.Fatalf("GetRecords of the latest = %d, %v", n, err)
		}
		if len(f.broken) > 0 {
			t.Fatal(f.broken)
		}

		// A sixth read within a second.
		_, _, err = f.get(t, it, 1000)
		wantCode(t, err, "LimitExceededException")
		if len(f.broken) != 1 {
			t.Errorf("broken: %q", f.broken)
		}
		f.broken = nil
		time.Sleep(time.Second)
		_, _, err = f.get(t, it, 1001)
		wantCode(t, err, "LimitExceededException")
		_, _, err = f.get(t, it, 0)
		wantCode(t, err, "ValidationException")
		_, _, err = f.get(t, aws.String("none"), 1)
		wantCode(t, err, "ValidationException")
		_, err = f.iterator(t, root.id, after, "none")
		wantCode(t, err, "ValidationException")
		_, err = f.iterator(t, "none", horizon, "")
		wantCode(t, err, "ResourceNotFoundException")
		_, err = f.DescribeStream(t.Context(), &dynamodbstreams.DescribeStreamInput{StreamArn: aws.String("none")})
		wantCode(t, err, "ResourceNotFoundException")

		// A child before its parent's end; then the parent's end.
		f.roll(0, 2)
		child := f.current().shards[1]
		first, _ := f.iterator(t, child.id, horizon, "")
		if _, _, err = f.get(t, first, 1); err != nil || len(f.broken) != 1 {
			t.Errorf("a child was read first: %v, broken: %q", err, f.broken)
		}
		f.broken = nil
		if n, next, err = f.get(t, it, 1000); n != 0 || next != nil || err != nil || !root.drained {
			t.Errorf("GetRecords at the end of a closed shard = %d, %v, %v", n, next, err)
		}
		if _, _, err = f.get(t, first, 1); err != nil || len(f.broken) != 0 {
			t.Errorf("a child was read after its parent: %v, broken: %q", err, f.broken)
		}

		// Children first, in pages.
		var ids []string
		in := &dynamodbstreams.DescribeStreamInput{StreamArn: &f.current().arn}
		for page := 0; page == 0 || in.ExclusiveStartShardId != nil; page++ {
			out, err := f.DescribeStream(t.Context(), in)
			if err != nil || len(out.StreamDescription.Shards) > 2 {
				t.Fatalf("DescribeStream = %+v, %v", out, err)
			}
			for _, s := range out.StreamDescription.Shards {
				ids = append(ids, *s.ShardId)
			}
			in.ExclusiveStartShardId = out.StreamDescription.LastEvaluatedShardId
		}
		if len(ids) != 3 || !slices.Contains(ids[:2], child.id) || ids[2] != root.id {
			t.Errorf("shards: %q", ids)
		}

		// Time.
		f.change(0, 1)
		it, _ = f.iterator(t, child.id, horizon, "")
		time.Sleep(iteratorLife)
		_, _, err = f.get(t, it, 1)
		wantCode(t, err, "ExpiredIteratorException")
		time.Sleep(retention - iteratorLife - time.Minute)
		it, _ = f.iterator(t, child.id, horizon, "")
		time.Sleep(2 * time.Minute)
		_, _, err = f.get(t, it, 1)
		wantCode(t, err, "TrimmedDataAccessException")
		_, err = f.iterator(t, child.id, after, child.records[0].seq)
		wantCode(t, err, "TrimmedDataAccessException")
		_, err = f.iterator(t, root.id, horizon, "")
		wantCode(t, err, "ResourceNotFoundException")

		// An empty page although there are records, also at the end of a closed shard.
		f.change(0, 1)
		f.roll(0, 1)
		it, _ = f.iterator(t, child.id, horizon, "")
		f.empty = 1
		if n, next, err = f.get(t, it, 1000); n != 0 || next == nil || err != nil {
			t.Errorf("GetRecords of an empty page = %d, %v, %v", n, next, err)
		}

		// A stream that is disabled stays for a day.
		old := f.current().arn
		f.enable()
		out, err := f.DescribeStream(t.Context(), &dynamodbstreams.DescribeStreamInput{StreamArn: &old})
		if err != nil || out.StreamDescription.StreamStatus != types.StreamStatusDisabled {
			t.Errorf("DescribeStream of a disabled stream = %+v, %v", out, err)
		}
		time.Sleep(retention)
		_, err = f.DescribeStream(t.Context(), &dynamodbstreams.DescribeStreamInput{StreamArn: &old})
		wantCode(t, err, "ResourceNotFoundException")
	})
}
