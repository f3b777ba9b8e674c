//go:build aws

package main

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

// The sample's table and bucket, read by a data folder.
func TestC17FromTheTableOnAWS(t *testing.T) {
	env, _ := onAWS(t)
	value := func(name string) string {
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		return strings.TrimPrefix(env[i], name+"=")
	}
	clients, err := awsstore.Connect(t.Context(), config.WithBaseEndpoint(value("AWS_ENDPOINT_URL")), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := awsstore.Setup(t.Context(), clients, awsstore.Names{Bucket: "sample", CatalogTable: "ota-table"}); err != nil {
		t.Fatal(err)
	}
	content := []byte("scoreboard 1.0.0")
	if _, err := clients.S3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("sample"), Key: aws.String("scoreboard_1.0.0"), Body: bytes.NewReader(content)}); err != nil {
		t.Fatal(err)
	}
	row := map[string]types.AttributeValue{"deviceAttr": &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"gamer": &types.AttributeValueMemberBOOL{Value: true}}}}
	for name, text := range map[string]string{"app": "scoreboard", "env": "prod", "version": "1.0.0", "ident": "x", "url": "s3://sample/scoreboard_1.0.0", "md5": fmt.Sprintf("%x", md5.Sum(content))} {
		row[name] = &types.AttributeValueMemberS{Value: text}
	}
	if _, err := clients.DynamoDB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("ota-table"), Item: row}); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	precast := func(env []string, args ...string) string {
		cmd := exec.Command(path, args...)
		cmd.Dir, cmd.Env = work, env
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	folder := slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "PRECAST_") })
	for _, one := range [][]string{folder, env} {
		if out := precast(one, "catalog", "import", "--from-sample", "dynamodb://ota-table"); !strings.Contains(out, "1 item in the catalog") {
			t.Error(out)
		}
		if out := precast(one, "catalog", "list"); !strings.Contains(out, "gamer") || !strings.Contains(out, "16 B") {
			t.Error(out)
		}
	}
	// What is not there is named, with the region.
	if out := precast(folder, "catalog", "import", "--from-sample", "dynamodb://nothing"); !strings.Contains(out, "there is no table nothing in us-east-1") {
		t.Error(out)
	}
	with := func(name, value string) []string { return append(slices.Clone(env), name+"="+value) }
	for want, env := range map[string][]string{
		"there is no table nothing in us-east-1":  with("PRECAST_CATALOG", "dynamodb://nothing"),
		"there is no bucket nothing in us-east-1": with("PRECAST_OBJECTS", "s3://nothing"),
	} {
		if out := precast(env, "build"); !strings.Contains(out, want) {
			t.Errorf("%s\ndoes not say %s", out, want)
		}
	}
	if out := precast(with("PRECAST_QUEUE", strings.Replace(value("PRECAST_QUEUE"), "jobs", "nothing", 1)), "build"); !strings.Contains(out, "there is no queue ") || !strings.Contains(out, "/nothing in us-east-1") {
		t.Error(out)
	}
}
