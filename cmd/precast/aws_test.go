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

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/standin"
)

// onAWS starts a stand-in with an empty pipeline in it, and returns the environment in which precast works
// on that, and the pipeline's objects.
func onAWS(t *testing.T) (env []string, objects builder.Objects) {
	t.Helper()
	os.Unsetenv("AWS_CA_BUNDLE")
	server, err := standin.Start(t.Context(), standin.Options{})
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
	objects, err = awsstore.NewObjects(clients.S3, "packages", awsstore.ObjectsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), "AWS_ENDPOINT_URL="+server.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"PRECAST_OBJECTS=s3://packages", "PRECAST_CATALOG=dynamodb://catalog", "PRECAST_LEDGER=dynamodb://ledger",
		"PRECAST_QUEUE="+resources.QueueURL, "PRECAST_DEAD_LETTERS="+resources.DeadLetterURL), objects
}

// Two servers build at once; one is killed in the middle of a job, and the other finishes.
func TestAKilledServerOnAWS(t *testing.T) {
	env, objects := onAWS(t)
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	seed := exec.Command(path, "seed", "--size", "30KiB")
	seed.Dir, seed.Env = work, env
	if out, err := seed.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	victim := exec.Command(path, "serve", "--addr", "127.0.0.1:0", "--log-level", "error")
	victim.Dir, victim.Env = work, env
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer victim.Process.Kill()
	bundles := func() (n int) {
		t.Helper()
		if err := objects.List(t.Context(), layout.BundlePrefix, func(builder.ObjectInfo) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for bundles() < 40 { // it is at it
	}
	type started struct {
		s   *serving
		err error
	}
	survivor := make(chan started, 1)
	go func() {
		s, err := startServer(path, work, env)
		survivor <- started{s, err}
	}()
	for n := bundles(); bundles() < n+20; {
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait()
	if n := bundles(); n >= 529 {
		t.Fatalf("the build was done before the kill: %d bundles", n)
	}
	other := <-survivor // ready: something is published
	if other.err != nil {
		t.Fatal(other.err)
	}
	ix, _, err := builder.ReadIndex(t.Context(), objects)
	if err != nil || len(ix.Items) != 9 {
		t.Fatalf("index %v, %v", ix, err)
	}
	for _, key := range builder.Cover(ix, nil).Keys() {
		if _, err := objects.Stat(t.Context(), key); err != nil {
			t.Fatalf("published without %s: %v", key, err)
		}
	}
	if err := other.s.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// The whole command against AWS's stand-in: the same words as with a data folder, five URLs more.
func TestCommandsOnAWS(t *testing.T) {
	env, _ := onAWS(t)
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
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
	contains(ahead, "the catalog has changes that are not published")
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

// The story that every host plays, with the pipeline on AWS.
func TestCommandsInEveryHostOnAWS(t *testing.T) {
	for _, script := range []string{"story", "C12", "C13", "C14", "C15", "C16", "promote", "ask"} { // each has an installation of its own
		t.Run(script, func(t *testing.T) {
			env, _ := onAWS(t)
			variables := map[string]string{"NEXT": "The pipeline builds it now; precast status tells how far it is."}
			for _, e := range env[len(os.Environ()):] {
				name, value, _ := strings.Cut(e, "=")
				variables[name] = value
			}
			runScripts(t, "", "aws", variables, "testdata/hosts/"+script+".txtar")
		})
	}
}
