package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	tfjson "github.com/hashicorp/terraform-json"
	"github.com/zclconf/go-cty/cty"
)

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
		fmt.Fprintf(i.opt.Out, "The last run was interrupted. Looking for resources that it created but did not record (at most %d):\n", len(ids))
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
	file := hclwrite.NewEmptyFile()
	for _, a := range slices.Sorted(maps.Keys(ids)) {
		to, diags := hclsyntax.ParseTraversalAbs([]byte(a), a, hcl.InitialPos)
		if diags.HasErrors() {
			return fmt.Errorf("import %s: %w", a, diags)
		}
		block := file.Body().AppendNewBlock("import", nil).Body()
		block.SetAttributeTraversal("to", to)
		block.SetAttributeValue("id", cty.StringVal(ids[a]))
	}
	return writeFile(i.file(importsFile), hclwrite.Format(file.Bytes()))
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
	var file struct {
		Imports []struct {
			To hcl.Expression `hcl:"to"`
			ID string         `hcl:"id"`
		} `hcl:"import,block"`
	}
	if err := decode(importsFile, imports, &file); err != nil {
		return nil, fmt.Errorf("read what to import: %w", err)
	}
	for _, m := range file.Imports {
		all[string(m.To.Range().SliceBytes(imports))] = m.ID
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
