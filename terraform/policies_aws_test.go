//go:build aws

package terraform_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/awspipeline"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/pipeline"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/iampolicy"
	"github.com/precast-ota/precast/internal/test/standin"
	"github.com/precast-ota/precast/terraform"
)

// Everybody works with what the module allows them, and nothing more: a release manager imports, the enqueuer and
// the builder do what comes of it, the composer composes. Each is known by an access key of its own.
func TestRolesOnAWS(t *testing.T) {
	os.Unsetenv("AWS_CA_BUNDLE")
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	server, err := standin.Start(ctx, standin.Options{Services: []string{"s3", "dynamodb", "sqs"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	guard := &iampolicy.Guard{Region: "us-east-1", Account: "000000000000", Next: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
		}}}
	front := httptest.NewServer(guard)
	t.Cleanup(front.Close)
	clients := func(who string) *awsstore.Clients {
		t.Helper()
		c, err := awsstore.Connect(ctx, config.WithBaseEndpoint(front.URL), config.WithRegion("us-east-1"),
			config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(who, "secret", "")))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	names := awsstore.Names{Bucket: "packages", CatalogTable: "catalog", LedgerTable: "ledger", Queue: "jobs", DeadLetters: "dead"}
	lambdaItself := clients("lambda") // no policy of ours
	set, err := awsstore.Setup(ctx, lambdaItself, names)
	if err != nil {
		t.Fatal(err)
	}
	guard.Policies, err = iampolicy.FromModule(terraform.Module(), iampolicy.Resources{Region: guard.Region, Account: guard.Account,
		Bucket: names.Bucket, Catalog: names.CatalogTable, Ledger: names.LedgerTable, Jobs: names.Queue, DeadLetters: names.DeadLetters})
	if err != nil {
		t.Fatal(err)
	}
	drivers := func(who string, p awsdrivers.Resources) pipeline.Drivers {
		t.Helper()
		d, err := awspipeline.Open(clients(who), p)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}

	manager := drivers("release-manager", awsdrivers.Resources{Bucket: names.Bucket, CatalogTable: names.CatalogTable, LedgerTable: names.LedgerTable})
	im := &release.Importer{Objects: manager.Objects, Catalog: struct {
		builder.Catalog
		builder.CatalogWriter
	}{manager.Catalog, manager.Writer}, Now: time.Now}
	imported := func(tracks ...string) {
		t.Helper()
		var releases []release.Release
		for _, track := range tracks {
			releases = append(releases, release.Release{Item: catalog.Item{App: "os_armv8", Track: track, Version: "1.0.0-" + track, CPUArch: "armv8"},
				Open: func() (io.ReadSeekCloser, error) { return content{bytes.NewReader([]byte(track))}, nil }})
		}
		if _, err := im.Import(ctx, releases, true); err != nil {
			t.Errorf("import: %v", err)
		}
	}
	imported("prod", "beta")
	imported("prod") // it removes an item, and finds a binary that is there

	e := drivers("enqueuer", awsdrivers.Resources{LedgerTable: names.LedgerTable, QueueURL: set.QueueURL, DeadLettersURL: set.DeadLetterURL})
	enqueuer := &lambdas.Enqueuer{Ledger: e.Ledger, Queue: e.Queue, Depth: e.DeadLetters.Depth, Log: log,
		Metrics: &lambdas.Metrics{Out: io.Discard, Now: time.Now, Namespace: "test", Service: "enqueuer"}}
	if _, err := enqueuer.Handle(ctx, json.RawMessage(`{"verify": true}`)); err != nil {
		t.Errorf("enqueue: %v", err)
	}

	c := drivers("composer", awsdrivers.Resources{Bucket: names.Bucket, QueueURL: set.QueueURL})
	composer := &lambdas.Composer{Objects: c.Objects, Log: log,
		Composer: builder.NewMendingComposer(c.Objects, builder.QueueMender{Queue: c.Queue}, builder.Clock{})}
	composed := func(key, selection string, want int) (etag string) {
		t.Helper()
		req := httptest.NewRequest(http.MethodGet, "/"+key, nil)
		req.Header.Set(edge.SelectionHeader, selection)
		rec := httptest.NewRecorder()
		composer.ServeHTTP(rec, req)
		if rec.Code != want {
			t.Errorf("compose %s: %d, want %d: %.200s", key, rec.Code, want, rec.Body)
		}
		return rec.Header().Get("ETag")
	}
	composed("bundles/"+strings.Repeat("0", 64)+"/0.tar.gz", "cpuarch=armv8", http.StatusServiceUnavailable) // nothing is published

	b := drivers("builder", awsdrivers.Resources{Bucket: names.Bucket, CatalogTable: names.CatalogTable, LedgerTable: names.LedgerTable, QueueURL: set.QueueURL})
	worker := &lambdas.Worker{DeliveryPolicy: builder.DeliveryPolicy{Builder: builder.New(b.Ports, builder.Options{Params: builder.DefaultParams(), Log: log})}}
	work := func() (failed int) {
		t.Helper()
		for {
			out, err := lambdaItself.SQS.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &set.QueueURL, MaxNumberOfMessages: 1})
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Messages) == 0 {
				return failed
			}
			m := out.Messages[0]
			res, err := worker.Handle(ctx, events.SQSEvent{Records: []events.SQSMessage{{MessageId: aws.ToString(m.MessageId), Body: aws.ToString(m.Body), ReceiptHandle: aws.ToString(m.ReceiptHandle)}}})
			if err != nil {
				t.Fatal(err)
			}
			if failed += len(res.BatchItemFailures); failed == 0 {
				if _, err := lambdaItself.SQS.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &set.QueueURL, ReceiptHandle: m.ReceiptHandle}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if failed := work(); failed > 0 {
		t.Errorf("%d jobs failed", failed)
	}
	ix, _, err := builder.ReadIndex(ctx, b.Objects)
	if err != nil || ix == nil || len(ix.Items) != 1 {
		t.Fatalf("nothing is published: %+v, %v", ix, err)
	}
	// One that is not a job is handed back.
	if err := e.Queue.Send(ctx, []byte("not a job")); err != nil {
		t.Error(err)
	}
	if failed := work(); failed != 1 {
		t.Errorf("%d jobs failed, want one", failed)
	}

	key := layout.BundleKey(edge.Decide(ix, "cpuArch=armv8", "").Set.ID(), "0")
	before, err := b.Objects.Stat(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	// It is there, as if somebody had composed it at the same time: the answer has the ETag of what is there.
	if etag := composed(key, "cpuarch=armv8", http.StatusOK); etag != `"`+before.ETag+`"` {
		t.Errorf("ETag %s, and the object's is %s", etag, before.ETag)
	}
	composed(key, "cpuarch=armv7", http.StatusNotFound)

	// S12: the composer may not write pieces. It asks the builder for one that is gone.
	composer.Composer = builder.NewMendingComposer(c.Objects, builder.QueueMender{Queue: c.Queue}, builder.Clock{})
	piece := builder.PieceKey(&ix.Items[0])
	if _, err := lambdaItself.S3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &names.Bucket, Key: &piece}); err != nil {
		t.Fatal(err)
	}
	composed(key, "cpuarch=armv8", http.StatusServiceUnavailable)
	if failed := work(); failed > 1 { // the one from before may be back
		t.Errorf("%d jobs failed", failed)
	}
	composed(key, "cpuarch=armv8", http.StatusOK)

	if refused := guard.Refused(); len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
	for who, may := range notDone() {
		if unused := guard.Unused(who); !slices.Equal(unused, may) {
			t.Errorf("%s may, and did not: %v; want %v", who, unused, may)
		}
	}
}

// notDone are the actions that TestRolesOnAWS does not come to.
func notDone() map[string][]string {
	return map[string][]string{
		"release-manager": {"s3:AbortMultipartUpload"}, // of what is beyond 5 GiB
		// Reading the stream is Lambda's business.
		"enqueuer": {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"},
		"builder": {
			"cloudfront-keyvaluestore:DescribeKeyValueStore", "cloudfront-keyvaluestore:ListKeys", "cloudfront-keyvaluestore:UpdateKeys", // internal/run/cdn
			"cloudfront:CreateInvalidation", // internal/run/cdn
			"s3:AbortMultipartUpload",
			"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", // Lambda's business as well
		},
		"composer": nil,
	}
}

type content struct{ *bytes.Reader }

func (content) Close() error { return nil }
