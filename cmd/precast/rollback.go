package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/settings"
)

// errorLog is the log of a command that ends: what it says itself is not said again.
func errorLog(std streams) *slog.Logger {
	return slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelError}))
}

// answered makes a refusal the answer no.
func answered(err error) error {
	if errors.Is(err, history.ErrRefused) || errors.Is(err, history.ErrRace) {
		return no("%w", err)
	}
	return err
}

type rollbackCmd struct {
	dataFlag
	publishFlags
	jsonFlag
	authorFlags
	Generation uint64 `arg:"" optional:"" help:"Number of the generation to go back to. Default: the one before the published one."`
	Force      bool   `help:"Go back even if objects that devices may ask for are lost."`
}

func (*rollbackCmd) Help() string {
	return `Publishes the content of an earlier generation again, as a new generation, and pins it: nothing else is published
until precast unpin. Correct the catalog before you unpin, because unpin publishes the catalog again. If
precast serve is running on the data folder, devices get the earlier content from their next request on. With
--distribution, cached answers of CloudFront are invalidated once, 12 seconds later, when every instance at the
edge uses the new generation. Exits with 3 if the rollback is refused.

Examples:
  precast rollback
  precast rollback 11 -m 'scoreboard 2.0 does not start'
  precast rollback --distribution E2EXAMPLE --json`
}

// rolledBack is what a rollback prints as JSON.
type rolledBack struct {
	pipeline.RolledBack
	CDN *cdnTold `json:"cdn,omitempty"` // if this command told one
}

func (c *rollbackCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	told := &tellsCDN{out: std.err, quiet: c.JSON}
	if told.cdn, err = d.cdn(ctx, c.publishFlags, std); err != nil {
		return err
	}
	opt := builder.Options{Log: errorLog(std), Observer: builder.Silent{}}
	if told.cdn != nil {
		opt.Observer = told
	}
	res, err := d.pipeline(opt).Rollback(ctx, history.Request{Generation: c.Generation, By: c.author(), Force: c.Force})
	if err != nil {
		return answered(err)
	}
	if c.JSON {
		err = printJSON(std.out, rolledBack{res, told.json()})
	} else {
		fmt.Fprintf(std.out, "generation %d is published, with the content of generation %d, in place of %d: %s, in %s\n",
			res.Generation, res.Of, res.Replaced, writes(res.Writes), time.Duration(res.Seconds*float64(time.Second)).Round(time.Millisecond))
		told.print(std)
		fmt.Fprintf(std.out, "it is pinned: %s; precast unpin publishes what the catalog says\n", res.Pin)
		if res.Lacking > 0 {
			fmt.Fprintf(std.out, "composed when asked for, for devices that took generation %d: %s; a job that prebuilds them is queued\n", res.Replaced, count(res.Lacking, "object"))
		}
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		fmt.Fprintf(std.err, "precast: generation %d is published all the same; what is prebuilt of it was not looked at\n", res.Generation)
		return ctx.Err()
	case res.Problem != "":
		fmt.Fprintln(std.err, "precast: the rollback is done; then:", res.Problem)
	}
	if len(res.Missing) > 0 {
		return no("devices may ask for %s that cannot be found: precast fsck names them", count(len(res.Missing), "object"))
	}
	return nil
}

func writes(n int) string {
	switch n {
	case 1:
		return "one conditional write"
	case 2:
		return "one conditional write, and one before it"
	}
	return fmt.Sprintf("one conditional write, and %d before it", n-1)
}

type pinCmd struct {
	dataFlag
	jsonFlag
	authorFlags
}

func (*pinCmd) Help() string {
	return `Keeps the published generation until precast unpin. Changes of the catalog are built meanwhile, but not published.

Examples:
  precast pin
  precast pin -m 'trade fair until Friday'`
}

func (c *pinCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := d.pipeline(builder.Options{}).Pin(ctx, c.author())
	if err != nil {
		return answered(err)
	}
	if c.JSON {
		return printJSON(std.out, p)
	}
	fmt.Fprintf(std.out, "generation %d is pinned: %s\n", p.Generation, p.Pin)
	return nil
}

type unpinCmd struct {
	dataFlag
	buildFlags
	publishFlags
	jsonFlag
	settings.Disk `embed:""`
	authorFlags

	Build          bool `help:"Then build and publish the catalog, as precast build does." default:"true" negatable:""`
	AcceptRemovals bool `help:"Publish the catalog even if more than half of the published items are gone from it."`
}

func (*unpinCmd) Help() string {
	return `Removes the pin of precast pin or precast rollback, then builds and publishes the catalog. Exits with 3 if nothing
is pinned, or if items had to be left out.

A catalog that has lost more than half of the published items (three at least) is not published: what is
published becomes pinned instead ("held back"), until the catalog is mended or --accept-removals accepts it.

Examples:
  precast unpin
  precast unpin --accept-removals
  precast unpin --no-build   # the next change of the catalog, or precast build, publishes`
}

func (c *unpinCmd) Run(ctx context.Context, std streams) error {
	c.disk = c.Disk
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := d.pipeline(builder.Options{}).Unpin(ctx, c.author())
	if err != nil {
		return answered(err)
	}
	if !c.Build {
		if c.JSON {
			return printJSON(std.out, p)
		}
		fmt.Fprintf(std.out, "generation %d is not pinned any more\n", p.Generation)
		return nil
	}
	fmt.Fprintf(std.err, "generation %d is not pinned any more\n", p.Generation)
	b := buildCmd{dataFlag: c.dataFlag, buildFlags: c.buildFlags, publishFlags: c.publishFlags, jsonFlag: c.jsonFlag, Retry: true}
	b.acceptRemovals = c.AcceptRemovals
	return b.build(ctx, std, d)
}
