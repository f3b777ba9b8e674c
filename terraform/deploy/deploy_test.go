package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	tfjson "github.com/hashicorp/terraform-json"

	"github.com/precast-ota/precast/terraform"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update writes it anew):\n%s", name, got)
	}
}

func text(s string) json.RawMessage {
	b, _ := json.Marshal(s) // strings cannot fail
	return b
}

// small is a module that needs no provider but Terraform's own.
func small() fstest.MapFS {
	return fstest.MapFS{
		"variables.tf": {Data: []byte("variable \"name\" {\n  type = string\n}\n\nvariable \"packages_dir\" {\n  type = string\n}\n\nvariable \"color\" {\n  type    = string\n  default = \"red\"\n}\n")},
		"outputs.tf":   {Data: []byte("output \"url\" {\n  value = \"https://${var.color}.example.com\"\n}\n")},
		"versions.tf":  {Data: []byte("terraform {\n  required_version = \">= 1.9\"\n}\n")},
	}
}

func TestRoot(t *testing.T) {
	declared, err := readModule(small())
	if err != nil {
		t.Fatal(err)
	}
	s := Settings{Name: "fleet", Region: "eu-west-1", Account: "123456789012", Vars: map[string]json.RawMessage{"color": text(`${"blue"}`)}}
	files, err := render(small(), declared, s, "")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "main.tf", files["main.tf"])
	golden(t, "vars.json", files[varsFile])
	if len(files) != 6 || files[rcFile] != nil || !bytes.Equal(files["variables.tf"], small()["variables.tf"].Data) || files["module/versions.tf"] == nil {
		t.Errorf("%d files", len(files))
	}
	s.Endpoint = "http://127.0.0.1:4566"
	if files, err = render(small(), declared, s, "/mirror"); err != nil {
		t.Fatal(err)
	}
	golden(t, "main-standin.tf", files["main.tf"])
	if want := "provider_installation {\n  filesystem_mirror {\n    path = \"/mirror\"\n  }\n}\n"; string(files[rcFile]) != want {
		t.Errorf("%s", files[rcFile])
	}
	s.Vars = map[string]json.RawMessage{"colour": text("blue")}
	if _, err := render(small(), declared, s, ""); err == nil || !strings.Contains(err.Error(), "no variable colour; it has color, name, packages_dir") {
		t.Error(err)
	}
}

