//go:build aws

package upgrade

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/standin"
)

// cloud is a stand-in for AWS with an installation's resources.
type cloud struct {
	t       *testing.T
	url     string
	clients *awsstore.Clients
	env     []string // of commands that work on it
}

func newCloud(t *testing.T) cloud {
	t.Helper()
	os.Unsetenv("AWS_CA_BUNDLE")
	server, err := standin.Start(t.Context(), standin.Options{Services: []string{"s3", "dynamodb", "sqs"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	clients, err := awsstore.Connect(t.Context(), config.WithBaseEndpoint(server.URL), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	resources, err := awsstore.Setup(t.Context(), clients, awsstore.Names{
		Bucket: "packages", CatalogTable: "catalog", LedgerTable: "ledger", Queue: "jobs", DeadLetters: "dead"})
	if err != nil {
		t.Fatal(err)
	}
	return cloud{t, server.URL, clients, []string{"AWS_ENDPOINT_URL=" + server.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"PRECAST_OBJECTS=s3://packages", "PRECAST_CATALOG=dynamodb://catalog", "PRECAST_LEDGER=dynamodb://ledger",
		"PRECAST_QUEUE=" + resources.QueueURL, "PRECAST_DEAD_LETTERS=" + resources.DeadLetterURL}}
}

// call calls an operation of DynamoDB as it stands on the wire.
func (c cloud) call(operation, body string) []byte {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	req.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s: %s, %v", operation, resp.Status, out, err)
	}
	return out
}
