//go:build aws

package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streamtypes "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/precast-ota/precast/internal/run/lambdas"
)

// forgetful is a stream that has forgotten records, as a table's does 24 hours after they were written: they are
// not among those that it gives, and whoever asks for a place before its oldest is told that the data was trimmed.
type forgetful struct {
	t      *testing.T
	client *dynamodbstreams.Client
	arn    string

	mu      sync.Mutex
	away    bool            // nobody can read
	mute    bool            // reads work, and bring nothing
	gone    map[string]bool // sequence numbers of records that were forgotten
	places  map[string]bool // iterators that were given out since the last trim
	behind  map[string]bool // iterators from before it
	trimmed int             // requests that were told so
	lost    int             // records that were in an answer, and have been taken out
}

// forget puts a forgetful stream behind a middleman.
func forget(t *testing.T, c *cloud, m *middleman) *forgetful {
	t.Helper()
	table, err := c.direct.DynamoDB.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &c.resources.CatalogTable})
	must(t, err)
	f := &forgetful{
		t: t, client: dynamodbstreams.NewFromConfig(c.config(t, c.url, nil)), arn: aws.ToString(table.Table.LatestStreamArn),
		gone: make(map[string]bool), places: make(map[string]bool), behind: make(map[string]bool),
	}
	m.set(f.judge)
	m.mu.Lock()
	m.change = f.change
	m.mu.Unlock()
	return f
}

func (f *forgetful) set(away, mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away, f.mute = away, mute
}

// trim forgets every record that there is.
func (f *forgetful) trim(ctx context.Context) {
	f.t.Helper()
	var all []string
	stream, err := f.client.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{StreamArn: &f.arn})
	must(f.t, err)
	for _, s := range stream.StreamDescription.Shards {
		place, err := f.client.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{
			StreamArn: &f.arn, ShardId: s.ShardId, ShardIteratorType: streamtypes.ShardIteratorTypeTrimHorizon})
		must(f.t, err)
		for next := place.ShardIterator; next != nil; {
			page, err := f.client.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: next})
			must(f.t, err)
			if len(page.Records) == 0 {
				break
			}
			for _, r := range page.Records {
				all = append(all, aws.ToString(r.Dynamodb.SequenceNumber))
			}
			next = page.NextShardIterator
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, number := range all {
		f.gone[number] = true
	}
	for place := range f.places {
		f.behind[place] = true
	}
	clear(f.places)
}

// request is what matters of a request for a place in a shard, or for records from there.
type request struct{ SequenceNumber, ShardIterator string }