// What this package expects of the module, without asking Terraform.
func TestModuleIsAsExpected(t *testing.T) {
	module := terraform.Module()
	declared, err := readModule(module)
	if err != nil || declared.terraform != ">= 1.9" {
		t.Fatalf("%+v, %v", declared, err)
	}
	here, err := readModule(fstest.MapFS{variablesFile: &fstest.MapFile{Data: read(t, "../variables.tf")}})
	if all := declared.variables; err != nil || !slices.Equal(all, here.variables) || len(all) < 30 {
		t.Errorf("variables outside %s: %v, %v", variablesFile, all, err)
	}
	var files []string
	var source strings.Builder
	names, err := filepath.Glob("../*.tf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		source.Write(read(t, name))
	}
	for _, m := range regexp.MustCompile(`\$\{var\.packages_dir\}/([a-z.]+)"`).FindAllStringSubmatch(source.String(), -1) {
		files = append(files, m[1])
	}
	for _, m := range regexp.MustCompile(`for f in \[("[a-z", ]+)\] : f => "\$\{var\.packages_dir\}`).FindAllStringSubmatch(source.String(), -1) {
		for _, f := range strings.Split(m[1], ", ") {
			files = append(files, strings.Trim(f, `"`)+"-arm64.zip")
		}
	}
	want := Packages{Arch: "arm64"}.names()
	slices.Sort(files)
	slices.Sort(want)
	if !slices.Equal(slices.Compact(files), want) {
		t.Errorf("the module reads %v, not %v", files, want)
	}
	for _, what := range []string{`resource "aws_lambda_function" "edge"`, "deletion_protection_enabled = var.deletion_protection"} {
		if !strings.Contains(source.String(), what) {
			t.Errorf("the module has no %s", what)
		}
	}
	for _, o := range []string{"url", "distribution_id", "distribution_domain_name", "bucket", "catalog_table", "ledger_table", "precast_environment", "function_names"} {
		if !slices.Contains(declared.outputs, o) {
			t.Errorf("the module has no output %s", o)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseVar(t *testing.T) {
	for in, want := range map[string]string{
		"color=blue":                `color="blue"`,
		"n = 3":                     `n="3"`,
		"empty=":                    `empty=""`,
		"tags={\"a\":\"b=c\"}":      `tags={"a":"b=c"}`,
		"list=[1, 2]":               `list=[1, 2]`,
		"none=null":                 `none=null`,
		"quoted=he said \"no\"":     `quoted="he said \"no\""`,
		"arn=arn:aws:kms:eu:1:key/": `arn="arn:aws:kms:eu:1:key/"`,
	} {
		name, value, err := ParseVar(in)
		if err != nil || name+"="+string(value) != want {
			t.Errorf("%s: %s=%s, %v", in, name, value, err)
		}
	}
	for _, in := range []string{"", "color", "=x", "tags={a:b}", "list=["} {
		if _, _, err := ParseVar(in); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

// What is to be imported is read as it was written, by this version or an earlier one, whatever is in it.
func TestImports(t *testing.T) {
	ids := map[string]string{
		"module.precast.aws_s3_bucket.store":                            "b-1",
		`module.precast.aws_cloudwatch_log_group.function["composer"]`:  "/aws/lambda/composer",
		`module.precast.aws_route53_record.validation["x.example.com"]`: "Z1_x",
		"module.precast.aws_lambda_permission.url[0]":                   `a"b\c`,
		"module.precast.aws_cloudfront_distribution.cdn":                "${x} %{y}",
		"module.precast.aws_lambda_event_source_mapping.builder":        "a\nb",
	}
	dir := t.TempDir()
	i := &Installation{opt: Options{Dir: dir}}
	if err := i.importing(ids); err != nil {
		t.Fatal(err)
	}
	golden(t, "imports.tf", read(t, filepath.Join(dir, importsFile)))
	if got, err := i.created(); err != nil || !maps.Equal(got, ids) {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.WriteFile(i.file(importsFile), []byte("import {"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := i.created(); err == nil || !strings.Contains(err.Error(), "read what to import: "+importsFile+":1") {
		t.Error(err)
	}
	if err := i.importing(map[string]string{"a b": "x"}); err == nil || !strings.Contains(err.Error(), "import a b") {
		t.Error(err)
	}
	if err := i.importing(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := i.created(); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	kept := Settings{Name: "fleet", Region: "eu-west-1", Account: "1", Vars: map[string]json.RawMessage{"color": text("blue")}, Leftover: &Leftover{Function: "f", Region: "us-east-1", Address: "a"}}
	i := &Installation{Settings: kept, opt: Options{Dir: dir}}
	if err := i.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil || fmt.Sprintf("%+v", *got.Leftover) != fmt.Sprintf("%+v", *kept.Leftover) || string(got.Vars["color"]) != `"blue"` {
		t.Errorf("%+v, %v", got, err)
	}
	if err := kept.Same(got); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Settings){
		`its account is "1", and not "2"`:               func(s *Settings) { s.Account = "2" },
		`its region is "eu-west-1", and not "us-east-1`: func(s *Settings) { s.Region = "us-east-1" },
		`its endpoint (AWS_ENDPOINT_URL) is ""`:         func(s *Settings) { s.Endpoint = "http://x" },
		`its name is "fleet"`:                           func(s *Settings) { s.Name = "other" },
	} {
		other := kept
		change(&other)
		if err := other.Same(got); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, settingsFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

func TestArchitecture(t *testing.T) {
	dir := t.TempDir()
	hcl, js := filepath.Join(dir, "a.tfvars"), filepath.Join(dir, "b.tfvars.json")
	nested, broken := filepath.Join(dir, "c.tfvars"), filepath.Join(dir, "d.tfvars")
	null, nullJS := filepath.Join(dir, "e.tfvars"), filepath.Join(dir, "f.tfvars.json")
	for name, content := range map[string]string{null: "architecture = null\n", nullJS: `{"architecture": null}`, nested: "function_environment = {\n  architecture = \"x86_64\"\n}\n", broken: "architecture =\n", hcl: "# architecture = \"no\"\n  architecture = \"x86_64\"\n", js: `{"tags": {},` + "\n" + `  "architecture": "arm64"}`} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x86 := Settings{Vars: map[string]json.RawMessage{"architecture": text("x86_64")}}
	for _, c := range []struct {
		s     Settings
		files []string
		want  string
	}{{Settings{}, nil, "arm64"}, {Settings{}, []string{hcl}, "amd64"}, {Settings{}, []string{hcl, js}, "arm64"}, {Settings{}, []string{nested}, "arm64"}, {Settings{}, []string{hcl, null}, "amd64"}, {Settings{}, []string{hcl, nullJS}, "amd64"}, {x86, []string{js}, "amd64"}} {
		if got, err := Architecture(c.s, c.files); err != nil || got != c.want {
			t.Errorf("%v: %s, %v", c, got, err)
		}
	}
	if _, err := Architecture(Settings{}, []string{broken}); err == nil || !strings.Contains(err.Error(), "read variables: "+broken+":1") {
		t.Error(err)
	}
}

func TestSummary(t *testing.T) {
	var p tfjson.Plan
	if err := json.Unmarshal(read(t, "testdata/plan.json"), &p); err != nil {
		t.Fatal(err)
	}
	s := summarize(&p)
	var out bytes.Buffer
	s.Print(&out)
	golden(t, "plan.txt", out.Bytes())
	if s.Create != 1 || s.Update != 2 || s.Replace != 1 || s.Delete != 2 || s.Import != 2 || s.Total() != 7 || s.Empty() {
		t.Errorf("%+v", s)
	}
	if got := s.DataLoss(); !slices.Equal(got, []string{"aws_dynamodb_table.catalog", "aws_s3_bucket.store"}) {
		t.Errorf("%v", got)
	}
	out.Reset()
	empty := summarize(&tfjson.Plan{})
	empty.Print(&out)
	if !empty.Empty() || out.String() != "There is nothing to change.\n" {
		t.Errorf("%s", &out)
	}
}

// Streams of real runs: one that ended well, one that was refused a call.
func TestProgress(t *testing.T) {
	for _, name := range []string{"apply", "refused"} {
		stream := read(t, "testdata/"+name+".jsonl")
		var out bytes.Buffer
		p := NewProgress(&out, 61)
		for part := range slices.Chunk(stream, 1000) { // cut anywhere
			if n, err := p.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if len(p.problems) > 0 {
			fmt.Fprintln(&out, p.failure(context.Background(), errors.New("exit status 1")))
		}
		golden(t, name+".txt", out.Bytes())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p := NewProgress(&bytes.Buffer{}, 7)
	err := p.failure(ctx, errors.New("exit status 1"))
	if err.Error() != "interrupted after 0 of 7 changes" || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := p.failure(context.Background(), errors.New("exit status 1")); err.Error() != "terraform failed after 0 of 7 changes\n  exit status 1" {
		t.Error(err)
	}
}

// What a killed run created, or had begun to.
func TestCreations(t *testing.T) {
	stream := read(t, "testdata/apply.jsonl")
	whole := creations(bytes.NewReader(stream))
	if len(whole) != 61 || whole["module.precast.aws_iam_role.edge"] != "dx-eu-west-1-edge" {
		t.Errorf("%d: %v", len(whole), whole)
	}
	if refused := creations(bytes.NewReader(read(t, "testdata/refused.jsonl"))); len(refused) != 3 {
		t.Errorf("%v", refused)
	}
	at := bytes.Index(stream, []byte(`aws_cloudfront_distribution.cdn: Creation complete`))
	cut := creations(bytes.NewReader(stream[:at])) // in the middle of a line
	if id, ok := cut["module.precast.aws_cloudfront_distribution.cdn"]; !ok || id != "" {
		t.Errorf("%q, %v", id, ok)
	}
	if id := cut["module.precast.aws_s3_bucket.store"]; id != "dx-000000000000-eu-west-1" {
		t.Errorf("%q", id)
	}
}

// Terraform's own words, at its own width.
func TestWithoutMissing(t *testing.T) {
	ids := map[string]string{
		`module.precast.aws_cloudwatch_log_group.function["composer"]`: "a",
		`module.precast.aws_lambda_permission.composer`:                "b",
		`module.precast.aws_lambda_permission.composer_url`:            "c",
	}
	err := plain(errors.New(`exit status 1

╷
│ Error: Cannot import non-existent remote object
│ 
│ While attempting to import an existing object to
│ "module.precast.aws_cloudwatch_log_group.function[\"composer\"]", the
│ provider detected that no object exists with the given id.
╵
╷
│ Error: reading Lambda Permission
│ 
│   with module.precast.aws_lambda_permission.composer,
│   on module/pipeline.tf line 1
╵`))
	if !withoutMissing(ids, err) || len(ids) != 1 || ids["module.precast.aws_lambda_permission.composer_url"] != "c" {
		t.Errorf("%v", ids)
	}
	if withoutMissing(ids, errors.New("exit status 1: no")) {
		t.Error("something was removed")
	}
}

// What a killed run made and did not note is found again, or to make it again does no harm: of every type in the
// module it is known which.
func TestIdentifier(t *testing.T) {
	// They are written into what there is, or AWS takes the same again for the same.
	again := []string{
		"aws_cloudwatch_dashboard", "aws_cloudwatch_metric_alarm", "aws_iam_role_policy", "aws_s3_bucket_lifecycle_configuration",
		"aws_s3_bucket_logging", "aws_s3_bucket_ownership_controls", "aws_s3_bucket_policy", "aws_s3_bucket_public_access_block",
		"aws_s3_bucket_server_side_encryption_configuration", "aws_s3_bucket_versioning",
		// CreateQueue with the same attributes (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html).
		"aws_sqs_queue", "aws_sqs_queue_redrive_allow_policy",
	}
	var all []byte
	files, err := filepath.Glob("../*.tf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	kinds := regexp.MustCompile(`(?m)^resource "(\w+)"`).FindAllSubmatch(all, -1)
	if len(kinds) < 30 {
		t.Fatalf("the module has %d resources", len(kinds))
	}
	finder := AWSFinder{CloudFront: pages{}, Lambda: pages{}}
	for _, m := range kinds {
		r := &tfjson.ResourceChange{Type: string(m[1]), Change: &tfjson.Change{After: map[string]any{
			"name": "n2", "bucket": "n2", "comment": "n2", "statement_id": "n2", "function_name": "f", "event_source_arn": "n2"}}}
		id, err := identifier(t.Context(), finder, Settings{Region: "eu-west-1", Account: "123456789012"}, r)
		if err != nil || (id == "") != slices.Contains(again, r.Type) {
			t.Errorf("%s: %q, %v", r.Type, id, err)
		}
	}
	for region, want := range map[string]string{"eu-west-1": "arn:aws:iam::1:policy/n", "cn-north-1": "arn:aws-cn:iam::1:policy/n", "us-gov-west-1": "arn:aws-us-gov:iam::1:policy/n"} {
		r := &tfjson.ResourceChange{Type: "aws_iam_policy", Change: &tfjson.Change{After: map[string]any{"name": "n"}}}
		if id, err := identifier(t.Context(), finder, Settings{Region: region, Account: "1"}, r); id != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", region, id, err, want)
		}
	}
}

func TestExports(t *testing.T) {
	o := Outputs{Environment: map[string]string{"B": "it's", "A": "x"}}
	if got := strings.Join(o.Exports(), "\n"); got != "export A='x'\nexport B='it'\\''s'" {
		t.Error(got)
	}
}

func TestInventory(t *testing.T) {
	resource := func(address, kind string, attributes map[string]any) *tfjson.StateResource {
		return &tfjson.StateResource{Address: modulePrefix + address, Type: kind, AttributeValues: attributes}
	}
	inv := inventory([]*tfjson.StateResource{
		resource("aws_s3_bucket.store", "aws_s3_bucket", map[string]any{"bucket": "b"}),
		resource("aws_dynamodb_table.ledger", "aws_dynamodb_table", map[string]any{"name": "l", "deletion_protection_enabled": false}),
		resource("aws_dynamodb_table.catalog", "aws_dynamodb_table", map[string]any{"name": "c", "deletion_protection_enabled": true}),
		resource("aws_lambda_function.edge", "aws_lambda_function", map[string]any{"function_name": "e"}),
		resource("aws_lambda_function.builder", "aws_lambda_function", map[string]any{"function_name": "bu"}),
		resource("aws_cloudfront_distribution.cdn", "aws_cloudfront_distribution", map[string]any{"domain_name": "d.cloudfront.net"}),
		resource("aws_iam_role.edge", "aws_iam_role", nil),
	})
	var out bytes.Buffer
	inv.Print(&out, Content{Objects: 3, Bytes: 5}, map[string]int64{"c": 9}, func(n int64) string { return fmt.Sprintf("%d B", n) })
	if want := `  bucket b (objects and old versions: 3, 5 B)
  table c (items: 9)
  table l (items: 0)
  distribution d.cloudfront.net: devices get no more answers
  functions bu, e, and their logs
  resources in all: 7
`; out.String() != want || inv.Edge != "e" || !slices.Equal(inv.Protected, []string{"module.precast.aws_dynamodb_table.catalog"}) {
		t.Errorf("%+v\n%s", inv, &out)
	}
}
