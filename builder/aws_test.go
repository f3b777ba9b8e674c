//go:build aws

package builder_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/awspipeline"
	"github.com/precast-ota/precast/internal/run/pipeline"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/standin"
)

// The core's suites on S3, DynamoDB and SQS, as the AWS stand-in plays them.

func TestEveryWriteFailsBothWaysOnAWS(t *testing.T) {
	open := onAWS(t)
	everyWriteFails(t, func(t *testing.T, opt builder.Options, g *gate) *world { return open(t, opt, g.install) })
}

func TestDeliveryTortureOnAWS(t *testing.T) {
	deliveryTorture(t, 4, builder.DefaultParams(), onAWS(t))
}

func TestS12ADamagedPieceIsMadeAgainOnAWS(t *testing.T) { damagedPieces(t, onAWS(t)) }

// A job that cannot be done becomes a dead letter; when the cause is gone, the redrive finishes the build.
func TestDeadLetterAndRedriveOnAWS(t *testing.T) {
	w := onAWS(t)(t, builder.Options{}, func(*pipeline.Drivers) {})
	ctx := t.Context()
	w.put("os_a", "prod", "1", "operating system")
	broken := w.drivers
	broken.Objects = brokenObjects{broken.Objects}
	b := builder.New(broken.Ports, w.opt)
	w.request()
	for {
		messages, err := w.base.Queue.Receive(ctx, 1, time.Minute, w.wait)
		must(t, err)
		if len(messages) == 0 {
			break
		}
		if err := b.Handle(ctx, messages[0]); err == nil {
			t.Fatal("a job was done without an object store")
		}
		must(t, w.base.Queue.Extend(ctx, messages[0].Receipt, 0))
	}
	letters, err := w.base.DeadLetters.Dead(ctx, 10)
	must(t, err)
	if len(letters) != 1 || w.generation() != 0 {
		t.Fatalf("%d dead letters, generation %d", len(letters), w.generation())
	}
	n, err := w.base.DeadLetters.Redrive(ctx)
	must(t, err)
	if n != 1 {
		t.Fatalf("%d letters put back", n)
	}
	w.pump(builder.New(w.drivers.Ports, w.opt), nil)
	w.checkComplete()
	if w.generation() != 1 {
		t.Fatalf("generation %d after the redrive", w.generation())
	}
}

type brokenObjects struct{ builder.Objects }

func (brokenObjects) Put(context.Context, string, builder.Body, builder.PutOptions) (builder.ObjectInfo, error) {
	return builder.ObjectInfo{}, errFault
}

// onAWS starts a stand-in for a test; every world gets resources of its own in it.
func onAWS(t *testing.T) func(*testing.T, builder.Options, func(*pipeline.Drivers)) *world {
	t.Helper()
	os.Unsetenv("AWS_CA_BUNDLE")
	server, err := standin.Start(t.Context(), standin.Options{Services: []string{"s3", "dynamodb", "sqs"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	clients, err := awsstore.Connect(t.Context(), config.WithBaseEndpoint(server.URL), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	var worlds atomic.Int64
	return func(t *testing.T, opt builder.Options, wrap func(*pipeline.Drivers)) *world {
		t.Helper()
		n := worlds.Add(1)
		names := awsstore.Names{Bucket: fmt.Sprint("bucket-", n), CatalogTable: fmt.Sprint("catalog-", n),
			LedgerTable: fmt.Sprint("ledger-", n), Queue: fmt.Sprint("jobs-", n), DeadLetters: fmt.Sprint("dead-", n), MaxReceives: 3}
		made, err := awsstore.Setup(t.Context(), clients, names)
		if err != nil {
			t.Fatal(err)
		}
		drivers, err := awspipeline.Open(clients, awsdrivers.Resources{Bucket: names.Bucket, CatalogTable: names.CatalogTable,
			LedgerTable: names.LedgerTable, QueueURL: made.QueueURL, DeadLettersURL: made.DeadLetterURL})
		if err != nil {
			t.Fatal(err)
		}
		w := worldOf(t, drivers, opt, wrap)
		w.wait = time.Second // a look that does not wait may find nothing though there is something
		return w
	}
}
