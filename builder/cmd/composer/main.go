// Command composer is the Lambda function behind a function URL that answers for bundles and manifests
// which are not prebuilt, and signs statements.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/settings"
	"github.com/precast-ota/precast/internal/run/signingkey"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

func main() {
	log := lambdacontext.NewLogger()
	handler, err := wire(context.Background(), settings.New(os.LookupEnv, log), log)
	if err != nil {
		fmt.Fprintln(os.Stderr, "composer:", err)
		os.Exit(1)
	}
	lambda.Start(lambdas.FunctionURL(handler))
}

func wire(ctx context.Context, env *settings.Reader, log *slog.Logger) (http.Handler, error) {
	bucket := env.Bucket("PRECAST_OBJECTS")
	queueURL := env.QueueIfSet("PRECAST_QUEUE")
	signing := env.Signing()
	if err := env.Err(); err != nil {
		return nil, err
	}
	cfg, err := awsstore.LoadConfig(ctx)
	if err != nil {
		return nil, err
	}
	objects, err := awsstore.NewObjects(awsstore.NewS3(cfg), bucket, awsstore.ObjectsOptions{})
	if err != nil {
		return nil, err
	}
	composer := builder.NewComposer(objects)
	if queueURL != "" {
		queue, err := awsstore.NewQueue(sqs.NewFromConfig(cfg), queueURL, awsstore.QueueOptions{})
		if err != nil {
			return nil, err
		}
		composer = builder.NewMendingComposer(objects, builder.QueueMender{Queue: queue}, builder.Clock{})
	}
	c := &lambdas.Composer{Objects: objects, Composer: composer, FirstByte: lambdas.FirstByte, Log: log}
	c.Statements, err = signingkey.Issuer(ctx, signing, os.LookupEnv)
	return c, err
}
