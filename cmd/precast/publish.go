package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/settings"
)

// publishFlags are those of the commands that publish.
type publishFlags struct {
	settings.CDN `embed:""`
}

// edge returns the resources that the flags name.
func (f publishFlags) edge() cdn.Resources { return cdn.Resources(f.CDN) }

// connect connects to the CDN that they name; nil if they name none.
func (f publishFlags) connect(ctx context.Context, objects builder.Objects, log *slog.Logger) (*cdn.CDN, error) {
	if f.edge() == (cdn.Resources{}) {
		return nil, nil
	}
	return cdn.Connect(ctx, f.edge(), objects, log)
}

// telling adds a CDN, if there is one, to another observer.
func telling(c *cdn.CDN, next builder.Observer) builder.Observer {
	if c == nil {
		return next
	}
	return withCDN{next, c}
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

// cdnTold is what the CDN was told.
type cdnTold struct {
	Table        string   `json:"table"`        // none, kept, written, failed
	Invalidation string   `json:"invalidation"` // none, done, early, failed
	Problems     []string `json:"problems"`
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

// print tells when devices get what was published.
func (o *tellsCDN) print(std streams) {
	if !o.told {
		fmt.Fprintln(std.out, "devices get it with their next request, or when the cache in front of it expires")
		return
	}
	switch {
	case o.tableErr != nil:
		fmt.Fprintf(std.err, "precast: the edge may still have the previous table of rollouts: %v\nThe next plan repairs it; until then devices in a rollout may get its previous release.\n", o.tableErr)
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
