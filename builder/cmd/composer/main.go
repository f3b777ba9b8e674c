// Command composer is the Lambda function behind a function URL that answers for bundles and manifests
// which are not prebuilt, and signs statements.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-lambda-go/lambdaurl"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/awsstore"
	"github.com/precast-ota/precast/internal/environ"
	"github.com/precast-ota/precast/internal/lambdas"
	"github.com/precast-ota/precast/internal/statement"
	"github.com/precast-ota/precast/internal/station"
)

func main() {
	log := lambdacontext.NewLogger()
	handler, err := wire(context.Background(), environ.New(os.LookupEnv), log)
	if err != nil {
		fmt.Fprintln(os.Stderr, "composer:", err)
		os.Exit(1)
	}
	lambdaurl.Start(handler)
}

func wire(ctx context.Context, env *environ.Reader, log *slog.Logger) (http.Handler, error) {
	bucket := env.Need("BUCKET")
	keep := env.Bool("STORE_COMPOSED", true)
	source := env.Text("SIGNING_KEY", "")
	schedule := statement.DefaultSchedule()
	schedule.Period = env.Duration("STATEMENT_PERIOD", schedule.Period)
	schedule.Validity = env.Duration("STATEMENT_VALIDITY", schedule.Validity)
	if err := env.Err(); err != nil {
		return nil, err
	}
	clients, err := awsstore.Connect(ctx)
	if err != nil {
		return nil, err
	}
	d, err := station.AWS(clients, station.Places{Bucket: bucket})
	if err != nil {
		return nil, err
	}
	c := &lambdas.Composer{Objects: d.Objects, Composer: builder.NewComposer(d.Objects), Store: keep,
		FirstByte: lambdas.FirstByte, MaxSent: lambdas.MaxSent, Log: log}
	if source != "" {
		key, err := station.SigningKey(ctx, source, os.LookupEnv)
		if err != nil {
			return nil, err
		}
		if c.Statements, err = statement.NewMaker(key, schedule, time.Now); err != nil {
			return nil, err
		}
	}
	return c, nil
}
