package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/settings"
)

// editFlags are those of the commands that change the catalog.
type editFlags struct {
	authorFlags
	DryRun bool `help:"Show what changes for devices, and what would be refused. Write nothing."`
	Wait   bool `help:"Return when the change is published. Without a running server, build it here, as precast build does."`
}

// guardFlags allow what is refused otherwise. Their names are those of release.Allow...
type guardFlags struct {
	AllowWithdraw bool `help:"Allow that devices are left without a package that they have." group:"guards"`
	AllowShrink   bool `help:"Allow that a rollout reaches fewer devices: some go back to the previous release." group:"guards"`
	AllowOlder    bool `help:"Allow that devices go to a release that was replaced before." group:"guards"`
	AllowContent  bool `help:"Allow other content for a version that was published." group:"guards"`
	AllowRemoval  bool `help:"Allow that more than three items, and more than a tenth of all, are removed." group:"guards"`
	AllowEmpty    bool `help:"Allow a file without a byte." group:"guards"`
}

const guardHelp = `What would hurt devices is refused, with exit code 3, and the message names the flag that allows it. It is compared
with what is published, and with what waits to be published. See also docs/rollouts.md.`

func (f guardFlags) allowed() []string {
	var all []string
	for name, on := range map[string]bool{
		release.AllowWithdraw: f.AllowWithdraw, release.AllowShrink: f.AllowShrink, release.AllowOlder: f.AllowOlder,
		release.AllowContent: f.AllowContent, release.AllowRemoval: f.AllowRemoval, release.AllowEmpty: f.AllowEmpty,
	} {
		if on {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

func (f editFlags) check() error {
	if f.DryRun && f.Wait {
		return errors.New("give --dry-run or --wait, not both")
	}
	return nil
}

// importer makes the importer of a command with these flags.
func (f editFlags) importer(d *data, std streams, j jsonFlag, g guardFlags) *release.Importer {
	im := importer(d, std, j.JSON || f.DryRun)
	im.By, im.Allow, im.DryRun = f.author(), g.allowed(), f.DryRun
	return im
}

// finish says what a change did, or would do, and waits for it. say prints the change; its note says what happens next.
func (f editFlags) finish(ctx context.Context, std streams, d *data, j jsonFlag, res release.Result, say func(note string) error) error {
	if f.DryRun {
		return printDifference(std, j, res.Difference)
	}
	for _, w := range res.Difference.Warnings {
		fmt.Fprintln(std.err, "precast: warning:", w)
	}
	note := " " + d.note()
	if f.Wait {
		note = ""
	}
	if err := say(note); err != nil || !f.Wait {
		return err
	}
	return publish(ctx, std, d, j)
}

// publish builds and publishes what has changed, with the settings of the environment, or has the server do it.
func publish(ctx context.Context, std streams, d *data, j jsonFlag) error {
	r := settings.New(func(name string) (string, bool) {
		if !strings.HasPrefix(name, "PRECAST_") {
			return "", false
		}
		return os.LookupEnv(name)
	}, errorLog(std))
	b := buildCmd{buildFlags: buildFlags{r.Build()}, publishFlags: publishFlags{r.CDN()}, jsonFlag: j, Retry: true}
	if err := r.Err(); err != nil {
		return err
	}
	if j.JSON {
		std.out = io.Discard // the change is what the command prints
	}
	return b.build(ctx, std, d)
}

// printDifference says what a change would do.
func printDifference(std streams, j jsonFlag, d release.Difference) error {
	if j.JSON {
		if err := printJSON(std.out, d); err != nil {
			return err
		}
	} else {
		for _, it := range d.Items {
			for _, g := range it.Gets {
				fmt.Fprintf(std.out, "%s: %s\n", it.Key, g)
			}
			if len(it.Lost) > 0 {
				fmt.Fprintf(std.out, "%s: devices with %s get it no longer\n", it.Key, strings.Join(it.Lost, ", "))
			}
			if len(it.Gained) > 0 {
				fmt.Fprintf(std.out, "%s: devices with %s get it as well\n", it.Key, strings.Join(it.Gained, ", "))
			}
		}
		if len(d.Items) == 0 {
			fmt.Fprintln(std.out, "Nothing changes for devices.")
		}
		for _, w := range d.Warnings {
			fmt.Fprintln(std.out, "warning:", w)
		}
		for _, r := range d.Refused {
			fmt.Fprintln(std.out, "would be refused:", r)
		}
	}
	if len(d.Refused) > 0 {
		return no("the change would be refused")
	}
	return nil
}

// spooled is standard input in a file, which has no name any more, so that nothing is left of it.
type spooled struct {
	*os.File
	size int64
}

// spool writes standard input into a temporary file of the data folder, or of the system if there is none.
func spool(ctx context.Context, in io.Reader, f dataFlag) (*spooled, error) {
	dir := ""
	if tmp := filepath.Join(f.Data, "tmp"); !f.remote() {
		if info, err := os.Stat(tmp); err == nil && info.IsDir() {
			dir = tmp
		}
	}
	file, err := os.CreateTemp(dir, "stdin-*")
	if err != nil {
		return nil, fmt.Errorf("keep standard input: %w", err)
	}
	_ = os.Remove(file.Name()) // where that is not possible, Close does it
	n, err := io.Copy(file, in)
	if err == nil {
		err = ctx.Err()
	}
	s := &spooled{file, n}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return s, nil
}

func (s *spooled) Close() error {
	err := s.File.Close()
	_ = os.Remove(s.Name())
	return err
}

func (s *spooled) open() (io.ReadSeekCloser, error) {
	return builder.NopCloser{ReadSeeker: io.NewSectionReader(s.File, 0, s.size)}, nil
}

// maxCatalog bounds a catalog on standard input, which is read into memory, in bytes.
const maxCatalog = 256 << 20

// readCatalog reads a catalog file from standard input. Its items cannot name files: there is no folder that they are in.
func readCatalog(in io.Reader) ([]release.Release, error) {
	limited := &io.LimitedReader{R: in, N: maxCatalog}
	entries, err := catalog.Decode(limited)
	if limited.N == 0 {
		return nil, fmt.Errorf("read standard input: it is longer than %d bytes", maxCatalog)
	}
	if err != nil {
		return nil, err
	}
	releases := make([]release.Release, len(entries))
	var errs []error
	for i, e := range entries {
		releases[i].Item = e.Item
		if e.File != "" {
			errs = append(errs, fmt.Errorf("item %s: file: a catalog on standard input is in no folder, so that its items cannot name files", e.Key()))
		}
	}
	return releases, errors.Join(errs...)
}
