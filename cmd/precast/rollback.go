package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// publishFlags are those of the commands that publish.
type publishFlags struct {
	Distribution  string `help:"Invalidate /package* of this CloudFront distribution at every publish." env:"PRECAST_DISTRIBUTION" placeholder:"ID" group:"aws"`
	KeyValueStore string `help:"Keep the table of rollouts in this CloudFront KeyValueStore." env:"PRECAST_KEY_VALUE_STORE" placeholder:"ARN" group:"aws"`
}

// edge is what they name.
func (f publishFlags) edge() cdn.Resources {
	return cdn.Resources{Distribution: f.Distribution, KeyValueStore: f.KeyValueStore}
}

// unused says so where a server does what the flags would have this command do: somebody counts on it.
func (f publishFlags) unused(std streams, d *data) {
	if d.server != nil && f.edge() != (cdn.Resources{}) {
		fmt.Fprintf(std.err, "precast: --distribution and --key-value-store are not used: the server at %s publishes, and tells the CDN that it was started with\n", d.server.Endpoint().URL)
	}
}

// observer adds the CDN, if there is one, to another observer.
func (f publishFlags) observer(ctx context.Context, log *slog.Logger, objects builder.Objects, next builder.Observer) (builder.Observer, error) {
	if f.edge() == (cdn.Resources{}) {
		return next, nil
	}
	c, err := cdn.Connect(ctx, f.edge(), objects, log)
	if err != nil {
		return nil, err
	}
	return withCDN{next, c}, nil
}

type withCDN struct {
	builder.Observer
	cdn *cdn.CDN
}

func (o withCDN) Planned(ctx context.Context, r builder.Report) {
	o.Observer.Planned(ctx, r)
	o.cdn.Planned(ctx, r)
}

func (o withCDN) Published(ctx context.Context, p builder.Published) {
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

// cdnTold is what the CDN was told.
type cdnTold struct {
	Table        string   `json:"table"`        // none, kept, written, failed
	Invalidation string   `json:"invalidation"` // none, done, early, failed
	Problems     []string `json:"problems"`
}

func (c *rollbackCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	c.unused(std, d)
	told := &tellsCDN{out: std.err, quiet: c.JSON}
	opt := builder.Options{Log: errorLog(std), Observer: builder.Silent{}}
	if c.edge() != (cdn.Resources{}) && d.server == nil {
		if told.cdn, err = cdn.Connect(ctx, c.edge(), d.objects, opt.Log); err != nil {
			return err
		}
		opt.Observer = told
	}
	res, err := d.rollback(ctx, opt, history.Request{Generation: c.Generation, Reason: c.Reason, Force: c.Force})
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

// tellsCDN tells a CDN of a rollback, and the operator of both.
type tellsCDN struct {
	builder.Silent
	cdn   *cdn.CDN // nil: there is none
	out   io.Writer
	quiet bool

	told         bool
	table        cdn.Table
	tableErr     error
	invalidation cdn.Invalidation
	err          error // of the invalidation
}

func (o *tellsCDN) Published(ctx context.Context, p builder.Published) {
	o.told = true
	if o.cdn.Rollouts != nil {
		o.table, o.tableErr = o.cdn.Rollouts.Bring(ctx)
	}
	if o.cdn.Invalidator != nil {
		if !o.quiet {
			fmt.Fprintf(o.out, "generation %d is published; %s is invalidated in %s, when the edge has settled\n", p.Generation, cdn.Paths, cdn.Settled)
		}
		o.invalidation, o.err = o.cdn.Invalidator.Invalidate(ctx, p)
	}
}

// print says when devices get what was published.
func (o *tellsCDN) print(std streams) {
	if !o.told {
		fmt.Fprintln(std.out, "devices get it with their next request, or as a cache in front forgets the old answer")
		return
	}
	switch {
	case o.tableErr != nil:
		fmt.Fprintf(std.err, "precast: the table of rollouts may still be the one of before: %v\nThe next plan mends it; until then devices in a rollout may get its previous release.\n", o.tableErr)
	case o.table == cdn.TableWritten:
		fmt.Fprintln(std.out, "the table of rollouts is written")
	}
	const expire = "as cached answers expire, in a minute (package_max_ttl_seconds)"
	switch {
	case o.err != nil:
		fmt.Fprintln(std.err, "precast: the CDN was not told:", o.err)
		fmt.Fprintln(std.out, "devices get it", expire)
	case o.invalidation == cdn.Invalidated:
		fmt.Fprintf(std.out, "one invalidation of %s: devices get it with their next request, as soon as CloudFront has done it\n", cdn.Paths)
	case o.invalidation == cdn.InvalidatedEarly:
		fmt.Fprintf(std.out, "one invalidation of %s, before the edge had settled: devices get it with their next request, or %s\n", cdn.Paths, expire)
	default:
		fmt.Fprintln(std.out, "devices get it", expire)
	}
}

func (o *tellsCDN) json() *cdnTold {
	if !o.told {
		return nil
	}
	told := &cdnTold{Problems: []string{},
		Table:        map[cdn.Table]string{cdn.TableUnknown: "none", cdn.TableKept: "kept", cdn.TableWritten: "written"}[o.table],
		Invalidation: map[cdn.Invalidation]string{cdn.InvalidatedNot: "none", cdn.InvalidatedEarly: "early", cdn.Invalidated: "done"}[o.invalidation],
	}
	if o.tableErr != nil {
		told.Table, told.Problems = "failed", append(told.Problems, o.tableErr.Error())
	}
	if o.err != nil {
		told.Invalidation, told.Problems = "failed", append(told.Problems, o.err.Error())
	}
	return told
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
func (d *data) rollback(ctx context.Context, opt builder.Options, r history.Request) (pipeline.RolledBack, error) {
	if d.server != nil {
		return d.server.Rollback(ctx, r)
	}
	return pipeline.New(d.drivers, pipeline.Config{Builder: opt}).Rollback(ctx, r)
}

func (d *data) pin(ctx context.Context, reason string) (history.Pinned, error) {
	if d.server != nil {
		return d.server.Pin(ctx, reason)
	}
	return pipeline.New(d.drivers, pipeline.Config{}).Pin(ctx, reason)
}

func (d *data) unpin(ctx context.Context) (history.Pinned, error) {
	if d.server != nil {
		return d.server.Unpin(ctx)
	}
	return pipeline.New(d.drivers, pipeline.Config{}).Unpin(ctx)
}
