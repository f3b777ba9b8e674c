package iampolicy

import (
	"fmt"
	"io/fs"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Resources name what the policies of the module are about.
type Resources struct {
	Region, Account                                     string
	Bucket, Catalog, Ledger, Jobs, DeadLetters, Failure string
	Distribution, KeyValueStore                         string // ARNs
	SigningKey                                          string // ARN; empty: none
}

// FromModule evaluates iam.tf of the Terraform module: what the roles enqueuer, builder and composer may do, without
// their logs, and what release-manager may, by the module's defaults.
func FromModule(module fs.FS, r Resources) (map[string]Policy, error) {
	source, err := fs.ReadFile(module, "iam.tf")
	if err != nil {
		return nil, err
	}
	file, diags := hclsyntax.ParseConfig(source, "iam.tf", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	locals := make(map[string]hclsyntax.Expression)
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		if b.Type == "locals" {
			for name, a := range b.Body.Attributes {
				locals[name] = a.Expr
			}
		}
	}
	known := make(map[string]cty.Value)
	eval := evaluation(r)
	value := func(name string) (cty.Value, error) {
		expr, ok := locals[name]
		if !ok {
			return cty.NilVal, fmt.Errorf("iam.tf has no local.%s", name)
		}
		eval.Variables["local"] = cty.ObjectVal(known)
		v, diags := expr.Value(eval)
		if diags.HasErrors() {
			return cty.NilVal, diags
		}
		return v, nil
	}
	for _, name := range []string{"trace_statements", "key_statements", "statements", "builder_statements", "release_manager_policy"} {
		if known[name], err = value(name); err != nil {
			return nil, err
		}
	}
	policies := make(map[string]Policy)
	for who, statements := range map[string]cty.Value{
		"enqueuer": known["statements"].GetAttr("enqueuer"), "composer": known["statements"].GetAttr("composer"),
		"builder": known["builder_statements"], "release-manager": known["release_manager_policy"].GetAttr("Statement"),
	} {
		document := cty.ObjectVal(map[string]cty.Value{"Statement": statements})
		text, err := ctyjson.Marshal(document, document.Type())
		if err != nil {
			return nil, err
		}
		if policies[who], err = Parse(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", who, err)
		}
	}
	return policies, nil
}

// evaluation has what iam.tf refers to.
func evaluation(r Resources) *hcl.EvalContext {
	with := func(attribute, value string) cty.Value {
		return cty.ObjectVal(map[string]cty.Value{attribute: cty.StringVal(value)})
	}
	table := "arn:aws:dynamodb:" + r.Region + ":" + r.Account + ":table/"
	queue := "arn:aws:sqs:" + r.Region + ":" + r.Account + ":"
	signing := cty.NullVal(cty.String)
	if r.SigningKey != "" {
		signing = cty.StringVal(r.SigningKey)
	}
	return &hcl.EvalContext{
		Functions: map[string]function.Function{"concat": stdlib.ConcatFunc, "length": stdlib.LengthFunc},
		Variables: map[string]cty.Value{
			"aws_s3_bucket": cty.ObjectVal(map[string]cty.Value{"store": with("arn", "arn:aws:s3:::"+r.Bucket)}),
			"aws_dynamodb_table": cty.ObjectVal(map[string]cty.Value{
				"catalog": cty.ObjectVal(map[string]cty.Value{"arn": cty.StringVal(table + r.Catalog), "stream_arn": cty.StringVal(table + r.Catalog + "/stream/1")}),
				"ledger":  with("arn", table+r.Ledger),
			}),
			"aws_sqs_queue": cty.ObjectVal(map[string]cty.Value{
				"jobs": with("arn", queue+r.Jobs), "dead_letters": with("arn", queue+r.DeadLetters), "stream_failures": with("arn", queue+r.Failure),
			}),
			"aws_cloudfront_distribution":    cty.ObjectVal(map[string]cty.Value{"cdn": with("arn", r.Distribution)}),
			"aws_cloudfront_key_value_store": cty.ObjectVal(map[string]cty.Value{"rollouts": with("arn", r.KeyValueStore)}),
			"var": cty.ObjectVal(map[string]cty.Value{
				"tracing": cty.False, "bucket_kms_key_arn": cty.NullVal(cty.String),
				"source_bucket_arns": cty.ListValEmpty(cty.String), "signing_key_arn": signing,
			}),
		},
	}
}
