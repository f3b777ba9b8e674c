package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/fsck"
)

type fsckCmd struct {
	dataFlag
	jsonFlag
	URL         string `arg:"" optional:"" help:"Ask this server or CDN as devices do: http(s)://HOST. Default: read the object store."`
	Deep        bool   `help:"Read every byte, not only sizes. With URL: download the bundles, not only their headers."`
	Repair      bool   `help:"Rebuild missing and damaged objects where possible. Not with URL."`
	Look        int    `help:"With URL: maximum number of combinations of attributes to ask for. 0: all that are prebuilt." name:"max-combinations" default:"0"`
	Index       string `help:"With URL: use this copy of the published index. Neither data folder nor bucket is needed then." type:"existingfile" placeholder:"FILE"`
	Concurrency int    `help:"Number of objects to verify at the same time. 0: 16, or 4 with --deep." default:"0"`
}

func (*fsckCmd) Help() string {
	return `Verifies, for every combination of attributes that devices can have, that every object exists, has the right
size and, with --deep, the right content.

With a URL it asks the server for every combination as three kinds of devices: one that has nothing, one that
has one of the packages (up to 16 of them in turn), and one that has all of them. It needs only the published
index, from the data folder, the bucket or a copy. It downloads one bundle with each release; without --deep
it does not notice that another one is truncated or damaged. If statements are signed, one is verified against
the keyring of the server.

Exits with 0 if everything is complete or has been repaired, 3 if not, and 1 if it could not find out.

Examples:
  precast fsck
  precast fsck --deep --repair
  precast fsck --json | jq '.problems[] | {kind, key}'
  precast fsck https://packages.example.com --max-combinations 1000
  precast fsck http://127.0.0.1:8080 --deep`
}

func (c *fsckCmd) Run(ctx context.Context, std streams) error {
	if c.Repair && c.URL != "" {
		return errors.New("--repair works on the store: leave the URL out")
	}
	if c.Index != "" && c.URL == "" {
		return errors.New("--index goes with a URL")
	}
	opt := fsck.Options{Deep: c.Deep, Concurrency: c.Concurrency}
	counted := newCounter(std.progress(), c.JSON)
	opt.Progress = counted.tell
	start := time.Now()
	rep, err := c.check(ctx, opt)
	counted.end()
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	if c.JSON {
		err = printJSON(std.out, struct {
			*fsck.Report
			Complete bool    `json:"complete"`
			Seconds  float64 `json:"seconds"`
		}{rep, rep.Complete(), seconds})
	} else {
		printChecked(std.out, rep, seconds)
	}
	if err == nil && !rep.Complete() {
		err = no("generation %d is not complete: %s", rep.Generation, count(len(rep.Problems)+rep.More-rep.Repaired, "problem"))
	}
	return err
}

func (c *fsckCmd) check(ctx context.Context, opt fsck.Options) (*fsck.Report, error) {
	if c.Index != "" {
		data, err := files.Read(c.Index, maxNamed)
		if err != nil {
			return nil, err
		}
		ix, err := index.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", c.Index, err)
		}
		return c.ask(ctx, ix, opt)
	}
	d, err := c.existing(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	before, _, err := builder.ReadIndex(ctx, d.objects)
	if c.URL != "" && err != nil {
		return nil, err
	}
	if c.URL != "" && before == nil {
		return nil, fsck.ErrNothing
	}
	var rep *fsck.Report
	if c.URL != "" {
		rep, err = c.ask(ctx, before, opt)
	} else {
		rep, err = fsck.Store(ctx, d.objects, opt)
	}
	if err != nil || len(rep.Problems) == 0 {
		return rep, err
	}
	// What was published meanwhile need not be what was checked.
	if after, _, err := builder.ReadIndex(ctx, d.objects); err == nil && after != nil && after.Generation != rep.Generation {
		return nil, fmt.Errorf("generation %d was published while generation %d was being checked: check again", after.Generation, rep.Generation)
	}
	if c.Repair {
		return rep, c.repair(ctx, d, rep)
	}
	return rep, nil
}

