package settings

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// reader reads variables from a map, and what it logs.
func reader(vars map[string]string) (*Reader, *strings.Builder) {
	var log strings.Builder
	return New(func(name string) (string, bool) { v, ok := vars[name]; return v, ok }, slog.New(slog.NewTextHandler(&log, nil))), &log
}

func TestReader(t *testing.T) {
	r, log := reader(map[string]string{"A": "text", "D": "3s", "BAD": "twelve", "EMPTY": "",
		"O": "s3://bucket", "T": "dynamodb://table", "Q": "sqs://host/1/jobs", "H": "http://host/1/jobs", "ODD": "s3://a/b"})
	if r.Text("A", "") != "text" || r.Text("X", "otherwise") != "otherwise" ||
		r.Duration("D", 0) != 3*time.Second || r.Bucket("O") != "bucket" || r.Table("T") != "table" ||
		r.Queue("Q") != "https://host/1/jobs" || r.QueueIfSet("H") != "http://host/1/jobs" || r.QueueIfSet("EMPTY") != "" || r.Err() != nil {
		t.Fatalf("values are wrong, or an error: %v", r.Err())
	}
	r.Bucket("MISSING")
	r.Queue("EMPTY")
	r.Bucket("ODD")
	r.Table("O")
	r.QueueIfSet("A")
	if r.Duration("BAD", time.Minute) != time.Minute {
		t.Fatal("a bad duration is not the default")
	}
	for _, want := range []string{"MISSING is not set", "EMPTY is not set", `BAD: "twelve" cannot be read`, `ODD: "s3://a/b" is not of the form s3://BUCKET`,
		`O: "s3://bucket" is not of the form dynamodb://TABLE`, `A: "text" is not of the form sqs://HOST/ACCOUNT/NAME`} {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if log.Len() > 0 {
		t.Errorf("it logs %s", log)
	}
}

// What earlier versions of the Terraform module set.
func TestOldNames(t *testing.T) {
	r, log := reader(map[string]string{"BUCKET": "packages", "CATALOG_TABLE": "catalog", "LEDGER_TABLE": "ledger", "QUEUE_URL": "https://sqs.test/1/jobs",
		"DEAD_LETTERS_URL": "https://sqs.test/1/dead", "DISTRIBUTION_ID": "E1", "KEY_VALUE_STORE": "arn", "METRICS_NAMESPACE": "Fleet",
		"STATEMENT_PERIOD": "1h", "BASE_URL": "https://cdn.test", "MAX_BUNDLES": "500", "MAX_BYTES": "17179869184",
		"MAX_COMBINATIONS": "7", "SUBSET_ITEMS": "0", "RETAIN": "0", "PART_BYTES": "1024", "CONCURRENCY": "2", "ATTEMPTS": "3"})
	for _, c := range []struct{ got, want string }{
		{r.Bucket("PRECAST_OBJECTS"), "packages"}, {r.Table("PRECAST_CATALOG"), "catalog"}, {r.Table("PRECAST_LEDGER"), "ledger"},
		{r.Queue("PRECAST_QUEUE"), "https://sqs.test/1/jobs"}, {r.QueueIfSet("PRECAST_DEAD_LETTERS"), "https://sqs.test/1/dead"},
		{r.Text("PRECAST_DISTRIBUTION", ""), "E1"}, {r.Text("PRECAST_KEY_VALUE_STORE", ""), "arn"}, {r.Text("PRECAST_METRICS_NAMESPACE", ""), "Fleet"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	if r.Duration("PRECAST_STATEMENT_PERIOD", 0) != time.Hour {
		t.Error("STATEMENT_PERIOD is not read")
	}
	want := Build{BaseURL: "https://cdn.test", MaxBundles: 500, MaxBytes: 16 << 30, MaxCombinations: 7, PartBytes: 1024, Concurrency: 2, Attempts: 3}
	if got := r.Build(); got != want || r.Err() != nil || log.Len() > 0 {
		t.Errorf("%+v, want %+v; %v; log %s", got, want, r.Err(), log)
	}
}

// The new name wins. That the old one says otherwise is in the log, once for each variable.
func TestBothNames(t *testing.T) {
	r, log := reader(map[string]string{"PRECAST_OBJECTS": "s3://new", "BUCKET": "old", "PRECAST_LEDGER": "dynamodb://same", "LEDGER_TABLE": "same",
		"PRECAST_RETAIN": "2", "RETAIN": "17", "PRECAST_SUBSET_ITEMS": "", "SUBSET_ITEMS": "1", "PRECAST_SIGNING_KEY": "env:SIGNING_KEY", "SIGNING_KEY": "secret"})
	if source := r.Text("PRECAST_SIGNING_KEY", ""); source != "env:SIGNING_KEY" {
		t.Errorf("the signing key is %s", source)
	}
	bucket, table, b := r.Bucket("PRECAST_OBJECTS"), r.Table("PRECAST_LEDGER"), r.Build()
	if bucket != "new" || table != "same" || b.Retain != 2 || b.SubsetItems != 1 || r.Err() != nil {
		t.Errorf("%s, %s, %+v, %v", bucket, table, b, r.Err())
	}
	said := log.String()
	if strings.Count(said, "\n") != 3 || !strings.Contains(said, "variable=PRECAST_OBJECTS old=BUCKET\n") || !strings.Contains(said, "variable=PRECAST_RETAIN old=RETAIN\n") {
		t.Errorf("the log says %s", said)
	}
	if strings.Contains(said, "secret") || strings.Contains(said, "s3://") {
		t.Errorf("the log has values, which may be secret: %s", said)
	}
}
