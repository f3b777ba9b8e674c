package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"precast/builder"
	"precast/internal/cdn"
	"precast/internal/history"
	"precast/internal/station"
)

// publishFlags are those of the commands that publish.
type publishFlags struct {
	Distribution string `help:"Invalidate /package* of this CloudFront distribution at every publish." env:"PRECAST_DISTRIBUTION" placeholder:"ID" group:"aws"`
}

// observer adds the invalidation, if there is a distribution, to another observer.
func (f publishFlags) observer(ctx context.Context, log *slog.Logger, next builder.Observer) (builder.Observer, error) {
	if f.Distribution == "" {
		return next, nil
	}
	v, err := cdn.Connect(ctx, f.Distribution, log)
	if err != nil {
		return nil, err
	}
	return invalidating{next, v}, nil
}

type invalidating struct {
	builder.Observer
	cdn *cdn.Invalidator
}

func (o invalidating) Published(ctx context.Context, p builder.Published) {
	o.Observer.Published(ctx, p)
	o.cdn.Published(ctx, p)
}

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
	Generation uint64 `arg:"" optional:"" help:"What to go back to; without it, the generation before the published one."`
	Reason     string `help:"Why, for those who look at precast status." placeholder:"TEXT"`
	Force      bool   `help:"Go back even if something is gone for good that devices may ask for."`
}

func (*rollbackCmd) Help() string {
	return `Publishes the content of an earlier generation again, as a new generation, by one write, and pins it:
nothing is published over it until precast unpin. Either correct the catalog first, or devices get what
it says as soon as the pin is off. With precast serve running on the data folder, the server does it, and
devices get it from the next request on. Exits with 3 if it is refused.

Examples:
  precast rollback
  precast rollback 11 --reason 'scoreboard 2.0 does not start'
  precast rollback --distribution E2EXAMPLE --json`
}

func (c *rollbackCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	log := errorLog(std)
	observer, err := c.observer(ctx, log, builder.Silent{})
	if err != nil {
		return err
	}
	res, err := d.rollback(ctx, builder.Options{Log: log, Observer: observer}, history.Request{Generation: c.Generation, Reason: c.Reason, Force: c.Force})
	if err != nil {
		return answered(err)
	}
	if c.JSON {
		err = printJSON(std.out, res)
	} else {
		fmt.Fprintf(std.out, "generation %d is published, with the content of generation %d, in place of %d: %s, after %s\n",
			res.Generation, res.Of, res.Replaced, writes(res.Writes), time.Duration(res.Seconds*float64(time.Second)).Round(time.Millisecond))
		fmt.Fprintf(std.out, "it is pinned: %s; precast unpin publishes what the catalog says\n", res.Pin)
		if res.Lacking > 0 {
			fmt.Fprintf(std.out, "%d bundles and manifests for devices that took generation %d are composed when asked for; a job that writes them is queued\n", res.Lacking, res.Replaced)
		}
	}
	if res.Problem != "" {
		fmt.Fprintln(std.err, "precast: the rollback is done; then:", res.Problem)
	}
	if err == nil && len(res.Missing) > 0 {
		err = no("%d objects that devices may ask for are gone: precast fsck names them", len(res.Missing))
	}
	return err
}

func writes(n int) string {
	if n == 1 {
		return "1 write"
	}
	return fmt.Sprintf("%d writes", n)
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
	p, err := d.pin(ctx, c.Reason)
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
	p, err := d.unpin(ctx)
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

// rollback rolls back, here or in the server.
func (d *data) rollback(ctx context.Context, opt builder.Options, r history.Request) (station.RolledBack, error) {
	if d.server != nil {
		return d.server.Rollback(ctx, r)
	}
	return station.New(d.drivers, station.Config{Builder: opt}).Rollback(ctx, r)
}

func (d *data) pin(ctx context.Context, reason string) (history.Pinned, error) {
	if d.server != nil {
		return d.server.Pin(ctx, reason)
	}
	return station.New(d.drivers, station.Config{}).Pin(ctx, reason)
}

func (d *data) unpin(ctx context.Context) (history.Pinned, error) {
	if d.server != nil {
		return d.server.Unpin(ctx)
	}
	return station.New(d.drivers, station.Config{}).Unpin(ctx)
}
