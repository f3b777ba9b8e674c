//go:build aws

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
	kvstypes "github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/precast-ota/precast/internal/run/cdn"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/iampolicy"
	"github.com/precast-ota/precast/terraform"
	"github.com/precast-ota/precast/terraform/deploy"
)

// What TestDeployAWS replaces, since the stand-in does not have it: Lambda@Edge, the cache and the failover between
// origins are the rig's, which is set up from what was applied (front). The function URL of the composer is in the
// distribution as it was applied, but nobody invokes the deployed function by it: the rig has a composer in its own
// process. The packed one answers in builder/cmd (TestPipeline). Every resource of the module is applied.

// falseDrifts are attributes that the stand-in does not return as they were set: Terraform would set them
// again at every apply. On AWS there are none.
func falseDrifts() map[string][]string {
	return map[string][]string{
		// DescribeAlarms of the stand-in leaves these out or empty.
		"aws_cloudwatch_metric_alarm": {"actions_enabled", "alarm_description", "dimensions", "period", "statistic", "treat_missing_data"},
		// GetResponseHeadersPolicy of the stand-in has empty lists where none were set.
		"aws_cloudfront_response_headers_policy": {"custom_headers_config", "remove_headers_config"},
	}
}

// installation is one that a test works on by the command.
type installation struct {
	t    *testing.T
	path string // of precast
	dir  string // working directory
	env  []string
	cfg  aws.Config
	*front
}

// command runs precast and returns its output and what it said, and the exit code.
func (i *installation) command(args ...string) (out, errs string, code int) {
	i.t.Helper()
	cmd := exec.Command(i.path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = i.dir, i.env, &stdout, &stderr
	start := time.Now()
	_ = cmd.Run() // the exit code tells
	i.t.Logf("precast %s: exit code %d after %.1f s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), time.Since(start).Seconds())
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func (i *installation) must(want int, args ...string) (out, errs string) {
	i.t.Helper()
	out, errs, code := i.command(args...)
	if code != want {
		i.t.Fatalf("precast %s: exit code %d, want %d\n%s\n%s", strings.Join(args, " "), code, want, out, errs)
	}
	return out, errs
}

func has(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Fatalf("%q is not in\n%s", want, text)
		}
	}
}

func startInstallation(t *testing.T) *installation {
	t.Helper()
	mirror := os.Getenv("TF_PLUGIN_MIRROR")
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	i := &installation{t: t, path: path, dir: t.TempDir()}
	dist := filepath.Join(i.dir, "dist")
	// Packages are built where they are missing; from the sources, so that this is run there.
	work, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	i.front = startFront(t, dist)
	i.env = append(os.Environ(), "AWS_ENDPOINT_URL="+i.URL, "AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"AWS_CA_BUNDLE=", "TF_PLUGIN_MIRROR="+mirror, "TF_CLI_CONFIG_FILE=")
	if i.cfg, err = awsstore.LoadConfig(t.Context(), config.WithBaseEndpoint(i.Standin), config.WithRegion("eu-west-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", ""))); err != nil {
		t.Fatal(err)
	}
	i.front.cfg = func() aws.Config { return i.cfg.Copy() }
	// What is off by default is on, so that every resource of the module is applied.
	if _, err := awsstore.NewS3(i.cfg).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(logBucket),
		CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: "eu-west-1"}}); err != nil {
		t.Fatal(err)
	}
	args := []string{"plan-infra", "--name", "fleet", "--dir", filepath.Join(i.dir, ".precast", "fleet"), "--packages", dist,
		"--var", "create_release_manager_policy=true", "--var", `bucket_access_logs={"bucket":"` + logBucket + `"}`}
	if runtime.GOARCH == "amd64" {
		args = append(args, "--var", "architecture=x86_64")
	}
	folder := i.dir
	i.dir = work
	out, errs := i.must(exitNo, args...)
	i.dir = folder
	has(t, errs, "building packages: go run ./builder/cmd/pack", "installation fleet in account 000000000000, eu-west-1", "changes pending")
	has(t, out, " to create, 0 to change, 0 to replace, 0 to delete", "  + aws_cloudfront_distribution.cdn\n")
	for _, r := range resources(t) {
		has(t, out, "  + "+r)
	}
	return i
}

