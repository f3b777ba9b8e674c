package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// errorLog is the log of a command that ends: what it says itself is not said again.
func errorLog(std streams) *slog.Logger {
	return slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelError}))
}

// answered makes a refusal the answer no.
func answered(err error) error {
	_, refused := errors.AsType[release.Refusal](err)
	if refused || errors.Is(err, history.ErrRefused) || errors.Is(err, history.ErrRace) {
		return no("%w", err)
	}
	return err
}

type rollbackCmd struct {
	dataFlag
	publishFlags
	jsonFlag
	Generation uint64 `arg:"" optional:"" help:"What to go back to; without it, the generation before the published one."`
	Reason     string `help:"Why, for those who look at precast status." placeholder:"TEXT"`
	Force      bool   `help:"Go back even if something is gone for good that devices may ask for."`
}

func (*rollbackCmd) Help() string {
	return `Publishes the content of an earlier generation again, as a new generation, by one conditional write, and
pins it: nothing is published over it until precast unpin. Either correct the catalog first, or devices get
what it says as soon as the pin is off. With precast serve running on the data folder, the server does it, and
devices get it from the next request on. With --distribution the answers that CloudFront has cached are
invalidated, once, 12 seconds later, when every instance at the edge answers from the new generation. Exits
with 3 if it is refused.

Examples:
  precast rollback
  precast rollback 11 --reason 'scoreboard 2.0 does not start'
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
	res, err := d.pipeline(opt).Rollback(ctx, history.Request{Generation: c.Generation, Reason: c.Reason, Force: c.Force})
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
			fmt.Fprintf(std.out, "%d bundles and manifests for devices that took generation %d are composed when asked for; a job that writes them is queued\n", res.Lacking, res.Replaced)
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
		return no("%d objects that devices may ask for are gone: precast fsck names them", len(res.Missing))
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
	Reason string `help:"Why, for those who look at precast status." placeholder:"TEXT"`
}

func (*pinCmd) Help() string {
	return `Keeps what is published from being replaced. Changes of the catalog are built all the same and wait.

Examples:
  precast pin
  precast pin --reason 'trade fair until Friday'`
}

func (c *pinCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := d.pipeline(builder.Options{}).Pin(ctx, c.Reason)
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
	Build bool `help:"Build and publish what the catalog says, as precast build does." default:"true" negatable:""`
}

func (*unpinCmd) Help() string {
	return `Takes the pin off, then builds and publishes what the catalog says. Exits with 3 if nothing is pinned, or
if items had to be left out.

Examples:
  precast unpin
  precast unpin --no-build   # the next change of the catalog, or precast build, publishes`
}

func (c *unpinCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := d.pipeline(builder.Options{}).Unpin(ctx)
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
	return b.build(ctx, std, d)
}
