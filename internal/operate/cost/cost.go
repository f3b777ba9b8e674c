// Package cost estimates what an installation costs in a month: a pure function of a fleet, a catalog and a
// table of prices.
package cost

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Fleet is what devices do in a month.
type Fleet struct {
	Requests float64 `json:"requests"`
	// HitRatio is the share of requests that CloudFront answers by itself.
	HitRatio float64 `json:"hitRatio"`
	// NotModified is the share of requests whose answer is that there is nothing new, without a body.
	NotModified float64 `json:"notModified"`
	// Regions are the shares of CloudFront's classes of regions; together 1.
	Regions map[string]float64 `json:"regions"`
}

// Catalog is what is distributed.
type Catalog struct {
	Items       int     `json:"items"`
	BinaryBytes float64 `json:"binaryBytes"` // of all binaries
	Bundles     int     `json:"bundles"`     // prebuilt
	BundleBytes float64 `json:"bundleBytes"` // of all of them, before compression
	// AnswerBytes is what an answer with a body has.
	AnswerBytes float64 `json:"answerBytes"`
	// Changes are releases of one item in a month, each of which builds so many bundles of so many bytes.
	Changes       float64 `json:"changes"`
	ChangeBundles float64 `json:"changeBundles"`
	ChangeBytes   float64 `json:"changeBytes"`
}

// Assumptions are figures that neither the fleet nor the catalog have.
type Assumptions struct {
	EdgeSeconds  float64 `json:"edgeSeconds"` // of one Lambda@Edge invocation
	EdgeMB       float64 `json:"edgeMB"`
	HeaderBytes  float64 `json:"headerBytes"`  // of an answer
	EdgeLogBytes float64 `json:"edgeLogBytes"` // that Lambda writes of one invocation
	BuilderMB    float64 `json:"builderMB"`
	BytesPerS    float64 `json:"bytesPerSecond"` // that a builder compresses or writes
	BundlesPerS  float64 `json:"bundlesPerSecond"`
	FreeTier     bool    `json:"freeTier"`
}

// Defaults are those of the module, and what was measured of the functions, generously: the edge answers warm
// in well under a millisecond, and starts in about 200.
func Defaults() Assumptions {
	return Assumptions{EdgeSeconds: 0.01, EdgeMB: 256, HeaderBytes: 600, EdgeLogBytes: 350, BuilderMB: 1769, BytesPerS: 30e6, BundlesPerS: 20}
}

// What the module has, whatever the fleet does: terraform/observability.tf and pipeline.tf, and the metrics that
// functions write (internal/run/lambdas).
const (
	alarms     = 19
	metrics    = 10
	dashboards = 1
	// Lambda polls an idle queue and an idle stream: five pollers that wait 20 seconds each
	// (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html). Reading a stream by Lambda is free
	// (https://aws.amazon.com/dynamodb/pricing/on-demand/).
	idlePolls = 5 * month / 20
	// Of the schedules: a plan every 15 minutes, and one every day that looks every object up.
	plans    = 30*24*4 + verifies
	verifies = 30
	// A plan that finds nothing to do: the enqueuer counts two queues, it and the builder take a number each; the
	// index and those of before it are read, and the index is written with the plan's number.
	countsPerPlan = 2
	writesPerPlan = 2
	getsPerPlan   = 5
	putsPerPlan   = 1
	// A plan that looks objects up has jobs for them: entries of the ledger that are opened, counted down and closed.
	writesPerVerify = 4
	putsPerVerify   = 1
	enqueuerMB      = 256

	month = 30 * 24 * 3600 // seconds
	gb    = 1 << 30
	mb    = 1 << 20

	// Two Functions: the request's and the answer's.
	functionsPerRequest = 2
	// An object, and the index at most: a warm function looks at it every few seconds.
	getsPerMiss = 2
	// A publish invalidates /package* when the edge has settled (internal/run/cdn).
	invalidationsPerChange = 1
	// It looks at the table of rollouts, and makes three more requests if it has to write it (internal/run/cdn).
	tableRequestsPerChange = 1
	// Of a change besides its bundles and manifests: binary, piece, plan, index, its history.
	putsPerChange = 5
	// Bundles of one job at most, and their bytes (builder), and requests of a message: send, receive, delete.
	bundlesPerJob      = 500
	bytesPerJob        = 256 << 20
	requestsPerMessage = 3
	writesPerJob       = 4   // of the ledger, transactional ones counted twice
	secondsPerJob      = 0.2 // besides its work
)

