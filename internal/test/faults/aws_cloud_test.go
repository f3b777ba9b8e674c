//go:build aws

package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/awspipeline"
	"github.com/precast-ota/precast/internal/run/pipeline"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/standin"
)

// cloud is a stand-in for AWS with the resources of a pipeline in it.
type cloud struct {
	url       string
	resources awsdrivers.Resources
	direct    *awsstore.Clients
}

// newCloud starts a stand-in.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	os.Unsetenv("AWS_CA_BUNDLE") // the stand-in speaks HTTP
	server, err := standin.Start(t.Context(), standin.Options{Services: []string{"s3", "dynamodb", "dynamodbstreams", "sqs"}})
	must(t, err)
	t.Cleanup(server.Stop)
	c := &cloud{url: server.URL}
	cfg := c.config(t, server.URL, nil)
	c.direct = awsstore.NewClients(cfg)
	c.resources = c.setup(t, "")
	return c
}

// setup makes the resources of another pipeline.
func (c *cloud) setup(t *testing.T, suffix string) awsdrivers.Resources {
	t.Helper()
	names := awsstore.Names{Bucket: "packages" + suffix, CatalogTable: "catalog" + suffix, LedgerTable: "ledger" + suffix,
		Queue: "jobs" + suffix, DeadLetters: "dead" + suffix}
	made, err := awsstore.Setup(t.Context(), c.direct, names)
	must(t, err)
	return awsdrivers.Resources{Bucket: names.Bucket, CatalogTable: names.CatalogTable, LedgerTable: names.LedgerTable,
		QueueURL: made.QueueURL, DeadLettersURL: made.DeadLetterURL}
}

// steady are credentials that are always good.
func steady(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
}

func (c *cloud) config(t *testing.T, url string, credentials aws.CredentialsProviderFunc) aws.Config {
	t.Helper()
	cfg, err := configFor(t.Context(), url, credentials)
	must(t, err)
	return cfg
}

func configFor(ctx context.Context, url string, credentials aws.CredentialsProviderFunc) (aws.Config, error) {
	if credentials == nil {
		credentials = steady
	}
	return awsstore.LoadConfig(ctx, config.WithBaseEndpoint(url), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials))
}

// drivers are those of the pipeline, reached at a URL.
func (c *cloud) drivers(t *testing.T, url string, credentials aws.CredentialsProviderFunc) pipeline.Drivers {
	t.Helper()
	cfg := c.config(t, url, credentials)
	clients := awsstore.NewClients(cfg)
	d, err := awspipeline.Open(clients, c.resources)
	must(t, err)
	awspipeline.Poll(&d, clients, dynamodbstreams.NewFromConfig(cfg), c.resources)
	return d
}

// world is a pipeline that reaches the cloud at a URL, while the test reaches it as it is.
func (c *cloud) world(t *testing.T, url string, credentials aws.CredentialsProviderFunc) *world {
	t.Helper()
	w := newWorld(t, c.drivers(t, c.url, nil))
	w.drivers = c.drivers(t, url, credentials)
	w.visibility = 6 * time.Second
	return w
}

// drive runs a pipeline and a server, with devices, while during changes the catalog and breaks things. When it
// returns, all is well again, and must become so by itself.
func (w *world) drive(seed uint64, every time.Duration, during func(ctx context.Context, r *rand.Rand)) {
	w.t.Helper()
	w.faulty.Store(true) // nothing is published at first
	if len(w.states) == 0 {
		w.begin()
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	st := pipeline.New(w.drivers, pipeline.Config{Builder: w.opt, Workers: 2, Window: 50 * time.Millisecond, Visibility: w.visibility, Every: every})
	f := w.serve(ctx, w.drivers.Objects, st)
	all.Go(func() {
		if err := w.work(ctx, st); err != nil {
			w.problem("the pipeline has ended: %v", err)
		}
	})
	for n := range uint64(2) {
		all.Go(func() { w.device(ctx, f, rand.New(rand.NewPCG(seed, 10+n)), 50*time.Millisecond) })
	}
	during(ctx, rand.New(rand.NewPCG(seed, 1)))
	w.settle(90*time.Second, 250*time.Millisecond)
	// The same server, without a restart, answers from the last catalog.
	for end := time.Now().Add(30 * time.Second); ; pause(ctx, 100*time.Millisecond) {
		if resp, err := f.ask(ctx, "cpuArch=a", ""); err == nil && resp.status == 200 {
			break
		}
		if time.Now().After(end) {
			w.t.Fatal("the server does not answer again")
		}
	}
	pause(ctx, 6*time.Second) // it looks for a newer index every 5 s
	w.faulty.Store(false)
	w.everybody(f)
	cancel()
	all.Wait()
	w.judge()
	if w.answers[200] == 0 {
		w.t.Errorf("no device got anything: %v", w.answers)
	}
}

// told describes what devices got.
func (w *world) told() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%d changes; devices' answers by status %v, %d broken off", len(w.states), w.answers, w.broken)
}
