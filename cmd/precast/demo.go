package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/settings"
	"github.com/precast-ota/precast/internal/test/story"
	"github.com/precast-ota/precast/seed"
)

type demoCmd struct {
	Size size   `help:"Size of each generated binary." default:"1MiB"`
	Seed uint64 `help:"Seed for the sample's generated binaries." aliases:"rng" default:"1" placeholder:"N"`
	Keep string `help:"Use this folder, and keep the data and all answers in it. Default: a temporary folder." placeholder:"DIR" type:"path"`
}

func (*demoCmd) Help() string {
	return `Adds the sample to an empty catalog, builds it, starts a server and asks it for packages as devices do (with
curl if it is installed). Then it releases a new version while the server runs, and asks again. It checks
every answer and exits with 3 if one is wrong.

Examples:
  precast demo
  precast demo --size 10MiB --keep /tmp/precast-demo`
}

func (c *demoCmd) Run(ctx context.Context, std streams) (err error) {
	dir := c.Keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "precast-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if err = os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &demo{out: std.out, dir: dir, data: filepath.Join(dir, "data"), size: int64(c.Size), number: c.Seed}
	if err := errors.Join(d.seed(ctx), d.build(ctx)); err != nil {
		cancel()
		return err
	}
	served := d.serve(ctx)
	if d.url != "" {
		err = d.story(ctx)
	}
	cancel()
	return errors.Join(err, <-served)
}

// demo plays the story. Its steps print what they do, in the words of a shell.
type demo struct {
	out       io.Writer
	dir, data string
	size      int64
	number    uint64 // the seed for the sample's binaries
	url       string // of the server
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) seed(ctx context.Context) error {
	d.say("$ precast seed --data %s --size %s", d.data, strings.ReplaceAll(bytesText(d.size), " ", ""))
	data, err := dataFlag{Data: d.data}.open(ctx)
	if err != nil {
		return err
	}
	defer data.Close()
	im := importer(data, streams{}, true)
	im.Allow = []string{release.AllowContent, release.AllowOlder} // from the beginning, in a folder that was kept
	res, err := im.Import(ctx, seed.Releases(d.size, d.number), false)
	if err != nil {
		return err
	}
	d.say("  %s in the catalog", count(len(res.Items), "item"))
	return nil
}

// serve starts the server and waits until it is ready. What it ends with comes from the channel.
func (d *demo) serve(ctx context.Context) <-chan error {
	d.say("$ precast serve --data %s --addr 127.0.0.1:0", d.data)
	ended := make(chan error, 1)
	ready := make(chan string, 1)
	cmd := serveCmd{dataFlag: dataFlag{Data: d.data}, buildFlags: buildFlags{settings.Default()}, listenFlags: listenFlags{Addr: "127.0.0.1:0"}, Window: 50 * time.Millisecond, Workers: 2}
	go func() {
		ended <- cmd.serve(ctx, d.log(), func(_, url string) { ready <- url })
	}()
	select {
	case d.url = <-ready:
		d.say("  ready %s", d.url)
	case err := <-ended:
		ended <- err
	}
	return ended
}

// build builds and publishes, in the server if it runs.
func (d *demo) build(ctx context.Context) error {
	d.say("$ precast build --data %s", d.data)
	data, err := dataFlag{Data: d.data}.open(ctx)
	if err != nil {
		return err
	}
	defer data.Close()
	opt, err := buildFlags{settings.Default()}.options(false, d.log(), builder.Silent{})
	if err != nil {
		return err
	}
	start := time.Now()
	written, bytes := 0, int64(0)
	err = data.pipeline(opt).Build(ctx, builder.PlanOptions{}, func(ev pipeline.Event) {
		if ev.Stored != nil && !ev.Stored.Existed {
			written++
			bytes += ev.Stored.Size
		}
	})
	if err != nil {
		return err
	}
	ix, _, err := builder.ReadIndex(ctx, data.objects)
	if err != nil {
		return err
	}
	d.say("  generation %d is published: %s written, %s, in %.1f s", ix.Generation, count(written, "object"), bytesText(bytes), time.Since(start).Seconds())
	return nil
}

func (d *demo) story(ctx context.Context) error {
	s := story.Story{Out: d.out, Dir: d.dir, URL: d.url, Size: d.size, Seed: d.number, Release: d.release}
	err := s.Play(ctx)
	if wrong, ok := errors.AsType[story.Wrong](err); ok {
		return no("%v", wrong)
	}
	return err
}

func (d *demo) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// release puts an item into the catalog, as a release manager would, and waits until it is served.
func (d *demo) release(ctx context.Context, it catalog.Item, file string) error {
	attrs := it.Attrs()
	d.say("$ precast catalog put %s %s --data %s --version %s --attr %s", it.App, file, d.data, it.Version, strings.Join(attrs, ","))
	put := putCmd{dataFlag: dataFlag{Data: d.data}, App: it.App, File: file, Track: it.Track, Version: it.Version, Attr: attrs}
	if err := put.Run(ctx, streams{out: io.Discard, err: io.Discard}); err != nil {
		return err
	}
	return d.awaitGeneration(ctx, 2)
}

// awaitGeneration waits for the server to have built what has changed, as /healthz tells.
func (d *demo) awaitGeneration(ctx context.Context, generation uint64) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		var health struct{ Generation uint64 }
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/healthz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("wait for generation %d: %w", generation, err)
		}
		err = json.NewDecoder(resp.Body).Decode(&health)
		resp.Body.Close()
		if err != nil {
			return fmt.Errorf("wait for generation %d: %w", generation, err)
		}
		if health.Generation >= generation {
			d.say("  generation %d is served %.1f s later", health.Generation, time.Since(start).Seconds())
			return nil
		}
		if err := builder.Pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for generation %d: %w", generation, err)
		}
	}
}
