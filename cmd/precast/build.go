package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/settings"
)

type buildCmd struct {
	dataFlag
	buildFlags
	publishFlags
	jsonFlag
	settings.Disk `embed:""`

	Verify bool `help:"Look up every object, instead of assuming that published objects still exist."`
	Retry  bool `help:"Retry items that were left out because their binary could not be read or did not match the catalog." default:"true" negatable:""`

	acceptRemovals bool // see unpinCmd
}

func (*buildCmd) Help() string {
	return `Builds whatever is missing for the catalog and publishes it, then exits. If precast serve is running on the data
folder, the server builds and this command shows its progress. Exits with 3 if items had to be left out, if too
little of the disk is free, or if the published generation is pinned: then everything is built, and precast unpin
publishes it. A catalog that has lost more than half of the published items is not published either, and what is
published becomes pinned.

Examples:
  precast build
  precast build --verify   # also rebuild objects that were deleted
  precast build --json`
}

// outcome is what build prints as JSON.
type outcome struct {
	Generation uint64              `json:"generation"`
	Sequence   uint64              `json:"sequence"`
	Written    int                 `json:"written"`          // objects
	Bytes      int64               `json:"bytes"`            // of them
	Mended     []string            `json:"mended,omitempty"` // keys of pieces that were missing or damaged, and were made again
	Rejected   []builder.Rejection `json:"rejected"`
	Seconds    float64             `json:"seconds"`
}

func (c *buildCmd) Run(ctx context.Context, std streams) error {
	c.disk = c.Disk
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	return c.build(ctx, std, d)
}

// build builds what has been opened.
func (c *buildCmd) build(ctx context.Context, std streams, d *data) error {
	front, err := d.cdn(ctx, c.publishFlags, std)
	if err != nil {
		return err
	}
	opt, err := c.options(c.remote(), errorLog(std), telling(front, builder.Silent{}))
	if err != nil {
		return err
	}
	start := time.Now()
	out := outcome{Rejected: []builder.Rejection{}}
	progress := newProgress(std, c.JSON)
	err = d.pipeline(opt).Build(ctx, builder.PlanOptions{Verify: c.Verify, Retry: c.Retry, AcceptRemovals: c.acceptRemovals}, func(ev pipeline.Event) {
		progress.tell(ev)
		switch {
		case ev.Planned != nil:
			out.Rejected = append([]builder.Rejection{}, ev.Planned.Rejected...)
		case ev.Stored != nil && !ev.Stored.Existed:
			out.Written++
			out.Bytes += ev.Stored.Size
			if ev.Stored.Mended {
				out.Mended = append(out.Mended, ev.Stored.Key)
			}
		case ev.Published != nil:
			out.Generation, out.Sequence = ev.Published.Generation, ev.Published.Sequence
		}
	})
	progress.end()
	var pinned *pipeline.PinnedError
	var leftOut *pipeline.LeftOutError
	if errors.As(err, &pinned) || errors.As(err, &leftOut) || errors.Is(err, builder.ErrPaused) {
		return no("%w", err)
	}
	if err != nil {
		return err
	}
	if out.Generation == 0 { // another process has published it, or something newer
		now, _, err := builder.ReadIndex(ctx, d.objects)
		if err != nil {
			return err
		}
		if now != nil {
			out.Generation, out.Sequence = now.Generation, now.Sequence
		}
	}
	out.Seconds = time.Since(start).Seconds()
	if c.JSON {
		err = printJSON(std.out, out)
	} else {
		fmt.Fprintf(std.out, "generation %d is published: %s written, %s, in %.1f s\n", out.Generation, count(out.Written, "object"), bytesText(out.Bytes), out.Seconds)
	}
	if len(out.Rejected) > 0 && err == nil {
		err = no("%s could not be published; the previous releases stay published", count(len(out.Rejected), "item"))
	}
	return err
}

// progress shows a build: a bar on a terminal, elsewhere what is planned, and what is left out in any case.
type progress struct {
	w     io.Writer
	json  bool // everything is in the result
	quiet bool
	bars  *mpb.Progress
	bar   *mpb.Bar
}

func newProgress(std streams, json bool) *progress {
	p := &progress{w: std.err, json: json, quiet: std.quiet}
	if f := terminalOf(std.progress()); f != nil && !json {
		p.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(60))
	}
	return p
}

