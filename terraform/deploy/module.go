package deploy

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// decode reads a file of Terraform's language into what gohcl fills. A name that ends in .json is its JSON syntax
// (https://developer.hashicorp.com/terraform/language/syntax/json).
func decode(name string, source []byte, into any) error {
	parse := hclparse.NewParser().ParseHCL
	if strings.HasSuffix(name, ".json") {
		parse = hclparse.NewParser().ParseJSON
	}
	file, diags := parse(source, name)
	if !diags.HasErrors() {
		diags = gohcl.DecodeBody(file.Body, nil, into)
	}
	if diags.HasErrors() {
		return diags
	}
	return nil
}

// declarations are the parts of a module that an installation depends on.
type declarations struct {
	variables, outputs []string // sorted
	terraform          string   // the versions of Terraform that it runs with
}

type labeled struct {
	Name string   `hcl:"name,label"`
	Rest hcl.Body `hcl:",remain"`
}

// readModule reads what a module declares.
func readModule(module fs.FS) (declarations, error) {
	d := declarations{terraform: ">= 1.9"}
	names, err := fs.Glob(module, "*.tf")
	if err != nil {
		return d, fmt.Errorf("read the module: %w", err)
	}
	for _, name := range names {
		var file struct {
			Variables []labeled `hcl:"variable,block"`
			Outputs   []labeled `hcl:"output,block"`
			Terraform []struct {
				Required string   `hcl:"required_version,optional"`
				Rest     hcl.Body `hcl:",remain"`
			} `hcl:"terraform,block"`
			Rest hcl.Body `hcl:",remain"`
		}
		source, err := fs.ReadFile(module, name)
		if err == nil {
			err = decode(name, source, &file)
		}
		if err != nil {
			return d, fmt.Errorf("read the module: %w", err)
		}
		for _, v := range file.Variables {
			d.variables = append(d.variables, v.Name)
		}
		for _, o := range file.Outputs {
			d.outputs = append(d.outputs, o.Name)
		}
		for _, t := range file.Terraform {
			if t.Required != "" {
				d.terraform = t.Required
			}
		}
	}
	slices.Sort(d.variables)
	slices.Sort(d.outputs)
	return d, nil
}

// Architecture is the GOARCH of the functions that settings ask for, if they do so by a variable file in the
// folder or by a variable.
func Architecture(s Settings, files []string) (string, error) {
	var vars struct {
		Architecture *string  `hcl:"architecture,optional"`
		Rest         hcl.Body `hcl:",remain"`
	}
	arch := "arm64" // the module's default
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err == nil {
			err = decode(name, source, &vars)
		}
		if err != nil {
			return "", fmt.Errorf("read variables: %w", err)
		}
		if vars.Architecture != nil && *vars.Architecture != "" {
			arch = *vars.Architecture
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
