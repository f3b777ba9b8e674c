// Command builder is the Lambda function on the job queue: it plans, builds and publishes.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/settings"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

func main() {
	log := lambdacontext.NewLogger()
	handler, err := wire(context.Background(), settings.New(os.LookupEnv), log)
	if err != nil {
		fmt.Fprintln(os.Stderr, "builder:", err)
		os.Exit(1)
	}
	lambda.Start(handler.Handle)
}

func wire(ctx context.Context, env *settings.Reader, log *slog.Logger) (*lambdas.Worker, error) {
	resources := awsdrivers.Resources{
		Bucket:       env.Need("BUCKET"),
		CatalogTable: env.Need("CATALOG_TABLE"),
		LedgerTable:  env.Need("LEDGER_TABLE"),
		QueueURL:     env.Need("QUEUE_URL"),
	}
	def := builder.DefaultParams()
	params := index.Params{
		MaxBundles:      env.Uint("MAX_BUNDLES", def.MaxBundles),
		MaxBytes:        env.Uint("MAX_BYTES", def.MaxBytes),
		MaxCombinations: env.Uint("MAX_COMBINATIONS", def.MaxCombinations),
		SubsetItems:     env.Uint("SUBSET_ITEMS", def.SubsetItems),
		Retain:          env.Uint("RETAIN", def.Retain),
	}
	opt := builder.Options{
		Params:      params,
		BaseURL:     env.Text("BASE_URL", ""),
		PartBytes:   int64(env.Uint("PART_BYTES", 256<<20)),
		Concurrency: int(env.Uint("CONCURRENCY", 4)),
		Attempts:    int(env.Uint("ATTEMPTS", 5)),
		Log:         log,
	}
	metrics := &lambdas.Metrics{Out: os.Stdout, Now: time.Now, Namespace: env.Text("METRICS_NAMESPACE", "Precast"), Service: "builder"}
	edge := cdn.Resources{Distribution: env.Text("DISTRIBUTION_ID", ""), KeyValueStore: env.Text("KEY_VALUE_STORE", "")}
	margin := env.Duration("DEADLINE_MARGIN", 20*time.Second)
	if err := env.Err(); err != nil {
		return nil, err
	}
	clients, err := awsstore.Connect(ctx)
	if err != nil {
		return nil, err
	}
	d, err := awsdrivers.Open(clients, resources)
	if err != nil {
		return nil, err
	}
	if edge != (cdn.Resources{}) {
		if metrics.Next, err = cdn.Connect(ctx, edge, d.Objects, log); err != nil {
			return nil, err
		}
	}
	opt.Observer = metrics
	policy := builder.DeliveryPolicy{Builder: builder.New(d.Ports, opt), Margin: margin}
	return &lambdas.Worker{DeliveryPolicy: policy, Concurrency: 2}, nil
}
