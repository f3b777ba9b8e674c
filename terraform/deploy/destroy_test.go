package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	cwltypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// bucket keeps versions; a page has two of them. Every third entry is a delete marker.
type bucket struct {
	versions []string // "key version"
	refuse   string   // cannot be deleted
	none     bool     // there is no such bucket
}

func (b *bucket) ListObjectVersions(_ context.Context, in *s3.ListObjectVersionsInput, _ ...func(*s3.Options)) (*s3.ListObjectVersionsOutput, error) {
	if b.none {
		return nil, &smithy.GenericAPIError{Code: "NoSuchBucket"}
	}
	after := aws.ToString(in.KeyMarker) + " " + aws.ToString(in.VersionIdMarker)
	out := &s3.ListObjectVersionsOutput{IsTruncated: aws.Bool(false)}
	n := 0
	for _, v := range b.versions {
		if v <= after && after != " " {
			continue
		}
		if n == 2 {
			out.IsTruncated = aws.Bool(true)
			break
		}
		key, version, _ := strings.Cut(v, " ")
		out.NextKeyMarker, out.NextVersionIdMarker = &key, &version
		if version[len(version)-1]%3 == 0 {
			out.DeleteMarkers = append(out.DeleteMarkers, s3types.DeleteMarkerEntry{Key: &key, VersionId: &version})
		} else {
			out.Versions = append(out.Versions, s3types.ObjectVersion{Key: &key, VersionId: &version, Size: aws.Int64(10)})
		}
		n++
	}
	return out, nil
}

func (b *bucket) DeleteObjects(_ context.Context, in *s3.DeleteObjectsInput, _ ...func(*s3.Options)) (*s3.DeleteObjectsOutput, error) {
	out := &s3.DeleteObjectsOutput{}
	for _, o := range in.Delete.Objects {
		v := *o.Key + " " + *o.VersionId
		if v == b.refuse {
			out.Errors = append(out.Errors, s3types.Error{Key: o.Key, Code: aws.String("AccessDenied"), Message: aws.String("no")})
			continue
		}
		b.versions = slices.DeleteFunc(b.versions, func(w string) bool { return w == v })
	}
	return out, nil
}

func TestEmpty(t *testing.T) {
	full := func() []string {
		var all []string
		for i := range 9 {
			all = append(all, fmt.Sprintf("k%d v%d", i/2, i))
		}
		return all
	}
	b := &bucket{versions: full()}
	c, err := Count(t.Context(), b, "b")
	if err != nil || c != (Content{Objects: 9, Bytes: 60}) {
		t.Errorf("%+v, %v", c, err)
	}
	var seen []int
	if err := Empty(t.Context(), b, "b", func(n int) { seen = append(seen, n) }); err != nil || len(b.versions) > 0 {
		t.Errorf("%v, left %v", err, b.versions)
	}
	if !slices.Equal(seen, []int{2, 4, 6, 8, 9}) {
		t.Errorf("%v", seen)
	}
	b = &bucket{versions: full(), refuse: "k2 v4"}
	if err := Empty(t.Context(), b, "b", func(int) {}); err == nil || !strings.Contains(err.Error(), "k2: AccessDenied no") {
		t.Error(err)
	}
	if c, err := Count(t.Context(), &bucket{none: true}, "b"); err != nil || c.Objects != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// replicas refuses to delete a function for so many times.
type replicas struct {
	refuse int
	err    error // afterwards
	calls  int
}

func (r *replicas) DeleteFunction(context.Context, *lambda.DeleteFunctionInput, ...func(*lambda.Options)) (*lambda.DeleteFunctionOutput, error) {
	if r.calls++; r.calls <= r.refuse {
		return nil, &lambdatypes.InvalidParameterValueException{Message: aws.String("Lambda was unable to delete arn:aws:lambda:us-east-1:1:function:f:1 because it is a replicated function. Please see our documentation for Deleting Lambda@Edge Functions and Replicas.")}
	}
	return nil, r.err
}

func TestDeleteLeftover(t *testing.T) {
	denied := &lambdatypes.InvalidParameterValueException{Message: aws.String("no such runtime")}
	for name, c := range map[string]struct {
		client *replicas
		wait   time.Duration
		want   error
		calls  int
	}{
		"at once":           {&replicas{}, 0, nil, 1},
		"gone already":      {&replicas{err: &lambdatypes.ResourceNotFoundException{}}, 0, nil, 1},
		"replicas, no wait": {&replicas{refuse: 1}, 0, ErrReplicas, 1},
		"replicas, waited":  {&replicas{refuse: 3}, 10 * time.Minute, nil, 4},
		"too long":          {&replicas{refuse: 99}, 3 * time.Minute, ErrReplicas, 4},
		"another error":     {&replicas{err: denied}, time.Hour, denied, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			i := &Installation{opt: Options{Dir: t.TempDir(), Out: &out}, Settings: Settings{Name: "fleet", Leftover: &Leftover{Function: "f"}}}
			if err := i.Save(); err != nil {
				t.Fatal(err)
			}
			slept := time.Duration(0)
			err := i.DeleteLeftover(t.Context(), c.client, c.wait, func(_ context.Context, d time.Duration) error { slept += d; return nil })
			if !errors.Is(err, c.want) || c.client.calls != c.calls || slept > c.wait {
				t.Errorf("%v after %d calls, slept %s", err, c.client.calls, slept)
			}
			kept, loadErr := Load(i.opt.Dir)
			if loadErr != nil || (kept.Leftover == nil) != (c.want == nil) {
				t.Errorf("kept %+v, %v", kept, loadErr)
			}
		})
	}
	i := &Installation{}
	if err := i.DeleteLeftover(t.Context(), nil, 0, nil); err != nil {
		t.Error(err)
	}
}

