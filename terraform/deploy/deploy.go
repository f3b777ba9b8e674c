// Package deploy applies Precast's Terraform module: it keeps a folder per installation with the module, a
// root configuration that is generated, the functions' packages and the state, and runs Terraform there.
//
// Every step can be killed and run again. What Terraform had begun to create when it was killed, and does
// not know of, is taken into the state by the next run.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/precast-ota/precast/internal/files"
)

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
	declared, err := readModule(opt.Module)
	if err != nil {
		return nil, err
	}
	i := &Installation{Settings: s, opt: opt}
	if i.tf, err = newTerraform(ctx, opt.Dir, declared.terraform, opt.Env); err != nil {
		return nil, err
	}
	if err := i.bring(files); err != nil {
		return nil, err
	}
	generated, err := render(opt.Module, declared, i.Settings, opt.Env.PluginMirror)
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
// maxFile bounds the files that are brought into the folder of an installation, in bytes.
const maxFile = 16 << 20

func (i *Installation) bring(given Files) error {
	if len(given.VarFiles) > 0 || given.Forget {
		for _, old := range i.Settings.VarFiles {
			if err := os.Remove(i.file(old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		i.Settings.VarFiles = nil
	}
	for n, from := range given.VarFiles {
		data, err := files.Read(from, maxFile)
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
	if given.Backend != "" {
		data, err := files.Read(given.Backend, maxFile)
		if err != nil {
			return fmt.Errorf("read backend: %w", err)
		}
		if err := writeFile(i.file("backend.tf"), data); err != nil {
			return err
		}
	}
	if given.Packages == nil {
		return placeholders(i.file(packagesDir))
	}
	return given.Packages.copyTo(i.file(packagesDir))
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

// State says where the state is.
func (i *Installation) State() string {
	if _, err := os.Stat(i.file("backend.tf")); err == nil {
		return "the backend of " + i.file("backend.tf")
	}
	return i.file("terraform.tfstate")
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