func (p *progress) tell(ev pipeline.Event) {
	if p.json {
		return
	}
	switch {
	case ev.Planned != nil && !p.quiet:
		r := ev.Planned
		if p.bars == nil {
			line := fmt.Sprintf("planned %s: %s to compress", count(r.Sets, "set"), count(r.Build.Pieces, "binary"))
			if r.Build.Bundles > 0 {
				line += fmt.Sprintf(", %s to write (at most %s)", count(r.Build.Bundles, "bundle"), bytesText(r.Build.BundleBytes))
			}
			p.line("%s", line)
			return
		}
		p.stop()
		p.bar = p.bars.AddBar(int64(r.Build.Pieces+2*r.Build.Bundles),
			mpb.PrependDecorators(decor.Name("building "), decor.CountersNoUnit("%d/%d objects")),
			mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
	case ev.Stored != nil && ev.Stored.Mended:
		p.line("made again, as it was missing or damaged: %s", ev.Stored.Key)
	case ev.Stored != nil && p.bar != nil:
		p.bar.IncrBy(1)
	case ev.Rejected != nil:
		p.line("left out: item %s %s: %s", ev.Rejected.Key, ev.Rejected.Version, ev.Rejected.Reason)
	}
}

func (p *progress) line(format string, args ...any) {
	w := p.w
	if p.bars != nil {
		w = newQuoted(p.bars) // above the bar
	}
	fmt.Fprintf(w, format+"\n", args...)
}

func (p *progress) stop() {
	if p.bar != nil {
		p.bar.SetTotal(-1, true)
		p.bar = nil
	}
}

func (p *progress) end() {
	p.stop()
	if p.bars != nil {
		p.bars.Wait()
	}
}

type planCmd struct {
	dataFlag
	buildFlags
	jsonFlag
	Change  string `help:"Plan as if this catalog file, folder or archive had been imported." placeholder:"FILE" type:"path"`
	Replace bool   `help:"With --change: as if all other items had been removed."`
	Verify  bool   `help:"Look up every object, instead of assuming that published objects still exist."`
}

func (*planCmd) Help() string {
	return `Shows how many combinations of attributes devices can have, how many different sets of packages they get, what
would have to be built for them, and what exceeds the limits. Bundles beyond the limits are not prebuilt, but
composed when a device asks for them.

Examples:
  precast plan
  precast plan --change release-42.tar.zst
  precast plan --json | jq .build`
}

func (c *planCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return err
	}
	if c.Replace && c.Change == "" {
		return errors.New("--replace goes with --change")
	}
	if c.Change != "" {
		im := importer(d, std, true)
		releases, done, err := im.Load(ctx, c.Change)
		if err != nil {
			return err
		}
		defer done()
		changes, err := im.Changes(ctx, items, releases, c.Replace)
		if err != nil {
			return err
		}
		items = catalog.Apply(items, changes)
	}
	p, err := c.plan(ctx, d, c.remote(), items, builder.PlanOptions{Verify: c.Verify})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, p.Report())
	}
	printReport(std.out, p.Report())
	return nil
}

func printReport(w io.Writer, r builder.Report) {
	fmt.Fprintf(w, "%s; generation %d is published", count(r.Items, "item"), r.Generation)
	if !r.Changed {
		fmt.Fprint(w, ", and is what the catalog says")
	}
	variants := ""
	if r.Variants > 0 {
		variants = fmt.Sprintf(", and %d more in other rollouts or before other floors", r.Variants)
	}
	fmt.Fprintf(w, "\n%s of attributes, %d looked at%s, %d of them get something: %s\n", count(r.Combinations, "combination"), r.Considered, variants, r.Matching, count(r.Sets, "different set"))
	if r.Copies {
		printCopies(w, r)
	} else {
		fmt.Fprintln(w, "prebuilt: a piece of every binary; bundles are composed of them while they are sent (--copies writes them as files)")
		fmt.Fprintf(w, "to build: %s to compress (%s)\n", count(r.Build.Pieces, "binary"), bytesText(r.Build.PieceBytes))
	}
	if r.LeftOut.TooLarge > 0 {
		fmt.Fprintf(w, "refused, as they get more packages than one bundle may hold: %s\n", count(r.LeftOut.TooLarge, "combination"))
	}
	for _, o := range r.Rollouts {
		over := "nothing"
		if o.Over != "" {
			over = o.Over
		}
		fmt.Fprintf(w, "rollout: %s %s to %s, over %s (salt %s)\n", o.Key, o.Version, percentText(o.Percent), over, o.Salt)
		if o.NoRoom {
			fmt.Fprintf(w, "  the table at the edge has no room for it: nobody gets it. At most %d salts are rolled out at a time, and a few hundred items\n", edge.MaxRollouts)
		}
	}
	for _, f := range r.Floors {
		fmt.Fprintf(w, "floor: %s %s before %s\n", f.Key, f.Version, f.Before)
	}
	if r.HeldBack != "" {
		fmt.Fprintln(w, r.HeldBack)
	}
	for _, rej := range r.Rejected {
		fmt.Fprintf(w, "left out: item %s %s: %s\n", rej.Key, rej.Version, rej.Reason)
	}
}

// printCopies tells what of the bundles is prebuilt, what has to be, and what is beyond the limits.
func printCopies(w io.Writer, r builder.Report) {
	fmt.Fprintf(w, "prebuilt: %s and as many manifests, at most %s\n", count(r.Bundles, "bundle"), bytesText(r.Bytes))
	fmt.Fprintf(w, "to build: %s to compress (%s), %s to write (at most %s)\n",
		count(r.Build.Pieces, "binary"), bytesText(r.Build.PieceBytes), count(r.Build.Bundles, "bundle"), bytesText(r.Build.BundleBytes))
	l := r.LeftOut
	l.TooLarge = 0
	if l == (builder.LeftOut{}) {
		fmt.Fprintln(w, "beyond the limits: nothing")
	} else {
		fmt.Fprintln(w, "beyond the limits, composed when asked for:")
		if l.Combinations > 0 {
			fmt.Fprintf(w, "  not looked at: %s (--max-combinations)\n", count(l.Combinations, "combination"))
		}
		if l.Mixed > 0 {
			fmt.Fprintf(w, "  not looked at in every mixture of rollouts and floors: %s\n", count(l.Mixed, "combination"))
		}
		if l.Bundles > 0 {
			fmt.Fprintf(w, "  %s (%s), among them those of %s (--max-bundles, --max-bytes)\n", count(l.Bundles, "bundle"), bytesText(l.Bytes), count(l.Sets, "whole set"))
		}
	}
}