const logBucket = "access-logs"

// resources are the module's, by their addresses without keys.
func resources(t *testing.T) []string {
	t.Helper()
	var all []string
	names, err := fs.Glob(terraform.Module(), "*.tf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(terraform.Module(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^resource "(\w+)" "(\w+)"`).FindAllSubmatch(data, -1) {
			all = append(all, string(m[1])+"."+string(m[2]))
		}
	}
	if len(all) < 40 {
		t.Fatalf("the module has %d resources", len(all))
	}
	return all
}

// The whole life of an installation: a deploy that is killed, one that fails, one that ends well; the
// pipeline; a release; a destroy that has to wait for replicas; nothing is left.
func TestDeployAWS(t *testing.T) {
	i := startInstallation(t)
	began := time.Now()

	// Killed at the worst moment: the distribution is made, and the answer does not arrive any more. Much of
	// what was made before is not in the state either.
	i.killedWhenMade(func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/distribution")
	})

	// One call is refused: the run fails half way, says what, and that the same command resumes.
	var refused atomic.Bool
	i.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/functions/fleet-composer/policy") || refused.Swap(true) {
			return false
		}
		w.Header().Set("X-Amzn-Errortype", "InvalidParameterValueException")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"Type":"User","Message":"refused by the test"}`)
		return true
	}, nil)
	deployArgs := []string{"deploy", "--name", "fleet", "--packages", "dist", "--yes", "--seed", "--seed-size", "20KiB"}
	_, errs := i.must(exitError, deployArgs...)
	has(t, errs, "The last run was interrupted. Looking for resources ", "aws_cloudfront_distribution.cdn exists: E",
		"to take over as they are there", "aws_lambda_permission.composer", "refused by the test",
		"terraform failed after ", "Run the same command again to resume", "terraform.tfstate")

	// It resumes, and the pipeline builds what is seeded; devices are asked through the applied distribution.
	i.intercept(nil, nil)
	start := time.Now()
	out, errs := i.must(exitOK, deployArgs...)
	t.Logf("%s", errs)
	has(t, errs, "generation 1 is published, 9 items", "created aws_lambda_permission.composer", "a gamer with a modem", "  304  ")
	has(t, out, "https://", "curl ", "export PRECAST_QUEUE='http")
	t.Logf("deploy took %.1f s from its third run on, %.1f s altogether", time.Since(start).Seconds(), time.Since(began).Seconds())

	outputs := i.outputs()
	i.deployedAgain()
	i.pipelineIs(outputs)
	i.planIsEmpty()
	i.standInAnswers(outputs)
	tableIsRight := i.staleTable(outputs)
	i.releaseArrives(outputs)
	tableIsRight()
	i.rolloutArrives(outputs)

	// Nobody is there to ask.
	_, errs = i.must(exitError, "destroy", "--name", "fleet")
	has(t, errs, "there is no terminal to ask on; give --yes", "distribution "+outputs.Domain, "table fleet-catalog (items: 9)")

	i.destroyed(outputs)
}

// killedWhenMade starts a deploy and kills it as soon as a call was done, before the answer is there.
func (i *installation) killedWhenMade(call func(*http.Request) bool) {
	i.t.Helper()
	cmd := exec.Command(i.path, "deploy", "--name", "fleet", "--packages", "dist", "--yes")
	cmd.Dir, cmd.Env = i.dir, i.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var once sync.Once
	killed := make(chan struct{})
	i.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !call(r) {
			return false
		}
		i.front.mu.Lock()
		proxy := i.front.proxy
		i.front.mu.Unlock()
		proxy.ServeHTTP(discard{make(http.Header)}, r)
		once.Do(func() {
			_ = cmd.Process.Kill()
			close(killed)
		})
		<-killed
		return true
	}, nil)
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	_ = cmd.Wait()
	i.endOrphans()
	select {
	case <-killed:
	default:
		i.t.Fatalf("it was not killed\n%s", &stderr)
	}
	i.intercept(nil, nil)
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// endOrphans ends what a killed Terraform leaves behind: its providers go on by themselves.
func (i *installation) endOrphans() {
	folders, _ := filepath.Glob("/proc/[0-9]*/cwd") // none where there is no Linux
	for _, folder := range folders {
		cwd, err := os.Readlink(folder)
		if err != nil || !strings.HasPrefix(cwd, i.dir+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(folder)))
		if err != nil {
			continue
		}
		if process, err := os.FindProcess(pid); err == nil {
			_ = process.Kill()
		}
	}
}

func (i *installation) outputs() deploy.Outputs {
	i.t.Helper()
	data, err := os.ReadFile(filepath.Join(i.dir, ".precast", "fleet", deploy.OutputsFile))
	if err != nil {
		i.t.Fatal(err)
	}
	var o deploy.Outputs
	if err := json.Unmarshal(data, &o); err != nil || o.URL == "" || len(o.Environment) < 6 {
		i.t.Fatalf("%+v, %v", o, err)
	}
	for k, v := range o.Environment { // what the eval lines say
		i.env = append(i.env, k+"="+v)
	}
	return o
}

// deployedAgain deploys once more, for a program to read: there is nothing to make.
func (i *installation) deployedAgain() {
	i.t.Helper()
	out, errs := i.must(exitOK, "deploy", "--name", "fleet", "--packages", "dist", "--yes", "--json")
	var d deployed
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		i.t.Fatalf("%v\n%s\n%s", err, out, errs)
	}
	if d.Name != "fleet" || d.Account != "000000000000" || d.Region != "eu-west-1" || d.Folder != filepath.Join(".precast", "fleet") || d.Generation != 1 || d.Seconds <= 0 {
		i.t.Errorf("%+v", d)
	}
	if p := d.Plan; p.Create+p.Replace+p.Delete+p.Import > 0 {
		i.t.Errorf("it made something: %+v", p)
	}
	data, err := os.ReadFile(filepath.Join(i.dir, d.Folder, deploy.OutputsFile))
	if err != nil {
		i.t.Fatal(err)
	}
	var kept map[string]json.RawMessage
	if err := json.Unmarshal(data, &kept); err != nil {
		i.t.Fatal(err)
	}
	if len(kept) < 15 || len(kept) != len(d.Outputs) {
		i.t.Errorf("%d outputs are printed, %d kept", len(d.Outputs), len(kept))
	}
	for name, v := range kept {
		var a, b any
		if json.Unmarshal(v, &a) != nil || json.Unmarshal(d.Outputs[name], &b) != nil || !reflect.DeepEqual(a, b) {
			i.t.Errorf("output %s: %s is printed, %s kept", name, d.Outputs[name], v)
		}
	}
}

// pipelineIs: what was seeded was built by the functions in the stand-in, since nothing else builds.
func (i *installation) pipelineIs(o deploy.Outputs) {
	i.t.Helper()
	out, _ := i.must(exitOK, "status", "--json")
	has(i.t, out, `"upToDate": true`, `"dead": 0`)
	f, err := lambda.NewFromConfig(i.cfg).GetFunction(i.t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String(o.FunctionNames["builder"])})
	if err != nil || f.Configuration.Runtime != "provided.al2023" {
		i.t.Fatalf("%+v, %v", f, err)
	}
}

// planIsEmpty: but for the false drifts.
func (i *installation) planIsEmpty() {
	i.t.Helper()
	out, errs, _ := i.command("plan-infra", "--name", "fleet", "--packages", "dist", "--json")
	var s deploy.Summary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		i.t.Fatalf("%v\n%s\n%s", err, out, errs)
	}
	known := falseDrifts()
	for _, c := range s.Changes {
		kind, _, _ := strings.Cut(c.Resource, ".")
		for _, a := range c.Attributes {
			if c.Action != deploy.Update || !slices.Contains(known[kind], a) {
				i.t.Errorf("a second plan would %s %s (%s)", c.Action, c.Resource, a)
			}
		}
		if c.Action != deploy.Update {
			i.t.Errorf("a second plan would %s %s", c.Action, c.Resource)
		}
	}
	i.t.Logf("a second plan has %d changes, all of them false drifts", len(s.Changes))
}

// request asks the distribution at an endpoint.
func (i *installation) request(endpoint, host, path string, held ...string) (int, http.Header, []byte) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), http.MethodGet, endpoint+path, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("X-Forwarded-Proto", "https")
	if len(held) > 0 {
		req.Header.Set("If-None-Match", strings.Join(held, ","))
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

// standInAnswers asks the stand-in's own CloudFront for what it can: answers of the Function, and binaries
// from the bucket through origin access control. Requests that reach the origin group are beyond it.
func (i *installation) standInAnswers(o deploy.Outputs) {
	i.t.Helper()
	restoreFunction := i.withoutStore()
	for path, want := range map[string]int{
		"/package?attrGamer=prod": 400, "/index": 404, "/": 404, "/pieces/x": 404, "/package?cpuArch=armv8": 502,
	} {
		if got, _, body := i.request(i.Standin, o.Domain, path); got != want {
			i.t.Errorf("%s: %d, want %d: %.200s", path, got, want, body)
		}
	}
	_, _, body := i.request(i.URL, o.Domain, "/package?cpuArch=armv8&payloadType=metadataOnly")
	var list map[string]struct {
		URL  string `json:"url"`
		Size int    `json:"size"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		i.t.Fatalf("%v: %s", err, body)
	}
	restore := i.withoutTLSOnly(o.Bucket)
	binary := strings.TrimPrefix(list["os_armv8"].URL, "https://"+o.Domain)
	if status, _, data := i.request(i.Standin, o.Domain, binary); status != 200 || len(data) != list["os_armv8"].Size || len(data) == 0 {
		i.t.Errorf("%s: %d with %d bytes, want %d: %.200s", binary, status, len(data), list["os_armv8"].Size, data)
	}
	restore()
	restoreFunction()
	// The same request twice, in other words: the second one does not reach the origin any more.
	_, first, _ := i.request(i.URL, o.Domain, "/package?cpuArch=armv7&attrCamera=beta")
	_, second, _ := i.request(i.URL, o.Domain, "/package?ATTRCAMERA=beta&cpuarch=armv7")
	if !strings.HasPrefix(first.Get("X-Cache"), "Miss") || !strings.HasPrefix(second.Get("X-Cache"), "Hit") {
		i.t.Errorf("X-Cache: %q, then %q", first.Get("X-Cache"), second.Get("X-Cache"))
	}
	i.front.mu.Lock()
	defer i.front.mu.Unlock()
	for _, tr := range i.traces {
		if tr.Broken != nil {
			i.t.Errorf("%s breaks a rule of CloudFront: %v", tr.URL, tr.Broken)
		}
	}
}

