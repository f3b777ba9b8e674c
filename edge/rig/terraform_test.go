package rig_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"precast/edge/rig"
	"precast/internal/layout"
)

// The rig's viewer-response Function is the one that Terraform declares.
func TestResponseFunctionIsTerraforms(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("..", "..", "terraform", "edge.tf"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(data), `resource "aws_cloudfront_function" "response"`)
	_, rest, begins := strings.Cut(rest, "<<-JS\n")
	code, _, ends := strings.Cut(rest, "  JS\n")
	if !found || !begins || !ends {
		t.Fatal("terraform/edge.tf has no viewer-response function")
	}
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimPrefix(line, "    "))
	}
	if got := strings.ReplaceAll(b.String(), "${local.package_cache_control}", layout.PackageCacheControl); got != rig.ResponseFunction() {
		t.Fatalf("Terraform has\n%s\nthe rig\n%s", got, rig.ResponseFunction())
	}
}
