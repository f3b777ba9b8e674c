package main

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/settings"
	"github.com/precast-ota/precast/seed"
	"github.com/precast-ota/precast/terraform/deploy"
)

type planInfraCmd struct {
	installationFlags
	moduleFlags
	jsonFlag
}

func (*planInfraCmd) Help() string {
	return `Shows what precast deploy would change, without changing it. Exits with 0 if nothing would change,
and with 3 if something would.

Examples:
  precast plan-infra --name fleet
  precast plan-infra --name fleet --var price_class=PriceClass_All
  precast plan-infra --name fleet --json | jq '.changes[] | select(.losesData)'`
}

func (c *planInfraCmd) Run(ctx context.Context, std streams) error {
	_, _, s, err := c.plan(ctx, c.installationFlags, std.err)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(std.out, s)
	} else {
		s.Print(std.out)
	}
	if err == nil && !s.Empty() {
		err = no("%s pending; precast deploy applies what is pending", count(len(s.Changes), "change"))
	}
	return err
}

type deployCmd struct {
	installationFlags
	moduleFlags
	jsonFlag
	Yes        bool          `help:"Apply without asking for confirmation."`
	DeleteData bool          `help:"With --yes: apply even if a table or the bucket would be deleted or replaced."`
	Seed       bool          `help:"Add the sample to the catalog afterwards."`
	SeedSize   size          `help:"Size of each of the sample's binaries." default:"1MiB"`
	SkipSmoke  bool          `help:"Skip the test requests to the distribution."`
	Timeout    time.Duration `help:"How long to wait for the first publish, and for correct answers." default:"15m"`
}

func (*deployCmd) Help() string {
	return `Creates or updates an installation with Terraform and the module built into this program. It shows the
planned changes, asks for confirmation and applies them. Then it waits until the catalog is published,
and sends test requests to the distribution as a device would. If it fails or is interrupted, run the
same command again to resume. Variables given with --var are kept for later commands.

Requires terraform in PATH, and AWS credentials from the usual sources (environment, profile, SSO).

Examples:
  precast deploy --name fleet --region eu-west-1 --seed
  precast deploy --name fleet --yes --var price_class=PriceClass_All --var 'tags={"team":"devices"}'
  precast deploy --name fleet --backend backend.tf --backend-config bucket=my-states --json`
}

// deployed is what deploy prints as JSON.
type deployed struct {
	Name       string                     `json:"name"`
	Account    string                     `json:"account"`
	Region     string                     `json:"region"`
	Folder     string                     `json:"folder"`
	Plan       deploy.Summary             `json:"plan"`
	Generation uint64                     `json:"generation"`
	Outputs    map[string]json.RawMessage `json:"outputs"`
	Seconds    float64                    `json:"seconds"`
}

func (c *deployCmd) Run(ctx context.Context, std streams) error {
	start := time.Now()
	a, i, s, err := c.plan(ctx, c.installationFlags, std.err)
	if err != nil {
		return err
	}
	s.Print(std.err)
	if !s.Empty() {
		if err := c.agreed(s, std); err != nil {
			return err
		}
		if err := i.Apply(ctx, s); err != nil {
			return fmt.Errorf("%w\n\nCompleted changes are recorded in %s. Run the same command again to resume", err, i.State())
		}
	}
	if err := i.Settled(); err != nil {
		return err
	}
	out, err := i.Outputs(ctx)
	if err != nil {
		return err
	}
	generation, err := c.bringUp(ctx, a, out, std)
	if err != nil {
		return err
	}
	took := time.Since(start)
	if c.JSON {
		return printJSON(std.out, deployed{Name: c.Name, Account: a.id, Region: a.cfg.Region, Folder: c.dir(), Plan: s, Generation: generation, Outputs: out.All, Seconds: took.Seconds()})
	}
	c.explain(std.out, out)
	return nil
}

// agreed asks for confirmation of the changes.
func (c *deployCmd) agreed(s deploy.Summary, std streams) error {
	lost := s.DataLoss()
	if c.Yes {
		if len(lost) > 0 && !c.DeleteData {
			return fmt.Errorf("apply: --yes does not cover the loss of %s; give --delete-data as well", strings.Join(lost, ", "))
		}
		return nil
	}
	want, question := "yes", "Type yes to apply this: "
	if len(lost) > 0 {
		want, question = c.Name, "Type the installation's name, "+c.Name+", to apply this: "
	}
	return confirmed(std, question, want)
}

// confirmed asks on the terminal, and fails unless the answer is the wanted one.
func confirmed(std streams, question, want string) error {
	if !std.terminal {
		return errors.New("confirm: there is no terminal to ask on; give --yes")
	}
	fmt.Fprint(std.err, question)
	line, err := bufio.NewReader(std.in).ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("confirm: %w", err)
	}
	if strings.TrimSpace(line) != want {
		return errors.New("not confirmed; nothing was changed")
	}
	return nil
}

// remote are the flags that name the installation for the other commands.
func remote(out deploy.Outputs) dataFlag {
	e := out.Environment
	return dataFlag{Objects: e["PRECAST_OBJECTS"], CatalogURL: e["PRECAST_CATALOG"], Ledger: e["PRECAST_LEDGER"],
		Queue: e["PRECAST_QUEUE"], DeadLetters: e["PRECAST_DEAD_LETTERS"]}
}

