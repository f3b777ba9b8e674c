//go:build aws

// The contract suites against the AWS stand-in: go test -tags aws, after standin/install.sh.

package aws

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/store/storetest"
	"github.com/precast-ota/precast/internal/test/standin"
)

// clients lead to the stand-in, which all tests share.
var clients *Clients

func TestMain(m *testing.M) {
	code, err := withStandIn(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withStandIn(run func() int) (int, error) {
	ctx := context.Background()
	server, err := standin.Start(ctx, standin.Options{Services: []string{"s3", "dynamodb", "sqs"}})
	if err != nil {
		return 0, err
	}
	defer server.Stop()
	if clients, err = Connect(ctx, config.WithBaseEndpoint(server.URL), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", ""))); err != nil {
		return 0, err
	}
	return run(), nil
}

const testReceives = 4

var resources atomic.Int64 // how many sets of them were made

// newResources makes a bucket, tables and queues of a test's own.
func newResources(t *testing.T, n Names) (Names, Created) {
	t.Helper()
	suffix := fmt.Sprint("-", resources.Add(1))
	for _, name := range []*string{&n.Bucket, &n.CatalogTable, &n.LedgerTable, &n.Queue, &n.DeadLetters} {
		if *name != "" {
			*name += suffix
		}
	}
	n.MaxReceives = testReceives
	p, err := Setup(t.Context(), clients, n)
	if err != nil {
		t.Fatal(err)
	}
	return n, p
}

func openObjects(t *testing.T, opt ObjectsOptions) *Objects {
	t.Helper()
	n, _ := newResources(t, Names{Bucket: "objects"})
	o, err := NewObjects(clients.S3, n.Bucket, opt)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func openCatalog(t *testing.T, opt CatalogOptions) *Catalog {
	t.Helper()
	n, _ := newResources(t, Names{CatalogTable: "catalog", LedgerTable: "ledger"})
	c, err := NewCatalog(clients.DynamoDB, n.CatalogTable, n.LedgerTable, opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func openQueue(t *testing.T) *Queue {
	t.Helper()
	_, p := newResources(t, Names{Queue: "jobs", DeadLetters: "dead"})
	q, err := NewQueue(clients.SQS, p.QueueURL, QueueOptions{DeadLetterURL: p.DeadLetterURL})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func openLedger(t *testing.T) *Ledger {
	t.Helper()
	n, _ := newResources(t, Names{LedgerTable: "ledger"})
	l, err := NewLedger(clients.DynamoDB, n.LedgerTable)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestObjects(t *testing.T) {
	t.Parallel()
	storetest.Objects(t, func(t *testing.T) builder.Objects { return openObjects(t, ObjectsOptions{}) })
}

func TestObjectsBelowPrefix(t *testing.T) {
	t.Parallel()
	storetest.Objects(t, func(t *testing.T) builder.Objects { return openObjects(t, ObjectsOptions{Prefix: "a/b/"}) })
}

func TestDeletes(t *testing.T) {
	t.Parallel()
	storetest.Deletes(t, func(t *testing.T) storetest.DeletingObjects { return openObjects(t, ObjectsOptions{Prefix: "a/"}) })
}

func TestCatalog(t *testing.T) {
	t.Parallel()
	storetest.Catalog(t, func(t *testing.T) storetest.CatalogStore { return openCatalog(t, CatalogOptions{}) })
}

func TestQueue(t *testing.T) {
	t.Parallel()
	storetest.Queue(t, func(t *testing.T) builder.Queue { return openQueue(t) },
		storetest.QueueOptions{MaxReceives: testReceives})
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	storetest.DeadLetters(t, func(t *testing.T) storetest.DeadQueue { return openQueue(t) },
		storetest.QueueOptions{MaxReceives: testReceives})
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	storetest.Numbers(t, func(t *testing.T) storetest.LedgerStore { return openLedger(t) })
}

func TestLedger(t *testing.T) {
	t.Parallel()
	storetest.Ledger(t, func(t *testing.T) builder.Ledger { return openLedger(t) })
}