// Line is one line of a bill.
type Line struct {
	Service  string  `json:"service"`
	What     string  `json:"what"`
	Quantity float64 `json:"quantity"`
	Unit     string  `json:"unit"`
	USD      float64 `json:"usd"`
}

// Estimate is a bill.
type Estimate struct {
	Fleet       Fleet       `json:"fleet"`
	Catalog     Catalog     `json:"catalog"`
	Assumptions Assumptions `json:"assumptions"`
	PricesOf    string      `json:"pricesOf"`
	// Usage is what grows with the fleet, the catalog and its changes; Standing what is there to watch over it.
	Usage    []Line  `json:"usage"`
	Standing []Line  `json:"standing"`
	USD      float64 `json:"usd"`
	// Transfer is the part of the usage that is the same however answers come about.
	Transfer float64 `json:"transferUSD"`
	// PerPoll is the usage without the transfer for one request. ServerUSD is what as many requests would cost
	// if each was answered by a server, as in the sample that Precast goes back to: ServerPerPoll for each, and
	// the transfer.
	PerPoll       float64 `json:"perPoll"`
	ServerPerPoll float64 `json:"serverPerPoll"`
	ServerUSD     float64 `json:"serverUSD"`
}

// Check tells what is wrong with a fleet.
func (f Fleet) Check() error {
	for what, v := range map[string]float64{"hit ratio": f.HitRatio, "share of answers with nothing new": f.NotModified} {
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("the %s must be 0 to 1, not %v", what, v)
		}
	}
	if !(f.Requests >= 0) || math.IsInf(f.Requests, 0) {
		return fmt.Errorf("the requests must be 0 or more, not %v", f.Requests)
	}
	var sum float64
	for r, v := range f.Regions {
		if !slices.Contains(Regions(), r) || !(v >= 0) {
			return fmt.Errorf("region %s=%v: the regions are %v, and shares are 0 or more", r, v, Regions())
		}
		sum += v
	}
	if math.Abs(sum-1) > 1e-6 {
		return fmt.Errorf("the regions' shares come to %v, not to 1", sum)
	}
	return nil
}

// Of estimates.
func Of(f Fleet, c Catalog, a Assumptions, p Prices) (Estimate, error) {
	if err := f.Check(); err != nil {
		return Estimate{}, fmt.Errorf("estimate: %w", err)
	}
	e := Estimate{Fleet: f, Catalog: c, Assumptions: a, PricesOf: p.Date}
	b := bill{prices: p, free: a.FreeTier}
	b.requests(f, c, a)
	b.changes(c, a)
	e.Usage, b.lines = b.lines, nil
	b.standing(c, a)
	e.Standing = b.lines
	for _, l := range slices.Concat(e.Usage, e.Standing) {
		e.USD += l.USD
	}
	for _, l := range e.Usage {
		if strings.HasPrefix(l.What, transfer) {
			e.Transfer += l.USD
		} else {
			e.PerPoll += l.USD
		}
	}
	if e.PerPoll /= f.Requests; f.Requests == 0 {
		e.PerPoll = 0
	}
	e.ServerPerPoll = ServerCall(SampleServer(), p)
	e.ServerUSD = e.ServerPerPoll*f.Requests + e.Transfer
	return e, nil
}

const transfer = "transfer out"

type bill struct {
	prices Prices
	free   bool
	lines  []Line
}

func (b *bill) add(service, what, key string, quantity float64) {
	price := b.prices.find(key)
	b.lines = append(b.lines, Line{service, what, quantity, price.Unit, price.of(quantity, b.free)})
}

func (b *bill) requests(f Fleet, c Catalog, a Assumptions) {
	misses := f.Requests * (1 - f.HitRatio)
	bodies := f.Requests * (1 - f.NotModified)
	for _, r := range Regions() {
		share := f.Regions[r]
		if share == 0 {
			continue
		}
		b.add("CloudFront", "HTTPS requests, "+r, "cloudfront.request."+r, f.Requests*share)
		b.add("CloudFront", transfer+", "+r, "cloudfront.transfer."+r, (f.Requests*a.HeaderBytes+bodies*c.AnswerBytes)*share/gb)
	}
	b.add("CloudFront", "Functions", "cloudfront.function", functionsPerRequest*f.Requests)
	b.add("Lambda@Edge", "requests", "edge.request", misses)
	b.add("Lambda@Edge", "duration", "edge.duration", misses*a.EdgeSeconds*a.EdgeMB/1024)
	b.add("CloudWatch", "logs of the edge", "logs.ingestion", misses*a.EdgeLogBytes/gb)
	b.add("S3", "GET", "s3.get", getsPerMiss*misses)
}

