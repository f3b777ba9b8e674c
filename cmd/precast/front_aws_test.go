//go:build aws

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/lambdas"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/iampolicy"
	"github.com/precast-ota/precast/internal/test/standin"
)

// front is what the tests take for AWS: the stand-in, but for viewers' requests, which go to a rig that is
// set up as the distribution is that Terraform has applied, since the stand-in's CloudFront has no
// Lambda@Edge, no origin groups and no cache. It can also refuse calls, and look at them.
type front struct {
	t   *testing.T
	URL string
	// Standin is its URL.
	Standin string

	packages string // folder
	cfg      func() aws.Config
	proxy    *httputil.ReverseProxy

	mu     sync.Mutex
	guard  *iampolicy.Guard                                  // of those who have a policy; nil: nobody has
	before func(w http.ResponseWriter, r *http.Request) bool // answers itself: true
	after  func(r *http.Request)
	rig    *rig.Rig
	store  string // ARN of the KeyValueStore that the Function reads; empty: none
	traces []rig.Trace
}

// startFront starts a stand-in with a front before it. The Lambda functions in the stand-in go through the
// front as well: it sees their invalidations.
func startFront(t *testing.T, packages string) *front {
	t.Helper()
	os.Unsetenv("AWS_CA_BUNDLE")
	f := &front{t: t, packages: packages}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.URL = server.URL
	s, err := standin.Start(t.Context(), standin.Options{Env: []string{"AWS_ENDPOINT_URL=" + f.URL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	f.Standin = s.URL
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { w.WriteHeader(http.StatusBadGateway) },
	}
	f.mu.Unlock()
	t.Cleanup(func() {
		if f.rig != nil {
			if err := f.rig.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

// intercept sets what looks at calls before and after the stand-in has them; nil: nothing.
func (f *front) intercept(before func(http.ResponseWriter, *http.Request) bool, after func(*http.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// guarded makes whoever has this access key do with a policy, until the returned function is called. That says which
// calls were refused.
func (f *front) guarded(key string, policy iampolicy.Policy) (end func() []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	guard := &iampolicy.Guard{Next: http.HandlerFunc(f.serve), Region: "eu-west-1", Account: "000000000000", Policies: map[string]iampolicy.Policy{key: policy}}
	f.guard = guard
	return func() []string {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.guard = nil
		return guard.Refused()
	}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	guard := f.guard
	f.mu.Unlock()
	if guard != nil {
		guard.ServeHTTP(w, r)
		return
	}
	f.serve(w, r)
}

func (f *front) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	proxy, before, after := f.proxy, f.before, f.after
	f.mu.Unlock()
	if strings.HasSuffix(r.Host, ".cloudfront.net") {
		edge, err := f.edge(r.Host)
		if err == nil && f.store != "" {
			err = fill(r.Context(), f.cfg(), f.store, edge.Store)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		edge.ServeHTTP(w, r)
		return
	}
	if before != nil && before(w, r) {
		return
	}
	var body []byte
	if strings.HasSuffix(r.URL.Path, "/invalidation") {
		body, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	proxy.ServeHTTP(w, r)
	if after != nil {
		after(r)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rig != nil && bytes.Contains(body, []byte("/package*")) {
		f.rig.Invalidate("/package*")
	}
}

// edge returns the rig for a distribution.
func (f *front) edge(host string) (*rig.Rig, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rig != nil {
		return f.rig, nil
	}
	var err error
	f.rig, f.store, err = applied(f.t.Context(), f.cfg(), f.packages, host, f.t.TempDir(), func(tr rig.Trace) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.traces = append(f.traces, tr)
	})
	return f.rig, err
}

// fill gives the rig's store what the one in the stand-in has.
func fill(ctx context.Context, cfg aws.Config, arn string, to *rig.KeyValueStore) error {
	out, err := cdn.NewKeyValues(cfg).ListKeys(ctx, &cloudfrontkeyvaluestore.ListKeysInput{KvsARN: &arn, MaxResults: aws.Int32(50)})
	if err != nil {
		return fmt.Errorf("read the Function's store: %w", err)
	}
	items := make(map[string]string)
	for _, item := range out.Items {
		items[aws.ToString(item.Key)] = aws.ToString(item.Value)
	}
	return to.Replace(items)
}

// applied starts a rig with what the distribution of this host name is made of, all of it read back: its
// behaviors, policies, error times, the Function's and the Lambda@Edge function's code, the bucket. It returns
// the ARN of the Function's store as well.
func applied(ctx context.Context, cfg aws.Config, packages, host, dir string, trace func(rig.Trace)) (*rig.Rig, string, error) {
	cf := cloudfront.NewFromConfig(cfg)
	dist, err := distributionOf(ctx, cf, host)
	if err != nil {
		return nil, "", err
	}
	c := dist.DistributionConfig
	bucket, err := checkOrigins(c, cfg.Region)
	if err != nil {
		return nil, "", err
	}
	for event, name := range map[cftypes.EventType]string{cftypes.EventTypeViewerRequest: "function.js", cftypes.EventTypeViewerResponse: "response.js"} {
		if err := publishedFunction(ctx, cf, c, event, filepath.Join(dir, name)); err != nil {
			return nil, "", err
		}
	}
	store, err := storeOf(ctx, cf, c)
	if err != nil {
		return nil, "", err
	}
	if err := publishedHandler(ctx, cfg, c, packages, filepath.Join(dir, "edge.zip")); err != nil {
		return nil, "", err
	}
	objects, err := awsstore.NewObjects(awsstore.NewS3(cfg), bucket, awsstore.ObjectsOptions{})
	if err != nil {
		return nil, "", err
	}
	var changeErr error
	r, err := rig.Start(ctx, rig.Options{Objects: objects, Dist: dir, OnTrace: trace, Change: func(d *rig.Distribution) {
		changeErr = declare(ctx, cf, c, d)
		d.Domain, d.ID = host, aws.ToString(dist.Id)
		if store == "" {
			d.Stores = nil
		}
	}})
	if err != nil {
		return nil, "", err
	}
	if changeErr != nil {
		return nil, "", errors.Join(changeErr, r.Close())
	}
	return r, store, nil
}

// storeOf returns the ARN of the KeyValueStore that the Function of /package's requests reads; empty: none.
func storeOf(ctx context.Context, cf *cloudfront.Client, c *cftypes.DistributionConfig) (string, error) {
	arn := function(c.CacheBehaviors.Items[0].FunctionAssociations, cftypes.EventTypeViewerRequest)
	out, err := cf.DescribeFunction(ctx, &cloudfront.DescribeFunctionInput{Name: aws.String(arn[strings.LastIndex(arn, "/")+1:]), Stage: cftypes.FunctionStageLive})
	if err != nil {
		return "", fmt.Errorf("describe the Function %q: %w", arn, err)
	}
	stores := out.FunctionSummary.FunctionConfig.KeyValueStoreAssociations
	if stores == nil || len(stores.Items) == 0 {
		return "", nil
	}
	return aws.ToString(stores.Items[0].KeyValueStoreARN), nil
}

func distributionOf(ctx context.Context, cf *cloudfront.Client, host string) (*cftypes.Distribution, error) {
	list, err := cf.ListDistributions(ctx, &cloudfront.ListDistributionsInput{})
	if err != nil {
		return nil, err
	}
	for _, d := range list.DistributionList.Items {
		if aws.ToString(d.DomainName) == host {
			out, err := cf.GetDistribution(ctx, &cloudfront.GetDistributionInput{Id: d.Id})
			if err != nil {
				return nil, err
			}
			return out.Distribution, nil
		}
	}
	return nil, fmt.Errorf("there is no distribution %s", host)
}

// checkOrigins checks that both origins sign their requests and say which bucket it is, and returns that.
func checkOrigins(c *cftypes.DistributionConfig, region string) (bucket string, err error) {
	for _, o := range c.Origins.Items {
		headers := make(map[string]string)
		if o.CustomHeaders != nil {
			for _, h := range o.CustomHeaders.Items {
				headers[strings.ToLower(aws.ToString(h.HeaderName))] = aws.ToString(h.HeaderValue)
			}
		}
		if bucket == "" {
			bucket = headers["x-precast-bucket"]
		}
		if aws.ToString(o.OriginAccessControlId) == "" || bucket == "" || headers["x-precast-bucket"] != bucket || headers["x-precast-region"] != region {
			return "", fmt.Errorf("origin %s: access control %q, headers %v", aws.ToString(o.Id), aws.ToString(o.OriginAccessControlId), headers)
		}
		if o.CustomOriginConfig == nil && !strings.HasPrefix(aws.ToString(o.DomainName), bucket+".s3.") {
			return "", fmt.Errorf("origin %s is %s, not the bucket %s", aws.ToString(o.Id), aws.ToString(o.DomainName), bucket)
		}
	}
	return bucket, nil
}

// publishedFunction writes the Function that the behavior of /package runs at an event.
func publishedFunction(ctx context.Context, cf *cloudfront.Client, c *cftypes.DistributionConfig, event cftypes.EventType, name string) error {
	arn := function(c.CacheBehaviors.Items[0].FunctionAssociations, event)
	out, err := cf.GetFunction(ctx, &cloudfront.GetFunctionInput{Name: aws.String(arn[strings.LastIndex(arn, "/")+1:]), Stage: cftypes.FunctionStageLive})
	if err != nil {
		return fmt.Errorf("read the Function %q: %w", arn, err)
	}
	return os.WriteFile(name, out.FunctionCode, 0o600)
}

// publishedHandler writes the package of the Lambda@Edge function that /package is associated with: the one in
// the folder, if that is what was applied.
func publishedHandler(ctx context.Context, cfg aws.Config, c *cftypes.DistributionConfig, packages, name string) error {
	b := c.CacheBehaviors.Items[0]
	arn := aws.ToString(b.LambdaFunctionAssociations.Items[0].LambdaFunctionARN)
	// The number of the version, which CloudFront demands, is not looked at: the stand-in's versions have ARNs
	// without it.
	if !strings.HasPrefix(arn, "arn:aws:lambda:us-east-1:") {
		return fmt.Errorf("the Lambda@Edge function is %s: not in us-east-1", arn)
	}
	cfg.Region = "us-east-1"
	out, err := lambda.NewFromConfig(cfg).GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &arn})
	if err != nil {
		return fmt.Errorf("read the Lambda@Edge function: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(packages, "edge.zip"))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	if want := base64.StdEncoding.EncodeToString(sum[:]); aws.ToString(out.Configuration.CodeSha256) != want {
		return fmt.Errorf("the Lambda@Edge function's code is %s, edge.zip %s", aws.ToString(out.Configuration.CodeSha256), want)
	}
	return os.WriteFile(name, data, 0o600)
}

func function(a *cftypes.FunctionAssociations, event cftypes.EventType) string {
	if a != nil {
		for _, f := range a.Items {
			if f.EventType == event {
				return aws.ToString(f.FunctionARN)
			}
		}
	}
	return ""
}

// declare makes the rig's distribution the applied one, and fails if that is another than the rig's own, which all
// other tests take for it. Only the origins' addresses stay the rig's.
func declare(ctx context.Context, cf *cloudfront.Client, c *cftypes.DistributionConfig, d *rig.Distribution) error {
	s3, composer := d.Behaviors[0].Primary, d.Behaviors[0].Secondary
	overrides := d.Behaviors[0].Override // of the response headers policy, which is checked in terraform/tests
	origins := make(map[string]*rig.Origin)
	for _, o := range c.Origins.Items {
		origins[aws.ToString(o.Id)] = s3
		if o.CustomOriginConfig != nil {
			origins[aws.ToString(o.Id)] = composer
		}
	}
	own := *d
	d.Behaviors, d.Errors = nil, make(map[int]time.Duration)
	add := func(pattern, target, policy string, functions *cftypes.FunctionAssociations, lambdas *cftypes.LambdaFunctionAssociations) error {
		b := rig.Behavior{Pattern: pattern, Primary: origins[target], Override: overrides,
			Function:         function(functions, cftypes.EventTypeViewerRequest) != "",
			ResponseFunction: function(functions, cftypes.EventTypeViewerResponse) != "",
		}
		if lambdas != nil && len(lambdas.Items) > 0 {
			b.OriginRequest = lambdas.Items[0].EventType == cftypes.EventTypeOriginRequest
		}
		if c.OriginGroups != nil {
			for _, g := range c.OriginGroups.Items {
				if aws.ToString(g.Id) == target {
					b.Primary, b.Secondary = origins[aws.ToString(g.Members.Items[0].OriginId)], origins[aws.ToString(g.Members.Items[1].OriginId)]
					for _, code := range g.FailoverCriteria.StatusCodes.Items {
						b.FailoverOn = append(b.FailoverOn, int(code))
					}
				}
			}
		}
		if b.Primary == nil {
			return fmt.Errorf("behavior %s has no origin %s", pattern, target)
		}
		p, err := cf.GetCachePolicy(ctx, &cloudfront.GetCachePolicyInput{Id: &policy})
		if err != nil {
			return fmt.Errorf("read the cache policy of %s: %w", pattern, err)
		}
		b.Cache = cachePolicy(p.CachePolicy.CachePolicyConfig)
		d.Behaviors = append(d.Behaviors, b)
		return nil
	}
	for _, b := range c.CacheBehaviors.Items {
		if err := add(aws.ToString(b.PathPattern), aws.ToString(b.TargetOriginId), aws.ToString(b.CachePolicyId), b.FunctionAssociations, b.LambdaFunctionAssociations); err != nil {
			return err
		}
	}
	b := c.DefaultCacheBehavior
	if err := add("*", aws.ToString(b.TargetOriginId), aws.ToString(b.CachePolicyId), b.FunctionAssociations, b.LambdaFunctionAssociations); err != nil {
		return err
	}
	for _, e := range c.CustomErrorResponses.Items {
		d.Errors[int(aws.ToInt32(e.ErrorCode))] = time.Duration(aws.ToInt64(e.ErrorCachingMinTTL)) * time.Second
	}
	different := differences(own, *d)
	for _, o := range c.Origins.Items {
		if o.CustomOriginConfig == nil {
			continue
		}
		if t := time.Duration(aws.ToInt32(o.CustomOriginConfig.OriginReadTimeout)) * time.Second; t != composer.ReadTimeout || t <= lambdas.FirstByte {
			different = append(different, fmt.Sprintf("the composer is waited for for %s, in the rig for %s, and it may take %s to begin", t, composer.ReadTimeout, lambdas.FirstByte))
		}
	}
	if len(different) > 0 {
		return fmt.Errorf("the distribution is not the one of rig.Precast: %s", strings.Join(different, "; "))
	}
	return nil
}

// differences tells what is not the same in two distributions: behaviors, policies, times of errors.
func differences(a, b rig.Distribution) (all []string) {
	sorted := func(behaviors []rig.Behavior) []rig.Behavior {
		behaviors = slices.Clone(behaviors)
		for i := range behaviors {
			b := &behaviors[i]
			b.Cache.Headers, b.Cache.Listed, b.FailoverOn = slices.Sorted(slices.Values(b.Cache.Headers)), slices.Sorted(slices.Values(b.Cache.Listed)), slices.Sorted(slices.Values(b.FailoverOn))
		}
		return behaviors
	}
	one, two := sorted(a.Behaviors), sorted(b.Behaviors)
	for i := range max(len(one), len(two)) {
		if i >= len(one) || i >= len(two) {
			all = append(all, fmt.Sprintf("%d and %d behaviors", len(one), len(two)))
			break
		}
		if !reflect.DeepEqual(one[i], two[i]) {
			all = append(all, fmt.Sprintf("behavior %+v and %+v", one[i], two[i]))
		}
	}
	ttl := func(d rig.Distribution, status int) time.Duration {
		if t, ok := d.Errors[status]; ok {
			return t
		}
		return rig.ErrorTTL
	}
	for status := 400; status < 600; status++ {
		if ttl(a, status) != ttl(b, status) {
			all = append(all, fmt.Sprintf("%d is kept for %s and %s", status, ttl(a, status), ttl(b, status)))
		}
	}
	return all
}

func TestDifferencesOfDistributions(t *testing.T) {
	own := func() rig.Distribution {
		return rig.Precast(&rig.Origin{Name: "s3"}, &rig.Origin{Name: "composer"}, nil)
	}
	for name, change := range map[string]func(d *rig.Distribution){
		"a header more in the key": func(d *rig.Distribution) {
			d.Behaviors[0].Cache.Headers = append(d.Behaviors[0].Cache.Headers, "Accept")
		},
		"queries":                  func(d *rig.Distribution) { d.Behaviors[1].Cache.Queries = rig.AllQueries },
		"a maximum TTL":            func(d *rig.Distribution) { d.Behaviors[0].Cache.Max++ },
		"no Function":              func(d *rig.Distribution) { d.Behaviors[1].Function = false },
		"no response Function":     func(d *rig.Distribution) { d.Behaviors[0].ResponseFunction = false },
		"no handler":               func(d *rig.Distribution) { d.Behaviors[0].OriginRequest = false },
		"no failover":              func(d *rig.Distribution) { d.Behaviors[0].Secondary = nil },
		"other failover":           func(d *rig.Distribution) { d.Behaviors[0].FailoverOn = d.Behaviors[0].FailoverOn[1:] },
		"a pattern":                func(d *rig.Distribution) { d.Behaviors[0].Pattern = "/packages" },
		"a behavior less":          func(d *rig.Distribution) { d.Behaviors = d.Behaviors[:2] },
		"an error kept for longer": func(d *rig.Distribution) { d.Errors[503] = rig.ErrorTTL },
		"a 404 kept for longer":    func(d *rig.Distribution) { d.Errors[404] = time.Minute },
	} {
		d := own()
		change(&d)
		if all := differences(own(), d); len(all) != 1 {
			t.Errorf("%s: %q", name, all)
		}
	}
	d := own()
	d.Errors[404] = rig.ErrorTTL
	slices.Reverse(d.Behaviors[0].Cache.Headers)
	slices.Reverse(d.Behaviors[0].FailoverOn)
	if all := differences(own(), d); len(all) != 0 {
		t.Errorf("the same, spelled otherwise: %q", all)
	}
}

func cachePolicy(c *cftypes.CachePolicyConfig) rig.CachePolicy {
	seconds := func(n *int64) time.Duration { return time.Duration(aws.ToInt64(n)) * time.Second }
	p := rig.CachePolicy{Min: seconds(c.MinTTL), Def: seconds(c.DefaultTTL), Max: seconds(c.MaxTTL)}
	in := c.ParametersInCacheKeyAndForwardedToOrigin
	switch in.QueryStringsConfig.QueryStringBehavior {
	case cftypes.CachePolicyQueryStringBehaviorAll:
		p.Queries = rig.AllQueries
	case cftypes.CachePolicyQueryStringBehaviorWhitelist:
		p.Queries, p.Listed = rig.ListedQueries, in.QueryStringsConfig.QueryStrings.Items
	}
	if in.HeadersConfig.Headers != nil {
		p.Headers = slices.Clone(in.HeadersConfig.Headers.Items)
	}
	return p
}
