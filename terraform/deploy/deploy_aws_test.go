//go:build aws

package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// moduleOfTwo is a module whose resources are Terraform's own: one that is made at once, and one after it that
// is not, while there is a file called hold.
func moduleOfTwo() fstest.MapFS {
	m := small()
	m["variables.tf"].Data = []byte(strings.Replace(string(m["variables.tf"].Data), "default = \"red\"\n", `default = "red"

  validation {
    condition     = var.color != "infrared"
    error_message = "Nobody could see that color."
  }
`, 1))
	m["versions.tf"].Data = []byte(`terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source                = "hashicorp/aws"
      version               = ">= 5.100, < 7.0"
      configuration_aliases = [aws.us_east_1]
    }
  }
}
`)
	m["main.tf"] = &fstest.MapFile{Data: []byte(`resource "terraform_data" "quick" {
  input = var.color
}

resource "terraform_data" "slow" {
  input = terraform_data.quick.output

  provisioner "local-exec" {
    command = "echo begun > begun; while [ -e hold ]; do sleep 0.05; done"
  }
}
`)}
	return m
}

func prepare(t *testing.T, dir string, s Settings, out *bytes.Buffer) *Installation {
	t.Helper()
	i, err := Prepare(t.Context(), Options{Dir: dir, Module: moduleOfTwo(), Out: out,
		Env: Environment{PluginMirror: os.Getenv("TF_PLUGIN_MIRROR"), Environ: os.Environ()}}, s, Files{})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// With the real Terraform: an apply that is interrupted, the same again, a change, nothing to change, a
// variable that is refused, the end.
func TestTerraformAWS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	var out bytes.Buffer
	s := Settings{Name: "fleet", Region: "eu-west-1", Account: "1", Endpoint: "http://127.0.0.1:1"}
	i := prepare(t, dir, s, &out)
	hold := filepath.Join(dir, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	plan, err := i.Plan(t.Context())
	if err != nil || plan.Create != 2 || plan.Total() != 2 {
		t.Fatalf("%+v, %v", plan, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(dir, "begun")); err == nil {
				cancel()
			}
		}
	}()
	err = i.Apply(ctx, plan)
	failed, ok := errors.AsType[*ApplyError](err)
	if !ok || !failed.Interrupted || failed.Done != 1 || !strings.Contains(err.Error(), "interrupted after 1 of 2 changes") {
		t.Fatalf("%v\n%s", err, &out)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}

	// What was begun is tainted, and is made anew; the other one stays.
	if plan, err = i.Plan(t.Context()); err != nil || plan.Create+plan.Replace != 1 || len(plan.Changes) != 1 {
		t.Fatalf("%+v, %v", plan, err)
	}
	if err := i.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if err := i.Settled(); err != nil {
		t.Fatal(err)
	}
	if plan, err = i.Plan(t.Context()); err != nil || !plan.Empty() {
		t.Fatalf("%+v, %v", plan, err)
	}
	o, err := i.Outputs(t.Context())
	if err != nil || o.URL != "https://red.example.com" || !bytes.Contains(read(t, filepath.Join(dir, OutputsFile)), []byte("red.example.com")) {
		t.Fatalf("%+v, %v", o, err)
	}

	// Another color, kept for the next time; a color that the module refuses, in the module's words.
	s.Vars = map[string]json.RawMessage{"color": text("blue")}
	i = prepare(t, dir, s, &out)
	if plan, err = i.Plan(t.Context()); err != nil || plan.Update != 2 || plan.Changes[0].Attributes[0] != "input" {
		t.Fatalf("%+v, %v", plan, err)
	}
	kept, err := Load(dir)
	if err != nil || string(kept.Vars["color"]) != `"blue"` {
		t.Fatalf("%+v, %v", kept, err)
	}
	kept.Vars["color"] = text("infrared")
	if _, err = prepare(t, dir, kept, &out).Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "Nobody could see that color.") {
		t.Fatal(err)
	}
	if strings.Contains(err.Error(), "│") {
		t.Errorf("it has frames:\n%v", err)
	}

	kept.Vars = nil
	i = prepare(t, dir, kept, &out)
	inv, err := i.Inventory(t.Context())
	if err != nil || inv.Resources != 2 {
		t.Fatalf("%+v, %v", inv, err)
	}
	if err := i.Destroy(t.Context(), inv, nil); err != nil {
		t.Fatal(err)
	}
	if inv, err = i.Inventory(t.Context()); err != nil || inv.Resources != 0 {
		t.Fatalf("%+v, %v", inv, err)
	}
	if err := i.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	t.Logf("%s", &out)
}
