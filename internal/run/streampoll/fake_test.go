package streampoll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"github.com/aws/smithy-go"
)

const (
	retention    = 24 * time.Hour
	iteratorLife = 15 * time.Minute
)

// fakeTable is a table's streams as AWS documents them: iterators expire, records are trimmed, shards
// vanish, a shard bears five reads a second, empty pages come although there are records, and the list
// of shards comes in pages, children before parents. What a reader must not do is refused, or noted in
// broken. Time is time.Now, which tests run in a bubble of testing/synctest.
type fakeTable struct {
	mu        sync.Mutex
	streams   []*fakeStream // the last one is the table's
	iterators map[string]*fakeIterator
	made      int // shards, records and iterators: for their names
	pageSize  int // shards in a page of the list
	empty     int // every so many reads of a shard give nothing; 0 for never
	fault     func(call string) error

	calls  map[string]int
	reads  []string // "shard-1 3": records of every read that gave some, or "shard-1 end"
	seen   map[string]int
	broken []string
}

type fakeStream struct {
	arn      string
	disabled bool
	shards   []*fakeShard
}

type fakeShard struct {
	id, parent string
	closed     time.Time // zero if it is open
	records    []fakeRecord
	trimmed    int // of records
	drained    bool
	gets       []time.Time
}

type fakeRecord struct {
	seq  string
	made time.Time
}

type fakeIterator struct {
	stream *fakeStream
	shard  *fakeShard
	at     int
	made   time.Time
}

func newFake() *fakeTable {
	f := &fakeTable{iterators: make(map[string]*fakeIterator), pageSize: 2, calls: make(map[string]int), seen: make(map[string]int)}
	f.enable()
	return f
}

func (f *fakeTable) name(kind string) string {
	f.made++
	return fmt.Sprintf("%s-%06d", kind, f.made)
}

// enable gives the table a new stream with one shard.
func (f *fakeTable) enable() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.streams); n > 0 {
		f.disableLocked()
	}
	f.streams = append(f.streams, &fakeStream{arn: f.name("arn")})
	f.addShard("")
}

func (f *fakeTable) current() *fakeStream { return f.streams[len(f.streams)-1] }

func (f *fakeTable) disable() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disableLocked()
}

func (f *fakeTable) disableLocked() {
	s := f.current()
	s.disabled = true
	for _, sh := range s.shards {
		if sh.closed.IsZero() {
			sh.closed = time.Now()
		}
	}
}

func (f *fakeTable) addShard(parent string) *fakeShard {
	sh := &fakeShard{id: f.name("shard"), parent: parent}
	f.current().shards = append(f.current().shards, sh)
	return sh
}

func (f *fakeTable) open() []*fakeShard {
	return slices.DeleteFunc(slices.Clone(f.current().shards), func(s *fakeShard) bool { return !s.closed.IsZero() })
}

// change puts records into the nth open shard, and returns whether there was one.
func (f *fakeTable) change(n, records int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := f.open()
	if len(open) == 0 {
		return false
	}
	for range records {
		sh := open[n%len(open)]
		sh.records = append(sh.records, fakeRecord{f.name("seq"), time.Now()})
	}
	return true
}

// roll closes the nth open shard, and has children take over: one is a rollover, two are a split.
func (f *fakeTable) roll(n, children int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := f.open()
	if len(open) == 0 {
		return
	}
	sh := open[n%len(open)]
	sh.closed = time.Now()
	for range children {
		f.addShard(sh.id)
	}
}

// trim forgets what is older than a day: records, closed shards without any, disabled streams.
func (f *fakeTable) trim() {
	horizon := time.Now().Add(-retention)
	for i, s := range f.streams {
		for _, sh := range s.shards {
			for sh.trimmed < len(sh.records) && !sh.records[sh.trimmed].made.After(horizon) {
				sh.trimmed++
			}
		}
		s.shards = slices.DeleteFunc(s.shards, func(sh *fakeShard) bool {
			return !sh.closed.IsZero() && !sh.closed.After(horizon)
		})
		if s.disabled && len(s.shards) == 0 && i < len(f.streams)-1 {
			s.arn = ""
		}
	}
}

