package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/admin"
	"github.com/precast-ota/precast/internal/run/limits"
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
	settings.Signing `embed:""`
	settings.Disk    `embed:""`
	History          settings.Period `help:"How long binaries of older releases are kept, and the generations that need them. What nothing needs is removed by itself; 0: nothing is." env:"PRECAST_HISTORY" default:"90d"`
	Addr             string          `help:"Address and port to listen on for devices." env:"PRECAST_ADDR" default:"127.0.0.1:8080"`
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
  curl -so ota-package.tar.gz 'http://127.0.0.1:8080/package?cpuArch=armv8&attrGamer=prod'
  curl http://127.0.0.1:8080/healthz http://127.0.0.1:8080/metrics
  precast serve --objects s3://packages --catalog dynamodb://catalog --ledger dynamodb://ledger --queue sqs://sqs.eu-west-1.amazonaws.com/123456789012/jobs --dead-letters sqs://sqs.eu-west-1.amazonaws.com/123456789012/dead`
}

func (c *serveCmd) Run(ctx context.Context, std streams) error {
	return c.serve(ctx, c.logger(std.err), func(url string) {
		fmt.Fprintf(std.out, "ready %s\n", url)
	})
}

// shutdownGrace is how long answers under way may take after the signal to end.
const shutdownGrace = 20 * time.Second

// refreshInterval is how often the index is looked at, besides after every publish of this process.
const refreshInterval = 5 * time.Second

// keyInterval is how often KeyWatch checks that the signing key is in the published keyring.
const keyInterval = time.Minute

// serve runs until ctx is done. It calls ready once requests are answered from a published index; one
// that comes before is told to come back.
func (c *serveCmd) serve(ctx context.Context, log *slog.Logger, ready func(url string)) (err error) {
	drivers, closeAll, err := c.take(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	metrics := server.NewMetrics()
	metrics.Depth(drivers.DeadLetters.Depth)
	p, err := c.pipeline(ctx, drivers, log, metrics)
	if err != nil {
		return err
	}
	if p.Disk != nil {
		metrics.Disk(p.Disk.Free, p.Paused)
	}
	statements, err := signingkey.Issuer(ctx, c.Signing, os.LookupEnv)
	if err != nil {
		return err
	}
	published := server.NewPublished(drivers.Objects, log)
	if err := published.Refresh(ctx); err != nil {
		log.ErrorContext(ctx, "read published index", "error", err)
	}
	defer p.Subscribe(func(ev pipeline.Event) {
		if ev.Published != nil {
			published.Poke()
		}
	})()
	front := server.New(drivers.Objects, published, metrics, log)
	devices, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("listen for devices: %w", err)
	}
	url := publicURL(devices.Addr())
	most, mostAdmin := limits.Connections()
	g, ctx := errgroup.WithContext(ctx)
	if !drivers.Remote {
		withdraw, err := c.announce(ctx, g, p, url, mostAdmin, log)
		if err != nil {
			devices.Close()
			return err
		}
		defer withdraw()
	}
	if statements != nil {
		front.Statements(statements)
		watch := &server.KeyWatch{Objects: drivers.Objects, Key: statements.Key(), Now: time.Now, Log: log}
		g.Go(func() error { watch.Run(ctx, keyInterval); return nil })
	}
	g.Go(func() error { return p.Run(ctx) })
	g.Go(func() error { published.Run(ctx, refreshInterval); return nil })
	g.Go(func() error {
		return listen(ctx, limits.HTTP(front.Handler(), log), limits.Listen(devices, most, log))
	})
	g.Go(func() error {
		log.InfoContext(ctx, "listening", "url", url, "data", c.Data)
		select {
		case <-published.First():
			ready(url)
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

// announce lets other commands into the data folder's server.
func (c *serveCmd) announce(ctx context.Context, g *errgroup.Group, p *pipeline.Pipeline, url string, most int, log *slog.Logger) (withdraw func(), err error) {
	local, endpoint, err := admin.Listen(url)
	if err != nil {
		return nil, err
	}
	withdraw, err = admin.Announce(c.Data, endpoint)
	if err != nil {
		local.Close()
		return nil, err
	}
	g.Go(func() error {
		return listen(ctx, limits.HTTP(admin.Handler(p, endpoint.Token), log), limits.Listen(local, most, log))
	})
	return withdraw, nil
}

// listen serves until ctx is done, then lets answers under way end.
func listen(ctx context.Context, s *http.Server, l net.Listener) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if s.Shutdown(graceful) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if stop() {
		return fmt.Errorf("serve %s: %w", l.Addr(), err) // nobody asked it to end
	}
	<-ended
	return nil
}

// publicURL is how this machine reaches an address.
func publicURL(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return "http://" + a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
