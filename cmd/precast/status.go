package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/settings"
)

type statusCmd struct {
	dataFlag
	buildFlags
	jsonFlag
	settings.Disk `embed:""`

	Redrive bool `help:"First put failed jobs (dead letters) back into the queue."`
}

func (*statusCmd) Help() string {
	return `Shows which generation is published, whether it is pinned, whether the catalog has changes that are not
published, and which jobs failed for good. Of a data folder it shows what is on the disk, what precast gc would
free, and whether builds are paused for want of room. Exits with 3 unless everything is published.

Examples:
  precast status
  precast status --json
  precast status --redrive   # after the cause of the failures has been removed`
}

// copied sets --copies if what is published has copies: whoever asks for the status need not know.
func (c *statusCmd) copied(ctx context.Context, objects builder.Objects) {
	if ix, _, err := builder.ReadIndex(ctx, objects); err == nil && ix != nil && ix.Params.Copies() {
		c.Build.Copies = true
	}
}

func (c *statusCmd) Run(ctx context.Context, std streams) error {
	c.disk = c.Disk
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	c.copied(ctx, d.objects)
	opt, err := c.options(c.remote(), slog.New(slog.DiscardHandler), builder.Silent{})
	if err != nil {
		return err
	}
	p := d.pipeline(opt)
	if c.Redrive {
		n, err := p.Redrive(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(std.err, "%s put back\n", count(n, "dead letter"))
	}
	st, err := p.Status(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(std.out, st)
	} else {
		fmt.Fprintf(std.out, "generation %d is published, %s, from plan %d\n", st.Generation, count(st.Items, "item"), st.Sequence)
		if st.UpToDate {
			fmt.Fprintln(std.out, "it is what the catalog says")
		} else {
			fmt.Fprintln(std.out, "the catalog has changes that are not published")
		}
		if st.Pin != "" {
			fmt.Fprintf(std.out, "it is pinned: %s\n", st.Pin)
			switch {
			case builder.IsHeldBack(st.Pin): // the pin says it
			case st.Ready:
				fmt.Fprintln(std.out, "what the catalog says is built; precast unpin publishes it")
			case !st.UpToDate:
				fmt.Fprintln(std.out, "changes are waiting; precast unpin builds and publishes them")
			}
		}
		if !st.OldestChange.IsZero() {
			fmt.Fprintf(std.out, "the oldest change that is not served was made %s ago, at %s\n",
				time.Since(st.OldestChange).Round(time.Second), st.OldestChange.Format(time.RFC3339))
		}
		fmt.Fprintf(std.out, "jobs: %d waiting, %d in flight, %d dead\n", st.Waiting, st.InFlight, st.Dead)
		printDisk(std.out, st.Disk)
		for _, r := range st.Rejected {
			again := ""
			if !r.Retry.IsZero() {
				again = "; it is tried again at " + r.Retry.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(std.out, "left out: item %s %s: %s%s\n", r.Key, r.Version, r.Reason, again)
		}
		for _, l := range st.DeadLetters {
			fmt.Fprintf(std.out, "dead letter %s, tried %s: %s\n", l.ID, count(l.Receives, "time"), l.Job)
		}
	}
	if err == nil && (!st.UpToDate || len(st.Rejected) > 0 || st.Dead > 0) {
		err = no("not everything is published")
	}
	return err
}

// printDisk tells what is on the disk; on AWS there is none.
func printDisk(w io.Writer, d *pipeline.DiskStatus) {
	if d == nil {
		return
	}
	fmt.Fprintf(w, "disk: binaries %s, pieces %s, bundles %s, manifests %s, other %s; %s of %s are free\n",
		bytesText(d.Binaries), bytesText(d.Pieces), bytesText(d.Bundles), bytesText(d.Manifests), bytesText(d.Other), bytesText(d.Free), bytesText(d.Total))
	switch {
	case d.Collectable > 0:
		fmt.Fprintf(w, "precast gc --delete would free %s\n", bytesText(d.Collectable))
	case d.Collectable < 0:
		fmt.Fprintln(w, "what could be freed is not known: precast gc says why")
	}
	if d.Paused != "" {
		fmt.Fprintln(w, d.Paused)
	}
}
