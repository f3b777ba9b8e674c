package aws

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/precast-ota/precast/internal/format/layout"
)

// cleanEnvironment hides the AWS settings of whoever runs the tests.
func cleanEnvironment(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": t.TempDir() + "/none", "AWS_SHARED_CREDENTIALS_FILE": t.TempDir() + "/none",
		"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "",
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_CA_BUNDLE": "",
		"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
}

func TestConnectWithoutRegion(t *testing.T) {
	cleanEnvironment(t)
	if _, err := Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("Connect = %v", err)
	}
}

func TestConnectFromEnvironment(t *testing.T) {
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Run(name, func(t *testing.T) {
			var path string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { path = r.URL.Path }))
			defer server.Close()
			cleanEnvironment(t)
			t.Setenv("AWS_REGION", "eu-west-1")
			t.Setenv(name, server.URL)
			clients, err := Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			o, err := NewObjects(clients.S3, "bucket", ObjectsOptions{Prefix: "p/"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.Stat(t.Context(), layout.IndexKey); err != nil || path != "/bucket/p/index" {
				t.Errorf("Stat asked for %s, %v", path, err)
			}
		})
	}
}

func TestConnectToAWS(t *testing.T) {
	cleanEnvironment(t)
	t.Setenv("AWS_REGION", "eu-west-1")
	cfg, err := LoadConfig(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if NewS3(cfg).Options().UsePathStyle {
		t.Error("the bucket goes into the path")
	}
}

func TestConstructors(t *testing.T) {
	for _, prefix := range []string{"a", "/", "/a/", "a/b"} {
		if _, err := NewObjects(nil, "bucket", ObjectsOptions{Prefix: prefix}); err == nil {
			t.Errorf("NewObjects accepted the prefix %q", prefix)
		}
	}
	if _, err := NewObjects(nil, "", ObjectsOptions{}); err == nil {
		t.Error("NewObjects accepted no bucket")
	}
	for _, tables := range [][2]string{{"", "ledger"}, {"catalog", ""}} {
		if _, err := NewCatalog(nil, tables[0], tables[1], CatalogOptions{}); err == nil {
			t.Errorf("NewCatalog accepted the tables %q", tables)
		}
	}
	if _, err := NewQueue(nil, "", QueueOptions{}); err == nil {
		t.Error("NewQueue accepted no URL")
	}
	if _, err := NewLedger(nil, ""); err == nil {
		t.Error("NewLedger accepted no table")
	}
}

// recorder is an HTTP client that shows what it is given.
type recorder func(*http.Request)

func (f recorder) Do(r *http.Request) (*http.Response, error) {
	f(r)
	return http.DefaultClient.Do(r)
}

// See plainBodies.
func TestBodiesDoNotWriteThemselves(t *testing.T) {
	cleanEnvironment(t)
	os.Unsetenv("AWS_CA_BUNDLE") // another HTTP client than the SDK's cannot have it; Setenv restores it
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		sent = append(sent, string(b))
		io.WriteString(w, "{}")
	}))
	defer server.Close()
	clients, err := Connect(t.Context(), config.WithRegion("eu-west-1"), config.WithBaseEndpoint(server.URL),
		config.WithHTTPClient(recorder(func(r *http.Request) {
			if _, ok := r.Body.(io.WriterTo); ok {
				t.Errorf("the body of %s is an io.WriterTo", r.Header.Get("X-Amz-Target"))
			}
		})))
	if err != nil {
		t.Fatal(err)
	}
	q, err := NewQueue(clients.SQS, "https://sqs.example/1/q", QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Delete(t.Context(), "receipt"); err != nil {
		t.Fatal(err)
	}
	l, err := NewLedger(clients.DynamoDB, "ledger")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 2 || !strings.Contains(sent[0], "receipt") || !strings.Contains(sent[1], "entry/a") {
		t.Errorf("sent %q", sent)
	}
}
