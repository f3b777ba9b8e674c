package rig

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
)

// maxPayload bounds an answer, in bytes of JSON
// (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
const maxPayload = 6 << 20

// Lambda is how a function is run: what AWS may do, or has been seen to do. The zero value is the kindest.
type Lambda struct {
	// Concurrency is how many executions there may be at once: new accounts have 10. Further requests get 429. 0: any.
	Concurrency int
	// Timeout is the function's, of real time. 0: none.
	Timeout time.Duration
	// NoRanges: the function is not told which range is asked for.
	NoRanges bool
	// EmptyHangs: an answer without a byte does not end, as has been seen of streams (aws/aws-lambda-go, issue 593).
	EmptyHangs bool
}

// FunctionURL puts a function behind a Lambda function URL of type AWS_IAM, invoke mode BUFFERED: requests must be
// signed for Lambda (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-restricting-access-to-lambda.html),
// and become events (https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads).
type FunctionURL struct {
	invoke func(context.Context, events.LambdaFunctionURLRequest) (events.LambdaFunctionURLResponse, error)
	lambda Lambda
	region string
	keys   map[string]aws.Credentials
	now    func() time.Time

	mu       sync.Mutex
	down     bool
	running  int
	requests []*http.Request
}

// SetDown makes the URL close every connection.
func (f *FunctionURL) SetDown(down bool) { f.mu.Lock(); f.down = down; f.mu.Unlock() }

// Requests returns the requests that came, without their bodies.
func (f *FunctionURL) Requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*http.Request(nil), f.requests...)
}

// begin counts an execution in, unless there are too many.
func (f *FunctionURL) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lambda.Concurrency > 0 && f.running >= f.lambda.Concurrency {
		return false
	}
	f.running++
	return true
}

func (f *FunctionURL) end() { f.mu.Lock(); f.running--; f.mu.Unlock() }

// ServeHTTP implements http.Handler.
func (f *FunctionURL) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	down := f.down
	f.requests = append(f.requests, r.Clone(r.Context()))
	f.mu.Unlock()
	if down {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return
	}
	if _, err := verify(r, f.keys, "lambda", f.region, f.now()); err != nil {
		refuse(w, http.StatusForbidden, "Forbidden")
		return
	}
	if !f.begin() {
		refuse(w, http.StatusTooManyRequests, "Too Many Requests")
		return
	}
	defer f.end()
	out, body, err := f.run(r)
	if err != nil {
		refuse(w, http.StatusBadGateway, "Internal Server Error") // no word of why, as the real one
		return
	}
	if len(body) == 0 && f.lambda.EmptyHangs {
		<-r.Context().Done()
		return
	}
	for name, value := range out.Headers {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(out.StatusCode)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // CloudFront has gone
	}
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"Message":%q}`, message)
}

// run invokes the function, as far as can be seen through JSON.
func (f *FunctionURL) run(r *http.Request) (out events.LambdaFunctionURLResponse, body []byte, err error) {
	in := events.LambdaFunctionURLRequest{Version: "2.0", RawPath: r.URL.EscapedPath(), RawQueryString: r.URL.RawQuery, Headers: make(map[string]string)}
	in.RequestContext.DomainName = r.Host
	in.RequestContext.HTTP.Method, in.RequestContext.HTTP.Path = r.Method, r.URL.Path
	for name, values := range r.Header {
		if name != "Range" || !f.lambda.NoRanges {
			in.Headers[strings.ToLower(name)] = strings.Join(values, ",")
		}
	}
	event, err := json.Marshal(in)
	if err != nil {
		return out, nil, err
	}
	in = events.LambdaFunctionURLRequest{}
	if err := json.Unmarshal(event, &in); err != nil {
		return out, nil, err
	}
	ctx := context.Background() // a caller who goes does not end an execution
	if f.lambda.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.lambda.Timeout)
		defer cancel()
	}
	if out, err = f.invoke(ctx, in); err != nil || ctx.Err() != nil {
		return out, nil, fmt.Errorf("run function: %w", errors.Join(err, ctx.Err()))
	}
	answer, err := json.Marshal(out)
	if err != nil {
		return out, nil, err
	}
	if len(answer) > maxPayload {
		return out, nil, fmt.Errorf("the answer has %d bytes, more than %d", len(answer), maxPayload)
	}
	out = events.LambdaFunctionURLResponse{}
	if err := json.Unmarshal(answer, &out); err != nil {
		return out, nil, err
	}
	body = []byte(out.Body)
	if out.IsBase64Encoded {
		body, err = base64.StdEncoding.DecodeString(out.Body)
	}
	return out, body, err
}
