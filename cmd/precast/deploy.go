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
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/precast-ota/precast/builder"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/seed"
	"github.com/precast-ota/precast/terraform"
	"github.com/precast-ota/precast/terraform/deploy"
)

// installationFlags name an installation, and how Terraform works on it.
type installationFlags struct {
	Name      string `help:"Name of the installation; names everything in it." default:"precast"`
	Region    string `help:"Region of everything but the edge; else as AWS tools take it from AWS_REGION and the configuration." placeholder:"REGION"`
	Dir       string `help:"Folder of the installation; else .precast/NAME." placeholder:"DIR" type:"path"`
	Terraform string `help:"The terraform to run; else the one in PATH." env:"PRECAST_TERRAFORM" placeholder:"FILE"`
	Mirror    string `help:"Folder with Terraform's providers, in place of the registry." env:"TF_PLUGIN_MIRROR" placeholder:"DIR" hidden:""`
	Endpoint  string `help:"Where AWS is, for tests." env:"AWS_ENDPOINT_URL" hidden:""`
}

// moduleFlags say what is applied.
type moduleFlags struct {
	Packages      string   `help:"Folder with the functions' packages; built if they are missing and the sources are here." default:"dist" placeholder:"DIR" type:"path"`
	Var           []string `help:"Variable of the module, NAME=VALUE; an object or a list as JSON. Kept for later commands." placeholder:"NAME=VALUE" sep:"none"`
	VarFile       []string `help:"File with variables, .tfvars or .tfvars.json. Kept for later commands." placeholder:"FILE" type:"existingfile" sep:"none"`
	Forget        bool     `help:"Forget the variables that earlier commands gave."`
	Backend       string   `help:"Terraform file with a backend block; else the state is kept in the folder." placeholder:"FILE" type:"existingfile"`
	BackendConfig []string `help:"Setting of the backend, NAME=VALUE or a file." placeholder:"SETTING" sep:"none"`
}

func (f installationFlags) dir() string {
	if f.Dir != "" {
		return f.Dir
	}
	return filepath.Join(".precast", f.Name)
}

func (f installationFlags) options(out io.Writer) deploy.Options {
	return deploy.Options{Dir: f.dir(), Module: terraform.Module(), Out: out,
		Env: deploy.Environment{Executable: f.Terraform, PluginMirror: f.Mirror, Environ: os.Environ()}}
}

// account is who is at work, where.
type account struct {
	cfg aws.Config
	id  string
}

// connect finds credentials out to be missing before Terraform does, which says less about it.
func (f installationFlags) connect(ctx context.Context) (account, error) {
	var opts []func(*config.LoadOptions) error
	if f.Region != "" {
		opts = append(opts, config.WithRegion(f.Region))
	}
	cfg, err := awsstore.LoadConfig(ctx, opts...)
	if err != nil {
		return account{}, fmt.Errorf("%w, or give --region", err)
	}
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return account{}, fmt.Errorf("find out whose credentials these are: %w\nSet AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws sso login", err)
	}
	return account{cfg, aws.ToString(who.Account)}, nil
}

// settings are the kept ones with what the flags say.
func (f installationFlags) settings(a account) (s deploy.Settings, kept bool, err error) {
	s, err = deploy.Load(f.dir())
	if err != nil && !errors.Is(err, deploy.ErrNone) {
		return s, false, err
	}
	kept = err == nil
	wanted := deploy.Settings{Name: f.Name, Region: a.cfg.Region, Account: a.id, Endpoint: f.Endpoint}
	if kept {
		if err := wanted.Same(s); err != nil {
			return s, true, fmt.Errorf("%s has another installation: %w", f.dir(), err)
		}
		return s, true, nil
	}
	return wanted, false, nil
}

// apply puts the flags into settings.
func (f moduleFlags) apply(s *deploy.Settings) error {
	if f.Forget {
		s.Vars = nil
	}
	if s.Vars == nil {
		s.Vars = make(map[string]json.RawMessage)
	}
	for _, assignment := range f.Var {
		name, value, err := deploy.ParseVar(assignment)
		if err != nil {
			return fmt.Errorf("--var: %w", err)
		}
		s.Vars[name] = value
	}
	if len(f.BackendConfig) > 0 {
		s.BackendConfig = f.BackendConfig
	}
	return nil
}