func (c *fsckCmd) ask(ctx context.Context, ix *index.Index, opt fsck.Options) (*fsck.Report, error) {
	concurrency := opt.Concurrency
	if concurrency <= 0 {
		concurrency = 16
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = concurrency
	defer transport.CloseIdleConnections()
	d := fsck.Device{URL: c.URL, Client: &http.Client{Transport: transport}, MaxCombinations: c.Look}
	return d.Check(ctx, ix, opt)
}

func (c *fsckCmd) repair(ctx context.Context, d *data, rep *fsck.Report) error {
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return err
	}
	urls := make(map[string]string)
	for _, it := range items {
		if len(it.URL) < len(catalog.StorePrefix) || it.URL[:len(catalog.StorePrefix)] != catalog.StorePrefix {
			urls[it.SHA256] = it.URL
		}
	}
	r := &fsck.Repairer{Objects: d.objects, Sources: d.sources, URL: func(sha256 string) string { return urls[sha256] }}
	return r.Repair(ctx, rep)
}

func printChecked(w io.Writer, r *fsck.Report, seconds float64) {
	for _, p := range r.Problems {
		state := ""
		switch {
		case p.Repaired:
			state = "; repaired"
		case p.Unrepaired != "":
			state = "; not repaired: " + p.Unrepaired
		}
		fmt.Fprintf(w, "%s: %s: %s; devices: %s%s\n", p.Kind, p.Key, p.Detail, p.Devices, state)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "and %s\n", count(r.More, "more problem"))
	}
	what := "object"
	if r.URL != "" {
		what = "request"
	}
	variants := ""
	if r.Variants > 0 {
		variants = fmt.Sprintf(", and %d more in other rollouts or before other floors", r.Variants)
	}
	fmt.Fprintf(w, "generation %d: %s%s, %s", r.Generation, count(r.Combinations, "combination"), variants, count(r.Objects, what))
	if r.Bytes > 0 {
		fmt.Fprintf(w, ", %s read", bytesText(r.Bytes))
	}
	fmt.Fprintf(w, ", in %.1f s\n", seconds)
	if r.Rest > 0 {
		fmt.Fprintf(w, "not looked at, as nothing is prebuilt for them: %s\n", count(r.Rest, "combination"))
	}
	switch {
	case len(r.Problems) == 0:
		fmt.Fprintln(w, "it is complete")
	case r.Complete():
		fmt.Fprintf(w, "it is complete again: %s repaired\n", count(r.Repaired, "problem"))
	default:
		fmt.Fprintf(w, "it is NOT complete: %s, %d of them repaired\n", count(len(r.Problems)+r.More, "problem"), r.Repaired)
	}
}

// counter shows how far something is: a bar on a terminal, a line for every tenth elsewhere. It may be told
// by several goroutines at once.
type counter struct {
	w     io.Writer
	quiet bool
	told  chan [2]int
	ended chan struct{}
}

func newCounter(w io.Writer, quiet bool) *counter {
	c := &counter{w: w, quiet: quiet, told: make(chan [2]int, 64), ended: make(chan struct{})}
	go c.run()
	return c
}

func (c *counter) tell(done, total int) { c.told <- [2]int{done, total} }

func (c *counter) end() {
	close(c.told)
	<-c.ended
}

func (c *counter) run() {
	defer close(c.ended)
	var bars *mpb.Progress
	var bar *mpb.Bar
	if f := terminalOf(c.w); f != nil && !c.quiet {
		bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(60))
		bar = bars.AddBar(0, mpb.PrependDecorators(decor.CountersNoUnit("%d/%d objects")), mpb.AppendDecorators(decor.Percentage()))
	}
	for n := range c.told {
		if bar != nil {
			bar.SetTotal(int64(max(n[0], n[1])), false)
			bar.SetCurrent(int64(n[0]))
		}
	}
	if bar != nil {
		bar.SetTotal(-1, true)
		bars.Wait()
	}
}