// bringUp seeds, waits for the publish, and sends test requests. It returns the published generation.
func (c *deployCmd) bringUp(ctx context.Context, a account, out deploy.Outputs, std streams) (uint64, error) {
	d, err := remote(out).openWith(ctx, a.cfg)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	sums := make(map[string]string)
	if c.Seed {
		fmt.Fprintln(std.err, "Adding the sample to the catalog:")
		im := importer(d, std, false)
		im.Allow = []string{release.AllowContent} // as precast seed does
		if _, err := im.Import(ctx, seed.Releases(int64(c.SeedSize), 1), false); err != nil {
			return 0, err
		}
		for _, it := range seed.SampleItems() {
			h := md5.New()
			_, _ = io.Copy(h, seed.Content(1, it, int64(c.SeedSize))) // generated content never fails
			sums[it.App+"_"+it.Version] = hex.EncodeToString(h.Sum(nil))
		}
	}
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	var generation uint64
	if len(items) > 0 {
		// With other settings than the builder's, Status could not tell whether the catalog is published.
		env := settings.New(func(name string) (string, bool) { v, ok := out.Environment[name]; return v, ok }, slog.New(slog.DiscardHandler))
		opt, err := buildFlags{env.Build()}.options(true, slog.New(slog.DiscardHandler), builder.Silent{})
		if err := errors.Join(env.Err(), err); err != nil {
			return 0, fmt.Errorf("read settings of the installation: %w", err)
		}
		if generation, err = published(ctx, d, opt, std.err); err != nil {
			return 0, err
		}
	} else {
		fmt.Fprintln(std.err, "The catalog is empty: add the sample with precast seed, or a binary with precast catalog put.")
	}
	if c.SkipSmoke {
		return generation, nil
	}
	asks := deploy.WithoutSample()
	if c.Seed {
		asks = deploy.Sample(sums)
	}
	// Answers from before the first publish stay in caches for a minute at most.
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err = c.smoke(ctx, out, asks, std.err, func(ctx context.Context) error { return builder.Pause(ctx, 2*time.Second) })
	if wrong, ok := errors.AsType[deploy.Wrong](err); ok && c.Seed && len(items) != len(seed.SampleItems()) {
		return generation, fmt.Errorf("%w (the catalog has more than the sample: --skip-smoke)", wrong)
	}
	return generation, err
}

// smoke sends test requests to the distribution's own host name. An alias works only once somebody has made its DNS
// record, which needs the distribution's name first. So an alias that does not answer is only worth a warning.
func (c *deployCmd) smoke(ctx context.Context, out deploy.Outputs, asks []deploy.Ask, w io.Writer, again func(context.Context) error) error {
	device := deploy.Device{URL: "https://" + out.Domain, Endpoint: c.Endpoint, HTTP: &http.Client{
		// A redirect would be to HTTPS, which this asks for in the first place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	fmt.Fprintf(w, "Sending test requests to %s:\n", device.URL)
	if err := device.Check(ctx, asks, w, again); err != nil {
		return err
	}
	if out.URL == device.URL {
		return nil
	}
	device.URL = out.URL
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := device.Once(ctx, deploy.WithoutSample()[0]); err != nil {
		fmt.Fprintf(w, "warning: %s does not answer yet: %v\nDevices will use that host name: point its DNS record to %s.\n", out.URL, err, out.Domain)
	}
	return nil
}

// published waits until the catalog is published.
func published(ctx context.Context, d *data, opt builder.Options, out io.Writer) (uint64, error) {
	last := ""
	for start := time.Now(); ; {
		st, err := d.pipeline(opt).Status(ctx)
		if err != nil {
			return 0, err
		}
		if st.UpToDate && st.Generation > 0 {
			fmt.Fprintf(out, "generation %d is published, %s, after %.1f s\n", st.Generation, count(st.Items, "item"), time.Since(start).Seconds())
			return st.Generation, nil
		}
		if line := fmt.Sprintf("waiting for the publish: jobs %d waiting, %d in flight, %d dead", st.Waiting, st.InFlight, st.Dead); line != last {
			fmt.Fprintln(out, line)
			last = line
		}
		if err := builder.Pause(ctx, time.Second); err != nil {
			return 0, fmt.Errorf("wait for the publish: %w (see precast status)", err)
		}
	}
}

// explain prints the URL, requests to try, and the settings for other commands.
func (c *deployCmd) explain(w io.Writer, out deploy.Outputs) {
	fmt.Fprintf(w, "%s\n\n", out.URL)
	curl := "curl"
	if c.Endpoint != "" {
		curl = fmt.Sprintf("curl -H 'Host: %s' -H 'X-Forwarded-Proto: https'", out.Domain)
		out.URL = c.Endpoint
	}
	fmt.Fprintf(w, "  %s -o ota-package.tar.gz '%s/package?cpuArch=armv8'\n", curl, out.URL)
	fmt.Fprintf(w, "  %s -o ota-package.tar.gz '%s/package?cpuArch=armv8&attrGamer=prod'\n", curl, out.URL)
	fmt.Fprintf(w, "  %s '%s/package?cpuArch=armv8&attrGamer=prod&payloadType=metadataOnly'\n\n", curl, out.URL)
	fmt.Fprintf(w, "Set these for precast seed, catalog, status, plan and other commands:\n\n")
	for _, line := range out.Exports() {
		fmt.Fprintf(w, "  %s\n", line)
	}
}
