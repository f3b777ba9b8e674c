//go:build aws

package streampoll_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/run/streampoll"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/standin"
)

// site is a catalog, a ledger and a queue in the AWS stand-in.
type site struct {
	t       *testing.T
	clients *awsstore.Clients
	names   awsstore.Names
	catalog *awsstore.Catalog
	queue   *awsstore.Queue
	marks   *streampoll.TableCheckpoints
	config  streampoll.Config
}

func open(t *testing.T) *site {
	t.Helper()
	ctx := t.Context()
	os.Unsetenv("AWS_CA_BUNDLE") // the stand-in speaks HTTP
	server, err := standin.Start(ctx, standin.Options{Services: []string{"dynamodb", "dynamodbstreams", "sqs"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	opts := []func(*config.LoadOptions) error{
		config.WithBaseEndpoint(server.URL), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")),
	}
	s := &site{t: t, names: awsstore.Names{CatalogTable: "catalog", LedgerTable: "ledger", Queue: "jobs", DeadLetters: "dead"}}
	if s.clients, err = awsstore.Connect(ctx, opts...); err != nil {
		t.Fatal(err)
	}
	cfg, err := awsstore.LoadConfig(ctx, opts...)
	if err != nil {
		t.Fatal(err)
	}
	resources, err := awsstore.Setup(ctx, s.clients, s.names)
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := awsstore.NewLedger(s.clients.DynamoDB, s.names.LedgerTable)
	if err != nil {
		t.Fatal(err)
	}
	if s.catalog, err = awsstore.NewCatalog(s.clients.DynamoDB, s.names.CatalogTable, s.names.LedgerTable, awsstore.CatalogOptions{}); err != nil {
		t.Fatal(err)
	}
	if s.queue, err = awsstore.NewQueue(s.clients.SQS, resources.QueueURL, awsstore.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if s.marks, err = streampoll.NewTableCheckpoints(s.clients.DynamoDB, s.names.LedgerTable, s.names.CatalogTable); err != nil {
		t.Fatal(err)
	}
	s.config = streampoll.Config{
		Client:      dynamodbstreams.NewFromConfig(cfg),
		Stream:      streampoll.LatestStream(s.clients.DynamoDB, s.names.CatalogTable),
		Checkpoints: s.marks, Ledger: ledger, Queue: s.queue,
		Every: time.Millisecond, Window: 200 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	return s
}

// run runs a Poller while f does something.
func (s *site) run(f func()) {
	s.t.Helper()
	p, err := streampoll.New(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("Run = %v", err)
		}
	}()
	f()
}

type job struct {
	Kind  string
	After uint64
	Since int64
}

// next receives one job; ok is false if there is none for a while.
func (s *site) next(wait time.Duration) (j job, ok bool) {
	s.t.Helper()
	got, err := s.queue.Receive(s.t.Context(), 1, time.Minute, wait)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(got) == 0 {
		return j, false
	}
	if err := json.Unmarshal(got[0].Body, &j); err != nil || j.Kind != "plan" {
		s.t.Fatalf("job %s: %v", got[0].Body, err)
	}
	if err := s.queue.Delete(s.t.Context(), got[0].Receipt); err != nil {
		s.t.Fatal(err)
	}
	return j, true
}

// want receives one job, and no other after it.
func (s *site) want(what string) job {
	s.t.Helper()
	j, ok := s.next(10 * time.Second)
	if !ok {
		s.t.Fatalf("%s: no job", what)
	}
	if extra, ok := s.next(time.Second); ok {
		s.t.Errorf("%s: another job, %+v after %+v", what, extra, j)
	}
	return j
}

func (s *site) change(version string) {
	s.t.Helper()
	var changes []catalog.Change
	for _, app := range []string{"a", "b", "c"} {
		changes = append(changes, catalog.Put(catalog.Item{App: app, Track: "prod", Version: version, URL: "binaries/" + app}))
	}
	if err := s.catalog.Apply(s.t.Context(), catalog.Edit{Changes: changes}); err != nil {
		s.t.Fatal(err)
	}
}

// settled waits for a checkpoint that is as ok says.
func (s *site) settled(what string, ok func(streampoll.Checkpoint) bool) streampoll.Checkpoint {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := s.marks.Load(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if ok(c) {
			return c
		}
	}
	s.t.Fatalf("no checkpoint %s", what)
	return streampoll.Checkpoint{}
}

func (s *site) stream(enabled bool) {
	s.t.Helper()
	spec := &types.StreamSpecification{StreamEnabled: &enabled}
	if enabled {
		spec.StreamViewType = types.StreamViewTypeNewAndOldImages
	}
	if _, err := s.clients.DynamoDB.UpdateTable(s.t.Context(), &dynamodb.UpdateTableInput{
		TableName: &s.names.CatalogTable, StreamSpecification: spec}); err != nil {
		s.t.Fatal(err)
	}
}

// Changes of a real table become plans in a real queue, across restarts.
func TestStandIn(t *testing.T) {
	t.Parallel()
	s := open(t)
	var c streampoll.Checkpoint
	begin := time.Now().Add(-time.Second).Truncate(time.Second).UnixMilli() // as coarse as a record's time
	s.run(func() {
		if j := s.want("start"); j.Since != 0 {
			t.Errorf("the plan at the start: %+v", j)
		}
		changed := time.Now()
		s.change("1")
		if j, ok := s.next(10 * time.Second); !ok || j.Since < begin {
			t.Errorf("the plan after a change: %+v", j)
		}
		t.Logf("from change to job: %v", time.Since(changed))
		c = s.settled("after a change", func(c streampoll.Checkpoint) bool { return len(c.Shards) > 0 })
		if j, ok := s.next(time.Second); ok {
			t.Errorf("another plan for one change: %+v", j)
		}
	})

	// Nothing new: nothing is read again, so the plan at the start has no Since.
	s.run(func() {
		if j := s.want("restart"); j.Since != 0 {
			t.Errorf("the plan after a restart reads the past: %+v", j)
		}
	})

	s.change("2")
	s.run(func() {
		if j := s.want("restart after a change"); j.Since < begin {
			t.Errorf("the plan after a change while nobody read: %+v", j)
		}
		c = s.settled("after a restart", func(now streampoll.Checkpoint) bool { return !maps.Equal(now.Shards, c.Shards) })

		// Another stream.
		s.stream(false)
		s.change("3")
		s.stream(true)
		if _, ok := s.next(20 * time.Second); !ok {
			t.Error("no plan after the stream was enabled again")
		}
		s.change("4")
		s.settled("of the new stream", func(now streampoll.Checkpoint) bool { return now.Stream != c.Stream && len(now.Shards) > 0 })
		if _, ok := s.next(10 * time.Second); !ok {
			t.Error("no plan after a change in the new stream")
		}
	})
}

func TestCheckpoints(t *testing.T) {
	t.Parallel()
	s := open(t)
	c, err := s.marks.Load(t.Context())
	if err != nil || c.Stream != "" || len(c.Shards) != 0 {
		t.Fatalf("Load of nothing = %+v, %v", c, err)
	}
	want := streampoll.Checkpoint{Stream: "arn", Shards: map[string]streampoll.Position{"a": {After: "1"}, "b": {Ended: true}}}
	if err := s.marks.Save(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if c, err = s.marks.Load(t.Context()); err != nil || c.Stream != "arn" || !maps.Equal(c.Shards, want.Shards) {
		t.Fatalf("Load = %+v, %v", c, err)
	}
	// The ledger beside it goes on as if there were none.
	if n, err := s.config.Ledger.Next(t.Context()); err != nil || n == 0 {
		t.Fatalf("Next = %d, %v", n, err)
	}
	// What nobody can read is nothing.
	if _, err := s.clients.DynamoDB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &s.names.LedgerTable, Item: map[string]types.AttributeValue{
		"id": &types.AttributeValueMemberS{Value: "stream/catalog"}, "checkpoint": &types.AttributeValueMemberS{Value: `{"stream":1}`}}}); err != nil {
		t.Fatal(err)
	}
	if c, err = s.marks.Load(t.Context()); err != nil || c.Stream != "" {
		t.Fatalf("Load of rubbish = %+v, %v", c, err)
	}
}
