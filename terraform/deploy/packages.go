package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Packages are the functions' packages in a folder, as make package and make edge write them.
type Packages struct {
	Dir string
	// Arch is the functions' GOARCH.
	Arch string
}

// names are the files that the module wants.
func (p Packages) names() []string {
	return []string{"enqueuer-" + p.Arch + ".zip", "builder-" + p.Arch + ".zip", "composer-" + p.Arch + ".zip", "edge.zip", "function.js", "response.js"}
}

func (p Packages) missing() []string {
	var missing []string
	for _, name := range p.names() {
		if info, err := os.Stat(filepath.Join(p.Dir, name)); err != nil || info.IsDir() || info.Size() == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}

// Find makes sure that the packages are there: those that are missing are built, if the sources are at hand.
func (p Packages) Find(ctx context.Context, out io.Writer) error {
	missing := p.missing()
	if len(missing) == 0 {
		return nil
	}
	sources, err := findSources()
	if err != nil {
		return fmt.Errorf("find the packages: %s is not in %s, and %w: run make package edge in the sources, or name another folder by --packages",
			strings.Join(missing, ", "), p.Dir, err)
	}
	to, err := filepath.Abs(p.Dir)
	if err != nil {
		return err
	}
	for _, args := range p.commands(to) {
		fmt.Fprintf(out, "building packages: go %s\n", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = sources
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build packages: go %s: %w\n%s", strings.Join(args, " "), err, text)
		}
	}
	if missing := p.missing(); len(missing) > 0 {
		return fmt.Errorf("build packages: %s is still not in %s", strings.Join(missing, ", "), p.Dir)
	}
	return nil
}

// commands are the arguments of go that build what is missing.
func (p Packages) commands(to string) [][]string {
	return [][]string{
		{"run", "./builder/cmd/pack", "-out", to, "-arch", p.Arch},
		{"run", "./edge/cmd/pack", "-out", to},
	}
}

// findSources finds the repository's top, above the working directory.
func findSources() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/precast-ota/precast\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("there are no sources of precast here to build it from")
		}
	}
}

// copyTo copies the packages into an installation: it can be destroyed after dist has gone, and the names in
// its state are the same on every machine.
func (p Packages) copyTo(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range p.names() {
		data, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			return fmt.Errorf("copy packages: %w", err)
		}
		if err := writeFile(filepath.Join(dir, name), data); err != nil {
			return fmt.Errorf("copy packages: %w", err)
		}
	}
	return nil
}

// placeholders makes every package that the module may want and that is not there, empty: a plan to destroy
// looks at them, and no more.
func placeholders(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, arch := range []string{"amd64", "arm64"} {
		for _, name := range (Packages{Arch: arch}).names() {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, fs.ErrExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeFile replaces a file as a whole, or not at all.
func writeFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what matters is why
	}
	return err
}
