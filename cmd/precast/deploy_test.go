package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/terraform/deploy"
)

// Whoever asks, and on whatever: the loss of data takes more than a yes.
func TestAgreed(t *testing.T) {
	harmless := deploy.Summary{Create: 1, Changes: []deploy.Change{{Action: deploy.Create, Resource: "aws_sqs_queue.jobs"}}}
	loses := deploy.Summary{Replace: 1, Changes: []deploy.Change{{Action: deploy.Replace, Resource: "aws_dynamodb_table.catalog", LosesData: true}}}
	for _, c := range []struct {
		name            string
		plan            deploy.Summary
		yes, deleteData bool
		terminal        bool
		typed           string
		asked, wrong    string
	}{
		{name: "--yes", plan: harmless, yes: true},
		{name: "--yes, data would be lost", plan: loses, yes: true, wrong: "--yes does not cover the loss of aws_dynamodb_table.catalog; give --delete-data"},
		{name: "--yes --delete-data", plan: loses, yes: true, deleteData: true},
		{name: "--delete-data alone", plan: loses, deleteData: true, wrong: "no terminal"},
		{name: "no terminal", plan: harmless, typed: "yes\n", wrong: "no terminal to ask on; give --yes"},
		{name: "yes", plan: harmless, terminal: true, typed: "yes\n", asked: "Type yes to apply"},
		{name: "yes without an end of line", plan: harmless, terminal: true, typed: "yes", asked: "Type yes to apply"},
		{name: "y", plan: harmless, terminal: true, typed: "y\n", asked: "Type yes", wrong: "not confirmed"},
		{name: "no", plan: harmless, terminal: true, typed: "no\n", asked: "Type yes", wrong: "not confirmed"},
		{name: "nothing", plan: harmless, terminal: true, typed: "\n", asked: "Type yes", wrong: "not confirmed"},
		{name: "the end", plan: harmless, terminal: true, asked: "Type yes", wrong: "EOF"},
		{name: "yes, data would be lost", plan: loses, terminal: true, typed: "yes\n", asked: "Type the installation's name, fleet", wrong: "not confirmed"},
		{name: "the name", plan: loses, terminal: true, typed: "fleet\n", asked: "Type the installation's name, fleet"},
		{name: "another name", plan: loses, deleteData: true, terminal: true, typed: "fleets\n", asked: "Type the installation's name, fleet", wrong: "not confirmed"},
	} {
		cmd := deployCmd{installationFlags: installationFlags{Name: "fleet"}, Yes: c.yes, DeleteData: c.deleteData}
		var said strings.Builder
		err := cmd.agreed(c.plan, streams{out: io.Discard, err: &said, in: strings.NewReader(c.typed), terminal: c.terminal})
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", c.name, err, c.wrong)
		}
		if !strings.Contains(said.String(), c.asked) || c.asked == "" && said.Len() > 0 {
			t.Errorf("%s: asked %q, want %q", c.name, said.String(), c.asked)
		}
	}
}

// The first deploy with an alias: its DNS record can be made only afterwards.
func TestSmokeDoesNotNeedTheAlias(t *testing.T) {
	dns := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host == "packages.example.com" && !dns:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/package":
			w.WriteHeader(http.StatusBadRequest)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	cmd := deployCmd{installationFlags: installationFlags{Name: "fleet", Endpoint: server.URL}, Timeout: time.Minute}
	never := func(context.Context) error { return errors.New("it is not asked again") }
	for _, c := range []struct {
		url  string
		dns  bool
		warn bool
	}{
		{"https://packages.example.com", false, true},
		{"https://packages.example.com", true, false},
		{"https://d1.cloudfront.net", false, false},
	} {
		dns = c.dns
		var said bytes.Buffer
		if err := cmd.smoke(t.Context(), deploy.Outputs{URL: c.url, Domain: "d1.cloudfront.net"}, deploy.WithoutSample(), &said, never); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		warned := strings.Contains(said.String(), "warning: https://packages.example.com does not answer yet") && strings.Contains(said.String(), "point its DNS record to d1.cloudfront.net")
		if warned != c.warn || !strings.Contains(said.String(), "Sending test requests to https://d1.cloudfront.net:") {
			t.Errorf("%+v:\n%s", c, &said)
		}
	}
}
