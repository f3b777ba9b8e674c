package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Where the root configuration expects things, below the installation's folder.
const (
	moduleDir   = "module"
	packagesDir = "packages"
)

// declared returns the names of a module's blocks of a kind, sorted.
func declared(module fs.FS, kind string) ([]string, error) {
	pattern := regexp.MustCompile(`(?m)^` + kind + ` "([a-zA-Z0-9_-]+)"`)
	files, err := fs.Glob(module, "*.tf")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		text, err := fs.ReadFile(module, f)
		if err != nil {
			return nil, err
		}
		for _, m := range pattern.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	slices.Sort(names)
	return names, nil
}

// variablesFile is the file that declares a module's variables. The root declares them by a copy of it, so that
// types, defaults and validations are the module's own.
const variablesFile = "variables.tf"

// render returns the files of an installation's folder that are generated, by their names in it.
func render(module fs.FS, s Settings, pluginMirror string) (map[string][]byte, error) {
	names, err := declared(module, "variable")
	if err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	for name := range s.Vars {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("the module has no variable %s; it has %s", name, strings.Join(names, ", "))
		}
	}
	outputs, err := declared(module, "output")
	if err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	files := map[string][]byte{
		"main.tf": root(s, names, outputs),
	}
	if files[variablesFile], err = fs.ReadFile(module, variablesFile); err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	vars := maps.Clone(s.Vars)
	if vars == nil {
		vars = make(map[string]json.RawMessage)
	}
	for name, value := range map[string]string{"name": s.Name, "packages_dir": packagesDir} {
		if !slices.Contains(names, name) {
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
func root(s Settings, variables, outputs []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by precast deploy, which overwrites it. Backends go into backend.tf (--backend).\n\n")
	for _, p := range []struct{ alias, region string }{{"", s.Region}, {"us_east_1", "us-east-1"}} {
		b.WriteString("provider \"aws\" {\n")
		if p.alias != "" {
			fmt.Fprintf(&b, "  alias  = %s\n", quote(p.alias))
		}
		fmt.Fprintf(&b, "  region = %s\n", quote(p.region))
		if s.Account != "" && s.Endpoint == "" {
			// Credentials of another account make another installation, or break this one.
			fmt.Fprintf(&b, "\n  allowed_account_ids = [%s]\n", quote(s.Account))
		}
		if s.Endpoint != "" {
			b.WriteString(standIn(s.Endpoint))
		}
		b.WriteString("}\n\n")
	}
	b.WriteString("module \"precast\" {\n  source = \"./" + moduleDir + "\"\n\n  providers = {\n    aws           = aws\n    aws.us_east_1 = aws.us_east_1\n  }\n\n")
	width := 0
	for _, v := range variables {
		width = max(width, len(v))
	}
	for _, v := range variables {
		fmt.Fprintf(&b, "  %-*s = var.%s\n", width, v, v)
	}
	b.WriteString("}\n")
	for _, o := range outputs {
		fmt.Fprintf(&b, "\noutput %s {\n  value = module.precast.%s\n}\n", quote(o), o)
	}
	return b.Bytes()
}

// standIn are the provider's settings for something that is not AWS but speaks like it.
func standIn(endpoint string) string {
	var b strings.Builder
	b.WriteString("\n  skip_credentials_validation = true\n  skip_metadata_api_check     = true\n")
	b.WriteString("  skip_requesting_account_id  = true\n  skip_region_validation      = true\n")
	b.WriteString("  s3_use_path_style           = true\n\n  endpoints {\n")
	for _, service := range []string{"cloudfront", "cloudwatch", "dynamodb", "iam", "lambda", "logs", "s3", "scheduler", "sqs", "sts"} {
		fmt.Fprintf(&b, "    %-10s = %s\n", service, quote(endpoint))
	}
	b.WriteString("  }\n")
	return b.String()
}

// quote writes a string of Terraform's language
// (https://developer.hashicorp.com/terraform/language/expressions/strings).
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case '\n':
			b.WriteString(`\n`)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(b.String())
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}
