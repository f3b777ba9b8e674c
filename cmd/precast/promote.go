package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
)

type promoteCmd struct {
	dataFlag
	jsonFlag
	editFlags
	guardFlags
	App     string   `arg:"" optional:"" help:"Name of the app."`
	All     bool     `help:"Promote every app of the track. Items that are the same already are left out."`
	From    string   `help:"Track that has the releases." required:"" placeholder:"TRACK"`
	To      string   `help:"Track to give them to." required:"" placeholder:"TRACK"`
	Rollout *percent `help:"Release to this percentage of the devices first. The others keep the release that it replaces." placeholder:"PERCENT"`
	Salt    string   `help:"Selects the devices of a rollout, as in precast catalog put."`
}

func (*promoteCmd) Help() string {
	return `Gives the devices of one track what another track has: the same files, with the attributes of the item, and with
its floors if it has any. Where the same combinations of files were built before, only the index is written.

Examples:
  precast catalog promote scoreboard --from beta --to prod
  precast catalog promote --all --from beta --to prod --rollout 5 --salt spring
  precast catalog promote --all --from beta --to prod --dry-run`
}

func (c *promoteCmd) Run(ctx context.Context, std streams) error {
	if c.All == (c.App != "") {
		return errors.New("give the name of an app, or --all")
	}
	rollout, err := rolloutOf(c.Rollout, c.Salt)
	if err := errors.Join(err, c.check()); err != nil {
		return err
	}
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	res, err := c.importer(d, std, jsonFlag{true}, c.guardFlags).Promote(ctx, release.Promotion{App: c.App, From: c.From, To: c.To, Rollout: rollout})
	if err != nil {
		return answered(err)
	}
	return c.finish(ctx, std, d, c.jsonFlag, res, func(note string) error {
		if c.JSON {
			return printJSON(std.out, append([]catalog.Item{}, res.Items...))
		}
		for _, it := range res.Items {
			fmt.Fprintf(std.out, "%s %s is in the catalog.%s\n", it.Key(), it.Version, note)
			for _, line := range recipients(it) {
				fmt.Fprintln(std.out, line)
			}
		}
		if len(res.Items) == 0 {
			fmt.Fprintf(std.out, "%s has what %s has already.\n", c.To, c.From)
		}
		return nil
	})
}
