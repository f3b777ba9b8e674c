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
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/settings"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

func main() {
	log := lambdacontext.NewLogger()
	handler, err := wire(context.Background(), settings.New(os.LookupEnv, log), log)
	if err != nil {
		fmt.Fprintln(os.Stderr, "enqueuer:", err)
		os.Exit(1)
	}
	lambda.Start(handler.Handle)
}

func wire(ctx context.Context, env *settings.Reader, log *slog.Logger) (*lambdas.Enqueuer, error) {
	table, queueURL, deadLetters := env.Table("PRECAST_LEDGER"), env.Queue("PRECAST_QUEUE"), env.QueueIfSet("PRECAST_DEAD_LETTERS")
	metrics := &lambdas.Metrics{Out: os.Stdout, Now: time.Now, Namespace: env.Text("PRECAST_METRICS_NAMESPACE", "Precast"), Service: "enqueuer"}
	if err := env.Err(); err != nil {
		return nil, err
	}
	cfg, err := awsstore.LoadConfig(ctx)
	if err != nil {
		return nil, err
	}
	ledger, err := awsstore.NewLedger(dynamodb.NewFromConfig(cfg), table)
	if err != nil {
		return nil, err
	}
	queue, err := awsstore.NewQueue(sqs.NewFromConfig(cfg), queueURL, awsstore.QueueOptions{DeadLetterURL: deadLetters})
	if err != nil {
		return nil, err
	}
	e := &lambdas.Enqueuer{Ledger: ledger, Queue: queue, Log: log, Metrics: metrics}
	if deadLetters != "" {
		e.Depth = queue.Depth
	}
	return e, nil
}
