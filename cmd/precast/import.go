package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/seed"
)

type seedCmd struct {
	dataFlag
	jsonFlag
	editFlags
	guardFlags
	Size size   `help:"Size of each generated binary." default:"10MiB"`
	Seed uint64 `help:"Seed for the sample's generated binaries." aliases:"rng" default:"1" placeholder:"N"`
}

func (*seedCmd) Help() string {
	return `Adds two operating systems and three applications on the tracks prod and beta, for devices with the
attributes gamer, camera and cellular. The binaries look random. The same seed generates the same binaries.

Examples:
  precast seed --data /tmp/try
  precast seed --data /tmp/try --size 256KiB && precast serve --data /tmp/try`
}

func (c *seedCmd) Run(ctx context.Context, std streams) error {
	if err := c.check(); err != nil {
		return err
	}
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	c.AllowContent = true // another seed makes other binaries of the same versions
	res, err := c.importer(d, std, c.jsonFlag, c.guardFlags).Import(ctx, seed.Releases(int64(c.Size), c.Seed), false)
	if err != nil {
		return answered(err)
	}
	return c.finish(ctx, std, d, c.jsonFlag, res, func(note string) error { return report(c.jsonFlag, std, d, res, note) })
}

func importer(d *data, std streams, quiet bool) *release.Importer {
	im := &release.Importer{Objects: d.objects, Catalog: d.catalog(), Now: time.Now, By: authorFlags{}.author(), Temp: d.temp(), Preview: d.catalog().Preview}
	if !quiet {
		im.Report = func(it catalog.Item, stored bool) {
			state := "binary was there"
			if stored {
				state = "stored " + bytesText(it.Size)
			}
			fmt.Fprintf(std.progress(), "%s %s: %s\n", it.Key(), it.Version, state)
		}
	}
	return im
}

// report says what an import did.
func report(j jsonFlag, std streams, d *data, res release.Result, note string) error {
	if j.JSON {
		out := struct {
			Items   []catalog.Item `json:"items"`
			Removed []catalog.Key  `json:"removed"`
		}{res.Items, append([]catalog.Key{}, res.Removed...)}
		return printJSON(std.out, out)
	}
	fmt.Fprintf(std.out, "%s in the catalog of %s", count(len(res.Items), "item"), d.name)
	if len(res.Removed) > 0 {
		fmt.Fprintf(std.out, ", %d removed", len(res.Removed))
	}
	fmt.Fprintf(std.out, ".%s\n", note)
	return nil
}

type importCmd struct {
	dataFlag
	jsonFlag
	editFlags
	guardFlags
	From       string `arg:"" optional:"" help:"A catalog file (.json), a folder with a catalog.json, or an archive with one. - reads a catalog file from standard input." type:"path"`
	FromSample string `help:"Import items of the AWS sample instead: a JSON file of them, or their table. Their binaries are fetched, checked and stored." placeholder:"FILE|dynamodb://TABLE"`
	Replace    bool   `help:"Also remove every item that the import does not contain."`
	Files      int    `help:"Unpack at most this many files, folders and links of an archive." default:"10000"`
	Bytes      size   `help:"Unpack at most this much of an archive." default:"32GiB"`
	Split      bool   `help:"On AWS, write more than 98 items in several transactions: no longer all or nothing." group:"aws"`
}

func (*importCmd) Help() string {
	return `A catalog file is a JSON array of items, as written by precast catalog export. An item can name a "file",
relative to the catalog file; its size and digests are then computed. An item with a "rollout" first goes to a
part of the devices, and the others keep the release that it replaces. "floors" lists earlier versions that
devices must install first. Without "floors" or "deviceAttr", an item keeps those that it has; [] and {} remove
them. An archive is a zip, or a tar, plain or compressed with gzip, zstd or xz. If one item is invalid, nothing
is imported.

` + guardHelp + `

Examples:
  precast catalog import release-42.tar.zst
  precast catalog import ./release --replace --dry-run
  precast catalog import catalog.json --json
  precast catalog import --from-sample dynamodb://ota-table`
}

func (c *importCmd) Run(ctx context.Context, std streams) error {
	if err := c.check(); err != nil {
		return err
	}
	c.split = c.Split
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	im := c.importer(d, std, c.jsonFlag, c.guardFlags)
	im.Limits = release.Limits{Files: c.Files, Bytes: int64(c.Bytes)}
	releases, done, err := c.load(ctx, std, d, im)
	if err != nil {
		return err
	}
	defer done()
	res, err := im.Import(ctx, releases, c.Replace)
	if err != nil {
		return answered(err)
	}
	return c.finish(ctx, std, d, c.jsonFlag, res, func(note string) error { return report(c.jsonFlag, std, d, res, note) })
}

type exportCmd struct {
	dataFlag
	To string `arg:"" optional:"" help:"File to write. Default: standard output." type:"path"`
}

func (*exportCmd) Help() string {
	return `Writes all items as JSON. precast catalog import reads the file again.

Examples:
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
