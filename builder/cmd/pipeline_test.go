//go:build aws

// This file deploys the packed functions in the AWS stand-in and watches the pipeline work:
// go test -tags aws, after internal/test/standin/install.sh.
package cmd_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/awspipeline"
	"github.com/precast-ota/precast/internal/run/pipeline"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/test/standin"
	"github.com/precast-ota/precast/seed"
)

// zips packs the functions for this machine, once, and returns the folder.
func zips(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "./builder/cmd/pack", "-arch", runtime.GOARCH, "-out", dir, "-functions", "enqueuer,builder,composer")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pack: %v\n%s", err, out)
	}
	for _, name := range []string{"enqueuer", "builder", "composer"} {
		z, err := zip.OpenReader(filepath.Join(dir, name+"-"+runtime.GOARCH+".zip"))
		if err != nil {
			t.Fatal(err)
		}
		if len(z.File) != 1 || z.File[0].Name != "bootstrap" || z.File[0].Mode() != 0o755 {
			t.Fatalf("the zip of %s holds %v", name, z.File)
		}
		z.Close()
	}
	return dir
}

// deployment is one deployment.
type deployment struct {
	t       *testing.T
	clients *awsstore.Clients
	lambda  *lambda.Client
	url     string
	names   awsstore.Names
	made    awsstore.Created
	drivers pipeline.Drivers
}

func deploy(t *testing.T) *deployment {
	t.Helper()
	os.Unsetenv("AWS_CA_BUNDLE")
	ctx := t.Context()
	server, err := standin.Start(ctx, standin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	opts := []func(*config.LoadOptions) error{
		config.WithBaseEndpoint(server.URL), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")),
	}
	p := &deployment{t: t, url: server.URL, names: awsstore.Names{
		Bucket: "packages", CatalogTable: "catalog", LedgerTable: "ledger", Queue: "jobs", DeadLetters: "dead"}}
	if p.clients, err = awsstore.Connect(ctx, opts...); err != nil {
		t.Fatal(err)
	}
	cfg, err := awsstore.LoadConfig(ctx, opts...)
	if err != nil {
		t.Fatal(err)
	}
	p.lambda = lambda.NewFromConfig(cfg)
	if p.made, err = awsstore.Setup(ctx, p.clients, p.names); err != nil {
		t.Fatal(err)
	}
	if p.drivers, err = awspipeline.Open(p.clients, awsdrivers.Resources{Bucket: p.names.Bucket, CatalogTable: p.names.CatalogTable,
		LedgerTable: p.names.LedgerTable, QueueURL: p.made.QueueURL, DeadLettersURL: p.made.DeadLetterURL}); err != nil {
		t.Fatal(err)
	}
	dir := zips(t)
	p.function("enqueuer", dir, p.made.CatalogStream, &lambda.CreateEventSourceMappingInput{
		StartingPosition: types.EventSourcePositionTrimHorizon, BatchSize: aws.Int32(100)})
	p.create("composer", dir)
	p.function("builder", dir, p.made.QueueARN, &lambda.CreateEventSourceMappingInput{BatchSize: aws.Int32(5)})
	return p
}

// function creates a function and maps an event source to it.
func (p *deployment) function(name, dir, source string, mapping *lambda.CreateEventSourceMappingInput) {
	p.t.Helper()
	p.create(name, dir)
	mapping.FunctionName, mapping.EventSourceArn, mapping.Enabled = &name, &source, aws.Bool(true)
	mapping.FunctionResponseTypes = []types.FunctionResponseType{types.FunctionResponseTypeReportBatchItemFailures}
	if _, err := p.lambda.CreateEventSourceMapping(p.t.Context(), mapping); err != nil {
		p.t.Fatalf("map %s to %s: %v", source, name, err)
	}
}

// create creates a function from its zip, in the environment of earlier versions of the Terraform module. (What the module
// sets now, cmd/precast deploys.)
func (p *deployment) create(name, dir string) {
	p.t.Helper()
	zip, err := os.ReadFile(filepath.Join(dir, name+"-"+runtime.GOARCH+".zip"))
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = p.lambda.CreateFunction(p.t.Context(), &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: types.RuntimeProvidedal2023, Handler: aws.String("bootstrap"),
		Role: aws.String("arn:aws:iam::000000000000:role/precast"), Timeout: aws.Int32(60), MemorySize: aws.Int32(512),
		Code: &types.FunctionCode{ZipFile: zip},
		Environment: &types.Environment{Variables: map[string]string{
			"BUCKET": p.names.Bucket, "CATALOG_TABLE": p.names.CatalogTable, "LEDGER_TABLE": p.names.LedgerTable,
			"QUEUE_URL": p.made.QueueURL, "AWS_ENDPOINT_URL": p.url, "DEADLINE_MARGIN": "5s", "AWS_CA_BUNDLE": "",
		}},
	})
	if err != nil {
		p.t.Fatalf("create function %s: %v", name, err)
	}
}

