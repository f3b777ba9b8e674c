// Package deploy applies Precast's Terraform module: it keeps a folder per installation with the module, a
// root configuration that is generated, the functions' packages and the state, and runs Terraform there.
//
// Every step can be killed and run again. What Terraform had begun to create when it was killed, and does
// not know of, is taken into the state by the next run.
package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

const settingsFile = "installation.json"

// ErrNone: the folder has no installation.
var ErrNone = errors.New("there is no installation")

// Load reads the settings of the installation in a folder.
func Load(dir string) (Settings, error) {
	var s Settings
	data, err := os.ReadFile(filepath.Join(dir, settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("open %s: %w", dir, ErrNone)
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", filepath.Join(dir, settingsFile), err)
	}
	return s, nil
}

// Same tells whether settings are for the installation that a folder has: name, region, account and endpoint
// cannot change, or what there is would be lost from sight.
func (s Settings) Same(kept Settings) error {
	for _, f := range []struct{ what, is, was string }{
		{"name", s.Name, kept.Name},
		{"region", s.Region, kept.Region},
		{"account", s.Account, kept.Account},
		{"endpoint (AWS_ENDPOINT_URL)", s.Endpoint, kept.Endpoint},
	} {
		if f.is != f.was {
			return fmt.Errorf("its %s is %q, and not %q", f.what, f.was, f.is)
		}
	}
	return nil
}

// Options are what every installation is worked on with.
type Options struct {
	Dir    string
	Module fs.FS
	Env    Environment
	Out    io.Writer // for progress
}

// Installation is an installation that Terraform can work on.
type Installation struct {
	Settings Settings

	opt Options
	tf  *Terraform
	// planned is what Adopt planned last, until Plan is asked for it.
	planned *Summary
}

// Files are what a user brings along, by their names outside.
type Files struct {
	VarFiles []string
	Forget   bool // the variable files of before
	Backend  string
	Packages *Packages // nil: placeholders, for what only destroys
}

// Prepare writes the folder's files and initializes Terraform.
func Prepare(ctx context.Context, opt Options, s Settings, files Files) (*Installation, error) {
	if err := os.MkdirAll(opt.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	wanted, err := required(opt.Module)
	if err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	i := &Installation{Settings: s, opt: opt}
	if i.tf, err = newTerraform(ctx, opt.Dir, wanted, opt.Env); err != nil {
		return nil, err
	}
	if err := i.bring(files); err != nil {
		return nil, err
	}
	generated, err := render(opt.Module, i.Settings, opt.Env.PluginMirror)
	if err != nil {
		return nil, err
	}
	if err := i.tidy(generated); err != nil {
		return nil, err
	}
	for name, data := range generated {
		if err := writeFile(filepath.Join(opt.Dir, filepath.FromSlash(name)), data); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := i.Save(); err != nil {
		return nil, err
	}
	return i, i.tf.Init(ctx, i.Settings.BackendConfig)
}

// bring copies the user's files into the folder.
func (i *Installation) bring(files Files) error {
	if len(files.VarFiles) > 0 || files.Forget {
		for _, old := range i.Settings.VarFiles {
			if err := os.Remove(i.file(old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		i.Settings.VarFiles = nil
	}
	for n, from := range files.VarFiles {
		data, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("read variables: %w", err)
		}
		extension := ".auto.tfvars"
		if strings.HasSuffix(from, ".json") {
			extension += ".json"
		}
		name := fmt.Sprintf("user-%02d%s", n, extension)
		if err := writeFile(i.file(name), data); err != nil {
			return err
		}
		i.Settings.VarFiles = append(i.Settings.VarFiles, name)
	}
	if files.Backend != "" {
		data, err := os.ReadFile(files.Backend)
		if err != nil {
			return fmt.Errorf("read backend: %w", err)
		}
		if err := writeFile(i.file("backend.tf"), data); err != nil {
			return err
		}
	}
	if files.Packages == nil {
		return placeholders(i.file(packagesDir))
	}
	return files.Packages.copyTo(i.file(packagesDir))
}

// tidy removes files of the module that the one to be written does not have.
func (i *Installation) tidy(generated map[string][]byte) error {
	old, err := filepath.Glob(i.file(moduleDir, "*.tf"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if _, ok := generated[moduleDir+"/"+filepath.Base(name)]; !ok {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *Installation) file(names ...string) string {
	return filepath.Join(append([]string{i.opt.Dir}, names...)...)
}

// Save keeps the settings.
func (i *Installation) Save() error {
	data, err := marshal(i.Settings)
	if err == nil {
		err = writeFile(i.file(settingsFile), data)
	}
	if err != nil {
		return fmt.Errorf("keep the settings: %w", err)
	}
	return nil
}

// State says where the state is.
func (i *Installation) State() string {
	if _, err := os.Stat(i.file("backend.tf")); err == nil {
		return "where " + i.file("backend.tf") + " says"
	}
	return i.file("terraform.tfstate")
}

// Architecture is the GOARCH of the functions that settings ask for, if they do so by a variable file in the
// folder or by a variable.
func Architecture(s Settings, files []string) (string, error) {
	arch := "arm64" // the module's default
	pattern := regexp.MustCompile(`(?m)^\s*"?architecture"?\s*[=:]\s*"([a-z0-9_]+)"`)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read variables: %w", err)
		}
		if m := pattern.FindSubmatch(text); m != nil {
			arch = string(m[1])
		}
	}
	if v, ok := s.Vars["architecture"]; ok {
		if err := json.Unmarshal(v, &arch); err != nil {
			return "", fmt.Errorf("read variable architecture: %w", err)
		}
	}
	if arch == "x86_64" {
		arch = "amd64"
	}
	return arch, nil
}

// Plan says what an apply would do, and keeps the plan for Apply.
func (i *Installation) Plan(ctx context.Context) (Summary, error) {
	if s := i.planned; s != nil {
		i.planned = nil
		return *s, nil
	}
	return i.plan(ctx, planOptions{})
}

func (i *Installation) plan(ctx context.Context, o planOptions) (Summary, error) {
	i.planned = nil // its file is written over
	p, err := i.tf.plan(ctx, o)
	if err != nil {
		return Summary{}, i.explain(err)
	}
	return summarize(p), nil
}

// Apply does what the last plan says, with a line per resource.
func (i *Installation) Apply(ctx context.Context, s Summary) error {
	if err := i.tf.apply(ctx, NewProgress(i.opt.Out, s.Total())); err != nil {
		return i.explain(err)
	}
	return nil
}

// Settled notes that the state knows of everything there is: nothing is looked for by the next run.
func (i *Installation) Settled() error {
	if err := i.importing(nil); err != nil {
		return err
	}
	if i.Settings.Leftover != nil {
		i.Settings.Leftover = nil
		if err := i.Save(); err != nil {
			return err
		}
	}
	if err := os.Remove(i.file(streamFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// explain adds what to do to errors that Terraform leaves one alone with.
func (i *Installation) explain(err error) error {
	if err != nil && strings.Contains(err.Error(), "Error acquiring the state lock") {
		return fmt.Errorf("%w\nAnother run works on this installation. If it was killed on another machine, free the state: terraform -chdir=%s force-unlock ID",
			err, i.opt.Dir)
	}
	return err
}

// Outputs are the module's outputs.
type Outputs struct {
	URL           string            `json:"url"`
	Distribution  string            `json:"distribution_id"`
	Domain        string            `json:"distribution_domain_name"`
	Bucket        string            `json:"bucket"`
	CatalogTable  string            `json:"catalog_table"`
	LedgerTable   string            `json:"ledger_table"`
	Environment   map[string]string `json:"precast_environment"`
	FunctionNames map[string]string `json:"function_names"`

	All map[string]json.RawMessage `json:"-"`
}

// Exports are shell lines that make precast's other commands work on the installation.
func (o Outputs) Exports() []string {
	var lines []string
	for k, v := range o.Environment {
		lines = append(lines, "export "+k+"='"+strings.ReplaceAll(v, "'", `'\''`)+"'")
	}
	slices.Sort(lines)
	return lines
}

// OutputsFile is where the outputs are kept, in the installation's folder.
const OutputsFile = "outputs.json"

// Outputs reads the outputs and keeps them.
func (i *Installation) Outputs(ctx context.Context) (Outputs, error) {
	meta, err := i.tf.outputs(ctx)
	if err != nil {
		return Outputs{}, err
	}
	o := Outputs{All: make(map[string]json.RawMessage)}
	for name, m := range meta {
		o.All[name] = m.Value
	}
	data, err := marshal(o.All)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return o, fmt.Errorf("read outputs: %w", err)
	}
	if err := writeFile(i.file(OutputsFile), data); err != nil {
		return o, fmt.Errorf("keep the outputs: %w", err)
	}
	return o, nil
}

// Finder finds resources whose identifiers AWS makes up.
type Finder interface {
	// Find returns the identifier of the resource of a type that has these attributes; empty if there is none.
	Find(ctx context.Context, kind string, attributes map[string]any) (string, error)
}

// Adopt plans to take into the state what an earlier run created, was killed, and did not note: Terraform writes
// its state down only now and then. An apply would otherwise fail over it, or make it a second time. The next
// plan shows it, and the next apply does it. It returns the addresses.
func (i *Installation) Adopt(ctx context.Context, finder Finder) ([]string, error) {
	created, err := i.created()
	if err != nil || len(created) == 0 {
		return nil, err
	}
	// Nothing is imported while it is found out what is missing.
	if err := i.importing(nil); err != nil {
		return nil, err
	}
	p, err := i.tf.plan(ctx, planOptions{})
	if err != nil {
		return nil, i.explain(err)
	}
	ids := make(map[string]string)
	for _, r := range p.ResourceChanges {
		id, begun := created[r.Address]
		if !begun || r.Change == nil || !r.Change.Actions.Create() {
			continue // it is noted
		}
		if id == "" || r.Type == "aws_lambda_permission" {
			if id, err = identifier(ctx, finder, i.Settings, r); err != nil {
				return nil, fmt.Errorf("look for %s: %w", short(r.Address), err)
			}
		}
		if id != "" {
			ids[r.Address] = id
		}
	}
	if len(ids) > 0 {
		fmt.Fprintf(i.opt.Out, "The last run broke off. Looking which of %d resources are there that it did not note:\n", len(ids))
		if p, err = i.planImports(ctx, ids); err != nil {
			return nil, err
		}
	}
	s := summarize(p)
	i.planned = &s
	adopted := slices.Sorted(maps.Keys(ids))
	for _, a := range adopted {
		fmt.Fprintf(i.opt.Out, "  %s exists: %s\n", short(a), ids[a])
	}
	return adopted, nil
}

// planImports plans to import resources, and removes those that do not exist: Terraform refuses to import them,
// and names them.
func (i *Installation) planImports(ctx context.Context, ids map[string]string) (*tfjson.Plan, error) {
	for {
		if err := i.importing(ids); err != nil {
			return nil, err
		}
		p, err := i.tf.plan(ctx, planOptions{})
		if err == nil || ctx.Err() != nil {
			return p, err
		}
		if !withoutMissing(ids, err) {
			return nil, i.explain(err)
		}
	}
}

// withoutMissing removes what an error of Terraform names from the imports, and tells whether it named any.
func withoutMissing(ids map[string]string, err error) bool {
	n := len(ids)
	text := strings.Join(strings.Fields(err.Error()), " ") // lines are broken between words
	for address := range ids {
		for _, named := range []string{"existing object to " + strconv.Quote(address), "with " + address + ","} {
			if strings.Contains(text, named) {
				delete(ids, address)
			}
		}
	}
	return len(ids) < n
}

const importsFile = "imports.tf"

// importing makes the next plan import resources: those that it names are known by their identifiers
// (https://developer.hashicorp.com/terraform/language/import).
func (i *Installation) importing(ids map[string]string) error {
	if len(ids) == 0 {
		if err := os.Remove(i.file(importsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var b bytes.Buffer
	for _, a := range slices.Sorted(maps.Keys(ids)) {
		fmt.Fprintf(&b, "import {\n  to = %s\n  id = %s\n}\n", a, quote(ids[a]))
	}
	return writeFile(i.file(importsFile), b.Bytes())
}

// created are the resources that earlier runs began to create or wanted to import, by their addresses, with
// their identifiers where those are known.
func (i *Installation) created() (map[string]string, error) {
	all := make(map[string]string)
	if l := i.Settings.Leftover; l != nil {
		all[l.Address] = l.Function
	}
	imports, err := os.ReadFile(i.file(importsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, m := range regexp.MustCompile(`(?m)^  to = (.+)\n  id = (".*")$`).FindAllSubmatch(imports, -1) {
		if id, err := strconv.Unquote(string(m[2])); err == nil {
			all[string(m[1])] = id
		}
	}
	stream, err := os.Open(i.file(streamFile))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	maps.Copy(all, creations(stream))
	return all, nil
}

// identifier is what a resource is imported by: its name where that is so, else what the finder finds. Empty:
// none, or to create it again does no harm.
func identifier(ctx context.Context, finder Finder, in Settings, r *tfjson.ResourceChange) (string, error) {
	after, _ := r.Change.After.(map[string]any)
	text := func(name string) string {
		v, _ := after[name].(string)
		return v
	}
	switch r.Type {
	case "aws_s3_bucket":
		return text("bucket"), nil
	case "aws_dynamodb_table", "aws_iam_role", "aws_cloudwatch_log_group", "aws_cloudfront_function", "aws_cloudfront_key_value_store":
		return text("name"), nil
	case "aws_iam_policy":
		return "arn:" + partition(in.Region) + ":iam::" + in.Account + ":policy/" + text("name"), nil
	case "aws_lambda_function", "aws_lambda_function_url":
		return text("function_name"), nil
	case "aws_lambda_permission":
		return text("function_name") + "/" + text("statement_id"), nil
	case "aws_scheduler_schedule":
		return "default/" + text("name"), nil
	case "aws_cloudfront_distribution", "aws_cloudfront_cache_policy", "aws_cloudfront_response_headers_policy",
		"aws_cloudfront_origin_access_control", "aws_lambda_event_source_mapping":
		return finder.Find(ctx, r.Type, after)
	}
	return "", nil
}

// partition is the one that a region is in
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html).
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}
