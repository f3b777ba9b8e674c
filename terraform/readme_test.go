// Package terraform_test compares the module with its README and with the Go code that it deploys.
package terraform_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/settings"
)

var update = flag.Bool("update", false, "write the tables of README.md anew")

// block is a top-level block of the module.
type block struct {
	*hclsyntax.Block
	source []byte
}

// blocks returns the module's blocks of a type, sorted by their last label.
func blocks(t *testing.T, kind string) []block {
	t.Helper()
	files, err := filepath.Glob("*.tf")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var found []block
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, diags := hclsyntax.ParseConfig(source, name, hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		for _, b := range file.Body.(*hclsyntax.Body).Blocks {
			if b.Type == kind {
				found = append(found, block{b, source})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b block) int { return strings.Compare(a.name(), b.name()) })
	return found
}

func (b block) name() string {
	if len(b.Labels) == 0 {
		return ""
	}
	return b.Labels[len(b.Labels)-1]
}

// text is an attribute as it is written; empty if there is none.
func (b block) text(attribute string) string {
	a, ok := b.Body.Attributes[attribute]
	if !ok {
		return ""
	}
	return string(a.Expr.Range().SliceBytes(b.source))
}

// literal is a string attribute's value.
func (b block) literal(t *testing.T, attribute string) string {
	t.Helper()
	a, ok := b.Body.Attributes[attribute]
	if !ok {
		t.Fatalf("%s %s has no %s", b.Type, b.name(), attribute)
	}
	v, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return v.AsString()
}

func anchor(kind, name string) string {
	return fmt.Sprintf(`<a name="%s_%s"></a> [%s](#%s\_%s)`, kind, name, escaped(name), kind, escaped(name))
}

// escaped is text in which underscores mean nothing, but for those in code.
func escaped(text string) string {
	parts := strings.Split(text, "`")
	for i := 0; i < len(parts); i += 2 {
		parts[i] = strings.ReplaceAll(parts[i], "_", `\_`)
	}
	return strings.Join(parts, "`")
}

// code is an expression in a cell of a table.
func code(expr string) string {
	if !strings.Contains(expr, "\n") {
		return "`" + expr + "`"
	}
	return "<pre>" + strings.ReplaceAll(expr, "\n", "<br/>") + "</pre>"
}

// tables are what terraform-docs says with .terraform-docs.yml, of requirements, inputs and outputs.
func tables(t *testing.T) string {
	var b strings.Builder
	terraform := blocks(t, "terraform")[0]
	b.WriteString("## Requirements\n\n| Name | Version |\n|------|---------|\n")
	fmt.Fprintf(&b, "| %s | %s |\n", anchor("requirement", "terraform"), terraform.literal(t, "required_version"))
	version := regexp.MustCompile(`version\s+= "(.*)"\n`).FindAllSubmatch(terraform.source, -1)
	fmt.Fprintf(&b, "| %s | %s |\n", anchor("requirement", "aws"), version[len(version)-1][1])

	b.WriteString("\n## Inputs\n\n| Name | Description | Type | Default | Required |\n|------|-------------|------|---------|:--------:|\n")
	for _, v := range blocks(t, "variable") {
		value, required := "n/a", "yes"
		if d := v.text("default"); d != "" {
			value, required = code(d), "no"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n",
			anchor("input", v.name()), escaped(v.literal(t, "description")), code(v.text("type")), value, required)
	}
	b.WriteString("\n## Outputs\n\n| Name | Description |\n|------|-------------|\n")
	for _, o := range blocks(t, "output") {
		fmt.Fprintf(&b, "| %s | %s |\n", anchor("output", o.name()), escaped(o.literal(t, "description")))
	}
	return b.String()
}

func TestReadmeTablesAreCurrent(t *testing.T) {
	const begin, end = "<!-- BEGIN_TF_DOCS -->\n", "<!-- END_TF_DOCS -->"
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	got, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("README.md has no %s ... %s", begin, end)
	}
	want := tables(t)
	if *update {
		if err := os.WriteFile("README.md", []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Error("the tables of README.md are not current: run make golden")
	}
}

// .terraform-docs.yml asks for the sections that README.md has.
func TestSectionsOfReadme(t *testing.T) {
	var shown []string
	_, list, ok := strings.Cut(read(t, ".terraform-docs.yml"), "  show:\n")
	for line := range strings.Lines(list) {
		name, more := strings.CutPrefix(line, "    - ")
		if !more {
			break
		}
		shown = append(shown, strings.TrimSpace(name))
	}
	var have []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(tables(t), -1) {
		have = append(have, strings.ToLower(m[1]))
	}
	if !ok || !slices.Equal(shown, have) {
		t.Errorf("it shows %v, README.md has %v", shown, have)
	}
}

func TestVariablesAreTyped(t *testing.T) {
	for _, v := range blocks(t, "variable") {
		if typ := v.text("type"); typ == "" || regexp.MustCompile(`\bany\b`).MatchString(typ) {
			t.Errorf("variable %s is of type %q", v.name(), typ)
		}
		// null would go round a default.
		if d := v.text("default"); d != "" && d != "null" && v.text("nullable") != "false" && v.name() != "verify_schedule" { // null: never
			t.Errorf("variable %s has a default and may be null", v.name())
		}
	}
}

// Every variable with a validation is refused something by the tests.
func TestEveryValidationIsTested(t *testing.T) {
	tests := read(t, "tests/validation.tftest.hcl")
	validated := 0
	for _, v := range blocks(t, "variable") {
		for _, b := range v.Body.Blocks {
			if b.Type != "validation" {
				continue
			}
			validated++
			if !regexp.MustCompile(`expect_failures = \[[^\]]*\bvar\.` + v.name() + `\b`).MatchString(tests) {
				t.Errorf("nothing in tests/validation.tftest.hcl expects variable %s to be refused", v.name())
			}
		}
	}
	if validated < 35 {
		t.Errorf("%d validations", validated)
	}
}

// validations has the functions that the validations call.
func validations() *hcl.EvalContext {
	boolean := func(params []function.Parameter, f func(args []cty.Value) bool) function.Function {
		return function.New(&function.Spec{Params: params, Type: function.StaticReturnType(cty.Bool),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return cty.BoolVal(f(args)), nil }})
	}
	text := function.Parameter{Name: "text", Type: cty.String}
	return &hcl.EvalContext{Functions: map[string]function.Function{
		"can": tryfunc.CanFunc, "regex": stdlib.RegexFunc, "keys": stdlib.KeysFunc, "contains": stdlib.ContainsFunc,
		"try": tryfunc.TryFunc, "values": stdlib.ValuesFunc, "floor": stdlib.FloorFunc, "coalesce": stdlib.CoalesceFunc,
		"startswith": boolean([]function.Parameter{text, text}, func(args []cty.Value) bool {
			return strings.HasPrefix(args[0].AsString(), args[1].AsString())
		}),
		"alltrue": boolean([]function.Parameter{{Name: "list", Type: cty.List(cty.Bool)}}, func(args []cty.Value) bool {
			return !slices.ContainsFunc(args[0].AsValueSlice(), cty.Value.False)
		}),
	}}
}

