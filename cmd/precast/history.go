package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/history"
)

type historyCmd struct {
	dataFlag
	jsonFlag
	Count int `help:"Show at most this many generations." short:"n" default:"20"`
}

func (*historyCmd) Help() string {
	return `Lists the generations that precast rollback can publish again, newest first, and what changed in each.

Examples:
  precast history
  precast history -n 3
  precast history --json | jq '.[].generation'`
}

func (c *historyCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	all, err := history.List(ctx, d.objects, max(1, c.Count))
	if err != nil {
		return err
	}
	if err := history.Explain(ctx, d.objects, d.catalog(), all); err != nil {
		fmt.Fprintln(std.err, "precast: who made the changes is not shown:", err)
	}
	if c.JSON {
		return printJSON(std.out, append([]history.Generation{}, all...))
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GENERATION\tPLAN\tPUBLISHED\tITEMS\tCHANGES")
	for _, g := range all {
		changes := summary(g.Changes)
		switch {
		case g.Problem != "":
			changes = "cannot be read: " + g.Problem
		case g.Before == 0:
			changes = "the first that is known"
		}
		name := fmt.Sprint(g.Number)
		if g.Current {
			name += " (published)"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\n", name, g.Sequence, g.When.Format(time.RFC3339), g.Items, changes)
		for _, line := range editLines(g.Edits) {
			fmt.Fprintf(w, "\t\t\t\t  %s\n", line)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(all) > 0 && all[0].Pin != "" {
		fmt.Fprintf(std.out, "generation %d is pinned: %s\n", all[0].Number, all[0].Pin)
	}
	return nil
}

// summary names a few changes.
func summary(changes []history.Change) string {
	const most = 4
	var parts []string
	for i, c := range changes {
		if i == most {
			parts = append(parts, fmt.Sprintf("%d more", len(changes)-most))
			break
		}
		switch c.What {
		case "added":
			parts = append(parts, fmt.Sprintf("+%s %s", c.Key, c.To))
		case "removed":
			parts = append(parts, fmt.Sprintf("-%s %s", c.Key, c.From))
		case "version":
			parts = append(parts, fmt.Sprintf("%s %s -> %s", c.Key, c.From, c.To))
		default:
			parts = append(parts, fmt.Sprintf("%s %s, other %s", c.Key, c.To, c.What))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

type diffCmd struct {
	dataFlag
	buildFlags
	jsonFlag
	From     string `arg:"" help:"Number of a generation, or current (what is published), or catalog (what a build would publish)."`
	To       string `arg:"" help:"The same."`
	Look     int    `help:"Maximum number of combinations of attributes to compare." default:"10000"`
	Examples int    `help:"Maximum number of examples (queries of devices) to show for each change." default:"3"`
}

func (*diffCmd) Help() string {
	return `Compares what devices get. For every combination of attributes, starting with those of the fewest attributes, it
finds the packages that are added, removed or changed, and groups the combinations with the same changes.

Examples:
  precast diff 11 current
  precast diff current catalog
  precast diff current 11 --json | jq '.groups[] | {changed, selections}'`
}

func (c *diffCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	from, err := c.read(ctx, d, c.From)
	if err != nil {
		return err
	}
	to, err := c.read(ctx, d, c.To)
	if err != nil {
		return err
	}
	diff, err := history.Between(ctx, from, to, builder.NewComposer(d.objects), history.DiffOptions{MaxCombinations: c.Look, Examples: c.Examples})
	if err != nil {
		return err
	}
	if diff.Edits, err = c.edits(ctx, d, from, to); err != nil {
		fmt.Fprintln(std.err, "precast: who made the changes is not shown:", err)
	}
	if c.JSON {
		return printJSON(std.out, diff)
	}
	printDiff(std.out, diff)
	return nil
}

func (c *diffCmd) read(ctx context.Context, d *data, name string) (*index.Index, error) {
	switch name {
	case "current":
		current, _, err := builder.ReadIndex(ctx, d.objects)
		if err == nil && current == nil {
			err = no("nothing is published")
		}
		return current, err
	case "catalog":
		items, err := d.catalog().Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		p, err := c.plan(ctx, d, c.remote(), items, builder.PlanOptions{})
		if err != nil {
			return nil, err
		}
		return p.Target, nil
	}
	g, err := strconv.ParseUint(name, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a generation's number nor current nor catalog", name)
	}
	return generationOf(ctx, d, g)
}

// generationOf returns the index of a generation: what is published, or one in the history.
func generationOf(ctx context.Context, d *data, g uint64) (*index.Index, error) {
	current, _, err := builder.ReadIndex(ctx, d.objects)
	if err != nil || current != nil && current.Generation == g {
		return current, err
	}
	ix, err := builder.ReadGeneration(ctx, d.objects, g)
	if errors.Is(err, builder.ErrNotExist) {
		return nil, no("there is no generation %d in the history: see precast history", g)
	}
	return ix, err
}

// edits returns the edits that came between two indexes, none if that is not known. The index of the catalog as it is has
// no generation.
func (c *diffCmd) edits(ctx context.Context, d *data, indexes ...*index.Index) ([]catalog.LogEntry, error) {
	var seen []uint64
	for _, ix := range indexes {
		n, known, err := builder.PlannedFrom(ctx, d.objects, ix.Generation)
		if ix.Generation == 0 {
			var head catalog.Head
			head, err = d.catalog().Head(ctx)
			n, known = head.Number, true
		}
		if err != nil || !known {
			return nil, err
		}
		seen = append(seen, n)
	}
	return history.Edits(ctx, d.catalog(), seen[0], seen[1])
}

// editLines say who made edits and why, a line for each change of an item.
func editLines(edits []catalog.LogEntry) []string {
	const most = 12
	var lines []string
	for _, e := range edits {
		why := ""
		if e.By.Message != "" {
			why = ": " + e.By.Message
		}
		who := fmt.Sprintf("%s (entry %d)%s", e.By, e.Number, why)
		if e.Act != nil {
			lines = append(lines, e.Act.String()+"; "+who)
		}
		for _, ch := range e.Changes {
			lines = append(lines, ch.String()+"; "+who)
		}
	}
	if n := len(lines) - most; n > 0 {
		lines = append(lines[:most], fmt.Sprintf("%d more: see precast catalog log", n))
	}
	return lines
}

func printDiff(w io.Writer, d *history.Diff) {
	if len(d.Items) == 0 {
		fmt.Fprintln(w, "no item changed")
	} else {
		fmt.Fprintf(w, "%s changed: %s\n", count(len(d.Items), "item"), summary(d.Items))
	}
	for _, line := range editLines(d.Edits) {
		fmt.Fprintf(w, "  %s\n", line)
	}
	variants := ""
	if d.Variants > 0 {
		variants = fmt.Sprintf(", and %d more in other rollouts or before other floors", d.Variants)
	}
	fmt.Fprintf(w, "%s of attributes, %d looked at%s: %d get something else, %d the same as before\n",
		count(d.Combinations, "combination"), d.Considered, variants, d.Affected, d.Unchanged)
	for _, g := range d.Groups {
		var parts []string
		parts = append(parts, g.Changed...)
		for _, a := range g.Added {
			parts = append(parts, "+"+a)
		}
		for _, r := range g.Removed {
			parts = append(parts, "-"+r)
		}
		fmt.Fprintf(w, "%s\n", strings.Join(parts, ", "))
		rest := ""
		if n := g.Selections - len(g.Examples); n > 0 {
			rest = fmt.Sprintf(" and %d more", n)
		}
		fmt.Fprintf(w, "  for %d: %s%s\n", g.Selections, strings.Join(g.Examples, " "), rest)
		switch {
		case g.Nothing:
			fmt.Fprintln(w, "  they get nothing any more")
		case g.Fetch.Bundle > 0:
			fmt.Fprintf(w, "  to fetch: %s (a bundle of %s)\n", bytesText(g.Fetch.Bytes), bytesText(g.Fetch.Bundle))
		case g.Fetch.Bytes > 0:
			fmt.Fprintf(w, "  to fetch: at most %s\n", bytesText(g.Fetch.Bytes))
		default:
			fmt.Fprintln(w, "  nothing to fetch")
		}
	}
	if d.Rest > 0 {
		fmt.Fprintf(w, "%.10g combinations were not looked at (--look)\n", d.Rest)
	}
}
