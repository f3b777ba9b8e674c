package rig

import (
	"path"
	"strings"
	"time"

	"github.com/precast-ota/precast/edge"
)

// Distribution is what Terraform declares of a CloudFront distribution.
type Distribution struct {
	Domain, ID string
	Behaviors  []Behavior // the first that matches counts; the last one is the default, "*"
	// Stores are the viewer-request Function's key value stores: one at most (kvs-with-functions-associate.html).
	Stores []*KeyValueStore
	// Errors are the error caching minimum TTLs by status; the default is ErrorTTL.
	Errors map[int]time.Duration
	Limits Limits
	Assume Assumptions
}

// Behavior is a cache behavior. Methods are GET and HEAD.
type Behavior struct {
	Pattern  string // with * at its end, or none
	Cache    CachePolicy
	Function bool // the viewer-request Function is associated
	// ResponseFunction: so is the viewer-response Function.
	ResponseFunction bool
	OriginRequest    bool // the Lambda@Edge function is associated
	// Override are headers of the response headers policy, each with origin override. CloudFront adds them
	// to every response, whatever its status (understanding-response-headers-policies.html).
	Override map[string]string
	Primary  *Origin
	// Secondary makes an origin group: it is asked if the primary fails or answers with one of FailoverOn.
	Secondary  *Origin
	FailoverOn []int
}

// Queries is how a cache policy takes the query string into the key.
type Queries int

const (
	NoQueries Queries = iota
	AllQueries
	ListedQueries
)

// CachePolicy is a cache policy. What is in the key is in the request to the origin as well; no other
// header of the viewer is. Accept-Encoding is never in the key.
type CachePolicy struct {
	Queries       Queries
	Listed        []string // for ListedQueries
	Headers       []string
	Min, Def, Max time.Duration
}

// Origin is where a behavior's misses go. On the wire it is a server of this machine.
type Origin struct {
	Name          string // in traces
	URL           string // without a slash at its end; for S3 the bucket is its path
	Domain        string // as events name it
	Region        string
	S3            bool // else a custom origin
	CustomHeaders map[string]string
	// ReadTimeout is how long it may take to answer; 0: Limits.Origin.
	ReadTimeout time.Duration
	// Service that origin access control signs for, "s3" or "lambda"; empty: requests are not signed.
	Service string
}

// Limits are CloudFront's quotas (cloudfront-limits.html).
type Limits struct {
	URL, Request      int           // bytes
	Function, Package int           // bytes of code; the package compressed
	FunctionAnswer    int           // bytes
	GeneratedAnswer   int           // bytes, headers included
	FunctionTime      time.Duration // of real time, far above CloudFront's, which is not measured in time
	HandlerTime       time.Duration // of real time
	Origin            time.Duration // of real time; the default of an origin's ReadTimeout
}

// DefaultLimits are the documented ones.
func DefaultLimits() Limits {
	return Limits{
		URL: 8192, Request: 20480,
		Function: 10 << 10, Package: 50 << 20,
		FunctionAnswer: 40 << 10, GeneratedAnswer: 1 << 20,
		FunctionTime: time.Second, HandlerTime: 30 * time.Second, Origin: 30 * time.Second,
	}
}

// Assumptions are readings of what the documentation does not say.
type Assumptions struct {
	// GeneratedFailsOver: an answer that the origin-request function generates counts as the primary
	// origin's when its status is one to fail over on.
	GeneratedFailsOver bool
	// NotModifiedIsCached: a generated 304 that no conditional request asked for is cached, as documented of
	// generated responses in general.
	NotModifiedIsCached bool
	// EmptyHasNoRange: a range of an answer without a byte is 416, as RFC 9110, 15.5.17 allows; else it is passed over.
	EmptyHasNoRange bool
}

// ErrorTTL is the default error caching minimum TTL (HTTPStatusCodes.html).
const ErrorTTL = 10 * time.Second

// Path patterns of Precast.
const (
	PackagePath  = "/package"
	BinariesPath = "/binaries/*"
)

// failoverOn is when the composer is asked. S3 answers 403 for what it does not have, unless the reader may
// list the bucket, and then 404: not prebuilt. 5xx is S3 in trouble; the composer may have it in memory.
// Left out of the possible ones are 400 and 416, which the device's own Range brings about, and 429, which
// S3 does not use (high_availability_origin_failover.html).
func failoverOn() []int { return []int{403, 404, 500, 502, 503, 504} }

// Precast is the distribution of Precast over an S3 bucket, a composer and the store of the table of rollouts: what
// terraform/edge.tf declares.
func Precast(s3, composer *Origin, store *KeyValueStore) Distribution {
	const year = 365 * 24 * time.Hour
	byPath := CachePolicy{Def: 24 * time.Hour, Max: year}
	security := map[string]string{"X-Content-Type-Options": "nosniff"}
	errors := make(map[int]time.Duration)
	for _, status := range []int{500, 502, 503, 504} {
		errors[status] = edge.RetryAfter * time.Second // what the device is told, not longer
	}
	limits := DefaultLimits()
	limits.HandlerTime = 5 * time.Second // the function's own
	return Distribution{
		Domain: "d111111abcdef8.cloudfront.net", ID: "EDFDVBD6EXAMPLE",
		Behaviors: []Behavior{
			{
				Pattern: PackagePath,
				// The query is canonical by then: it is the Function's.
				Cache:    CachePolicy{Queries: AllQueries, Headers: []string{edge.HeldHeader, "X-Precast-Cohort"}, Def: 30 * time.Second, Max: time.Minute},
				Function: true, OriginRequest: true, ResponseFunction: true,
				Override: security,
				Primary:  s3, Secondary: composer, FailoverOn: failoverOn(),
			},
			{Pattern: BinariesPath, Cache: byPath, Function: true, Override: security, Primary: s3},
			// Nothing else in the bucket is anybody's business: the Function answers.
			{Pattern: "*", Cache: byPath, Function: true, Override: security, Primary: s3},
		},
		Stores: []*KeyValueStore{store},
		Errors: errors,
		Limits: limits,
		Assume: Assumptions{NotModifiedIsCached: true},
	}
}

// behavior returns the cache behavior of a path. CloudFront matches the normalized path, and continues with the
// raw one (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DownloadDistValuesCacheBehavior.html#DownloadDistValuesPathPattern).
func (d *Distribution) behavior(rawPath string) *Behavior {
	clean := path.Clean("/" + rawPath)
	if strings.HasSuffix(rawPath, "/") && clean != "/" {
		clean += "/"
	}
	for i := range d.Behaviors {
		if matches(d.Behaviors[i].Pattern, clean) {
			return &d.Behaviors[i]
		}
	}
	return &d.Behaviors[len(d.Behaviors)-1]
}

// matches tells whether a pattern, with * at its end or none, matches.
func matches(pattern, s string) bool {
	prefix, wild := strings.CutSuffix(pattern, "*")
	if wild {
		return strings.HasPrefix(s, prefix)
	}
	return s == pattern
}

func (d *Distribution) errorTTL(status int) time.Duration {
	if ttl, ok := d.Errors[status]; ok {
		return ttl
	}
	return ErrorTTL
}