// withoutStore takes the KeyValueStore's module out of the Function, until the returned function is called: the
// stand-in's runtime has no such module, and answers 503.
func (i *installation) withoutStore() (restore func()) {
	i.t.Helper()
	const imported, missing = `import cf from"cloudfront";`, `const cf={kvs(){throw new Error("there is no store")}};`
	ctx, client, name := i.t.Context(), cloudfront.NewFromConfig(i.cfg), aws.String("fleet-eu-west-1-request")
	live, err := client.GetFunction(ctx, &cloudfront.GetFunctionInput{Name: name, Stage: cftypes.FunctionStageLive})
	if err != nil {
		i.t.Fatal(err)
	}
	code := strings.Replace(string(live.FunctionCode), imported, missing, 1)
	if code == string(live.FunctionCode) {
		i.t.Fatalf("the Function does not begin by %s:\n%.200s", imported, code)
	}
	describe := func() *cloudfront.DescribeFunctionOutput {
		i.t.Helper()
		out, err := client.DescribeFunction(ctx, &cloudfront.DescribeFunctionInput{Name: name, Stage: cftypes.FunctionStageDevelopment})
		if err != nil {
			i.t.Fatal(err)
		}
		return out
	}
	publish := func(code []byte) {
		i.t.Helper()
		was := describe()
		_, err := client.UpdateFunction(ctx, &cloudfront.UpdateFunctionInput{Name: name, IfMatch: was.ETag, FunctionCode: code, FunctionConfig: was.FunctionSummary.FunctionConfig})
		if err == nil { // the stand-in's answer to it has no ETag
			_, err = client.PublishFunction(ctx, &cloudfront.PublishFunctionInput{Name: name, IfMatch: describe().ETag})
		}
		if err != nil {
			i.t.Fatal(err)
		}
	}
	publish([]byte(code))
	return func() { publish(live.FunctionCode) }
}