type logGroups struct {
	region  string
	deleted *[]string
	err     error
}

func (l logGroups) DescribeLogGroups(_ context.Context, in *cloudwatchlogs.DescribeLogGroupsInput, _ ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	if l.region == "sa-east-1" {
		return nil, l.err
	}
	out := &cloudwatchlogs.DescribeLogGroupsOutput{LogGroups: []cwltypes.LogGroup{{LogGroupName: aws.String(*in.LogGroupNamePrefix + "-of-another")}}}
	if strings.HasPrefix(l.region, "eu-west") {
		out.LogGroups = append(out.LogGroups, cwltypes.LogGroup{LogGroupName: in.LogGroupNamePrefix})
	}
	return out, nil
}

func (l logGroups) DeleteLogGroup(_ context.Context, in *cloudwatchlogs.DeleteLogGroupInput, _ ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DeleteLogGroupOutput, error) {
	*l.deleted = append(*l.deleted, l.region+" "+*in.LogGroupName)
	return nil, nil
}

func TestDeleteEdgeLogs(t *testing.T) {
	broken := errors.New("broken")
	var deleted []string
	n, err := DeleteEdgeLogs(t.Context(), func(region string) LogGroups { return logGroups{region, &deleted, broken} }, "f")
	if n != 3 || !errors.Is(err, broken) || !strings.Contains(err.Error(), "sa-east-1") {
		t.Errorf("%d, %v", n, err)
	}
	if !slices.Equal(deleted, []string{"eu-west-1 /aws/lambda/us-east-1.f", "eu-west-2 /aws/lambda/us-east-1.f", "eu-west-3 /aws/lambda/us-east-1.f"}) {
		t.Errorf("%v", deleted)
	}
}

// docs/deploy.md says in how many regions.
func TestEdgeLogRegionsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("the %d regions that every account has", len(EdgeLogRegions())); !strings.Contains(string(data), want) {
		t.Errorf("docs/deploy.md does not say %q", want)
	}
}

// pages of CloudFront's lists, one entry each.
type pages struct{}

func next(marker *string) (n int, following *string) {
	_, _ = fmt.Sscan(aws.ToString(marker), &n) // none: 0
	if n < 2 {
		following = aws.String(fmt.Sprint(n + 1))
	}
	return n, following
}

func (pages) ListDistributions(_ context.Context, in *cloudfront.ListDistributionsInput, _ ...func(*cloudfront.Options)) (*cloudfront.ListDistributionsOutput, error) {
	n, following := next(in.Marker)
	return &cloudfront.ListDistributionsOutput{DistributionList: &cftypes.DistributionList{NextMarker: following,
		Items: []cftypes.DistributionSummary{{Id: aws.String(fmt.Sprint("E", n)), Comment: aws.String(fmt.Sprint("n", n))}}}}, nil
}

