package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/hashicorp/terraform-exec/tfexec"
	tfjson "github.com/hashicorp/terraform-json"
	"github.com/zclconf/go-cty/cty"
)

const (
	planFile   = "plan.tfplan"
	rcFile     = "terraform.rc"
	streamFile = "apply.jsonl"

	// lockTimeout is how long a run waits for another one that has the state.
	lockTimeout = "30s"
	// stopAfter is how long Terraform may take to stop after an interrupt: it waits for what it has begun,
	// and a distribution takes minutes. Killed sooner, it would forget what it has made.
	stopAfter = time.Hour
)

// Terraform runs Terraform in an installation's folder.
type Terraform struct {
	dir string
	cli *tfexec.Terraform
}

// Environment is what Terraform needs of the caller's environment.
type Environment struct {
	Executable   string   // a path; empty: terraform, found by PATH
	PluginMirror string   // a folder with providers; empty: those of the registry
	Environ      []string // as os.Environ returns it
}

// tooNew is the first version whose plans and streams nobody has looked at: both formats are promised for
// the 1.x releases only (https://developer.hashicorp.com/terraform/language/v1-compatibility-promises).
const tooNew = "< 2.0"

const howToGet = "install it from https://developer.hashicorp.com/terraform/install, or name another one by --terraform FILE"

// newTerraform finds Terraform, looks at its version, and prepares it to run in a folder.
func newTerraform(ctx context.Context, dir, wanted string, env Environment) (*Terraform, error) {
	name := env.Executable
	if name == "" {
		name = "terraform"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("find terraform %s: %w: %s", wanted, err, howToGet)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	cli, err := tfexec.NewTerraform(dir, path)
	if err != nil {
		return nil, fmt.Errorf("prepare terraform: %w", err)
	}
	if err := errors.Join(cli.SetEnv(environment(dir, env)), cli.SetWaitDelay(stopAfter)); err != nil {
		return nil, fmt.Errorf("prepare terraform: %w", err)
	}
	have, _, err := cli.Version(ctx, true)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	constraint, err := version.NewConstraint(wanted + ", " + tooNew)
	if err != nil {
		return nil, fmt.Errorf("read the module's required_version: %w", err)
	}
	if !constraint.Check(have) {
		return nil, fmt.Errorf("%s is terraform %s, and it must be %s, %s: %s", path, have, wanted, tooNew, howToGet)
	}
	return &Terraform{dir: dir, cli: cli}, nil
}

// environment is the caller's, without what would change which folder, workspace, variables or arguments
// Terraform works with.
func environment(dir string, env Environment) map[string]string {
	vars := make(map[string]string)
	for _, entry := range env.Environ {
		k, v, _ := strings.Cut(entry, "=")
		if k != "TF_DATA_DIR" {
			vars[k] = v
		}
	}
	vars = tfexec.CleanEnv(vars)
	vars["CHECKPOINT_DISABLE"] = "1" // it does not ask whether there is a newer one
	if env.PluginMirror != "" {
		vars["TF_CLI_CONFIG_FILE"] = rcFile
		if abs, err := filepath.Abs(filepath.Join(dir, rcFile)); err == nil {
			vars["TF_CLI_CONFIG_FILE"] = abs
		}
	}
	return vars
}

// pluginConfig makes Terraform take providers from a folder
// (https://developer.hashicorp.com/terraform/cli/config/config-file#provider-installation).
func pluginConfig(mirror string) []byte {
	file := hclwrite.NewEmptyFile()
	file.Body().AppendNewBlock("provider_installation", nil).Body().
		AppendNewBlock("filesystem_mirror", nil).Body().SetAttributeValue("path", cty.StringVal(mirror))
	return hclwrite.Format(file.Bytes())
}

// Init gets modules and providers.
func (t *Terraform) Init(ctx context.Context, backendConfig []string) error {
	opts := []tfexec.InitOption{tfexec.Upgrade(false)}
	for _, c := range backendConfig {
		opts = append(opts, tfexec.BackendConfig(c))
	}
	if err := t.cli.Init(ctx, opts...); err != nil {
		return fmt.Errorf("init terraform: %w", plain(err))
	}
	return nil
}

// planOptions are what a plan is made with.
type planOptions struct {
	destroy bool
	targets []string
	vars    []string
}

// plan makes a plan and keeps it in the folder.
func (t *Terraform) plan(ctx context.Context, o planOptions) (*tfjson.Plan, error) {
	opts := []tfexec.PlanOption{tfexec.Out(planFile), tfexec.Destroy(o.destroy), tfexec.LockTimeout(lockTimeout)}
	for _, a := range o.targets {
		opts = append(opts, tfexec.Target(a))
	}
	for _, v := range o.vars {
		opts = append(opts, tfexec.Var(v))
	}
	if _, err := t.cli.Plan(ctx, opts...); err != nil {
		return nil, fmt.Errorf("plan: %w", plain(err))
	}
	p, err := t.cli.ShowPlanFile(ctx, planFile)
	if err != nil {
		return nil, fmt.Errorf("read plan: %w", plain(err))
	}
	return p, nil
}

// apply does what the plan says. Its JSON stream goes to progress, and is kept: what was begun and did not
// end can be read there after a kill.
func (t *Terraform) apply(ctx context.Context, p *Progress) error {
	stream, err := os.Create(filepath.Join(t.dir, streamFile))
	if err != nil {
		return err
	}
	err = t.cli.ApplyJSON(ctx, io.MultiWriter(stream, p), tfexec.DirOrPlan(planFile), tfexec.LockTimeout(lockTimeout))
	t.cli.SetStdout(nil) // it has made the stream its output for good
	if closeErr := stream.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		return os.Remove(filepath.Join(t.dir, planFile))
	}
	return p.failure(ctx, plain(err))
}

// outputs are the root's outputs.
func (t *Terraform) outputs(ctx context.Context) (map[string]tfexec.OutputMeta, error) {
	out, err := t.cli.Output(ctx)
	if err != nil {
		return nil, fmt.Errorf("read outputs: %w", plain(err))
	}
	return out, nil
}

// state is what Terraform knows of.
func (t *Terraform) state(ctx context.Context) ([]*tfjson.StateResource, error) {
	s, err := t.cli.Show(ctx)
	if err != nil {
		return nil, fmt.Errorf("read state: %w", plain(err))
	}
	var all []*tfjson.StateResource
	if s.Values == nil {
		return nil, nil
	}
	for modules := []*tfjson.StateModule{s.Values.RootModule}; len(modules) > 0; {
		m := modules[0]
		modules = append(modules[1:], m.ChildModules...)
		for _, r := range m.Resources {
			if r.Mode == tfjson.ManagedResourceMode {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// forget takes a resource out of the state; it stays where it is.
func (t *Terraform) forget(ctx context.Context, address string) error {
	if err := t.cli.StateRm(ctx, address); err != nil {
		return fmt.Errorf("take %s out of the state: %w", address, plain(err))
	}
	return nil
}

// plain is an error of terraform-exec without the frames that Terraform draws around its own.
func plain(err error) error {
	if err == nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(line), "╷│╵"))
		if line != "" {
			lines = append(lines, line)
		}
	}
	return plainError{strings.Join(lines, "\n  "), err}
}

type plainError struct {
	text string
	err  error
}

func (e plainError) Error() string { return e.text }
func (e plainError) Unwrap() error { return e.err }
