package main

import (
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/settings"
)

// start wires the function in an environment. That calls nobody.
func start(t *testing.T, vars map[string]string) (*lambdas.Worker, error) {
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_CA_BUNDLE", "")
	log := slog.New(slog.DiscardHandler)
	return wire(t.Context(), settings.New(func(name string) (string, bool) { v, ok := vars[name]; return v, ok }, log), log)
}

func TestEnvironment(t *testing.T) {
	environments := map[string]map[string]string{
		"that of earlier versions of the Terraform module": {"BUCKET": "packages", "CATALOG_TABLE": "catalog", "LEDGER_TABLE": "ledger", "QUEUE_URL": "https://sqs.test/1/jobs", "BASE_URL": "https://cdn.test",
			"DISTRIBUTION_ID": "E1", "KEY_VALUE_STORE": "arn:aws:cloudfront::1:key-value-store/x", "METRICS_NAMESPACE": "Precast/fleet", "MAX_BUNDLES": "500", "RETAIN": "0"},
		"today's": {"PRECAST_OBJECTS": "s3://packages", "PRECAST_CATALOG": "dynamodb://catalog", "PRECAST_LEDGER": "dynamodb://ledger",
			"PRECAST_QUEUE": "https://sqs.test/1/jobs", "PRECAST_RETAIN": "16"},
	}
	for whose, vars := range environments {
		if handler, err := start(t, vars); err != nil || handler.Builder == nil || handler.Builder.Queue == nil {
			t.Errorf("%s: %+v, %v", whose, handler, err)
		}
	}
	for name, c := range map[string]struct{ value, want string }{
		"PRECAST_RETAIN":      {"17", "PRECAST_RETAIN: 17 is more than 16"},
		"RETAIN":              {"17", "RETAIN: 17 is more than 16"},
		"PRECAST_MAX_BUNDLES": {"-1", "PRECAST_MAX_BUNDLES: \"-1\" cannot be read"},
		"MAX_BUNDLES":         {"-1", "MAX_BUNDLES: \"-1\" cannot be read"},
		"PRECAST_BASE_URL":    {"cdn.test", "PRECAST_BASE_URL: \"cdn.test\" does not begin"},
	} {
		vars := maps.Clone(environments["today's"])
		delete(vars, "PRECAST_RETAIN")
		vars[name] = c.value
		if _, err := start(t, vars); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("with %s=%s it starts, or does not say why not: %v", name, c.value, err)
		}
	}
	_, err := start(t, nil)
	for _, want := range []string{"PRECAST_OBJECTS", "PRECAST_CATALOG", "PRECAST_LEDGER", "PRECAST_QUEUE"} {
		if err == nil || !strings.Contains(err.Error(), want+" is not set") {
			t.Errorf("without an environment: %v, which does not say that %s is not set", err, want)
		}
	}
}
