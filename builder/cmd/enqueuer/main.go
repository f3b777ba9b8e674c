// Command enqueuer is the Lambda function on the catalog's change stream, and on the schedule of full
// plans.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/precast-ota/precast/internal/run/awspipeline"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/settings"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

func main() {
	log := lambdacontext.NewLogger()
	handler, err := wire(context.Background(), settings.New(os.LookupEnv), log)
	if err != nil {
		fmt.Fprintln(os.Stderr, "enqueuer:", err)
		os.Exit(1)
	}
	lambda.Start(handler.Handle)
}

func wire(ctx context.Context, env *settings.Reader, log *slog.Logger) (*lambdas.Enqueuer, error) {
	places := awspipeline.Resources{
		LedgerTable: env.Need("LEDGER_TABLE"), QueueURL: env.Need("QUEUE_URL"), DeadLettersURL: env.Text("DEAD_LETTERS_URL", ""),
	}
	metrics := &lambdas.Metrics{Out: os.Stdout, Now: time.Now, Namespace: env.Text("METRICS_NAMESPACE", "Precast"), Service: "enqueuer"}
	if err := env.Err(); err != nil {
		return nil, err
	}
	clients, err := awsstore.Connect(ctx)
	if err != nil {
		return nil, err
	}
	d, err := awspipeline.Open(clients, places)
	if err != nil {
		return nil, err
	}
	e := &lambdas.Enqueuer{Ledger: d.Ledger, Queue: d.Queue, Log: log, Metrics: metrics}
	if places.DeadLettersURL != "" {
		e.Depth = d.DeadLetters.Depth
	}
	return e, nil
}