// await waits until the published index satisfies ok, and returns how long that took.
func (p *deployment) await(what string, ok func(*index.Index) bool) time.Duration {
	p.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ix, _, err := builder.ReadIndex(ctx, p.drivers.Objects)
		if err == nil && ix != nil && ok(ix) {
			return time.Since(start)
		}
		select {
		case <-ctx.Done():
			waiting, inFlight, dead, depthErr := p.drivers.DeadLetters.Depth(p.t.Context())
			p.t.Fatalf("%s: not in time; jobs: %d waiting, %d in flight, %d dead, %v; index error %v", what, waiting, inFlight, dead, depthErr, err)
		case <-tick.C:
		}
	}
}

// stored returns the content of every object that devices can be sent.
func stored(t *testing.T, objects builder.Objects) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, prefix := range []string{layout.BundlePrefix, layout.ManifestPrefix, layout.BinaryPrefix, layout.PiecePrefix} {
		err := objects.List(t.Context(), prefix, func(o builder.ObjectInfo) error {
			body, _, err := objects.Get(t.Context(), o.Key, 0, -1)
			if err != nil {
				return err
			}
			defer body.Close()
			data, err := io.ReadAll(body)
			all[o.Key] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// embedded builds a catalog in a data folder of its own, reading the binaries from the deployment's store.
func (p *deployment) embedded(items []catalog.Item, binaries map[string]string) map[string]string {
	p.t.Helper()
	store, err := local.Open(p.t.TempDir(), local.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	defer store.Close()
	for key, data := range binaries {
		if strings.HasPrefix(key, layout.BinaryPrefix) {
			if _, err := store.Objects().Put(p.t.Context(), key, builder.Body{Reader: strings.NewReader(data), Size: int64(len(data))}, builder.PutOptions{}); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	for _, it := range items {
		if err := store.Catalog().Apply(p.t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(it)}}); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := pipeline.New(pipeline.Local(store), pipeline.Config{}).Build(p.t.Context(), builder.PlanOptions{}, nil); err != nil {
		p.t.Fatal(err)
	}
	return stored(p.t, store.Objects())
}

// modified returns when each object was last written.
func (p *deployment) modified() map[string]time.Time {
	p.t.Helper()
	all := make(map[string]time.Time)
	pages := s3.NewListObjectsV2Paginator(p.clients.S3, &s3.ListObjectsV2Input{Bucket: &p.names.Bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		for _, o := range page.Contents {
			all[*o.Key] = *o.LastModified
		}
	}
	return all
}

// A seeded catalog flows through stream, enqueuer, queue and builder into the bucket, byte for byte what
// the embedded build makes of it; then one item changes, and only what it affects is written.
func TestPipeline(t *testing.T) {
	p := deploy(t)
	im := &release.Importer{Objects: p.drivers.Objects, Catalog: struct {
		builder.Catalog
		builder.CatalogWriter
	}{p.drivers.Catalog, p.drivers.Writer}}
	res, err := im.Import(t.Context(), seed.Releases(20<<10, 1), false)
	if err != nil {
		t.Fatal(err)
	}
	took := p.await("the sample", func(ix *index.Index) bool { return len(ix.Items) == len(res.Items) })
	t.Logf("from the last PutItem of the seed to the index: %.1f s", took.Seconds())
	got := stored(t, p.drivers.Objects)
	want := p.embedded(res.Items, got)
	if !maps.Equal(got, want) {
		t.Fatalf("%d objects in the bucket, %d in the embedded build: %s", len(got), len(want), difference(got, want))
	}

	before := p.modified()
	item := catalog.Item{App: "scoreboard", Track: "prod", Version: "1.0.1", DeviceAttr: map[string]bool{"gamer": true}}
	res, err = im.Import(t.Context(), []release.Release{{Item: item, Open: func() (io.ReadSeekCloser, error) {
		return builder.NopCloser{ReadSeeker: bytes.NewReader([]byte("a new scoreboard"))}, nil
	}}}, false)
	if err != nil {
		t.Fatal(err)
	}
	took = p.await("the change", func(ix *index.Index) bool {
		return slices.ContainsFunc(ix.Items, func(it index.Item) bool { return it.Version == "1.0.1" })
	})
	t.Logf("from PutItem to the index: %.1f s", took.Seconds())
	after := p.modified()
	for key, when := range before {
		if key != layout.IndexKey && !after[key].Equal(when) {
			t.Errorf("%s was written again", key)
		}
	}
	manifests := 0
	for key, data := range stored(t, p.drivers.Objects) {
		if _, ok := before[key]; ok || !strings.HasPrefix(key, layout.ManifestPrefix) {
			continue
		}
		manifests++
		if !strings.Contains(data, `"latestVersion": "1.0.1"`) {
			t.Errorf("%s was written and is not affected", key)
		}
	}
	ix, _, err := builder.ReadIndex(t.Context(), p.drivers.Objects)
	if err != nil || manifests == 0 {
		t.Fatalf("%d manifests, %v", manifests, err)
	}
	d := edge.Decide(ix, "cpuArch=armv8&attrGamer=prod", "")
	if _, err := p.drivers.Objects.Stat(t.Context(), layout.BundleKey(d.Set.ID(), "0")); err != nil {
		t.Fatalf("the gamer's bundle: %v", err)
	}
	// What the packed composer makes on request is what was prebuilt.
	key := layout.BundleKey(d.Set.ID(), "0")
	status, body := p.composed(key, "attrgamer=prod&cpuarch=armv8", "")
	if status != 200 || string(body) != stored(t, p.drivers.Objects)[key] {
		t.Fatalf("composed: %d, %d bytes", status, len(body))
	}
	if status, body := p.composed(key, "cpuarch=armv8", ""); status != 404 {
		t.Fatalf("composed for another selection: %d %s", status, body)
	}
	if _, _, dead, err := p.drivers.DeadLetters.Depth(t.Context()); err != nil || dead != 0 {
		t.Fatalf("%d dead letters, %v", dead, err)
	}
}

// composed invokes the packed composer by the event that a function URL makes of a request.
func (p *deployment) composed(key, query, held string) (status int, body []byte) {
	p.t.Helper()
	in := events.LambdaFunctionURLRequest{Version: "2.0", RawPath: "/" + key,
		Headers: map[string]string{"x-precast-selection": query, "x-precast-held": held}}
	in.RequestContext.DomainName, in.RequestContext.HTTP.Method = "composer.invalid", "GET"
	event, err := json.Marshal(in)
	if err != nil {
		p.t.Fatal(err)
	}
	said, err := p.lambda.Invoke(p.t.Context(), &lambda.InvokeInput{FunctionName: aws.String("composer"), Payload: event})
	if err != nil {
		p.t.Fatal(err)
	}
	if said.FunctionError != nil {
		p.t.Fatalf("the composer failed: %s: %s", *said.FunctionError, said.Payload)
	}
	var out events.LambdaFunctionURLResponse
	if err := json.Unmarshal(said.Payload, &out); err != nil || !out.IsBase64Encoded {
		p.t.Fatalf("the composer sent %.300q: %v", said.Payload, err)
	}
	if body, err = base64.StdEncoding.DecodeString(out.Body); err != nil {
		p.t.Fatal(err)
	}
	return out.StatusCode, body
}

func difference(got, want map[string]string) string {
	var lines []string
	for key := range got {
		if w, ok := want[key]; !ok {
			lines = append(lines, "only in the bucket: "+key)
		} else if w != got[key] {
			lines = append(lines, fmt.Sprintf("%s: %d bytes, not %d", key, len(got[key]), len(w)))
		}
	}
	for key := range want {
		if _, ok := got[key]; !ok {
			lines = append(lines, "only embedded: "+key)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines[:min(len(lines), 10)], "\n")
}
