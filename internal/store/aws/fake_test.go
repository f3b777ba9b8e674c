package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// fakeConfig leads to a server of the test, and tries again at once.
func fakeConfig(t testing.TB, handler http.Handler) aws.Config {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, HTTPClient: httpClient(),
		// As config.LoadDefaultConfig has it.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
		Credentials:                credentials.NewStaticCredentialsProvider("id", "secret", ""),
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
			})
		},
	}
}

// fakeObjects are objects whose S3 is handler, and that wait for nothing but write down how long.
func fakeObjects(t testing.TB, handler http.HandlerFunc) (*Objects, *[]time.Duration) {
	t.Helper()
	o, err := NewObjects(NewS3(fakeConfig(t, handler)), "bucket", ObjectsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var slept []time.Duration
	o.retry = fakeRetryer(&slept)
	return o, &slept
}

func fakeRetryer(slept *[]time.Duration) retryer {
	return retryer{
		sleep: func(ctx context.Context, d time.Duration) error {
			*slept = append(*slept, d)
			return ctx.Err()
		},
		random: func() float64 { return 0.5 },
	}
}

func s3Error(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>the fake says so</Message></Error>", code)
}

// script answers the nth request with the nth step, and more requests with the last one. Every
// request's body is read first.
type script struct {
	mu    sync.Mutex
	steps []func(w http.ResponseWriter, r *http.Request, body string)
	seen  []string // "PUT /bucket/index"
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	s.mu.Lock()
	step := s.steps[min(len(s.seen), len(s.steps)-1)]
	s.seen = append(s.seen, r.Method+" "+r.URL.String())
	s.mu.Unlock()
	step(w, r, string(body))
}

func (s *script) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

func answer(status int, code string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, _ *http.Request, _ string) {
		if status == http.StatusOK {
			w.Header().Set("ETag", `"etag"`)
			return
		}
		s3Error(w, status, code)
	}
}

// hangUp does not answer.
func hangUp(w http.ResponseWriter, _ *http.Request, _ string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	conn.Close()
}

// fakeJSON is a service of the protocol awsJson: answers by operation.
type fakeJSON map[string]func(in map[string]any) (status int, out any)

func (f fakeJSON) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var in map[string]any
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || f[operation] == nil {
		http.Error(w, "the fake does not know "+operation, http.StatusNotImplemented)
		return
	}
	status, out := f[operation](in)
	if status == 0 {
		hangUp(w, r, "")
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out)
}

func fakeQueue(t *testing.T, f fakeJSON) (*Queue, *[]time.Duration) {
	t.Helper()
	q, err := NewQueue(sqs.NewFromConfig(fakeConfig(t, f), func(o *sqs.Options) { o.DisableMessageChecksumValidation = true }),
		"https://sqs.example/1/jobs", QueueOptions{DeadLetterURL: "https://sqs.example/1/dead"})
	if err != nil {
		t.Fatal(err)
	}
	var slept []time.Duration
	q.retry = fakeRetryer(&slept)
	return q, &slept
}

func fakeDynamoDB(t *testing.T, f fakeJSON) *dynamodb.Client {
	t.Helper()
	return dynamodb.NewFromConfig(fakeConfig(t, f))
}
