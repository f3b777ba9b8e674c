package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/operate/backup"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

type backupCmd struct {
	dataFlag
	jsonFlag
	Dest    string `arg:"" help:"A folder, or an archive: a file whose name ends in .tar, .tar.gz, .tgz or .tar.zst. A folder gets only what is new since the last backup in it." type:"path"`
	Check   bool   `help:"Verify the backup that is there, and write nothing."`
	Keep    uint64 `help:"Generations before the published one to keep." default:"16" placeholder:"N"`
	Replace bool   `help:"Write over a backup of a later generation."`
}

func (*backupCmd) Help() string {
	return `Copies the catalog, the binaries, what is published, the generations before it and the keyring. Bundles, manifests
and pieces are left out, because they can be built again. Private keys are never copied: they are not in the
installation. The server can go on working. Everything is verified while it is written, and a backup is complete
or not there. It has no entries of the log of changes (precast catalog log --json exports those). Exits with 3 if
binaries are missing or damaged, or if the backup that is there is damaged (--check).

Examples:
  precast backup /mnt/backup/precast
  precast backup precast.tar.zst
  precast backup /mnt/backup/precast --check`
}

func (c *backupCmd) Run(ctx context.Context, std streams) error {
	if c.Check {
		return c.check(ctx, std)
	}
	d, err := c.existing(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	sink, closeSink, err := c.sink()
	if err != nil {
		return answered(err)
	}
	counted := newCounter(std.progress(), c.JSON)
	in := backup.Installation{Objects: d.objects, Catalog: d.catalog()}
	res, err := in.Create(ctx, sink, backup.Options{Keep: c.Keep, Replace: c.Replace, Now: time.Now, Progress: counted.tell})
	counted.end()
	if err = closeSink(err); err != nil {
		return answered(err)
	}
	if c.JSON {
		err = printJSON(std.out, res)
	} else {
		fmt.Fprintf(std.out, "%s: %s, %s, %s; %s copied, %s\n", c.Dest, generationText(res.Generation), count(res.Items, "item"),
			bytesText(res.Bytes()), count(res.Copied, "binary"), bytesText(res.CopiedBytes))
	}
	if err == nil && len(res.Missing) > 0 {
		err = no("the installation lacks %s, or has them damaged; precast fsck tells more: %v", count(len(res.Missing), "binary"), res.Missing)
	}
	return err
}

func generationText(n uint64) string {
	if n == 0 {
		return "nothing published"
	}
	return fmt.Sprint("generation ", n)
}

// sink opens what the backup goes to. Its close is told whether the backup failed: what is left of an archive is
// removed then, and one that is complete takes its place.
func (c *backupCmd) sink() (backup.Sink, func(failed error) error, error) {
	if !backup.IsArchive(c.Dest) {
		f, err := backup.WriteFolder(c.Dest)
		if err != nil {
			return nil, nil, err
		}
		return f, func(failed error) error { return errors.Join(failed, f.Close()) }, nil
	}
	f, err := os.CreateTemp(filepath.Dir(c.Dest), "."+filepath.Base(c.Dest)+".*")
	if err != nil {
		return nil, nil, fmt.Errorf("write backup: %w", err)
	}
	done := func(failed error) error {
		if failed == nil {
			failed = f.Sync()
		}
		if err := errors.Join(failed, f.Close()); err != nil {
			return errors.Join(err, os.Remove(f.Name()))
		}
		return os.Rename(f.Name(), c.Dest)
	}
	a, err := backup.NewArchive(f, c.Dest)
	if err != nil {
		return nil, nil, done(err)
	}
	return a, done, nil
}

func sourceOf(name string) (backup.Source, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open backup: %w", err)
	case info.IsDir():
		return backup.ReadFolder(name), nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("open backup: %s is neither a folder nor a regular file", name)
	}
	return backup.ReadArchive(name), nil
}

func (c *backupCmd) check(ctx context.Context, std streams) error {
	from, err := sourceOf(c.Dest)
	if err != nil {
		return err
	}
	counted := newCounter(std.progress(), c.JSON)
	checked, err := backup.Check(ctx, from, counted.tell)
	counted.end()
	if err != nil {
		if errors.Is(err, backup.ErrNone) || errors.Is(err, backup.ErrDamaged) {
			return no("%w", err)
		}
		return err
	}
	if c.JSON {
		err = printJSON(std.out, checked)
	} else {
		fmt.Fprintf(std.out, "%s: %s, %s, %s, made %s\n", c.Dest, generationText(checked.Generation), count(checked.Items, "item"),
			bytesText(checked.Bytes()), checked.Made.Format(time.RFC3339))
		for _, p := range checked.Problems {
			fmt.Fprintln(std.out, p)
		}
	}
	if err == nil && len(checked.Problems) > 0 {
		err = no("the backup is damaged: %s", count(len(checked.Problems), "problem"))
	}
	return err
}

