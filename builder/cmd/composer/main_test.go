package main

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/run/settings"
)

// start wires the function in an environment. That calls nobody.
func start(t *testing.T, vars map[string]string) (http.Handler, error) {
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_CA_BUNDLE", "")
	log := slog.New(slog.DiscardHandler)
	return wire(t.Context(), settings.New(func(name string) (string, bool) { v, ok := vars[name]; return v, ok }, log), log)
}

func TestEnvironment(t *testing.T) {
	environments := map[string]map[string]string{
		"that of earlier versions of the Terraform module": {"BUCKET": "packages", "STORE_COMPOSED": "true"},
		"today's": {"PRECAST_OBJECTS": "s3://packages", "PRECAST_QUEUE": "https://sqs.eu-west-1.amazonaws.com/1/jobs"},
	}
	for whose, vars := range environments {
		if handler, err := start(t, vars); err != nil || handler == nil {
			t.Errorf("%s: %+v, %v", whose, handler, err)
		}
	}
	_, err := start(t, nil)
	for _, want := range []string{"PRECAST_OBJECTS"} {
		if err == nil || !strings.Contains(err.Error(), want+" is not set") {
			t.Errorf("without an environment: %v, which does not say that %s is not set", err, want)
		}
	}
}