// prepare gets everything ready for a plan.
func (f moduleFlags) prepare(ctx context.Context, in installationFlags, a account, out io.Writer) (*deploy.Installation, error) {
	s, _, err := in.settings(a)
	if err != nil {
		return nil, err
	}
	if err := f.apply(&s); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "installation %s in account %s, %s; folder %s\n", s.Name, s.Account, s.Region, in.dir())
	varFiles := f.VarFile
	if len(varFiles) == 0 && !f.Forget {
		for _, name := range s.VarFiles {
			varFiles = append(varFiles, filepath.Join(in.dir(), name))
		}
	}
	arch, err := deploy.Architecture(s, varFiles)
	if err != nil {
		return nil, err
	}
	packages := deploy.Packages{Dir: f.Packages, Arch: arch}
	if err := packages.Find(ctx, out); err != nil {
		return nil, err
	}
	return deploy.Prepare(ctx, in.options(out), s, deploy.Files{VarFiles: f.VarFile, Forget: f.Forget, Backend: f.Backend, Packages: &packages})
}

func (a account) finder() deploy.AWSFinder {
	return deploy.AWSFinder{CloudFront: cloudfront.NewFromConfig(a.cfg), Lambda: lambda.NewFromConfig(a.cfg)}
}

type planInfraCmd struct {
	installationFlags
	moduleFlags
	jsonFlag
}

func (*planInfraCmd) Help() string {
	return `Changes nothing. Exits with 0 if there is nothing to do, and with 3 if there is.

Examples:
  precast plan-infra --name fleet
  precast plan-infra --name fleet --var price_class=PriceClass_All
  precast plan-infra --name fleet --json | jq '.changes[] | select(.losesData)'`
}

func (c *planInfraCmd) Run(ctx context.Context, std streams) error {
	a, err := c.connect(ctx)
	if err != nil {
		return err
	}
	i, err := c.prepare(ctx, c.installationFlags, a, std.err)
	if err != nil {
		return err
	}
	if _, err := i.Adopt(ctx, a.finder()); err != nil {
		return err
	}
	s, err := i.Plan(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(std.out, s)
	} else {
		s.Print(std.out)
	}
	if err == nil && !s.Empty() {
		err = no("%d changes are pending; precast deploy makes them", len(s.Changes))
	}
	return err
}

type deployCmd struct {
	installationFlags
	moduleFlags
	jsonFlag
	Yes        bool          `help:"Do not ask."`
	DeleteData bool          `help:"With --yes: go on even if a table or the bucket would be deleted or replaced."`
	Seed       bool          `help:"Bring in the sample afterwards."`
	SeedSize   size          `help:"Size of each of its binaries." default:"1MiB"`
	SkipSmoke  bool          `help:"Do not ask the distribution for packages afterwards."`
	Timeout    time.Duration `help:"Wait this long for the first publish, and for right answers." default:"15m"`
}