// Names that Lambda refuses (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html) are refused before
// anything is made.
func TestReservedNamesAreRefused(t *testing.T) {
	eval := validations()
	taken := func(name string) bool {
		t.Helper()
		eval.Variables = map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{
			"function_environment": cty.MapVal(map[string]cty.Value{name: cty.StringVal("x")})})}
		ok := true
		for _, v := range blocks(t, "variable") {
			for _, b := range v.Body.Blocks {
				if v.name() != "function_environment" || b.Type != "validation" {
					continue
				}
				got, diags := b.Body.Attributes["condition"].Expr.Value(eval)
				if diags.HasErrors() {
					t.Fatal(diags)
				}
				ok = ok && got.True()
			}
		}
		return ok
	}
	for _, name := range []string{
		"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
		"AWS_LAMBDA_RUNTIME_API", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
		"LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "PRECAST_STATEMENT_PERIOD", "STATEMENT_PERIOD", "A-B", "1A", "A",
	} {
		if taken(name) {
			t.Errorf("%s is taken", name)
		}
	}
	for _, name := range []string{"GOMEMLIMIT", "AWS_USE_FIPS_ENDPOINT", "PRECAST_STATEMENT_VALIDITY", "STATEMENT_VALIDITY"} {
		if !taken(name) {
			t.Errorf("%s is refused", name)
		}
	}
}