func (pages) ListCachePolicies(_ context.Context, in *cloudfront.ListCachePoliciesInput, _ ...func(*cloudfront.Options)) (*cloudfront.ListCachePoliciesOutput, error) {
	n, following := next(in.Marker)
	return &cloudfront.ListCachePoliciesOutput{CachePolicyList: &cftypes.CachePolicyList{NextMarker: following,
		Items: []cftypes.CachePolicySummary{{CachePolicy: &cftypes.CachePolicy{Id: aws.String(fmt.Sprint("E", n)), CachePolicyConfig: &cftypes.CachePolicyConfig{Name: aws.String(fmt.Sprint("n", n))}}}}}}, nil
}

func (pages) ListResponseHeadersPolicies(_ context.Context, in *cloudfront.ListResponseHeadersPoliciesInput, _ ...func(*cloudfront.Options)) (*cloudfront.ListResponseHeadersPoliciesOutput, error) {
	n, following := next(in.Marker)
	return &cloudfront.ListResponseHeadersPoliciesOutput{ResponseHeadersPolicyList: &cftypes.ResponseHeadersPolicyList{NextMarker: following,
		Items: []cftypes.ResponseHeadersPolicySummary{{ResponseHeadersPolicy: &cftypes.ResponseHeadersPolicy{Id: aws.String(fmt.Sprint("E", n)), ResponseHeadersPolicyConfig: &cftypes.ResponseHeadersPolicyConfig{Name: aws.String(fmt.Sprint("n", n))}}}}}}, nil
}

func (pages) ListOriginAccessControls(_ context.Context, in *cloudfront.ListOriginAccessControlsInput, _ ...func(*cloudfront.Options)) (*cloudfront.ListOriginAccessControlsOutput, error) {
	n, following := next(in.Marker)
	return &cloudfront.ListOriginAccessControlsOutput{OriginAccessControlList: &cftypes.OriginAccessControlList{NextMarker: following,
		Items: []cftypes.OriginAccessControlSummary{{Id: aws.String(fmt.Sprint("E", n)), Name: aws.String(fmt.Sprint("n", n))}}}}, nil
}

func (pages) ListEventSourceMappings(_ context.Context, in *lambda.ListEventSourceMappingsInput, _ ...func(*lambda.Options)) (*lambda.ListEventSourceMappingsOutput, error) {
	if *in.FunctionName != "f" || *in.EventSourceArn != "n2" {
		return &lambda.ListEventSourceMappingsOutput{}, nil
	}
	return &lambda.ListEventSourceMappingsOutput{EventSourceMappings: []lambdatypes.EventSourceMappingConfiguration{{UUID: aws.String("E2")}}}, nil
}

func TestFinder(t *testing.T) {
	f := AWSFinder{CloudFront: pages{}, Lambda: pages{}}
	for _, kind := range []string{"aws_cloudfront_distribution", "aws_cloudfront_cache_policy", "aws_cloudfront_response_headers_policy",
		"aws_cloudfront_origin_access_control", "aws_lambda_event_source_mapping"} {
		for name, want := range map[string]string{"n2": "E2", "n7": ""} {
			got, err := f.Find(t.Context(), kind, map[string]any{"name": name, "comment": name, "function_name": "f", "event_source_arn": name})
			if err != nil || got != want {
				t.Errorf("%s %s: %q, %v", kind, name, got, err)
			}
		}
	}
	if _, err := f.Find(t.Context(), "aws_iam_role", nil); err == nil {
		t.Error("a role was found")
	}
}