// withoutTLSOnly takes the statement out of the bucket's policy that refuses requests without TLS, until the
// returned function is called: the stand-in takes its own CloudFront's requests for such.
func (i *installation) withoutTLSOnly(bucket string) (restore func()) {
	i.t.Helper()
	client := awsstore.NewS3(i.cfg)
	out, err := client.GetBucketPolicy(i.t.Context(), &s3.GetBucketPolicyInput{Bucket: &bucket})
	if err != nil {
		i.t.Fatal(err)
	}
	var policy struct {
		Version   string
		Statement []map[string]any
	}
	if err := json.Unmarshal([]byte(aws.ToString(out.Policy)), &policy); err != nil {
		i.t.Fatal(err)
	}
	n := len(policy.Statement)
	policy.Statement = slices.DeleteFunc(policy.Statement, func(s map[string]any) bool { return s["Sid"] == "OnlyTLS" })
	if len(policy.Statement) != n-1 {
		i.t.Fatalf("the policy has no statement OnlyTLS: %s", aws.ToString(out.Policy))
	}
	open, err := json.Marshal(policy)
	if err != nil {
		i.t.Fatal(err)
	}
	put := func(text string) {
		i.t.Helper()
		if _, err := client.PutBucketPolicy(i.t.Context(), &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: &text}); err != nil {
			i.t.Fatal(err)
		}
	}
	put(string(open))
	return func() { put(aws.ToString(out.Policy)) }
}