func TestExamplesPassOnlyVariables(t *testing.T) {
	known := make(map[string]bool)
	for _, v := range blocks(t, "variable") {
		known[v.name()] = true
	}
	for _, name := range []string{"basic", "custom-domain"} {
		path := filepath.Join("examples", name, "main.tf")
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, diags := hclsyntax.ParseConfig(source, path, hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		modules := 0
		for _, b := range file.Body.(*hclsyntax.Body).Blocks {
			if b.Type != "module" {
				continue
			}
			modules++
			for attribute := range b.Body.Attributes {
				if attribute != "source" && attribute != "providers" && !known[attribute] {
					t.Errorf("%s passes %s, which is no variable", path, attribute)
				}
			}
		}
		if modules != 1 {
			t.Errorf("%s has %d modules", path, modules)
		}
	}
}

// What the examples' READMEs run and name is there: commands as in docs/deploy.md, variables, outputs, files.
func TestReadmesOfExamples(t *testing.T) {
	guide, declares := read(t, "../docs/deploy.md"), regexp.MustCompile(`(?m)^(variable|output) "(\w+)" \{`)
	known := make(map[string]bool)
	for _, v := range blocks(t, "variable") {
		known[v.name()] = true
	}
	for name, needs := range map[string]string{"basic": "region", "custom-domain": "zone_name host mail"} {
		dir := filepath.Join("examples", name)
		readme, own := read(t, filepath.Join(dir, "README.md")), map[string]bool{}
		for _, m := range declares.FindAllStringSubmatch(read(t, filepath.Join(dir, "main.tf")), -1) {
			own[m[1]+" "+m[2]] = true
		}
		commands := 0
		for _, shell := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(readme, -1) {
			for line := range strings.Lines(shell[1]) {
				commands++
				// The folder and the variables are the example's own.
				line, _, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(line), dir, "examples/basic"), " -var")
				if !strings.Contains(guide, line) {
					t.Errorf("%s: docs/deploy.md has no %s", name, line)
				}
			}
		}
		var given []string
		for _, m := range regexp.MustCompile(`-var (\w+)=`).FindAllStringSubmatch(readme, -1) {
			given = append(given, m[1])
			if !own["variable "+m[1]] {
				t.Errorf("%s has no variable %s", name, m[1])
			}
		}
		if strings.Join(given, " ") != needs || commands < 8 {
			t.Errorf("%s: %d commands, which give %v, not %s", name, commands, given, needs)
		}
		for _, m := range regexp.MustCompile(`terraform output -raw (\w+)`).FindAllStringSubmatch(readme, -1) {
			if !own["output "+m[1]] {
				t.Errorf("%s has no output %s", name, m[1])
			}
		}
		rows := regexp.MustCompile("(?m)^\\| `(\\w+)` ").FindAllStringSubmatch(readme, -1)
		for _, m := range rows {
			if !known[m[1]] && !own["variable "+m[1]] {
				t.Errorf("%s: there is no variable %s", name, m[1])
			}
		}
		links := regexp.MustCompile(`\]\(([^):#]+)(?:#([^)]*))?\)`).FindAllStringSubmatch(readme, -1)
		for _, m := range links {
			heading := regexp.MustCompile(`(?mi)^#+ ` + strings.NewReplacer("ones", "one's", "-", " ").Replace(m[2]) + `$`)
			if text := read(t, filepath.Join(dir, m[1])); m[2] != "" && !heading.MatchString(text) {
				t.Errorf("%s: %s has no heading %s", name, m[1], m[2])
			}
		}
		if len(rows) < 5 || len(links) < 4 {
			t.Errorf("%s: %d variables, %d links", name, len(rows), len(links))
		}
	}
}

// locals returns the local values that are written as literals.
func locals(t *testing.T, name string) string {
	t.Helper()
	for _, b := range blocks(t, "locals") {
		if text := b.text(name); text != "" {
			return text
		}
	}
	t.Fatalf("there is no local.%s", name)
	return ""
}

