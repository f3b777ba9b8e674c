//go:build aws

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"precast/internal/awsstore"
	"precast/internal/awsstore/standin"
)

// The whole command against AWS's stand-in: the same words as with a data folder, five URLs more.
func TestCommandsOnAWS(t *testing.T) {
	os.Unsetenv("AWS_CA_BUNDLE")
	server, err := standin.Start(t.Context(), standin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	clients, err := awsstore.Connect(t.Context(), config.WithBaseEndpoint(server.URL), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	places, err := awsstore.Setup(t.Context(), clients, awsstore.Names{
		Bucket: "packages", CatalogTable: "catalog", LedgerTable: "ledger", Queue: "jobs", DeadLetters: "dead"})
	if err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	env := append(os.Environ(), "AWS_ENDPOINT_URL="+server.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"PRECAST_OBJECTS=s3://packages", "PRECAST_CATALOG=dynamodb://catalog", "PRECAST_LEDGER=dynamodb://ledger",
		"PRECAST_QUEUE="+places.QueueURL, "PRECAST_DEAD_LETTERS="+places.DeadLetterURL)
	command := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.Command(path, args...)
		cmd.Dir, cmd.Env = work, env
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("precast %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, want, out)
		}
		return string(out)
	}
	contains := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Fatalf("%q is not in\n%s", want, text)
		}
	}
	contains(command(exitOK, "seed", "--size", "10KiB"), "9 items in the catalog of dynamodb://catalog. The pipeline builds it now")
	contains(command(exitOK, "plan"), "to build: 9 binaries to compress (90 KiB), 529 bundles to write")
	ahead := command(exitNo, "status")
	contains(ahead, "the catalog is ahead of it")
	contains(ahead, "the oldest change that is not served was made")
	contains(command(exitOK, "build"), "generation 1 is published")
	contains(command(exitOK, "status"), "it is what the catalog says")

	s, err := startServer(path, work, env, "--window", "50ms")
	if err != nil {
		t.Fatal(err)
	}
	defer s.cmd.Process.Kill()
	contains(command(exitOK, "inspect", s.url+"/package?cpuArch=armv8&attrGamer=prod"), "scoreboard_1.0.0")
	if err := os.WriteFile(filepath.Join(work, "board"), []byte("a new scoreboard"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(exitOK, "catalog", "put", "scoreboard", "board", "--version", "1.0.1", "--attr", "gamer")
	start := time.Now()
	for !strings.Contains(command(exitOK, "inspect", s.url+"/package?cpuArch=armv8&attrGamer=prod"), "scoreboard_1.0.1") {
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("the change does not arrive\n%s", s.stderr)
		}
	}
	t.Logf("from the release to a device, by the stream: %.1f s", time.Since(start).Seconds())
	contains(command(exitOK, "status", "--json"), `"generation": 2`)
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	contains(command(exitOK, "catalog", "export"), `"version":"1.0.1"`)
	contains(command(exitOK, "catalog", "rm", "scoreboard"), "scoreboard/prod 1.0.1 is out of the catalog")
	contains(command(exitOK, "build", "--json"), `"generation": 3`)
	// One URL alone is a mistake, and named.
	env = append(env, "PRECAST_QUEUE=")
	contains(command(exitError, "status"), "--queue: \"\" is not of the form sqs://HOST/ACCOUNT/NAME")
}
