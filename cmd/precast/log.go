package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/user"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// authorFlags say who makes a change, and why.
type authorFlags struct {
	Message string `help:"Why: kept in the log of changes (precast catalog log)." short:"m" aliases:"reason" placeholder:"TEXT"`
	Actor   string `help:"Who you are, for the log of changes. Default: your user name." env:"PRECAST_ACTOR" placeholder:"NAME"`
}

func (f authorFlags) author() catalog.Author {
	by := catalog.Author{Claim: f.Actor, Message: f.Message}
	if u, err := user.Current(); err == nil && by.Claim == "" {
		by.Claim = u.Username
	}
	return by
}

type logCmd struct {
	dataFlag
	jsonFlag
	App    string `arg:"" optional:"" help:"Only changes of this app, on any track."`
	After  uint64 `help:"Only entries after this number." placeholder:"N"`
	Verify bool   `help:"Verify that no entry was changed or removed since it was written. Exits with 1 if one was."`
}

func (*logCmd) Help() string {
	return `Shows every change of the catalog, and every rollback, pin and unpin, oldest first. A name that something proves,
such as the caller of AWS, comes first; "says" is what --actor or the user name said. --json prints one entry a
line, with the digest of the entry before: keep the last digest elsewhere, and nobody can rewrite the log unseen.

Examples:
  precast catalog log
  precast catalog log os_armv8
  precast catalog log --json --after 120 >> changes.jsonl
  precast catalog log --verify`
}

func (c *logCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	l := d.catalog()
	if c.Verify {
		return verifyLog(ctx, std.out, l)
	}
	if c.JSON {
		return l.Log(ctx, c.After, func(e catalog.LogEntry) error {
			if !c.shows(e) {
				return nil
			}
			line, err := json.Marshal(e)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(std.out, "%s\n", line)
			return err
		})
	}
	return c.print(ctx, std.out, l)
}

func (c *logCmd) shows(e catalog.LogEntry) bool {
	return c.App == "" || slices.ContainsFunc(e.Changes, func(ch catalog.LogChange) bool { return ch.Key.App == c.App })
}

// print shows the log as a table. It reads all of it: what others than Precast have changed follows from comparing.
func (c *logCmd) print(ctx context.Context, out io.Writer, l catalogAccess) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENTRY\tTIME\tWHO\tWHAT\tWHY")
	hands := make(catalog.Hands)
	err := l.Log(ctx, 0, func(e catalog.LogEntry) error {
		others := hands.Next(e)
		if e.Number <= c.After || !c.shows(e) {
			return nil
		}
		for _, key := range others {
			c.byOthers(w, key, fmt.Sprintf("changed by other hands before entry %d", e.Number))
		}
		row := func(what string) {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", e.Number, e.Time.Format(time.RFC3339), e.By, what, e.By.Message)
		}
		if e.Act != nil {
			row(e.Act.String())
		}
		for _, ch := range e.Changes {
			if c.App == "" || ch.Key.App == c.App {
				row(ch.String())
			}
		}
		if e.Act == nil && len(e.Changes) == 0 {
			row("nothing changed")
		}
		return nil
	})
	if err != nil {
		return err
	}
	items, err := l.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, key := range hands.Since(items) {
		c.byOthers(w, key, "changed by other hands since")
	}
	return w.Flush()
}

func (c *logCmd) byOthers(w io.Writer, key catalog.Key, what string) {
	if c.App == "" || key.App == c.App {
		fmt.Fprintf(w, "-\t-\t-\t%s: %s\t\n", key, what)
	}
}

// verifyLog follows the log from its first entry to its end.
func verifyLog(ctx context.Context, out io.Writer, l catalogLog) error {
	head := catalog.NewHead()
	err := l.Log(ctx, 0, func(e catalog.LogEntry) error {
		if err := e.Follow(head); err != nil {
			return fmt.Errorf("the log is broken: %w", err)
		}
		head = e.Head()
		return nil
	})
	if err != nil {
		return err
	}
	end, err := l.Head(ctx)
	if err != nil {
		return err
	}
	if end.Number < head.Number || end.Number == head.Number && end != head {
		return fmt.Errorf("the log is broken: it ends with entry %d, and was to end with entry %d of digest %s", head.Number, end.Number, end.Digest)
	}
	fmt.Fprintf(out, "%s, none of them changed since it was written; the last has digest %s\n", count(int(head.Number), "entry"), head.Digest)
	return nil
}
