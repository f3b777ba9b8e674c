package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/cost"
)

type costCmd struct {
	dataFlag
	buildFlags
	jsonFlag
	Requests    float64            `help:"Requests of all devices in a month." default:"1000000"`
	HitRatio    float64            `help:"Share of requests that CloudFront answers from its cache, 0 to 1." default:"0.95"`
	NotModified float64            `help:"Share of requests answered with 304, as the device is up to date, 0 to 1." default:"0.99"`
	Changes     float64            `help:"Releases of one binary in a month." default:"20"`
	Regions     map[string]float64 `help:"Share of devices in each region, in total 1: us, eu, me, sa, jp, au, ap, in." default:"us=1" mapsep:"," placeholder:"REGION=SHARE"`
	BundleSize  size               `help:"Size of a download; default: the average of the catalog's sets." placeholder:"SIZE"`
	Items       int                `help:"Number of binaries; with it, no catalog is read." group:"without a catalog"`
	ItemSize    size               `help:"Size of each binary." default:"10MiB" group:"without a catalog"`
	Bundles     int                `help:"Number of prebuilt bundles." default:"100" group:"without a catalog"`
	EdgeMS      float64            `help:"Duration of one call of the edge function, in milliseconds." default:"10"`
	FreeTier    bool               `help:"Subtract the free tier."`
}

func (*costCmd) Help() string {
	return `Estimates what a month on AWS costs: requests, builds, storage and monitoring. It uses list prices of
us-east-1; internal/operate/cost/prices.json names the source of each. For comparison, it also estimates
the cost of answering every request with a server.

The catalog is read from the data folder or from a pipeline on AWS. With --items, none is needed.

Examples:
  precast cost --data /var/lib/precast --requests 300e6 --regions us=0.5,eu=0.5
  precast cost --items 50 --item-size 20MiB --bundles 400 --requests 1e9 --hit-ratio 0.98
  precast cost --items 9 --requests 1e6 --free-tier --json | jq .usd`
}

func (c *costCmd) Run(ctx context.Context, std streams) error {
	goods, err := c.goods(ctx)
	if err != nil {
		return err
	}
	goods.Changes = c.Changes
	if c.BundleSize > 0 {
		goods.AnswerBytes = float64(c.BundleSize)
	}
	a := cost.Defaults()
	a.EdgeSeconds, a.FreeTier = c.EdgeMS/1000, c.FreeTier
	prices, err := cost.Current()
	if err != nil {
		return err
	}
	e, err := cost.Of(cost.Fleet{Requests: c.Requests, HitRatio: c.HitRatio, NotModified: c.NotModified, Regions: c.Regions}, goods, a, prices)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, e)
	}
	printEstimate(std.out, e)
	return nil
}

// goods returns what is distributed, from the flags or from the catalog.
func (c *costCmd) goods(ctx context.Context) (cost.Catalog, error) {
	if c.Items > 0 {
		one, n := float64(c.ItemSize), float64(c.Items)
		g := cost.Catalog{Items: c.Items, BinaryBytes: one * n, Bundles: c.Bundles}
		// As in the sample, a device gets some four binaries.
		g.AnswerBytes = one * min(n, 4)
		g.BundleBytes = g.AnswerBytes * float64(c.Bundles) / 2
		g.ChangeBundles = float64(c.Bundles) * min(n, 4) / n
		g.ChangeBytes = g.ChangeBundles * g.AnswerBytes / 2
		return g, nil
	}
	d, err := c.existing(ctx)
	if err != nil {
		return cost.Catalog{}, fmt.Errorf("%w; --items estimates without a catalog", err)
	}
	defer d.Close()
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return cost.Catalog{}, err
	}
	opt, err := c.options(true, slog.New(slog.DiscardHandler), builder.Silent{})
	if err != nil {
		return cost.Catalog{}, err
	}
	p, err := builder.New(builder.Ports{Objects: d.objects}, opt).Plan(ctx, items, builder.PlanOptions{})
	if err != nil {
		return cost.Catalog{}, err
	}
	return measured(items, p.Coverage), nil
}

// measured returns a catalog's figures. A change releases one binary, each equally likely: it rebuilds every
// bundle of the sets that the binary is in.
func measured(items []catalog.Item, cover builder.Coverage) cost.Catalog {
	g := cost.Catalog{Items: len(items), Bundles: cover.Bundles, BundleBytes: float64(cover.Bytes)}
	for _, it := range items {
		g.BinaryBytes += float64(it.Size)
	}
	if len(items) == 0 || len(cover.Sets) == 0 {
		return g
	}
	for _, s := range cover.Sets {
		n := float64(s.Set.Len())
		g.AnswerBytes += bundleSize(s.Set, edge.Mask{})
		g.ChangeBundles += n * float64(len(s.Masks))
		for _, m := range s.Masks {
			g.ChangeBytes += n * bundleSize(s.Set, m)
		}
	}
	g.AnswerBytes /= float64(len(cover.Sets))
	g.ChangeBundles /= float64(len(items))
	g.ChangeBytes /= float64(len(items))
	return g
}

func bundleSize(set edge.Set, held edge.Mask) float64 {
	var n float64
	for i := range set.Len() {
		if !held.Has(i) {
			n += float64(set.Item(i).Size)
		}
	}
	return n
}

func printEstimate(out io.Writer, e cost.Estimate) {
	f, g := e.Fleet, e.Catalog
	var regions []string
	for _, r := range slices.Sorted(maps.Keys(f.Regions)) {
		regions = append(regions, fmt.Sprintf("%s %.4g %%", r, 100*f.Regions[r]))
	}
	fmt.Fprintf(out, "%s requests a month (%s), %.4g %% from the cache, %.4g %% not modified; each of the others downloads %s\n",
		humanize.Commaf(f.Requests), strings.Join(regions, ", "), 100*f.HitRatio, 100*f.NotModified, bytesText(int64(g.AnswerBytes)))
	fmt.Fprintf(out, "%s (%s), %s (%s); %s a month, each builds %s (%s)\n\n",
		count(g.Items, "binary"), bytesText(int64(g.BinaryBytes)), count(g.Bundles, "bundle"), bytesText(int64(g.BundleBytes)),
		count(g.Changes, "release"), count(math.Round(g.ChangeBundles), "bundle"), bytesText(int64(g.ChangeBytes)))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	print := func(lines []cost.Line) {
		for _, l := range lines {
			fmt.Fprintf(w, "%s\t%s\t%s %s\t%s\t\n", l.Service, l.What, humanize.CommafWithDigits(l.Quantity, 2), l.Unit, dollars(l.USD))
		}
	}
	print(e.Usage)
	fmt.Fprintln(w, "\t\t\t\t")
	print(e.Standing)
	fmt.Fprintln(w, "\t\t\t\t")
	fmt.Fprintf(w, "total\t\ta month\t%s\t\n", dollars(e.USD))
	_ = w.Flush() // out says so with the next line
	fmt.Fprintf(out, "\nIf a server answered every request: %s.\n", dollars(e.ServerUSD))
	fmt.Fprintf(out, "Without data transfer, which costs the same, a request costs $%.10f with Precast and $%.10f with a server.\n", e.PerPoll, e.ServerPerPoll)
	fmt.Fprintf(out, "List prices of %s%s, without taxes.\n", e.PricesOf, map[bool]string{true: ", minus the free tier"}[e.Assumptions.FreeTier])
}

func dollars(usd float64) string {
	if usd > 0 && usd < 0.01 {
		return "< $0.01"
	}
	return "$" + humanize.CommafWithDigits(usd+1e-9, 2)
}
