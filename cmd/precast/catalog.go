package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/seed"
)

type seedCmd struct {
	dataFlag
	jsonFlag
	Size size   `help:"Size of each binary." default:"10MiB"`
	Rng  uint64 `help:"Another number makes other binaries." default:"1"`
}

func (*seedCmd) Help() string {
	return `Two operating systems and three applications on the tracks prod and beta, with the attributes
gamer, camera and cellular. The binaries look random, and are the same every time.

Examples:
  precast seed --data /tmp/try
  precast seed --data /tmp/try --size 256KiB && precast serve --data /tmp/try`
}

func (c *seedCmd) Run(ctx context.Context, std streams) error {
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	res, err := importer(d, std, c.JSON).Import(ctx, seed.Releases(int64(c.Size), c.Rng), false)
	if err != nil {
		return err
	}
	return report(c.jsonFlag, std, d, res)
}

func importer(d *data, std streams, quiet bool) *release.Importer {
	im := &release.Importer{Objects: d.objects, Catalog: d.catalog(), Now: time.Now}
	if !quiet {
		im.Report = func(it catalog.Item, stored bool) {
			state := "binary was there"
			if stored {
				state = "stored " + bytesText(it.Size)
			}
			fmt.Fprintf(std.err, "%s %s: %s\n", it.Key(), it.Version, state)
		}
	}
	return im
}

// report says what an import did.
func report(j jsonFlag, std streams, d *data, res release.Result) error {
	if j.JSON {
		out := struct {
			Items   []catalog.Item `json:"items"`
			Removed []catalog.Key  `json:"removed"`
		}{res.Items, append([]catalog.Key{}, res.Removed...)}
		return printJSON(std.out, out)
	}
	fmt.Fprintf(std.out, "%d items in the catalog of %s", len(res.Items), d.name)
	if len(res.Removed) > 0 {
		fmt.Fprintf(std.out, ", %d removed", len(res.Removed))
	}
	fmt.Fprintf(std.out, ". %s\n", d.note())
	return nil
}

type catalogCmd struct {
	Put     putCmd     `cmd:"" help:"Release a version of an app on a track."`
	Rollout rolloutCmd `cmd:"" help:"Give a release to more of the fleet, to all of it, or take it back."`
	Rm      rmCmd      `cmd:"" help:"Take an app off a track."`
	List    listCmd    `cmd:"" help:"List the items."`
	Import  importCmd  `cmd:"" help:"Bring in a catalog file, a folder or a release archive; all of it or nothing."`
	Export  exportCmd  `cmd:"" help:"Write the catalog as a catalog file."`
}

type putCmd struct {
	dataFlag
	jsonFlag
	App     string   `arg:"" help:"Name of the app; os_ARCH is the operating system of an architecture."`
	File    string   `arg:"" help:"The binary." type:"existingfile"`
	Track   string   `help:"Track: prod, beta, or any other name." default:"prod"`
	Version string   `help:"Version." required:""`
	Attr    []string `help:"Attribute of the devices that get it; may be repeated." placeholder:"NAME"`
	CPUArch string   `help:"Architecture, for information." name:"cpu-arch"`
	Ident   string   `help:"Your own reference."`
	Rollout *percent `help:"Roll it out over the release that it replaces, to so many percent of the fleet." placeholder:"PERCENT"`
	Salt    string   `help:"Which devices that is: rollouts of one salt reach the same ones. Default: others for every release."`
	Floor   []string `help:"Version, of the releases that the item has, that devices must pass through first; may be repeated, the oldest first. Default: the floors that there are." placeholder:"VERSION"`
	NoFloor bool     `help:"Take the item's floors away."`
}