// releaseArrives: a change of the catalog reaches a device.
func (i *installation) releaseArrives(o deploy.Outputs) {
	i.t.Helper()
	if err := os.WriteFile(filepath.Join(i.dir, "board"), []byte("a new scoreboard"), 0o600); err != nil {
		i.t.Fatal(err)
	}
	// Whoever brings it may do what the policy says that was made for that, and nothing else.
	var document string
	data, err := os.ReadFile(filepath.Join(i.dir, ".precast", "fleet", deploy.OutputsFile))
	if err == nil {
		var all struct {
			Policy string `json:"release_manager_policy"`
		}
		err = json.Unmarshal(data, &all)
		document = all.Policy
	}
	if err != nil {
		i.t.Fatal(err)
	}
	policy, err := iampolicy.Parse(document)
	if err != nil {
		i.t.Fatal(err)
	}
	end := i.guarded("release-manager", policy)
	start := time.Now()
	env := i.env
	i.env = append(slices.Clone(env), "AWS_ACCESS_KEY_ID=release-manager")
	i.must(exitOK, "catalog", "put", "scoreboard", "board", "--version", "1.0.1", "--attr", "gamer")
	i.env = env
	if refused := end(); len(refused) > 0 {
		i.t.Errorf("refused: %v", refused)
	}
	const path = "/package?cpuArch=armv8&attrGamer=prod&payloadType=metadataOnly"
	for {
		_, _, body := i.request(i.URL, o.Domain, path)
		if strings.Contains(string(body), `"1.0.1"`) {
			break
		}
		if time.Since(start) > 2*time.Minute {
			i.t.Fatalf("the release does not arrive:\n%s", body)
		}
	}
	i.t.Logf("from the release to a device: %.1f s", time.Since(start).Seconds())
}

