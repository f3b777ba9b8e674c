// Package cmd_test looks at what the Lambda functions link. With the tag aws it also deploys them.
package cmd_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/precast-ota/precast/"

// goTool runs the go tool as for a function's package, and returns what it prints.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOFLAGS=-tags=lambda.norpc")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// A function links what it uses and no more: each package more is paid for in every cold start.
func TestFunctionsLinkOnlyWhatTheyUse(t *testing.T) {
	const sdk = "github.com/aws/aws-sdk-go-v2/service/"
	everywhere := []string{"go.etcd.io/bbolt", "github.com/alecthomas/kong", module + "internal/store/local", module + "internal/store/storetest",
		module + "internal/run/streampoll", module + "internal/run/pipeline", module + "internal/run/awspipeline", module + "internal/run/server",
		module + "internal/run/admin", module + "internal/operate", module + "internal/test", module + "seed", module + "terraform"}
	dir := t.TempDir()
	for _, c := range []struct {
		function  string
		forbidden []string
		clients   []string // of AWS services, besides those by which the SDK finds credentials
	}{
		{"enqueuer", []string{sdk + "kms", sdk + "cloudfront", sdk + "cloudfrontkeyvaluestore", sdk + "dynamodbstreams", module + "internal/trust/kmskey",
			module + "internal/run/awsdrivers", module + "internal/run/cdn", module + "internal/run/signingkey", module + "internal/store/source"},
			[]string{"dynamodb", "sqs"}},
		{"builder", []string{sdk + "kms", sdk + "dynamodbstreams", module + "internal/trust/kmskey", module + "internal/run/signingkey"},
			[]string{"cloudfront", "cloudfrontkeyvaluestore", "dynamodb", "s3", "sqs"}},
		{"composer", []string{sdk + "cloudfront", sdk + "cloudfrontkeyvaluestore", sdk + "dynamodbstreams",
			module + "internal/run/awsdrivers", module + "internal/run/cdn", module + "internal/store/source"},
			[]string{"kms", "s3", "sqs"}},
	} {
		deps := strings.Fields(goTool(t, "list", "-deps", "./cmd/"+c.function))
		if !slices.Contains(deps, module+"internal/store/aws") {
			t.Fatalf("%s: go list names %d packages, without the drivers", c.function, len(deps))
		}
		for _, dep := range deps {
			for _, forbidden := range slices.Concat(everywhere, c.forbidden) {
				if dep == forbidden || strings.HasPrefix(dep, forbidden+"/") {
					t.Errorf("the %s depends on %s", c.function, dep)
				}
			}
		}
		// The drivers are one package, which imports the client of every service: the linker leaves out the methods
		// of those that nothing makes.
		program := filepath.Join(dir, c.function)
		goTool(t, "build", "-o", program, "./cmd/"+c.function)
		if got := clients(t, program); !slices.Equal(got, c.clients) {
			t.Errorf("the %s calls %v, want %v", c.function, got, c.clients)
		}
	}
}

// clients returns the AWS services whose calls are in a program.
func clients(t *testing.T, program string) []string {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`^github\.com/aws/aws-sdk-go-v2/service/(\w+)\.\(\*Client\)\.[A-Z]`)
	var services []string
	for _, s := range symbols {
		if m := call.FindStringSubmatch(s.Name); m != nil && !slices.Contains([]string{"signin", "sso", "ssooidc", "sts"}, m[1]) {
			services = append(services, m[1])
		}
	}
	slices.Sort(services)
	return slices.Compact(services)
}
