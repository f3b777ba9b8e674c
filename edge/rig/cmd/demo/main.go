// Command demo plays the README's story through a stand-in for CloudFront with the real edge functions.
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
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/test/story"
	"github.com/precast-ota/precast/seed"
)

const usage = `Plays the story of precast demo through a stand-in for CloudFront: function.js, response.js and edge.zip run in Node.js, in
front of an S3 and a composer over a temporary data folder. Every request is made twice, and every answer is
checked; exit code 3 if one is wrong.

Example:
  make demo-edge

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	if _, wrong := errors.AsType[story.Wrong](err); wrong {
		os.Exit(3)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string, out, diag io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(diag)
	flags.Usage = func() { fmt.Fprint(diag, usage); flags.PrintDefaults() }
	dist := flags.String("dist", "dist", "folder with edge.zip, function.js and response.js")
	size := flags.Int64("size", 256<<10, "size of each binary, in bytes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "precast-demo-edge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := local.Open(filepath.Join(dir, "data"), local.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	d := demo{out: out, dir: dir, size: *size, store: store, published: make(chan builder.Published, 16),
		log: slog.New(slog.NewTextHandler(diag, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	return d.play(ctx, *dist)
}

type demo struct {
	out       io.Writer
	dir       string
	size      int64
	store     *local.Store
	log       *slog.Logger
	published chan builder.Published
	rig       *rig.Rig
}

// sampleSeed is the seed for the sample's generated binaries.
const sampleSeed = 1

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// play runs the pipeline, and the story in front of it.
func (d *demo) play(ctx context.Context, dist string) error {
	im := &release.Importer{Objects: d.store.Objects(), Catalog: d.store.Catalog()}
	if _, err := im.Import(ctx, seed.Releases(d.size, sampleSeed), false); err != nil {
		return err
	}
	st := pipeline.New(pipeline.Local(d.store), pipeline.Config{Builder: builder.Options{Log: d.log}, Window: 50 * time.Millisecond})
	defer st.Subscribe(func(ev pipeline.Event) {
		if ev.Published != nil && ev.Published.Changed {
			d.published <- *ev.Published
		}
	})()
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return st.Run(ctx) })
	g.Go(func() error {
		defer cancel()
		return d.story(ctx, dist)
	})
	return g.Wait()
}

func (d *demo) story(ctx context.Context, dist string) (err error) {
	if err := d.await(ctx); err != nil {
		return err
	}
	d.rig, err = rig.Start(ctx, rig.Options{Objects: d.store.Objects(), Dist: dist, Log: d.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.rig.Close()) }()
	d.say("A stand-in for CloudFront, with the packaged edge functions, is at %s", d.rig.URL)
	s := story.Story{Out: d.out, Dir: d.dir, URL: d.rig.URL, Size: d.size, Seed: sampleSeed, Release: d.release, Cached: true}
	if err := s.Play(ctx); err != nil {
		return err
	}
	d.say("\nWhere the answers came from:\n%s", d.sources())
	return nil
}

// await waits until something new is published.
func (d *demo) await(ctx context.Context) error {
	select {
	case p := <-d.published:
		d.say("Generation %d is published.", p.Generation)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *demo) release(ctx context.Context, it catalog.Item, file string) error {
	im := &release.Importer{Objects: d.store.Objects(), Catalog: d.store.Catalog()}
	one := release.Release{Item: it, Open: func() (io.ReadSeekCloser, error) { return os.Open(file) }}
	if _, err := im.Import(ctx, []release.Release{one}, false); err != nil {
		return err
	}
	if err := d.await(ctx); err != nil {
		return err
	}
	// As internal/run/cdn does it.
	first := d.rig.Invalidate(cdn.Paths)
	d.rig.Advance(cdn.Settled)
	second := d.rig.Invalidate(cdn.Paths)
	d.say("%s is invalidated: %d cached answers, and %d more after %v, by when the edge has settled (the clock is put forward).",
		cdn.Paths, first, second, cdn.Settled)
	return nil
}

// sources counts the requests by what answered them.
func (d *demo) sources() string {
	hits, misses, failovers, refused := 0, 0, 0, 0
	fromCache, fromOrigin := 0, 0
	for _, t := range d.rig.Traces() {
		switch {
		case strings.HasPrefix(t.XCache, "Hit"):
			hits++
			fromCache += t.Bytes
		case strings.HasPrefix(t.XCache, "FunctionGeneratedResponse"):
			refused++
		default:
			misses++
			fromOrigin += t.Bytes
		}
		if t.Failover != 0 {
			failovers++
		}
	}
	return fmt.Sprintf("  %d from the cache (%s), %d by the origin-request function (%s; %d of them composed), %d by the viewer function alone",
		hits, humanize.IBytes(uint64(fromCache)), misses, humanize.IBytes(uint64(fromOrigin)), failovers, refused)
}
