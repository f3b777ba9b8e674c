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
	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/settings"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

func main() {
	log := lambdacontext.NewLogger()
	handler, err := wire(context.Background(), settings.New(os.LookupEnv, log), log)
	if err != nil {
		fmt.Fprintln(os.Stderr, "builder:", err)
		os.Exit(1)
	}
	lambda.Start(handler.Handle)
}

func wire(ctx context.Context, env *settings.Reader, log *slog.Logger) (*lambdas.Worker, error) {
	resources := awsdrivers.Resources{
		Bucket:       env.Bucket("PRECAST_OBJECTS"),
		CatalogTable: env.Table("PRECAST_CATALOG"),
		LedgerTable:  env.Table("PRECAST_LEDGER"),
		QueueURL:     env.Queue("PRECAST_QUEUE"),
	}
	build := env.Build()
	metrics := &lambdas.Metrics{Out: os.Stdout, Now: time.Now, Namespace: env.Text("PRECAST_METRICS_NAMESPACE", "Precast"), Service: "builder"}
	edge := cdn.Resources(env.CDN())
	margin := env.Duration("PRECAST_DEADLINE_MARGIN", 20*time.Second)
	if err := env.Err(); err != nil {
		return nil, err
	}
	opt, err := build.Options(true)
	if err != nil {
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
	opt.Log, opt.Observer = log, metrics
	policy := builder.DeliveryPolicy{Builder: builder.New(d.Ports, opt), Margin: margin}
	return &lambdas.Worker{DeliveryPolicy: policy, Concurrency: 2}, nil
}
