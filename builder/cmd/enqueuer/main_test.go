package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/settings"
)

// start wires the function in an environment. That calls nobody.
func start(t *testing.T, vars map[string]string) (*lambdas.Enqueuer, error) {
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_CA_BUNDLE", "")
	log := slog.New(slog.DiscardHandler)
	return wire(t.Context(), settings.New(func(name string) (string, bool) { v, ok := vars[name]; return v, ok }, log), log)
}

func TestEnvironment(t *testing.T) {
	environments := map[string]map[string]string{
		"that of earlier versions of the Terraform module": {"LEDGER_TABLE": "ledger", "QUEUE_URL": "https://sqs.test/1/jobs", "DEAD_LETTERS_URL": "https://sqs.test/1/dead", "METRICS_NAMESPACE": "Precast/fleet"},
		"today's": {"PRECAST_LEDGER": "dynamodb://ledger", "PRECAST_QUEUE": "https://sqs.test/1/jobs", "PRECAST_DEAD_LETTERS": "https://sqs.test/1/dead"},
	}
	for whose, vars := range environments {
		if handler, err := start(t, vars); err != nil || handler.Ledger == nil || handler.Queue == nil || handler.Depth == nil {
			t.Errorf("%s: %+v, %v", whose, handler, err)
		}
	}
	_, err := start(t, nil)
	for _, want := range []string{"PRECAST_LEDGER", "PRECAST_QUEUE"} {
		if err == nil || !strings.Contains(err.Error(), want+" is not set") {
			t.Errorf("without an environment: %v, which does not say that %s is not set", err, want)
		}
	}
}