// rolloutArrives rolls a release out to a quarter of the fleet, and then to all of it: the builder in the stand-in makes
// the table, and the Function tells by it who is in. Of the salt spring, slot 7 has place 207 and slot 0 place 4066.
func (i *installation) rolloutArrives(o deploy.Outputs) {
	i.t.Helper()
	gets := func(slot int) string {
		_, _, body := i.request(i.URL, o.Domain, fmt.Sprint("/package?cpuArch=armv8&attrGamer=prod&payloadType=metadataOnly&slot=", slot))
		var m map[string]struct{ LatestVersion string }
		_ = json.Unmarshal(body, &m) // an error has no scoreboard
		return m["scoreboard"].LatestVersion
	}
	arrives := func(slot int, version string) {
		i.t.Helper()
		for start := time.Now(); gets(slot) != version; {
			if time.Since(start) > 2*time.Minute {
				i.t.Fatalf("slot %d gets %s, not %s", slot, gets(slot), version)
			}
		}
	}
	i.must(exitOK, "catalog", "put", "scoreboard", "board", "--version", "1.0.2", "--attr", "gamer", "--rollout", "25", "--salt", "spring")
	arrives(7, "1.0.2")
	if got := gets(0); got != "1.0.1" {
		i.t.Errorf("slot 0 gets %s, before its turn", got)
	}
	i.must(exitOK, "catalog", "rollout", "scoreboard", "100")
	arrives(0, "1.0.2")
}

// staleTable puts a rollout into the table that nobody published, and looks whether the Function reads it: slots
// that are in it share an answer, and so do the others. The returned function waits until the publish of the
// function in the stand-in has taken it out.
func (i *installation) staleTable(o deploy.Outputs) (isRight func()) {
	i.t.Helper()
	arn, client := o.Environment["PRECAST_KEY_VALUE_STORE"], cdn.NewKeyValues(i.cfg)
	store, err := client.DescribeKeyValueStore(i.t.Context(), &cloudfrontkeyvaluestore.DescribeKeyValueStoreInput{KvsARN: &arn})
	if err != nil {
		i.t.Fatal(err)
	}
	_, err = client.UpdateKeys(i.t.Context(), &cloudfrontkeyvaluestore.UpdateKeysInput{KvsARN: &arn, IfMatch: store.ETag,
		Puts: []kvstypes.PutKeyRequestListItem{{Key: aws.String(cdn.KeyPrefix + "0"), Value: aws.String("spring 3 7 500 scoreboard=prod\n")}}})
	if err != nil {
		i.t.Fatal(err)
	}
	const path = "/package?cpuArch=armv7&scoreboard=prod"
	for _, c := range []struct{ query, want string }{{"&slot=5", "Miss"}, {"&slot=6", "Hit"}, {"&slot=5000", "Miss"}, {"&slot=5001", "Hit"}, {"", "Hit"}} {
		if status, header, body := i.request(i.URL, o.Domain, path+c.query); status != http.StatusOK || !strings.HasPrefix(header.Get("X-Cache"), c.want) {
			i.t.Errorf("%s%s: %d, %q, want %s: %.200s", path, c.query, status, header.Get("X-Cache"), c.want, body)
		}
	}
	if status, _, body := i.request(i.URL, o.Domain, path+"&slot=10000"); status != http.StatusBadRequest || !strings.Contains(string(body), "slot is not a number from 0 to 9999") {
		i.t.Errorf("slot 10000: %d %.200s", status, body)
	}
	return func() {
		i.t.Helper()
		for start := time.Now(); ; {
			out, err := client.ListKeys(i.t.Context(), &cloudfrontkeyvaluestore.ListKeysInput{KvsARN: &arn})
			if err != nil {
				i.t.Fatal(err)
			}
			if len(out.Items) == 0 {
				return
			}
			if time.Since(start) > time.Minute {
				i.t.Fatalf("the table of rollouts is not brought to what is published: %+v", out.Items)
			}
		}
	}
}

