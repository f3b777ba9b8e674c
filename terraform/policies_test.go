package terraform_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/test/iampolicy"
	"github.com/precast-ota/precast/terraform"
)

// lambdasOwn are the actions that Lambda takes in a role's name, for event sources.
func lambdasOwn() map[string][]string {
	return map[string][]string{
		"enqueuer": {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"},
		"builder":  {"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"},
		"composer": nil,
	}
}

// A role may do nothing that its function's code has no call for. That it may do what it calls is held by
// TestRolesOnAWS.
func TestRolesMayDoNothingElse(t *testing.T) {
	policies, err := iampolicy.FromModule(terraform.Module(), iampolicy.Resources{Region: "eu-west-1", Account: "1",
		SigningKey: "arn:aws:kms:eu-west-1:1:key/k"})
	if err != nil {
		t.Fatal(err)
	}
	// And docs/iam.md says why.
	why := read(t, "../docs/iam.md")
	for who, p := range policies {
		for action := range p.Actions() {
			if !strings.Contains(why, "`"+action+"`") {
				t.Errorf("docs/iam.md does not say why %s may %s", who, action)
			}
		}
	}
	calls := regexp.MustCompile(`\b(s3|sqs|kms|dynamodb|dynamodbstreams|cloudfront|cloudfrontkeyvaluestore)\.(\w+)Input\{`)
	for role, own := range lambdasOwn() {
		out, err := exec.Command("go", "list", "-deps", "-f", `{{if .Module}}{{if eq .Module.Path "github.com/precast-ota/precast"}}{{range .GoFiles}}{{$.Dir}}/{{.}}
{{end}}{{end}}{{end}}`, "github.com/precast-ota/precast/builder/cmd/"+role).Output()
		if err != nil {
			t.Fatal(err)
		}
		called := make(map[string]bool)
		for _, name := range strings.Fields(string(out)) {
			// Of streampoll and setup nothing runs in a function: precast serve and tests are what need them.
			if dir := filepath.Base(filepath.Dir(name)); dir == "streampoll" || strings.HasSuffix(filepath.Dir(name), "store/aws") && filepath.Base(name) == "setup.go" {
				continue
			}
			for _, m := range calls.FindAllStringSubmatch(read(t, name), -1) {
				if m[2] == "TransactWriteItems" { // of the catalog, which functions only read
					continue
				}
				called[iampolicy.Action(m[1], m[2])] = true
			}
		}
		if len(called) < 10 {
			t.Fatalf("%s: only %v is called", role, called)
		}
		for action := range policies[role].Actions() {
			if !called[action] && !slices.Contains(own, action) {
				t.Errorf("%s may %s, which nothing in it calls", role, action)
			}
		}
	}
}