func (b *bill) changes(c Catalog, a Assumptions) {
	// Pieces are as large as binaries at most. What a change replaces is kept for a while: it counts for the
	// whole month.
	stored := 2*c.BinaryBytes + c.BundleBytes
	one := 0.0
	if c.Items > 0 {
		one = c.BinaryBytes / float64(c.Items)
	}
	stored += c.Changes * (2*one + c.ChangeBytes)
	b.add("S3", "storage", "s3.storage", stored/gb)
	b.add("DynamoDB", "storage", "dynamodb.storage", float64(c.Items)*itemBytes/gb)
	b.add("CloudFront", "invalidations", "cloudfront.invalidation", invalidationsPerChange*c.Changes)
	b.add("CloudFront", "KeyValueStore", "cloudfront.keyvaluestore", tableRequestsPerChange*c.Changes)
	b.add("S3", "PUT", "s3.put", c.Changes*(putsPerChange+2*c.ChangeBundles))
	jobs := c.Changes * (2 + bundleJobs(c.ChangeBundles, c.ChangeBytes)) // a plan, a piece, bundles
	b.add("SQS", "jobs", "sqs.request", requestsPerMessage*jobs)
	// The item itself in a transaction, and the ledger; a snapshot reads the whole catalog.
	b.add("DynamoDB", "writes", "dynamodb.write", 2*c.Changes+writesPerJob*jobs)
	b.add("DynamoDB", "reads", "dynamodb.read", c.Changes*catalogReads(c)+jobs)
	b.add("Lambda", "requests", "lambda.request", c.Changes+jobs)
	seconds := c.Changes*((one+c.ChangeBytes)/a.BytesPerS+c.ChangeBundles/a.BundlesPerS) + secondsPerJob*jobs
	b.add("Lambda", "duration", "lambda.duration", seconds*a.BuilderMB/1024)
}

const itemBytes = 600 // of an item in the catalog

// bundleJobs are the jobs that bundles of so many bytes are spread over.
func bundleJobs(bundles, bytes float64) float64 { return bundles/bundlesPerJob + bytes/bytesPerJob }

func (b *bill) standing(c Catalog, a Assumptions) {
	b.add("CloudWatch", "alarms", "cloudwatch.alarm", alarms)
	b.add("CloudWatch", "metrics", "cloudwatch.metric", metrics)
	b.add("CloudWatch", "dashboard", "cloudwatch.dashboard", dashboards)
	bundles, items := float64(c.Bundles), float64(c.Items)
	jobs := verifies * bundleJobs(bundles, c.BundleBytes)
	b.add("SQS", "Lambda's idle polls, scheduled plans", "sqs.request", idlePolls+(requestsPerMessage+countsPerPlan)*plans+requestsPerMessage*jobs)
	b.add("Lambda", "scheduled plans", "lambda.request", 2*plans+jobs)
	b.add("Lambda", "duration of scheduled plans", "lambda.duration", secondsPerJob*(plans*enqueuerMB+(plans+jobs)*a.BuilderMB)/1024)
	b.add("DynamoDB", "reads of scheduled plans", "dynamodb.read", plans*catalogReads(c))
	b.add("DynamoDB", "writes of scheduled plans", "dynamodb.write", writesPerPlan*plans+writesPerVerify*(verifies+jobs))
	// Every bundle and manifest, every binary and piece.
	b.add("S3", "GET and HEAD of scheduled plans", "s3.get", getsPerPlan*plans+verifies*2*(bundles+items))
	b.add("S3", "PUT of scheduled plans", "s3.put", putsPerPlan*plans+putsPerVerify*verifies)
}

// catalogReads are the units of a snapshot: of 4 KB, consistent
// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html).
func catalogReads(c Catalog) float64 { return math.Ceil(float64(c.Items) * itemBytes / 4096) }

// Server is how a server answers one request at the edge, without a cache in front: an invocation of Lambda@Edge
// that reads a table.
type Server struct {
	Seconds, MB, Reads float64
}

// SampleServer is the server of the sample's own estimate: 5 seconds at 256 MB and one read.
func SampleServer() Server { return Server{Seconds: 5, MB: 256, Reads: 1} }

// ServerCall is what one call of a server costs, its HTTPS request at CloudFront included.
func ServerCall(s Server, p Prices) float64 {
	return p.find("edge.request").of(1, false) +
		p.find("edge.duration").of(s.Seconds*s.MB/1024, false) +
		p.find("dynamodb.read").of(s.Reads, false) +
		p.find("cloudfront.request.us").of(1, false)
}
