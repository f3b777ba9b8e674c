package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/run/settings"
	"github.com/precast-ota/precast/internal/run/signingkey"
)

type serveCmd struct {
	dataFlag
	buildFlags
	publishFlags
	logFlags
	listenFlags
	settings.Signing `embed:""`
	settings.Disk    `embed:""`
	History          settings.Period `help:"How long binaries of older releases are kept, and the generations that need them. What nothing needs is removed by itself; 0: nothing is." env:"PRECAST_HISTORY" default:"90d"`
	Workers          int             `help:"Number of build jobs to run at the same time." env:"PRECAST_WORKERS" default:"2"`
	Window           time.Duration   `help:"Wait this long after a change before building, so that several changes are built together." env:"PRECAST_WINDOW" default:"200ms"`
}

func (*serveCmd) Help() string {
	return `Runs the whole pipeline in one process. It answers devices, and builds and publishes every change of the
catalog meanwhile. Other commands can use the same data folder while it runs. On SIGINT or SIGTERM it
finishes the answers that it is sending, then exits. Unfinished jobs are resumed at the next start.

Bundles are composed of compressed binaries while they are sent; with --copies they are written as files, too. What
nothing needs any more is removed by itself. Builds pause while less of the disk is free than --min-free says.

With the five URLs of a pipeline on AWS it replaces the Lambda functions: it reads the stream of the
catalog table, works on the queue and serves from the bucket. Several servers can run at the same time.

Examples:
  precast serve --data /var/lib/precast
  precast serve --signing-key file:keys/signing-9f2b1c04.pem
  precast serve --addr :80 --base-url https://packages.example.com --log-format json
  precast serve --addr :443 --tls-cert cert.pem --tls-key key.pem --access-log /var/log/precast/access.log
  precast serve --admin-addr :9090 --admin-tokens tokens --admin-tls-cert cert.pem --admin-tls-key key.pem
  curl -so ota-package.tar.gz 'http://127.0.0.1:8080/package?cpuArch=armv8&attrGamer=prod'
  curl http://127.0.0.1:8080/healthz http://127.0.0.1:8080/metrics
  precast serve --objects s3://packages --catalog dynamodb://catalog --ledger dynamodb://ledger --queue sqs://sqs.eu-west-1.amazonaws.com/123456789012/jobs --dead-letters sqs://sqs.eu-west-1.amazonaws.com/123456789012/dead`
}

func (c *serveCmd) Run(ctx context.Context, std streams) error {
	return c.serve(ctx, c.logger(std.err), func(what, url string) {
		fmt.Fprintf(std.out, "%s %s\n", what, url)
	})
}

// shutdownGrace is how long answers under way may take after the signal to end.
const shutdownGrace = 20 * time.Second

// refreshInterval is how often the index is looked at, besides after every publish of this process.
const refreshInterval = 5 * time.Second

// keyInterval is how often KeyWatch checks that the signing key is in the published keyring.
const keyInterval = time.Minute

// serve runs until ctx is done. It tells the "admin" URL, if there is one, as soon as that is served, and the "ready" URL
// of devices once they are answered from a published index; one that comes before is told to come back.
func (c *serveCmd) serve(ctx context.Context, log *slog.Logger, tell func(what, url string)) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	drivers, closeAll, err := c.take(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	metrics := server.NewMetrics()
	var p *pipeline.Pipeline
	if drivers.ReadOnly {
		log.WarnContext(ctx, "the data folder is read-only: devices are answered, and nothing is built or changed", "data", c.Data)
	} else {
		metrics.Depth(drivers.DeadLetters.Depth)
		if p, err = c.pipeline(ctx, drivers, log, metrics); err != nil {
			return err
		}
		if p.Disk != nil {
			metrics.Disk(p.Disk.Free, p.Paused)
		}
	}
	statements, err := signingkey.Issuer(ctx, c.Signing, os.LookupEnv)
	if err != nil {
		return err
	}
	published := server.NewPublished(drivers.Objects, log)
	if err := published.Refresh(ctx); err != nil {
		log.ErrorContext(ctx, "read published index", "error", err)
	}
	front := server.New(drivers.Objects, published, metrics, log)
	g, ctx := errgroup.WithContext(ctx)
	if statements != nil {
		front.Statements(statements)
		watch := &server.KeyWatch{Objects: drivers.Objects, Key: statements.Key(), Now: time.Now, Log: log}
		g.Go(func() error { watch.Run(ctx, keyInterval); return nil })
	}
	doors, err := c.doors(front, p, log)
	if err != nil {
		return err
	}
	defer doors.close()
	if p != nil {
		if !drivers.Remote {
			withdraw, err := doors.announce(c.Data, p)
			if err != nil {
				return err
			}
			defer withdraw()
		}
		defer p.Subscribe(func(ev pipeline.Event) {
			if ev.Published != nil {
				published.Poke()
			}
		})()
		g.Go(func() error { return p.Run(ctx) })
	} else if err := closeAll(); err != nil { // what may write to the folder elsewhere is not kept from it
		return err
	}
	g.Go(func() error { published.Run(ctx, refreshInterval); return nil })
	doors.serve(ctx, g)
	g.Go(func() error {
		log.InfoContext(ctx, "listening", "url", doors.url, "admin", doors.adminURL, "data", c.Data)
		if doors.adminURL != "" {
			tell("admin", doors.adminURL)
		}
		select {
		case <-published.First():
			tell("ready", doors.url)
		case <-ctx.Done():
		}
		return nil
	})
	return g.Wait()
}

// pipeline makes the pipeline that the flags describe.
func (c *serveCmd) pipeline(ctx context.Context, drivers pipeline.Drivers, log *slog.Logger, next builder.Observer) (*pipeline.Pipeline, error) {
	front, err := c.connect(ctx, drivers.Objects, log)
	if err != nil {
		return nil, err
	}
	opt, err := c.options(c.remote(), log, telling(front, next))
	if err != nil {
		return nil, err
	}
	return pipeline.New(drivers, pipeline.Config{
		Builder: opt, Workers: c.Workers, Window: c.Window, MinFree: c.MinFree, History: time.Duration(c.History),
	}), nil
}
