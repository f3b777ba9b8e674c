package deploy

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// Where the root configuration expects things, below the installation's folder.
const (
	moduleDir   = "module"
	packagesDir = "packages"
)

// variablesFile is the file that declares a module's variables. The root declares them by a copy of it, so that
// types, defaults and validations are the module's own.
const variablesFile = "variables.tf"

// render returns the files of an installation's folder that are generated, by their names in it.
func render(module fs.FS, declared declarations, s Settings, pluginMirror string) (files map[string][]byte, err error) {
	for name := range s.Vars {
		if !slices.Contains(declared.variables, name) {
			return nil, fmt.Errorf("the module has no variable %s; it has %s", name, strings.Join(declared.variables, ", "))
		}
	}
	files = map[string][]byte{"main.tf": root(s, declared)}
	if files[variablesFile], err = fs.ReadFile(module, variablesFile); err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	vars := maps.Clone(s.Vars)
	if vars == nil {
		vars = make(map[string]json.RawMessage)
	}
	for name, value := range map[string]string{"name": s.Name, "packages_dir": packagesDir} {
		if !slices.Contains(declared.variables, name) {
			continue
		}
		if vars[name], err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	// Loaded after the files of the user, so that --var has the last word, and the name is the installation's
	// (https://developer.hashicorp.com/terraform/language/values/variables#variable-definition-precedence).
	if files[varsFile], err = marshal(vars); err != nil {
		return nil, err
	}
	if pluginMirror != "" {
		files[rcFile] = pluginConfig(pluginMirror)
	}
	err = fs.WalkDir(module, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".tf") || strings.Contains(name, "/") {
			return err
		}
		files[path.Join(moduleDir, name)], err = fs.ReadFile(module, name)
		return err
	})
	return files, err
}

const varsFile = "zz-precast.auto.tfvars.json"

// root is the root configuration: providers, the module with every variable passed through, its outputs.
func root(s Settings, declared declarations) []byte {
	file := hclwrite.NewEmptyFile()
	body := file.Body()
	provider(body, s, s.Region, "")
	provider(body, s, "us-east-1", "us_east_1")

	m := body.AppendNewBlock("module", []string{"precast"}).Body()
	m.SetAttributeValue("source", cty.StringVal("./"+moduleDir))
	m.AppendNewline()
	var providers []hclwrite.ObjectAttrTokens
	for _, names := range [][]string{{"aws"}, {"aws", "us_east_1"}} {
		t := hclwrite.TokensForTraversal(traversal(names...))
		providers = append(providers, hclwrite.ObjectAttrTokens{Name: t, Value: t})
	}
	m.SetAttributeRaw("providers", hclwrite.TokensForObject(providers))
	m.AppendNewline()
	for _, v := range declared.variables {
		m.SetAttributeTraversal(v, traversal("var", v))
	}
	for _, o := range declared.outputs {
		body.AppendNewline()
		body.AppendNewBlock("output", []string{o}).Body().SetAttributeTraversal("value", traversal("module", "precast", o))
	}
	const comment = "# Written by precast deploy, which overwrites it. Backends go into backend.tf (--backend).\n\n"
	return append([]byte(comment), hclwrite.Format(file.Bytes())...)
}

// traversal is the expression a.b.c.
func traversal(names ...string) hcl.Traversal {
	t := hcl.Traversal{hcl.TraverseRoot{Name: names[0]}}
	for _, name := range names[1:] {
		t = append(t, hcl.TraverseAttr{Name: name})
	}
	return t
}

// provider appends the provider of a region.
func provider(to *hclwrite.Body, s Settings, region, alias string) {
	p := to.AppendNewBlock("provider", []string{"aws"}).Body()
	if alias != "" {
		p.SetAttributeValue("alias", cty.StringVal(alias))
	}
	p.SetAttributeValue("region", cty.StringVal(region))
	if s.Account != "" && s.Endpoint == "" {
		// Credentials of another account make another installation, or break this one.
		p.AppendNewline()
		p.SetAttributeValue("allowed_account_ids", cty.TupleVal([]cty.Value{cty.StringVal(s.Account)}))
	}
	if s.Endpoint != "" { // it is not AWS, but speaks like it
		p.AppendNewline()
		for _, name := range []string{"skip_credentials_validation", "skip_metadata_api_check", "skip_requesting_account_id",
			"skip_region_validation", "s3_use_path_style"} {
			p.SetAttributeValue(name, cty.True)
		}
		p.AppendNewline()
		endpoints := p.AppendNewBlock("endpoints", nil).Body()
		for _, service := range []string{"cloudfront", "cloudwatch", "dynamodb", "iam", "lambda", "logs", "s3", "scheduler", "sqs", "sts"} {
			endpoints.SetAttributeValue(service, cty.StringVal(s.Endpoint))
		}
	}
	to.AppendNewline()
}