func (f *forgetful) judge(r *http.Request, service string) (*refusal, bool) {
	if service != streams {
		return nil, false
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var asked request
	if err != nil || json.Unmarshal(body, &asked) != nil {
		return nil, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return &refusal{http.StatusInternalServerError, "com.amazonaws.dynamodb.v20120810#InternalServerError"}, false
	}
	if f.gone[asked.SequenceNumber] || f.behind[asked.ShardIterator] {
		f.trimmed++
		return &refusal{http.StatusBadRequest, "com.amazonaws.dynamodb.v20120810#TrimmedDataAccessException"}, false
	}
	return nil, false
}

func (f *forgetful) change(_ *http.Request, body []byte) []byte {
	var answer struct {
		Records           []json.RawMessage `json:",omitempty"`
		NextShardIterator string            `json:",omitempty"`
		ShardIterator     string            `json:",omitempty"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return body
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, place := range []string{answer.NextShardIterator, answer.ShardIterator} {
		if place != "" {
			f.places[place] = true
		}
	}
	if len(answer.Records) == 0 {
		return body // whatever else it is
	}
	var left []json.RawMessage
	for _, raw := range answer.Records {
		var r struct {
			Dynamodb struct{ SequenceNumber string }
		}
		if json.Unmarshal(raw, &r) == nil && (f.mute || f.gone[r.Dynamodb.SequenceNumber]) {
			f.lost++
			continue
		}
		left = append(left, raw)
	}
	if left == nil {
		left = []json.RawMessage{}
	}
	changed, err := json.Marshal(map[string]any{"Records": left, "NextShardIterator": answer.NextShardIterator})
	if err != nil {
		return body
	}
	return changed
}

func (f *forgetful) met() (trimmed, lost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trimmed, f.lost
}

// Of a day's changes no event arrives, in four ways. What stands for the day is that the stream has forgotten them:
// it keeps records for 24 hours.
func TestLostStreamAWS(t *testing.T) {
	t.Parallel()
	const changes = 6
	for _, c := range []struct {
		name string
		play func(t *testing.T, c *cloud, m *middleman)
	}{
		// The trigger runs, and cannot read until the records are gone.
		{"trimmed while it runs", func(t *testing.T, c *cloud, m *middleman) {
			w, f := c.world(t, m.URL, nil), forget(t, c, m)
			w.drive(21, 0, func(ctx context.Context, r *rand.Rand) {
				w.settle(90*time.Second, 250*time.Millisecond)
				f.set(true, false)
				for n := range changes {
					w.step(r, n+1)
				}
				f.trim(ctx)
				f.set(false, false)
			})
			if trimmed, _ := f.met(); trimmed == 0 {
				t.Error("nobody was told that records were trimmed")
			}
		}},
		// Nobody runs; then the checkpoint's place in the stream is gone.
		{"trimmed while it is down", func(t *testing.T, c *cloud, m *middleman) {
			w, f := c.world(t, m.URL, nil), forget(t, c, m)
			w.drive(22, 0, func(_ context.Context, r *rand.Rand) {
				w.step(r, 1) // so that there is a checkpoint
			})
			r := rand.New(rand.NewPCG(22, 2))
			for n := range changes {
				w.step(r, n+2)
			}
			f.trim(t.Context())
			w.drive(23, 0, func(context.Context, *rand.Rand) {})
			if trimmed, _ := f.met(); trimmed == 0 {
				t.Error("nobody was told that records were trimmed")
			}
		}},
		// Nothing says that records are missing: only the plan by the clock can find it. Its hour is 4 s here.
		{"nothing tells", func(t *testing.T, c *cloud, m *middleman) {
			w, f := c.world(t, m.URL, nil), forget(t, c, m)
			w.drive(24, 4*time.Second, func(_ context.Context, r *rand.Rand) {
				w.settle(90*time.Second, 250*time.Millisecond)
				f.set(false, true)
				for n := range changes {
					w.step(r, n+1)
				}
			})
			if _, lost := f.met(); lost < changes {
				t.Errorf("%d records were lost, of at least %d", lost, changes)
			}
		}},
		// The function on the stream is never called, as when Lambda has given its batches up; the schedule calls it.
		{"the function is not called", func(t *testing.T, c *cloud, m *middleman) {
			w := c.world(t, m.URL, nil)
			w.drivers.NewTrigger = nil
			enqueuer := &lambdas.Enqueuer{Ledger: w.drivers.Ledger, Queue: w.drivers.Queue, Log: slog.New(slog.DiscardHandler)}
			scheduled := func(ctx context.Context) {
				_, err := enqueuer.Handle(ctx, json.RawMessage(`{}`))
				must(t, err)
			}
			w.drive(25, 0, func(ctx context.Context, r *rand.Rand) {
				scheduled(ctx)
				w.settle(90*time.Second, 250*time.Millisecond)
				for n := range changes {
					w.step(r, n+1)
				}
				before, err := published(ctx, w.base.Objects)
				must(t, err)
				pause(ctx, 3*time.Second)
				after, err := published(ctx, w.base.Objects)
				must(t, err)
				if strings.Join(before, "\n") != strings.Join(after, "\n") {
					t.Error("somebody told the pipeline of the changes")
				}
				scheduled(ctx)
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cloud := newCloud(t)
			c.play(t, cloud, newMiddleman(t, cloud))
		})
	}
	counted(t, "4 ways, %d changes each", changes)
}