// fakeTerraform is a terraform that says a version and nothing else.
func fakeTerraform(t *testing.T, version string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "terraform")
	script := "#!/bin/sh\necho '{\"terraform_version\": \"" + version + "\", \"provider_selections\": {}}'\n"
	if err := os.WriteFile(name, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTerraformIsFoundAndNewEnough(t *testing.T) {
	find := func(executable string) error {
		_, err := newTerraform(t.Context(), t.TempDir(), ">= 1.9", Environment{Executable: executable})
		return err
	}
	for version, want := range map[string]string{
		"1.9.0": "", "1.11.4": "", "1.99.1": "",
		"1.8.5": "is terraform 1.8.5, and it must be >= 1.9, < 2.0: install it from https://developer.hashicorp.com/terraform/install",
		"2.0.0": "is terraform 2.0.0",
		"what":  "ask",
	} {
		err := find(fakeTerraform(t, version))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", version, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := find(""); err == nil || !strings.Contains(err.Error(), "find terraform >= 1.9") || !strings.Contains(err.Error(), "--terraform FILE") {
		t.Error(err)
	}
}

// What would change where Terraform works, or with what, does not come from the caller's environment.
func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	got := environment(dir, Environment{PluginMirror: "/mirror", Environ: []string{
		"PATH=/bin", "AWS_PROFILE=p", "TF_DATA_DIR=/x", "TF_WORKSPACE=w", "TF_VAR_name=n", "TF_CLI_ARGS=-x", "TF_CLI_ARGS_plan=-y", "TF_CLI_CONFIG_FILE=/rc", "TF_LOG=trace"}})
	want := map[string]string{"PATH": "/bin", "AWS_PROFILE": "p", "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": filepath.Join(dir, rcFile)}
	for k, v := range got {
		if want[k] != v {
			t.Errorf("%s=%s", k, v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	if got := environment(dir, Environment{Environ: []string{"TF_CLI_CONFIG_FILE=/rc"}}); got["TF_CLI_CONFIG_FILE"] != "/rc" {
		t.Errorf("%v", got)
	}
}

func TestPackages(t *testing.T) {
	dir := t.TempDir()
	p := Packages{Dir: filepath.Join(dir, "dist"), Arch: "amd64"}
	t.Chdir(dir) // no sources above it
	err := p.Find(t.Context(), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "builder-amd64.zip") || !strings.Contains(err.Error(), "run make package edge") {
		t.Error(err)
	}
	for _, name := range p.names() {
		if err := writeFile(filepath.Join(p.Dir, name), []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Find(t.Context(), &bytes.Buffer{}); err != nil {
		t.Error(err)
	}
	to := filepath.Join(dir, "copy")
	if err := p.copyTo(to); err != nil {
		t.Fatal(err)
	}
	if err := placeholders(to); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, filepath.Join(to, "edge.zip"))); got != "edge.zip" {
		t.Errorf("%q: a placeholder replaced it", got)
	}
	if missing := (Packages{Dir: to, Arch: "arm64"}).missing(); len(missing) != 3 { // empty ones
		t.Errorf("%v", missing)
	}
}

// From anywhere in the repository, missing packages are built from its sources.
func TestSourcesAreFound(t *testing.T) {
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := findSources(); err != nil || got != top {
		t.Errorf("%s, %v, want %s", got, err, top)
	}
}

// The smoke test as a device sees it: by the distribution's URL, or at an endpoint with its host name.
func TestCheck(t *testing.T) {
	answers := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers++
		switch {
		case r.Host != "d.cloudfront.net" || r.Header.Get("X-Forwarded-Proto") != "https":
			w.WriteHeader(http.StatusTeapot)
		case r.URL.Path == "/index" && answers > 2: // an error that a cache had kept goes
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Query().Get("payloadType") == "metadataOnly":
			fmt.Fprint(w, `{"b": {}, "a": {}}`)
		case r.Header.Get("If-None-Match") == "1, 2":
			w.WriteHeader(http.StatusNotModified)
		case r.URL.Query().Has("cpuArch"):
			fmt.Fprint(w, "not a bundle")
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	d := Device{URL: "https://d.cloudfront.net", Endpoint: server.URL, HTTP: server.Client()}
	gaveUp := errors.New("gave up")
	tries := 0
	again := func(context.Context) error {
		if tries++; tries > 5 {
			return gaveUp
		}
		return nil
	}
	var out bytes.Buffer
	err := d.Check(t.Context(), []Ask{
		{Title: "patience", Path: "/index", Want: 404},
		{Title: "list", Path: "/package?payloadType=metadataOnly", Want: 200, Listed: []string{"a", "b"}},
		{Title: "held", Path: "/package?cpuArch=a", Held: []string{"1", "2"}, Want: 304},
	}, &out, again)
	if err != nil || tries != 2 || strings.Count(out.String(), "\n") != 4 || !strings.Contains(out.String(), "not yet  patience: status 503, not 404") {
		t.Errorf("%v after %d tries\n%s", err, tries, &out)
	}
	for _, a := range []Ask{
		{Path: "/package?payloadType=metadataOnly", Want: 200, Listed: []string{"a"}},
		{Path: "/package?cpuArch=a", Want: 200, Files: []string{"x"}},
		{Path: "/package?cpuArch=a", Want: 404},
	} {
		tries = 5
		err := d.Check(t.Context(), []Ask{a}, &out, again)
		if _, wrong := errors.AsType[Wrong](err); !wrong {
			t.Errorf("%+v: %v", a, err)
		}
	}
	if n := len(Sample(map[string]string{})); n < 10 {
		t.Errorf("%d requests", n)
	}
}
