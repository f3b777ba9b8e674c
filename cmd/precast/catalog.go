package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
)

type catalogCmd struct {
	Put     putCmd     `cmd:"" help:"Add an item, or release a new version of it."`
	Rollout rolloutCmd `cmd:"" help:"Extend, finish or cancel the rollout of a release."`
	Promote promoteCmd `cmd:"" help:"Give the devices of one track the releases of another one."`
	Rm      rmCmd      `cmd:"" help:"Remove an item."`
	List    listCmd    `cmd:"" help:"List the items."`
	Log     logCmd     `cmd:"" help:"Show who changed what, when and why."`
	Import  importCmd  `cmd:"" help:"Import many items at once from a catalog file, a folder or an archive."`
	Export  exportCmd  `cmd:"" help:"Write all items to a catalog file."`
	Recover recoverCmd `cmd:"" help:"Make a lost catalog again from what is published."`
}

type putCmd struct {
	dataFlag
	jsonFlag
	editFlags
	guardFlags
	App     string   `arg:"" help:"Name of the app. os_ARCH is the operating system for the CPU architecture ARCH."`
	File    string   `arg:"" help:"The binary to install on devices. - reads it from standard input." type:"path"`
	Track   string   `help:"Track (release channel): prod, beta, or any other name." default:"prod"`
	Version string   `help:"Version of this release, such as 1.0.1." required:""`
	Attr    []string `help:"Only devices with one of these attributes get it. May be repeated. Default: keep the attributes of the current release." placeholder:"NAME"`
	NoAttr  []string `help:"Remove this attribute of the current release, and keep the others. May be repeated." placeholder:"NAME"`
	NoAttrs bool     `help:"Remove all attributes of the item."`
	CPUArch string   `help:"CPU architecture, shown to people only." name:"cpu-arch"`
	Ident   string   `help:"Your own reference, such as a build number."`
	Rollout *percent `help:"Release to this percentage of the devices. The others keep the release that it replaces." placeholder:"PERCENT"`
	Salt    string   `help:"Selects the devices of a rollout: rollouts with the same salt reach the same devices. Default: a different selection for every release."`
	Floor   []string `help:"An earlier version of the item that devices must install first. May be repeated, oldest first. Default: keep the floors of the current release." placeholder:"VERSION"`
	NoFloor bool     `help:"Remove all floors of the item."`
}

func (*putCmd) Help() string {
	return `Stores FILE and writes an item for it. The item replaces the one with the same app and track.
It does not matter whether precast serve is running on the data folder.

` + guardHelp + `

Examples:
  precast catalog put scoreboard ./scoreboard --track prod --version 1.0.1 --attr gamer
  precast catalog put os_armv8 ./firmware.img --version 1.2.0
  precast catalog put os_armv8 ./firmware.img --version 1.3.0 --rollout 5   # then: precast catalog rollout
  precast catalog put os_armv8 ./firmware.img --version 2.0.0 --floor 1.3.0 # nobody skips 1.3.0
  precast catalog put os_armv8 ./firmware.img --version 2.0.0 --dry-run
  gunzip -c firmware.img.gz | precast catalog put os_armv8 - --version 2.0.0 --wait`
}

// percent is a part of the fleet.
type percent float64

func (p *percent) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(strings.TrimSuffix(string(text), "%"), 64)
	if err != nil {
		return fmt.Errorf("%q is not a percentage such as 5 or 0.5", text)
	}
	*p = percent(f)
	return nil
}