// What the module says again of what the code decides.
func TestModuleAgreesWithTheCode(t *testing.T) {
	for _, key := range []string{layout.BundlePrefix + "*", layout.ManifestPrefix + "*", layout.BinaryPrefix + "*", layout.KeyringKey, layout.KeyringHistoryPrefix + "*"} {
		if !strings.Contains(locals(t, "public_keys"), fmt.Sprintf("%q", key)) {
			t.Errorf("%s is not public", key)
		}
	}
	all := make(map[string]string)
	for _, r := range blocks(t, "resource") {
		// As terraform fmt aligns it, a value may be anywhere.
		all[strings.Join(r.Labels, ".")] = strings.Join(strings.Fields(string(r.Body.SrcRange.SliceBytes(r.source))), " ")
	}
	for _, c := range []struct{ resource, text string }{
		{"aws_cloudfront_cache_policy.package", fmt.Sprintf("items = [%q, %q]", "X-Precast-Cohort", edge.HeldHeader)},
		{"aws_iam_role_policy.edge", "/" + layout.IndexKey + `"]`},
		{"aws_iam_role_policy.edge", "us-east-1.${local.edge_name}"},
		{"aws_cloudfront_distribution.cdn", fmt.Sprintf("500 = %[1]d, 502 = %[1]d, 503 = %[1]d, 504 = %[1]d }", edge.RetryAfter)},
		{"aws_s3_bucket_lifecycle_configuration.store", fmt.Sprintf("prefix = %q", layout.PlanPrefix)},
	} {
		if !strings.Contains(all[c.resource], c.text) {
			t.Errorf("%s does not say %s", c.resource, c.text)
		}
	}
	for _, c := range []struct{ file, pattern, resource, text string }{
		{"item.go", `attrApp\s+= "(\w+)"`, "aws_dynamodb_table.catalog", "hash_key = %q"},
		{"item.go", `attrTrack\s+= "(\w+)"`, "aws_dynamodb_table.catalog", "range_key = %q"},
		{"ledger.go", `attrID\s+= "(\w+)"`, "aws_dynamodb_table.ledger", "hash_key = %q"},
		{"ledger.go", `attrExpires\s+= "(\w+)"`, "aws_dynamodb_table.ledger", "attribute_name = %q"},
	} {
		m := regexp.MustCompile(c.pattern).FindStringSubmatch(read(t, "../internal/store/aws/"+c.file))
		if m == nil {
			t.Fatalf("%s: nothing matches %s", c.file, c.pattern)
		}
		if want := fmt.Sprintf(c.text, m[1]); !strings.Contains(all[c.resource], want) {
			t.Errorf("%s does not say %s", c.resource, want)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every variable that a function needs is set, and none that it does not read.
func TestFunctionsGetTheirEnvironment(t *testing.T) {
	reads := regexp.MustCompile(`env\.(\w+)\("([A-Z_]+)"`)
	sets := regexp.MustCompile(`(?m)^\s+([A-Z][A-Z_]+)\s+= `)
	for _, r := range blocks(t, "resource") {
		if r.Labels[0] != "aws_lambda_function" || r.name() == "edge" {
			continue
		}
		source := read(t, "../builder/cmd/"+r.name()+"/main.go")
		known, needed := make(map[string]bool), make(map[string]bool)
		for _, m := range reads.FindAllStringSubmatch(source, -1) {
			known[m[2]] = true
			needed[m[2]] = slices.Contains([]string{"Bucket", "Table", "Queue"}, m[1])
		}
		for call, of := range map[string]reflect.Type{
			"env.Build()": reflect.TypeFor[settings.Build](), "env.Signing()": reflect.TypeFor[settings.Signing](), "env.CDN()": reflect.TypeFor[settings.CDN](),
		} {
			if strings.Contains(source, call) {
				for _, f := range reflect.VisibleFields(of) {
					known[f.Tag.Get("env")] = true
				}
			}
		}
		for _, m := range sets.FindAllStringSubmatch(string(r.Body.SrcRange.SliceBytes(r.source)), -1) {
			if !known[m[1]] {
				t.Errorf("%s gets %s, which it does not read", r.name(), m[1])
			}
			if !strings.HasPrefix(m[1], "PRECAST_") {
				t.Errorf("%s gets %s, which does not begin with PRECAST_", r.name(), m[1])
			}
			delete(needed, m[1])
		}
		for name, need := range needed {
			if need {
				t.Errorf("%s needs %s, which is not set", r.name(), name)
			}
		}
	}
}

// buildSettings are the declarations of the build settings.
func buildSettings() []reflect.StructField {
	return reflect.VisibleFields(reflect.TypeFor[settings.Build]())
}

// The variable build_settings has the settings that the code says, within the same limits.
func TestBuildSettingsAgreeWithTheCode(t *testing.T) {
	var variable block
	for _, v := range blocks(t, "variable") {
		if v.name() == "build_settings" {
			variable = v
		}
	}
	var have, want []string
	for _, m := range regexp.MustCompile(`(\w+)\s+= optional\(number\)`).FindAllStringSubmatch(variable.text("type"), -1) {
		have = append(have, m[1])
	}
	for _, f := range buildSettings() {
		if name, ok := strings.CutPrefix(f.Tag.Get("terraform"), "build_settings."); ok {
			want = append(want, name)
			// pipeline.tf derives the variable of the environment from the name.
			if env := "PRECAST_" + strings.ToUpper(name); env != f.Tag.Get("env") {
				t.Errorf("%s sets %s, the code reads %s", name, env, f.Tag.Get("env"))
			}
		}
	}
	if !slices.Equal(have, want) {
		t.Fatalf("build_settings has %v, the code has %v", have, want)
	}
	if !strings.Contains(locals(t, "build_environment"), `"PRECAST_${upper(k)}" => tostring(v) if v != null`) {
		t.Errorf("build_environment is %s", locals(t, "build_environment"))
	}
	// taken tells whether the validations let a setting have a value.
	taken := func(name string, value cty.Value) bool {
		t.Helper()
		all := make(map[string]cty.Value)
		for _, n := range have {
			all[n] = cty.NullVal(cty.Number)
		}
		all[name] = value
		eval := validations()
		eval.Variables = map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{"build_settings": cty.ObjectVal(all)})}
		ok := true
		for _, b := range variable.Body.Blocks {
			got, diags := b.Body.Attributes["condition"].Expr.Value(eval)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			ok = ok && got.True()
		}
		return ok
	}
	for _, f := range buildSettings() {
		name, ok := strings.CutPrefix(f.Tag.Get("terraform"), "build_settings.")
		if !ok {
			continue
		}
		if !taken(name, cty.NullVal(cty.Number)) || taken(name, cty.NumberFloatVal(2.5)) {
			t.Errorf("%s: null is refused, or 2.5 is taken", name)
		}
		least, _ := strconv.ParseInt(f.Tag.Get("min"), 10, 64) // 0 without the tag
		most, _ := strconv.ParseInt(f.Tag.Get("max"), 10, 64)
		values := []int64{least - 1, least, most, most + 1}
		for n := int64(-1); n <= 20; n++ {
			values = append(values, n)
		}
		for _, n := range values {
			vars := map[string]string{f.Tag.Get("env"): strconv.FormatInt(n, 10)}
			env := settings.New(func(v string) (string, bool) { text, ok := vars[v]; return text, ok }, slog.New(slog.DiscardHandler))
			env.Build()
			if got, want := taken(name, cty.NumberIntVal(n)), env.Err() == nil; got != want {
				t.Errorf("%s = %d is taken: %v; the builder takes it: %v, %v", name, n, got, want, env.Err())
			}
		}
	}
}

// Alarms and graphs look at metrics that there are.
func TestMetricsAreWritten(t *testing.T) {
	emf := read(t, "../internal/run/lambdas/emf.go")
	ours := regexp.MustCompile(`local\.metrics_namespace, (?:metric = )?"(\w+)"`).FindAllStringSubmatch(read(t, "observability.tf"), -1)
	if len(ours) < 6 {
		t.Fatalf("%d metrics of our own", len(ours))
	}
	for _, m := range ours {
		if !strings.Contains(emf, `"`+m[1]+`"`) {
			t.Errorf("nothing writes the metric %s", m[1])
		}
	}
}