func (*putCmd) Help() string {
	return `Computes the digests of FILE, stores it and writes the item, replacing the one that the app has
on this track. Works while precast serve runs on the data folder, and when it does not.

Examples:
  precast catalog put scoreboard ./scoreboard --track prod --version 1.0.1 --attr gamer
  precast catalog put os_armv8 ./firmware.img --version 1.2.0
  precast catalog put os_armv8 ./firmware.img --version 1.3.0 --rollout 5   # then: precast catalog rollout
  precast catalog put os_armv8 ./firmware.img --version 2.0.0 --floor 1.3.0 # nobody skips 1.3.0`
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
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	it := catalog.Item{App: c.App, Track: c.Track, Version: c.Version, Ident: c.Ident, CPUArch: c.CPUArch}
	for _, a := range c.Attr {
		if it.DeviceAttr == nil {
			it.DeviceAttr = make(map[string]bool)
		}
		it.DeviceAttr[a] = true
	}
	if c.Rollout != nil {
		it.Rollout = &catalog.Rollout{Percent: float64(*c.Rollout), Salt: c.Salt}
	} else if c.Salt != "" {
		return errors.New("--salt goes with --rollout")
	}
	for _, version := range c.Floor {
		it.Floors = append(it.Floors, catalog.Item{Version: version})
	}
	if c.NoFloor {
		if len(c.Floor) > 0 {
			return errors.New("give --floor or --no-floor, not both")
		}
		it.Floors = []catalog.Item{}
	}
	one := release.Release{Item: it, Open: func() (io.ReadSeekCloser, error) { return os.Open(c.File) }}
	res, err := importer(d, std, c.JSON).Import(ctx, []release.Release{one}, false)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, res.Items[0])
	}
	it = res.Items[0]
	fmt.Fprintf(std.out, "%s %s is in the catalog: md5 %s, sha256 %s, %d bytes. %s\n", it.Key(), it.Version, it.MD5, it.SHA256, it.Size, d.note())
	for _, line := range staged(it) {
		fmt.Fprintln(std.out, line)
	}
	return nil
}

// staged says, a line each, which part of the fleet gets a release, and what it has to pass through first.
func staged(it catalog.Item) []string {
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
	App     string   `arg:"" help:"Name of the app."`
	Percent *percent `arg:"" optional:"" help:"Part of the fleet that is to have the newest release; 100 ends the rollout."`
	Track   string   `help:"Track." default:"prod"`
	Cancel  bool     `help:"Take the newest release back: the one that it is rolled out over is the newest again."`
}