func (c *putCmd) Run(ctx context.Context, std streams) error {
	r, err := c.release()
	if err != nil {
		return err
	}
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	if c.File == "-" {
		spooled, err := spool(ctx, std.in, c.dataFlag)
		if err != nil {
			return err
		}
		defer spooled.Close()
		r.Open = spooled.open
	}
	res, err := c.importer(d, std, c.jsonFlag, c.guardFlags).Import(ctx, []release.Release{r}, false)
	if err != nil {
		return answered(err)
	}
	return c.finish(ctx, std, d, c.jsonFlag, res, func(note string) error {
		it := res.Items[0]
		if c.JSON {
			return printJSON(std.out, it)
		}
		fmt.Fprintf(std.out, "%s %s is in the catalog: md5 %s, sha256 %s, %s.%s\n", it.Key(), it.Version, it.MD5, it.SHA256, count(it.Size, "byte"), note)
		if attrs := it.Attrs(); len(attrs) > 0 {
			before := ""
			if len(c.Attr) == 0 {
				before = ", as before; --no-attr removes one"
			}
			fmt.Fprintf(std.out, "It is for devices with %s%s.\n", strings.Join(attrs, " or "), before)
		}
		for _, line := range recipients(it) {
			fmt.Fprintln(std.out, line)
		}
		return nil
	})
}

// release is the release that the flags describe.
func (c *putCmd) release() (release.Release, error) {
	r := release.Release{
		Item: catalog.Item{App: c.App, Track: c.Track, Version: c.Version, Ident: c.Ident, CPUArch: c.CPUArch,
			DeviceAttr: release.Attributes(c.Attr...), Floors: release.Floors(c.Floor...)},
		Open:    func() (io.ReadSeekCloser, error) { return openBinary(c.File) },
		Without: c.NoAttr,
	}
	rollout, err := rolloutOf(c.Rollout, c.Salt)
	r.Rollout = rollout
	errs := []error{err, c.check()}
	if c.NoFloor {
		if len(c.Floor) > 0 {
			errs = append(errs, errors.New("give --floor or --no-floor, not both"))
		}
		r.Floors = release.NoFloors()
	}
	if len(c.Attr) > 0 && (c.NoAttrs || len(c.NoAttr) > 0) || c.NoAttrs && len(c.NoAttr) > 0 {
		errs = append(errs, errors.New("give --attr, --no-attr or --no-attrs, only one of them"))
	}
	if c.NoAttrs {
		r.DeviceAttr = release.NoAttributes()
	}
	return r, errors.Join(errs...)
}

// rolloutOf is the rollout that flags describe, nil for none.
func rolloutOf(p *percent, salt string) (*catalog.Rollout, error) {
	switch {
	case p != nil:
		return &catalog.Rollout{Percent: float64(*p), Salt: salt}, nil
	case salt != "":
		return nil, errors.New("--salt goes with --rollout")
	}
	return nil, nil
}

// recipients says, one line each, which devices get a release and what they have to install first.
func recipients(it catalog.Item) []string {
	var lines []string
	if it.Partial() {
		others := "the others get nothing"
		if it.Previous != nil {
			others = "the others get " + it.Previous.Version
		}
		lines = append(lines, fmt.Sprintf("%s is for %s of the devices with a slot (salt %s); %s.", it.Version, percentText(it.Rollout.Percent), it.Salt(), others))
	}
	if len(it.Floors) > 0 {
		lines = append(lines, fmt.Sprintf("Before %s, devices get %s.", it.Version, strings.Join(versions(it.Floors), ", then ")))
	}
	return lines
}

// rolloutText is a rollout in a cell of a table.
func rolloutText(it catalog.Item) string {
	switch {
	case !it.Partial():
		return "all"
	case it.Previous == nil:
		return percentText(it.Rollout.Percent) + ", else nothing"
	}
	return percentText(it.Rollout.Percent) + ", else " + it.Previous.Version
}

func percentText(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) + " %" }

func versions(items []catalog.Item) []string {
	var all []string
	for _, it := range items {
		all = append(all, it.Version)
	}
	return all
}

type rolloutCmd struct {
	dataFlag
	jsonFlag
	editFlags
	guardFlags
	App     string   `arg:"" help:"Name of the app."`
	Percent *percent `arg:"" optional:"" help:"Percentage of the devices that get the new release. 100 finishes the rollout."`
	Track   string   `help:"Track." default:"prod"`
	Cancel  bool     `help:"Withdraw the new release. All devices get the previous release."`
}

