package rig

import (
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// FunctionURL puts an http.Handler behind a Lambda function URL of type AWS_IAM: requests must be signed for
// Lambda (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-restricting-access-to-lambda.html).
type FunctionURL struct {
	handler http.Handler
	region  string
	keys    map[string]aws.Credentials
	now     func() time.Time

	mu       sync.Mutex
	down     bool
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
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"Message":"Forbidden"}`))
		return
	}
	f.handler.ServeHTTP(w, r)
}