type restoreCmd struct {
	dataFlag
	jsonFlag
	From  string `arg:"" help:"A folder or an archive that precast backup has written." type:"path"`
	Seen  uint64 `help:"The newest generation that devices may have seen, if it is newer than the backup: what is restored becomes the one after it." placeholder:"N"`
	Build bool   `help:"First build everything that devices can ask for, then publish." default:"true" negatable:""`
}

func (*restoreCmd) Help() string {
	return `Verifies the backup, then brings everything into an empty data folder, or into the empty resources of a pipeline on
AWS. The published generation has its number again, and so do plans: devices that have seen it go on with the
next one. If generations were published after the backup, say with --seen up to which one devices may have seen
them. A restore that is interrupted can be run again. Exits with 3 if there is an installation already.

Examples:
  precast restore /mnt/backup/precast --data /var/lib/precast
  precast restore precast.tar.zst --data /var/lib/precast --seen 42
  precast restore precast.tar.zst --objects s3://packages --catalog dynamodb://catalog --ledger dynamodb://ledger --queue sqs://sqs.eu-west-1.amazonaws.com/123456789012/jobs --dead-letters sqs://sqs.eu-west-1.amazonaws.com/123456789012/dead`
}

func (c *restoreCmd) Run(ctx context.Context, std streams) error {
	from, err := sourceOf(c.From)
	if err != nil {
		return err
	}
	c.split = true // it can be run again where one transaction cannot hold all
	drivers, closeAll, err := c.takeFolder(ctx, local.Options{NewCatalog: true})
	if err != nil {
		return err
	}
	defer closeAll()
	counted := newCounter(std.progress(), c.JSON)
	res, err := backup.Restore(ctx, from, targetOf(drivers), backup.RestoreOptions{Seen: c.Seen, Build: c.Build, Progress: counted.tell})
	counted.end()
	if err != nil {
		return answered(err)
	}
	if c.JSON {
		err = printJSON(std.out, res)
	} else {
		fmt.Fprintf(std.out, "%s is restored: %s, %s, %s\n", c.From, generationText(res.Generation), count(res.Items, "item"), count(res.Binaries, "binary"))
		if res.Pin != "" {
			fmt.Fprintf(std.out, "it is pinned: %s\n", res.Pin)
		}
	}
	if err == nil && len(res.Missing)+res.Unbuilt > 0 {
		err = no("the backup lacks %s, and %s could not be built; precast fsck tells more", count(len(res.Missing), "binary"), count(res.Unbuilt, "object"))
	}
	return err
}

// target is a catalog to restore: below the guards, which are for changes of what devices have.
type target struct {
	builder.Catalog
	builder.CatalogWriter
}

func targetOf(d pipeline.Drivers) backup.Target {
	return backup.Target{Objects: d.Objects, Catalog: target{d.Catalog, d.Writer}, Numbers: d.Numbers}
}

type recoverCmd struct {
	dataFlag
	jsonFlag
}

func (*recoverCmd) Help() string {
	return `For an installation without a backup whose database is lost. What devices get is in the published index, and so the
items are made from that. What an index does not have is lost: ident, CPU architecture, where a binary came from,
when an item was changed, and changes that were not published.

Examples:
  precast catalog recover --data /var/lib/precast`
}

func (c *recoverCmd) Run(ctx context.Context, std streams) error {
	c.split = true // it can be run again where one transaction cannot hold all
	drivers, closeAll, err := c.takeFolder(ctx, local.Options{NewCatalog: true})
	if err != nil {
		return err
	}
	defer closeAll()
	res, err := backup.Recover(ctx, targetOf(drivers))
	if err != nil {
		return answered(err)
	}
	if c.JSON {
		return printJSON(std.out, res)
	}
	fmt.Fprintf(std.out, "%s of generation %d in the catalog again\n", count(len(res.Items), "item"), res.Generation)
	c.lost(std.out, res)
	return nil
}

func (*recoverCmd) lost(w io.Writer, res backup.Recovered) {
	fmt.Fprintln(w, "ident, CPU architecture, where binaries came from and when items were changed are lost")
	if res.Waiting > 0 {
		fmt.Fprintln(w, "changes that were not published are lost")
	}
	if res.Passed > 0 {
		fmt.Fprintf(w, "%s after floors described nowhere: devices that hold one get the floor again\n", count(res.Passed, "release"))
	}
	for _, key := range res.Missing {
		fmt.Fprintf(w, "%s is missing: its item stays published, and cannot be built again\n", key)
	}
	if res.Pin != "" {
		fmt.Fprintf(w, "it is pinned: %s\n", res.Pin)
	}
}