func (*rolloutCmd) Help() string {
	return `Changes how many devices get the new release. Each device sends a slot, a number from 0 to 9999 that it chose
once, at random. When the percentage grows, devices that already get the release still get it. Devices that send
no slot get it at 100. Without PERCENT the command shows the current percentage. A smaller percentage is refused
unless --allow-shrink is given, because devices would go back to the previous release. --cancel asks for nothing.

Examples:
  precast catalog put os_armv8 ./firmware.img --version 1.3.0 --rollout 1
  precast catalog rollout os_armv8 20
  precast catalog rollout os_armv8 100
  precast catalog rollout os_armv8 --cancel`
}

func (c *rolloutCmd) Run(ctx context.Context, std streams) error {
	if c.Cancel && c.Percent != nil {
		return errors.New("give PERCENT or --cancel, not both")
	}
	if err := c.check(); err != nil {
		return err
	}
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	key := catalog.Key{App: c.App, Track: c.Track}
	im := c.importer(d, std, jsonFlag{true}, c.guardFlags)
	var res release.Result
	switch {
	case c.Cancel:
		res, err = im.CancelRollout(ctx, key)
	case c.Percent != nil:
		res, err = im.SetRollout(ctx, key, float64(*c.Percent))
	default:
		it, err := im.Item(ctx, key)
		if err == nil {
			err = release.CheckRollout(it)
		}
		if err != nil {
			return answered(err)
		}
		return c.print(std, it, "")
	}
	if err != nil {
		return answered(err)
	}
	return c.finish(ctx, std, d, c.jsonFlag, res, func(note string) error { return c.print(std, res.Items[0], note) })
}

func (c *rolloutCmd) print(std streams, it catalog.Item, note string) error {
	switch {
	case c.JSON:
		return printJSON(std.out, it)
	case it.Partial():
		fmt.Fprintf(std.out, "%s: %s%s\n", it.Key(), recipients(it)[0], note)
	default:
		fmt.Fprintf(std.out, "%s: all devices get %s.%s\n", it.Key(), it.Version, note)
	}
	return nil
}

type rmCmd struct {
	dataFlag
	jsonFlag
	editFlags
	App   string `arg:"" help:"Name of the app."`
	Track string `help:"Track." default:"prod"`
}

func (*rmCmd) Help() string {
	return `Devices no longer get the app. Those that have it keep it.

Examples:
  precast catalog rm scoreboard --track beta`
}

func (c *rmCmd) Run(ctx context.Context, std streams) error {
	if err := c.check(); err != nil {
		return err
	}
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	it, res, err := c.importer(d, std, jsonFlag{true}, guardFlags{}).Remove(ctx, catalog.Key{App: c.App, Track: c.Track})
	if err != nil {
		return answered(err)
	}
	return c.finish(ctx, std, d, c.jsonFlag, res, func(note string) error {
		if c.JSON {
			return printJSON(std.out, it)
		}
		fmt.Fprintf(std.out, "%s %s is out of the catalog.%s\n", it.Key(), it.Version, note)
		return nil
	})
}

type listCmd struct {
	dataFlag
	jsonFlag
}

func (*listCmd) Help() string {
	return `Shows app, track, version, size, attributes, rollout and MD5 of every item, then the devices of its rollouts, and floors.

Examples:
  precast catalog list
  precast catalog list --json | jq -r '.[] | select(.env == "prod") | .app'`
}

func (c *listCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return err
	}
	items = catalog.Apply(items, nil)
	if c.JSON {
		return printJSON(std.out, append([]catalog.Item{}, items...))
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "APP\tTRACK\tVERSION\tSIZE\tATTRIBUTES\tROLLOUT\tMD5")
	for _, it := range items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", it.App, it.Track, it.Version, bytesText(it.Size), strings.Join(it.Attrs(), ","), rolloutText(it), it.MD5)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, it := range items {
		for release := &it; release != nil; release = release.Previous {
			one := *release
			one.App = it.App
			for _, line := range recipients(one) {
				fmt.Fprintf(std.out, "%s: %s\n", it.Key(), line)
			}
		}
	}
	return nil
}
