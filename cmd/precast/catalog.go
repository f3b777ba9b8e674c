package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"precast/internal/catalog"
	"precast/seed"
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
	res, err := importer(d, std, c.JSON).Sample(ctx, int64(c.Size), c.Rng)
	if err != nil {
		return err
	}
	return report(c.jsonFlag, std, d, res)
}

func importer(d *data, std streams, quiet bool) *seed.Importer {
	im := &seed.Importer{Objects: d.objects, Catalog: d.catalog(), Now: time.Now}
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
func report(j jsonFlag, std streams, d *data, res seed.Result) error {
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
	Put    putCmd    `cmd:"" help:"Release a version of an app on a track."`
	Rm     rmCmd     `cmd:"" help:"Take an app off a track."`
	List   listCmd   `cmd:"" help:"List the items."`
	Import importCmd `cmd:"" help:"Bring in a catalog file, a folder or a release archive; all of it or nothing."`
	Export exportCmd `cmd:"" help:"Write the catalog as a catalog file."`
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
}

func (*putCmd) Help() string {
	return `Computes the digests of FILE, stores it and writes the item, replacing the one that the app has
on this track. Works while precast serve runs on the data folder, and when it does not.

Examples:
  precast catalog put scoreboard ./scoreboard --track prod --version 1.0.1 --attr gamer
  precast catalog put os_armv8 ./firmware.img --version 1.2.0`
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
	release := seed.Release{Item: it, Open: func() (io.ReadSeekCloser, error) { return os.Open(c.File) }}
	res, err := importer(d, std, c.JSON).Import(ctx, []seed.Release{release}, false)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, res.Items[0])
	}
	it = res.Items[0]
	fmt.Fprintf(std.out, "%s %s is in the catalog: md5 %s, sha256 %s, %d bytes. %s\n", it.Key(), it.Version, it.MD5, it.SHA256, it.Size, d.note())
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
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return err
	}
	key := catalog.Key{App: c.App, Track: c.Track}
	for _, it := range items {
		if it.Key() == key {
			if err := d.catalog().Apply(ctx, []catalog.Change{catalog.Remove(key)}); err != nil {
				return err
			}
			fmt.Fprintf(std.out, "%s %s is out of the catalog. %s\n", key, it.Version, d.note())
			return nil
		}
	}
	return no("%s is not in the catalog; precast catalog list shows what is", key)
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
	return w.Flush()
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
may name a "file" beside the catalog file; its digests and size are then computed. Archives may be
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
	im.Limits = seed.Limits{Files: c.Files, Bytes: int64(c.Bytes)}
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
