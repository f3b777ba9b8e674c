package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/precast-ota/precast/internal/operate/gc"
	"github.com/precast-ota/precast/internal/operate/history"
)

type gcCmd struct {
	dataFlag
	jsonFlag
	DryRun bool          `help:"Only show what would be removed. This is the default." xor:"mode"`
	Delete bool          `help:"Remove the objects." xor:"mode"`
	Keep   uint64        `help:"Number of generations before the published one that rollback can still publish: at least 3, and at least --retain." default:"16"`
	Grace  time.Duration `help:"Keep objects that are younger than this." default:"48h"`
	Keys   int           `help:"Maximum number of objects of each kind to list." default:"5"`
}

func (*gcCmd) Help() string {
	return `Finds objects that no kept generation, no unpublished plan and no item of the catalog needs: bundles,
manifests, pieces, binaries, old plans, rejections and generations. With --delete it removes them. It is safe at
any time, also while precast serve is running: builds wait a few seconds while objects are being removed.

Examples:
  precast gc
  precast gc --delete
  precast gc --keep 4 --grace 1h --delete --json`
}

func (c *gcCmd) Run(ctx context.Context, std streams) error {
	if c.Keep < history.Near {
		c.Keep = history.Near
	}
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	deleter, ok := d.objects.(gc.Deleter)
	if !ok {
		return errors.New("these objects cannot be removed")
	}
	opt := gc.Options{Keep: c.Keep, Grace: c.Grace, Keys: max(c.Keys, 0), ID: rand.Text(), Log: errorLog(std)}
	if c.Grace == 0 {
		opt.Grace = time.Nanosecond // 0 would be the default
	}
	counted := newCounter(std.progress(), c.JSON)
	opt.Progress = counted.tell
	collector := gc.New(d.objects, deleter, d.catalog(), opt)
	var rep *gc.Report
	if c.Delete {
		rep, err = collector.Sweep(ctx)
	} else {
		rep, err = collector.Look(ctx)
	}
	counted.end()
	if rep != nil {
		if c.JSON {
			err = errors.Join(err, printJSON(std.out, rep))
		} else {
			printCollected(std.out, rep)
		}
	}
	if errors.Is(err, gc.ErrBusy) {
		return no("%w", err)
	}
	return err
}

func printCollected(w io.Writer, r *gc.Report) {
	verb := "would be removed"
	if r.Deleted {
		verb = "removed"
	}
	for _, k := range r.Kinds {
		if k.Objects == 0 {
			continue
		}
		fmt.Fprintf(w, "%s: %s, %s %s\n", k.Kind, count(k.Objects, "object"), bytesText(k.Bytes), verb)
		for _, key := range k.Keys {
			fmt.Fprintf(w, "  %s\n", key)
		}
		if n := k.Objects - len(k.Keys); n > 0 && len(k.Keys) > 0 {
			fmt.Fprintf(w, "  and %d more\n", n)
		}
	}
	all := r.Removed()
	fmt.Fprintf(w, "%s, %s %s", count(all.Objects, "object"), bytesText(all.Bytes), verb)
	if r.Deleted {
		fmt.Fprintf(w, " in %s", count(r.Rounds, "round"))
		if r.Spared > 0 {
			fmt.Fprintf(w, "; %d were needed again in the meantime", r.Spared)
		}
	}
	fmt.Fprintf(w, "\n%s, %s stay; %d of them, %s only because they are young\n",
		count(r.Kept.Objects, "object"), bytesText(r.Kept.Bytes), r.Young.Objects, bytesText(r.Young.Bytes))
	fmt.Fprintf(w, "generation %d is published; rollback can go back as far as generation %d\n", r.Generation, r.Oldest)
	if !r.Deleted && all.Objects > 0 {
		fmt.Fprintln(w, "nothing was removed: --delete does it")
	}
}