// destroyed destroys the installation, with replicas in the way at first, and looks that nothing is left.
func (i *installation) destroyed(o deploy.Outputs) {
	i.t.Helper()
	ctx := i.t.Context()
	logs := func(region string) *cloudwatchlogs.Client {
		cfg := i.cfg.Copy()
		cfg.Region = region
		return cloudwatchlogs.NewFromConfig(cfg)
	}
	edge := o.FunctionNames["edge"]
	group := "/aws/lambda/us-east-1." + edge
	if _, err := logs("ap-northeast-1").CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group}); err != nil {
		i.t.Fatal(err)
	}
	i.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete || !strings.HasSuffix(r.URL.Path, "/functions/"+edge) {
			return false
		}
		w.Header().Set("X-Amzn-Errortype", "InvalidParameterValueException")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"Type":"User","Message":"Lambda was unable to delete arn:aws:lambda:us-east-1:000000000000:function:%s:1 because it is a replicated function. Please see our documentation for Deleting Lambda@Edge Functions and Replicas."}`, edge)
		return true
	}, nil)
	// What is looked for afterwards is found as long as it is there.
	there := i.left(logs)
	for _, kind := range []string{"buckets", "tables", "queues", "functions in eu-west-1", "functions in us-east-1", "log groups in eu-west-1",
		"log groups in ap-northeast-1", "event source mappings", "distributions", "CloudFront Functions", "KeyValueStores", "cache policies",
		"response headers policies", "origin access controls", "roles", "IAM policies", "dashboards", "alarms in eu-west-1", "alarms in us-east-1", "schedules"} {
		if len(there[kind]) == 0 {
			i.t.Errorf("no %s are found before they are destroyed", kind)
		}
	}
	start := time.Now()
	_, errs := i.must(exitNo, "destroy", "--name", "fleet", "--yes")
	has(i.t, errs, "bucket "+o.Bucket+" (objects", "deleted aws_cloudfront_distribution.cdn", "everything is deleted except the function "+edge)
	i.intercept(nil, nil)
	took := time.Since(start)
	out, errs := i.must(exitOK, "destroy", "--name", "fleet", "--yes", "--json")
	i.t.Logf("destroy took %.1f s, and %.1f s for what had been left; %s", took.Seconds(), (time.Since(start) - took).Seconds(), out)
	has(i.t, out, `"edgeLogGroups": 1`, `"left": []`)
	if _, err := os.Stat(filepath.Join(i.dir, ".precast", "fleet")); !os.IsNotExist(err) {
		i.t.Errorf("the folder is still there: %v", err)
	}
	if left := i.left(logs); len(left) > 0 {
		i.t.Errorf("left behind: %v\n%s", left, errs)
	}
}

func (i *installation) tables() []string {
	i.t.Helper()
	out, err := dynamodb.NewFromConfig(i.cfg).ListTables(i.t.Context(), &dynamodb.ListTablesInput{})
	if err != nil {
		i.t.Fatal(err)
	}
	return out.TableNames
}

// left lists whatever there is in the stand-in, of every kind that the module makes.
func (i *installation) left(logs func(region string) *cloudwatchlogs.Client) map[string][]string {
	i.t.Helper()
	ctx := i.t.Context()
	all := make(map[string][]string)
	check := func(kind string, err error, names []string) {
		i.t.Helper()
		if err != nil {
			i.t.Errorf("list %s: %v", kind, err)
		}
		if len(names) > 0 {
			all[kind] = names
		}
	}
	buckets, err := awsstore.NewS3(i.cfg).ListBuckets(ctx, &s3.ListBucketsInput{})
	var names []string
	if err == nil {
		for _, b := range buckets.Buckets {
			if name := aws.ToString(b.Name); name != logBucket { // the test's own
				names = append(names, name)
			}
		}
	}
	check("buckets", err, names)
	check("tables", nil, i.tables())
	queues, err := sqs.NewFromConfig(i.cfg).ListQueues(ctx, &sqs.ListQueuesInput{})
	if err == nil {
		check("queues", nil, queues.QueueUrls)
	} else {
		check("queues", err, nil)
	}
	for _, region := range []string{"eu-west-1", "us-east-1", "ap-northeast-1"} {
		cfg := i.cfg.Copy()
		cfg.Region = region
		functions, err := lambda.NewFromConfig(cfg).ListFunctions(ctx, &lambda.ListFunctionsInput{})
		names = nil
		if err == nil {
			for _, f := range functions.Functions {
				names = append(names, aws.ToString(f.FunctionName))
			}
		}
		check("functions in "+region, err, names)
		groups, err := logs(region).DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{})
		names = nil
		if err == nil {
			for _, g := range groups.LogGroups {
				names = append(names, aws.ToString(g.LogGroupName))
			}
		}
		check("log groups in "+region, err, names)
	}
	mappings, err := lambda.NewFromConfig(i.cfg).ListEventSourceMappings(ctx, &lambda.ListEventSourceMappingsInput{})
	names = nil
	if err == nil {
		for _, m := range mappings.EventSourceMappings {
			names = append(names, aws.ToString(m.UUID))
		}
	}
	check("event source mappings", err, names)
	cf := cloudfront.NewFromConfig(i.cfg)
	distributions, err := cf.ListDistributions(ctx, &cloudfront.ListDistributionsInput{})
	names = nil
	if err == nil && distributions.DistributionList != nil {
		for _, d := range distributions.DistributionList.Items {
			names = append(names, aws.ToString(d.DomainName))
		}
	}
	check("distributions", err, names)
	functions, err := cf.ListFunctions(ctx, &cloudfront.ListFunctionsInput{})
	names = nil
	if err == nil && functions.FunctionList != nil {
		for _, f := range functions.FunctionList.Items {
			names = append(names, aws.ToString(f.Name))
		}
	}
	check("CloudFront Functions", err, names)
	stores, err := cf.ListKeyValueStores(ctx, &cloudfront.ListKeyValueStoresInput{})
	names = nil
	if err == nil && stores.KeyValueStoreList != nil {
		for _, s := range stores.KeyValueStoreList.Items {
			names = append(names, aws.ToString(s.Name))
		}
	}
	check("KeyValueStores", err, names)
	policies, err := cf.ListCachePolicies(ctx, &cloudfront.ListCachePoliciesInput{Type: cftypes.CachePolicyTypeCustom})
	names = nil
	if err == nil && policies.CachePolicyList != nil {
		for _, p := range policies.CachePolicyList.Items {
			names = append(names, aws.ToString(p.CachePolicy.CachePolicyConfig.Name))
		}
	}
	check("cache policies", err, names)
	headers, err := cf.ListResponseHeadersPolicies(ctx, &cloudfront.ListResponseHeadersPoliciesInput{Type: cftypes.ResponseHeadersPolicyTypeCustom})
	names = nil
	if err == nil && headers.ResponseHeadersPolicyList != nil {
		for _, p := range headers.ResponseHeadersPolicyList.Items {
			names = append(names, aws.ToString(p.ResponseHeadersPolicy.ResponseHeadersPolicyConfig.Name))
		}
	}
	check("response headers policies", err, names)
	controls, err := cf.ListOriginAccessControls(ctx, &cloudfront.ListOriginAccessControlsInput{})
	names = nil
	if err == nil && controls.OriginAccessControlList != nil {
		for _, c := range controls.OriginAccessControlList.Items {
			names = append(names, aws.ToString(c.Name))
		}
	}
	check("origin access controls", err, names)
	// These by their plain query interfaces: their SDK modules would be here for tests only.
	for kind, call := range map[string][3]string{
		"roles":               {"iam", "us-east-1", "/?Action=ListRoles&Version=2010-05-08"},
		"IAM policies":        {"iam", "us-east-1", "/?Action=ListPolicies&Scope=Local&Version=2010-05-08"},
		"alarms in eu-west-1": {"monitoring", "eu-west-1", "/?Action=DescribeAlarms&Version=2010-08-01"},
		"alarms in us-east-1": {"monitoring", "us-east-1", "/?Action=DescribeAlarms&Version=2010-08-01"},
		"dashboards":          {"monitoring", "eu-west-1", "/?Action=ListDashboards&Version=2010-08-01"},
		"schedules":           {"scheduler", "eu-west-1", "/schedules"},
	} {
		status, body := i.plain(call[0], call[1], call[2])
		if status != http.StatusOK {
			i.t.Errorf("list %s: %d %s", kind, status, body)
		}
		if strings.Contains(body, "fleet") {
			all[kind] = []string{body}
		}
	}
	return all
}

// plain makes an unsigned call, which the stand-in takes; it finds the service in the scope of the signature.
func (i *installation) plain(service, region, path string) (int, string) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), http.MethodGet, i.Standin+path, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/"+region+"/"+service+"/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