// begin begins a call: it may fail first.
func (f *fakeTable) begin(ctx context.Context, call string) error {
	f.calls[call]++
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.fault != nil {
		err := f.fault(call)
		if errors.Is(err, errHang) {
			f.mu.Unlock()
			<-ctx.Done()
			f.mu.Lock()
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	f.trim()
	return nil
}

func (f *fakeTable) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func (f *fakeTable) stream(arn *string) (*fakeStream, error) {
	for _, s := range f.streams {
		if s.arn != "" && s.arn == aws.ToString(arn) {
			return s, nil
		}
	}
	return nil, &types.ResourceNotFoundException{Message: aws.String("no such stream")}
}

func (s *fakeStream) shard(id *string) (*fakeShard, error) {
	for _, sh := range s.shards {
		if sh.id == aws.ToString(id) {
			return sh, nil
		}
	}
	return nil, &types.ResourceNotFoundException{Message: aws.String("no such shard")}
}

func invalid(what string) error {
	return &smithy.GenericAPIError{Code: "ValidationException", Message: what}
}

func (f *fakeTable) latest(ctx context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Stream"); err != nil {
		return "", err
	}
	return f.current().arn, nil
}

func (f *fakeTable) DescribeStream(ctx context.Context, in *dynamodbstreams.DescribeStreamInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.DescribeStreamOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(ctx, "DescribeStream"); err != nil {
		return nil, err
	}
	s, err := f.stream(in.StreamArn)
	if err != nil {
		return nil, err
	}
	d := &types.StreamDescription{StreamArn: &s.arn, StreamStatus: types.StreamStatusEnabled}
	if s.disabled {
		d.StreamStatus = types.StreamStatusDisabled
	}
	for i := len(s.shards) - 1; i >= 0; i-- { // children first
		sh := s.shards[i]
		if in.ExclusiveStartShardId != nil && sh.id >= *in.ExclusiveStartShardId {
			continue
		}
		if len(d.Shards) == f.pageSize {
			d.LastEvaluatedShardId = d.Shards[f.pageSize-1].ShardId
			break
		}
		l := types.Shard{ShardId: &sh.id, SequenceNumberRange: &types.SequenceNumberRange{}}
		if sh.parent != "" {
			l.ParentShardId = &sh.parent
		}
		if !sh.closed.IsZero() {
			l.SequenceNumberRange.EndingSequenceNumber = aws.String("end of " + sh.id)
		}
		d.Shards = append(d.Shards, l)
	}
	return &dynamodbstreams.DescribeStreamOutput{StreamDescription: d}, nil
}

func (f *fakeTable) GetShardIterator(ctx context.Context, in *dynamodbstreams.GetShardIteratorInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetShardIteratorOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(ctx, "GetShardIterator"); err != nil {
		return nil, err
	}
	s, err := f.stream(in.StreamArn)
	if err != nil {
		return nil, err
	}
	sh, err := s.shard(in.ShardId)
	if err != nil {
		return nil, err
	}
	it := &fakeIterator{stream: s, shard: sh}
	switch in.ShardIteratorType {
	case types.ShardIteratorTypeTrimHorizon:
		it.at = sh.trimmed
	case types.ShardIteratorTypeLatest:
		it.at = len(sh.records)
	case types.ShardIteratorTypeAfterSequenceNumber:
		i := slices.IndexFunc(sh.records, func(r fakeRecord) bool { return r.seq == aws.ToString(in.SequenceNumber) })
		if i < 0 {
			return nil, invalid("the sequence number is not this shard's")
		}
		if i < sh.trimmed {
			return nil, &types.TrimmedDataAccessException{}
		}
		it.at = i + 1
	default:
		return nil, invalid("no such iterator type")
	}
	return &dynamodbstreams.GetShardIteratorOutput{ShardIterator: f.issue(it)}, nil
}

func (f *fakeTable) issue(it *fakeIterator) *string {
	it.made = time.Now()
	token := f.name("iterator")
	f.iterators[token] = it
	return &token
}

func (f *fakeTable) GetRecords(ctx context.Context, in *dynamodbstreams.GetRecordsInput, _ ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetRecordsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(ctx, "GetRecords"); err != nil {
		return nil, err
	}
	limit := 1000
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	it := f.iterators[aws.ToString(in.ShardIterator)]
	switch {
	case it == nil:
		return nil, invalid("no such iterator")
	case limit < 1:
		return nil, invalid("limit")
	case limit > 1000:
		return nil, &types.LimitExceededException{Message: aws.String("limit is more than 1000")}
	case time.Since(it.made) >= iteratorLife:
		return nil, &types.ExpiredIteratorException{}
	}
	sh := it.shard
	if _, err := it.stream.shard(&sh.id); err != nil {
		return nil, err
	}
	if it.at < sh.trimmed {
		return nil, &types.TrimmedDataAccessException{}
	}
	now := time.Now()
	sh.gets = append(sh.gets, now)
	if n := len(sh.gets); n > 5 && now.Sub(sh.gets[n-6]) < time.Second {
		f.broken = append(f.broken, sh.id+" is read more than five times a second")
		return nil, &types.LimitExceededException{Message: aws.String("rate exceeded")}
	}
	if parent, err := it.stream.shard(&sh.parent); err == nil && !parent.drained {
		f.broken = append(f.broken, sh.id+" is read before the end of its parent "+parent.id)
	}
	out := &dynamodbstreams.GetRecordsOutput{}
	n := min(limit, len(sh.records)-it.at)
	if f.empty > 0 && len(sh.gets)%f.empty == 0 {
		n = 0
	} else if !sh.closed.IsZero() && it.at+n == len(sh.records) {
		sh.drained = true
		f.reads = append(f.reads, sh.id+" end")
	}
	for _, r := range sh.records[it.at : it.at+n] {
		out.Records = append(out.Records, types.Record{Dynamodb: &types.StreamRecord{
			SequenceNumber: aws.String(r.seq), ApproximateCreationDateTime: aws.Time(r.made)}})
		f.seen[r.seq]++
	}
	if n > 0 {
		f.reads = append(f.reads, fmt.Sprint(sh.id, " ", n))
	}
	if !sh.drained || it.at+n < len(sh.records) {
		out.NextShardIterator = f.issue(&fakeIterator{stream: it.stream, shard: sh, at: it.at + n})
	}
	return out, nil
}

// memory is a checkpoint that outlives Pollers.
type memory struct {
	mu    sync.Mutex
	c     Checkpoint
	saved int
	fault func(call string) error
}

func (m *memory) Load(context.Context) (Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil {
		if err := m.fault("Load"); err != nil {
			return Checkpoint{}, err
		}
	}
	return m.c, nil
}

func (m *memory) Save(_ context.Context, c Checkpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.fault != nil {
		if err = m.fault("Save"); err != nil && !errors.Is(err, errAnswer) {
			return err
		}
	}
	m.c, m.saved = c, m.saved+1
	return err
}

var (
	errHang    = errors.New("no answer comes")
	errNetwork = errors.New("connection reset")
	errAnswer  = errors.New("the answer was lost") // it was done
)