func (*rolloutCmd) Help() string {
	return `Devices send a slot, a number from 0 to 9999 that they have drawn once. While the part grows, whoever has the
release keeps it. Devices without a slot get it at 100. Without PERCENT it says how far the rollout is.

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
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	key := catalog.Key{App: c.App, Track: c.Track}
	it, err := d.item(ctx, key)
	if err != nil {
		return err
	}
	switch {
	case !it.Partial():
		return no("%s %s is not being rolled out; precast catalog put --rollout begins that", key, it.Version)
	case c.Cancel && it.Previous == nil:
		return no("%s %s is rolled out over nothing; precast catalog rm takes it away", key, it.Version)
	case c.Cancel:
		it = *it.Previous
		it.App, it.Track = key.App, key.Track
		if it.Floors == nil {
			it.Floors = []catalog.Item{} // not those of the release that is taken back
		}
	case c.Percent != nil && *c.Percent == 100:
		it.Rollout, it.Previous = nil, nil
	case c.Percent != nil:
		it.Rollout.Percent = float64(*c.Percent)
	}
	if c.Cancel || c.Percent != nil {
		res, err := importer(d, std, true).Import(ctx, []release.Release{{Item: it}}, false)
		if err != nil {
			return err
		}
		it = res.Items[0]
	}
	if c.JSON {
		return printJSON(std.out, it)
	}
	note := ""
	if c.Cancel || c.Percent != nil {
		note = " " + d.note()
	}
	if it.Partial() {
		fmt.Fprintf(std.out, "%s: %s%s\n", key, staged(it)[0], note)
		return nil
	}
	fmt.Fprintf(std.out, "%s: all devices get %s.%s\n", key, it.Version, note)
	return nil
}

type rmCmd struct {
	dataFlag
	App   string `arg:"" help:"Name of the app."`
	Track string `help:"Track." default:"prod"`
}

func (*rmCmd) Help() string {
	return `Devices keep what they hold; it is only no longer offered.

Examples:
  precast catalog rm scoreboard --track beta`
}

func (c *rmCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	key := catalog.Key{App: c.App, Track: c.Track}
	it, err := d.item(ctx, key)
	if err != nil {
		return err
	}
	if err := d.catalog().Apply(ctx, []catalog.Change{catalog.Remove(key)}); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s %s is out of the catalog. %s\n", key, it.Version, d.note())
	return nil
}

// item returns an item of the catalog, to be changed.
func (d *data) item(ctx context.Context, key catalog.Key) (catalog.Item, error) {
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return catalog.Item{}, err
	}
	i := slices.IndexFunc(items, func(it catalog.Item) bool { return it.Key() == key })
	if i < 0 {
		return catalog.Item{}, no("%s is not in the catalog; precast catalog list shows what is", key)
	}
	return items[i].Clone(), nil
}

type listCmd struct {
	dataFlag
	jsonFlag
}

func (*listCmd) Help() string {
	return `Examples:
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
	fmt.Fprintln(w, "APP\tTRACK\tVERSION\tSIZE\tATTRIBUTES\tMD5")
	for _, it := range items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", it.App, it.Track, it.Version, bytesText(it.Size), strings.Join(it.Attrs(), ","), it.MD5)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, it := range items {
		for release := &it; release != nil; release = release.Previous {
			one := *release
			one.App = it.App
			for _, line := range staged(one) {
				fmt.Fprintf(std.out, "%s: %s\n", it.Key(), line)
			}
		}
	}
	return nil
}

type importCmd struct {
	dataFlag
	jsonFlag
	From    string `arg:"" help:"A catalog file (.json), a folder with a catalog.json, or an archive with one." type:"path"`
	Replace bool   `help:"Remove every item that is not in it."`
	Files   int    `help:"Unpack at most this many files of an archive." default:"10000"`
	Bytes   size   `help:"Unpack at most this much of an archive." default:"32GiB"`
	Split   bool   `help:"On AWS, write more than 100 items in several transactions: no longer all or nothing." group:"aws"`
}

func (*importCmd) Help() string {
	return `A catalog file is a JSON array of items in the form that precast catalog export writes. An item
may name a "file" beside the catalog file; its digests and size are then computed. With a "rollout" it is rolled out
over the release that it replaces; "floors" may name versions that the catalog has. Archives may be
tar, zip, 7z or rar, the former compressed by gzip, zstd, xz, bzip2 and others. If anything is
wrong with one item, nothing changes.

Examples:
  precast catalog import release-42.tar.zst
  precast catalog import ./release --replace
  precast catalog import catalog.json --json`
}

func (c *importCmd) Run(ctx context.Context, std streams) error {
	c.split = c.Split
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	im := importer(d, std, c.JSON)
	im.Limits = release.Limits{Files: c.Files, Bytes: int64(c.Bytes)}
	releases, done, err := im.Load(ctx, c.From)
	if err != nil {
		return err
	}
	defer done()
	res, err := im.Import(ctx, releases, c.Replace)
	if err != nil {
		return err
	}
	return report(c.jsonFlag, std, d, res)
}

type exportCmd struct {
	dataFlag
	To string `arg:"" optional:"" help:"File to write; standard output if there is none." type:"path"`
}

func (*exportCmd) Help() string {
	return `Examples:
  precast catalog export > catalog.json
  precast catalog export --data /var/lib/precast backup.json`
}

func (c *exportCmd) Run(ctx context.Context, std streams) error {
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return err
	}
	if c.To == "" {
		return catalog.Encode(std.out, items)
	}
	f, err := os.Create(c.To)
	if err != nil {
		return err
	}
	if err := catalog.Encode(f, items); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
