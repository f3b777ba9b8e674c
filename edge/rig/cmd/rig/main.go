// Command rig serves devices through a stand-in for CloudFront with the real edge functions, on this machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/seed"
)

const usage = `Serves devices through a stand-in for CloudFront: function.js and edge.zip run in Node.js, in front of an
S3 and a composer over a data folder. Each request is logged in a line.

Example:
  go run ./edge/cmd/pack -out dist
  go run ./edge/rig/cmd/rig
  curl -i 'http://127.0.0.1:.../package?cpuArch=armv8&attrGamer=prod'   # twice: Miss, then Hit

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "rig:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, diag io.Writer) (err error) {
	flags := flag.NewFlagSet("rig", flag.ContinueOnError)
	flags.SetOutput(diag)
	flags.Usage = func() { fmt.Fprint(diag, usage); flags.PrintDefaults() }
	data := flags.String("data", "", "data folder that was built, or that precast serve builds meanwhile; empty: the sample, in a temporary one")
	addr := flags.String("addr", "127.0.0.1:0", "address to listen on")
	dist := flags.String("dist", "dist", "folder with edge.zip, function.js and response.js")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *data == "" {
		if *data, err = os.MkdirTemp("", "precast-rig-data-"); err != nil {
			return err
		}
		defer os.RemoveAll(*data)
		if err := sample(ctx, *data); err != nil {
			return err
		}
	}
	objects, err := local.OpenObjects(*data)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(diag, nil))
	r, err := rig.Start(ctx, rig.Options{
		Objects: objects, Dist: *dist, Addr: *addr, Log: log,
		OnTrace: func(t rig.Trace) { log.Info(t.String()) },
		OnLog:   func(line string) { log.Info("edge " + line) },
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready", r.URL)
	r.Watch(ctx, 100*time.Millisecond)
	return r.Close()
}

// sample builds the sample in a data folder.
func sample(ctx context.Context, dir string) (err error) {
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	im := &release.Importer{Objects: store.Objects(), Catalog: store.Catalog()}
	if _, err := im.Import(ctx, seed.Releases(256<<10, 1), false); err != nil {
		return err
	}
	return pipeline.New(pipeline.Local(store), pipeline.Config{}).Build(ctx, builder.PlanOptions{}, nil)
}