func (*deployCmd) Help() string {
	return `Runs Terraform with the module that is part of this program: shows what it would change, asks, and
applies it. Then waits until the catalog is published, and asks the distribution as devices do. Run
again after an error, an interrupt or a kill, it goes on. What --var says is kept.

Needs terraform in PATH, and credentials as every AWS tool takes them.

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
	a, err := c.connect(ctx)
	if err != nil {
		return err
	}
	i, err := c.prepare(ctx, c.installationFlags, a, std.err)
	if err != nil {
		return err
	}
	if _, err := i.Adopt(ctx, a.finder()); err != nil {
		return err
	}
	s, err := i.Plan(ctx)
	if err != nil {
		return err
	}
	s.Print(std.err)
	if !s.Empty() {
		if err := c.agreed(s, std); err != nil {
			return err
		}
		if err := i.Apply(ctx, s); err != nil {
			return fmt.Errorf("%w\n\nWhat is done is done, and noted %s. Run the same command again to go on", err, i.State())
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

// agreed asks whether to go on.
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
	return ask(std, question, want)
}

// ask asks on the terminal, and is an error unless the answer is the wanted one.
func ask(std streams, question, want string) error {
	if !std.terminal {
		return errors.New("ask: there is no terminal to ask on; give --yes")
	}
	fmt.Fprint(std.err, question)
	line, err := bufio.NewReader(std.in).ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("ask: %w", err)
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

// bringUp seeds, waits for the publish, and asks as devices do. It returns the generation that is published.
func (c *deployCmd) bringUp(ctx context.Context, a account, out deploy.Outputs, std streams) (uint64, error) {
	d, err := remote(out).openWith(a.cfg)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	sums := make(map[string]string)
	if c.Seed {
		fmt.Fprintln(std.err, "Bringing in the sample:")
		if _, err := importer(d, std, false).Import(ctx, seed.Releases(int64(c.SeedSize), 1), false); err != nil {
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
		opt, err := buildsAs(out)
		if err != nil {
			return 0, err
		}
		if generation, err = published(ctx, d, opt, std.err); err != nil {
			return 0, err
		}
	} else {
		fmt.Fprintln(std.err, "The catalog is empty: precast seed brings in a sample, precast catalog put a binary.")
	}
	if c.SkipSmoke {
		return generation, nil
	}
	asks := deploy.WithoutSample()
	if c.Seed {
		asks = deploy.Sample(sums)
	}
	// What was kept of an answer from before the first publish is kept for a minute at most.
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err = c.smoke(ctx, out, asks, std.err, func(ctx context.Context) error { return builder.Pause(ctx, 2*time.Second) })
	if wrong, ok := errors.AsType[deploy.Wrong](err); ok && c.Seed && len(items) != len(seed.SampleItems()) {
		return generation, fmt.Errorf("%w (the catalog has more than the sample: --skip-smoke)", wrong)
	}
	return generation, err
}

// smoke asks the distribution as devices do, by its own host name: an alias leads to it only once somebody has made
// a DNS record of that name, which was not to be had before. So an alias that does not is worth a warning.
func (c *deployCmd) smoke(ctx context.Context, out deploy.Outputs, asks []deploy.Ask, w io.Writer, again func(context.Context) error) error {
	device := deploy.Device{URL: "https://" + out.Domain, Endpoint: c.Endpoint, HTTP: &http.Client{
		// A redirect would be to HTTPS, which this asks for in the first place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	fmt.Fprintf(w, "Asking %s as devices do:\n", device.URL)
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
		fmt.Fprintf(w, "warning: %s does not answer yet: %v\nDevices are told to ask there: have its DNS lead to %s.\n", out.URL, err, out.Domain)
	}
	return nil
}

// buildsAs are the builder's settings, without which it cannot be told whether it is done: other limits would
// build something else.
func buildsAs(out deploy.Outputs) (builder.Options, error) {
	opt := builder.Options{Params: builder.DefaultParams(), BaseURL: out.Environment["PRECAST_BASE_URL"], Log: slog.New(slog.DiscardHandler)}
	for name, to := range map[string]*uint64{
		"PRECAST_MAX_BUNDLES": &opt.Params.MaxBundles, "PRECAST_MAX_BYTES": &opt.Params.MaxBytes,
		"PRECAST_MAX_COMBINATIONS": &opt.Params.MaxCombinations, "PRECAST_SUBSET_ITEMS": &opt.Params.SubsetItems,
		"PRECAST_RETAIN": &opt.Params.Retain,
	} {
		text, ok := out.Environment[name]
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return opt, fmt.Errorf("read %s of the installation: %w", name, err)
		}
		*to = n
	}
	return opt, nil
}

// published waits until what the catalog says is published.
func published(ctx context.Context, d *data, opt builder.Options, out io.Writer) (uint64, error) {
	last := ""
	for start := time.Now(); ; {
		st, err := d.pipeline(opt).Status(ctx)
		if err != nil {
			return 0, err
		}
		if st.UpToDate && st.Generation > 0 {
			fmt.Fprintf(out, "generation %d is published, %d items, after %.1f s\n", st.Generation, st.Items, time.Since(start).Seconds())
			return st.Generation, nil
		}
		if line := fmt.Sprintf("waiting for the publish: jobs %d waiting, %d in flight, %d dead", st.Waiting, st.InFlight, st.Dead); line != last {
			fmt.Fprintln(out, line)
			last = line
		}
		if err := builder.Pause(ctx, time.Second); err != nil {
			return 0, fmt.Errorf("wait for the publish: %w (precast status tells more)", err)
		}
	}
}

// explain prints where it is and how to go on.
func (c *deployCmd) explain(w io.Writer, out deploy.Outputs) {
	fmt.Fprintf(w, "%s\n\n", out.URL)
	curl := "curl"
	if c.Endpoint != "" {
		curl = fmt.Sprintf("curl -H 'Host: %s' -H 'X-Forwarded-Proto: https'", out.Domain)
		out.URL = c.Endpoint
	}
	fmt.Fprintf(w, "  %s -OJ '%s/package?cpuArch=armv8'\n", curl, out.URL)
	fmt.Fprintf(w, "  %s -OJ '%s/package?cpuArch=armv8&attrGamer=prod'\n", curl, out.URL)
	fmt.Fprintf(w, "  %s '%s/package?cpuArch=armv8&attrGamer=prod&payloadType=metadataOnly'\n\n", curl, out.URL)
	fmt.Fprintf(w, "For precast seed, catalog, status, plan and so on:\n\n")
	for _, line := range out.Exports() {
		fmt.Fprintf(w, "  %s\n", line)
	}
}
