//go:build aws

package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
)

// Services, as a request names them.
const (
	s3       = "S3"
	dynamo   = "DynamoDB"
	streams  = "DynamoDBStreams"
	messages = "SQS"
)

func serviceOf(r *http.Request) string {
	target := r.Header.Get("X-Amz-Target")
	switch {
	case strings.HasPrefix(target, "DynamoDBStreams_"):
		return streams
	case strings.HasPrefix(target, "DynamoDB_"):
		return dynamo
	case strings.HasPrefix(target, "AmazonSQS"):
		return messages
	}
	return s3
}

// refusal is a service's answer that it did not do what was asked.
type refusal struct {
	status int
	code   string // as __type, or as the XML's Code
}

func (a refusal) send(rw http.ResponseWriter, service string) {
	if service == s3 {
		rw.Header().Set("Content-Type", "application/xml")
		rw.WriteHeader(a.status)
		fmt.Fprintf(rw, `<?xml version="1.0" encoding="UTF-8"?>`+"\n<Error><Code>%s</Code><Message>refused by the test</Message><RequestId>4442587FB7D0A2F9</RequestId><HostId>x</HostId></Error>", a.code)
		return
	}
	body := fmt.Sprintf(`{"__type":%q,"message":"refused by the test"}`, a.code)
	rw.Header().Set("Content-Type", "application/x-amz-json-1.0")
	rw.Header().Set("X-Amz-Crc32", crc(body)) // DynamoDB sends it always, and the SDK looks
	rw.WriteHeader(a.status)
	_, _ = io.WriteString(rw, body)
}

func crc(body string) string { return fmt.Sprint(crc32.ChecksumIEEE([]byte(body))) }

// throttled are the real services' answers: https://repost.aws/knowledge-center/http-5xx-errors-s3,
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html,
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html.
func throttled(service string, r *rand.Rand) refusal {
	switch service {
	case s3:
		return refusal{http.StatusServiceUnavailable, "SlowDown"}
	case dynamo, streams:
		if r.IntN(2) == 0 {
			return refusal{http.StatusBadRequest, "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}
		}
	}
	return refusal{http.StatusBadRequest, "com.amazon.coral.availability#ThrottlingException"}
}

// middleman is a proxy before a cloud that refuses requests, before they are done or after.
type middleman struct {
	*httptest.Server

	mu sync.Mutex
	// judge decides about a request: nil lets it pass. With after it is done all the same, and the answer lost.
	judge func(r *http.Request, service string) (a *refusal, after bool)
	// change changes an answer's body; nil: not.
	change func(r *http.Request, body []byte) []byte
	// tear tells whether an answer's body breaks off half-way; nil: none does.
	tear func(r *http.Request, service string) bool
	// date is the services' time, which they tell with every answer; nil: what it is.
	date    func() time.Time
	refused map[string]int
	passed  int
}

func newMiddleman(t *testing.T, c *cloud) *middleman {
	t.Helper()
	target, err := url.Parse(c.url)
	must(t, err)
	m := &middleman{refused: make(map[string]int)}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(resp *http.Response) error {
			m.mu.Lock()
			change := m.change
			if m.date != nil {
				resp.Header.Set("Date", m.date().UTC().Format(http.TimeFormat))
			}
			torn := m.tear != nil && m.tear(resp.Request, serviceOf(resp.Request))
			m.mu.Unlock()
			if torn {
				resp.Body = tear(resp.Body, resp.ContentLength/2)
			}
			if change == nil || serviceOf(resp.Request) != streams {
				return nil
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			body = change(resp.Request, body)
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			resp.Header.Set("Content-Length", fmt.Sprint(len(body)))
			resp.Header.Set("X-Amz-Crc32", crc(string(body)))
			return nil
		},
		ErrorLog:     log.New(io.Discard, "", 0), // of what breaks off
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) },
	}
	m.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		service := serviceOf(r)
		var a *refusal
		var after bool
		m.mu.Lock()
		if m.judge != nil {
			a, after = m.judge(r, service)
		}
		if a == nil {
			m.passed++
		} else {
			m.refused[fmt.Sprintf("%s after=%v", service, after)]++
			if m.date != nil {
				rw.Header().Set("Date", m.date().UTC().Format(http.TimeFormat))
			}
		}
		m.mu.Unlock()
		switch {
		case a == nil:
			forward.ServeHTTP(rw, r)
			return
		case after:
			forward.ServeHTTP(httptest.NewRecorder(), r)
		default:
			_, _ = io.Copy(io.Discard, r.Body) // a service reads what it refuses; otherwise the connection breaks
		}
		a.send(rw, service)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *middleman) set(judge func(r *http.Request, service string) (*refusal, bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.judge = judge
}

func (m *middleman) counts() (refused map[string]int, passed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.refused), m.passed
}

// A share of all requests is throttled, in the services' own words, some of them after they have been done.
func TestThrottlingAWS(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	m := newMiddleman(t, c)
	const seed, changes = 1, 6
	t.Logf("seed %d", seed)
	w := c.world(t, m.URL, nil)
	w.drive(seed, 0, func(ctx context.Context, r *rand.Rand) {
		dice := rand.New(rand.NewPCG(seed, 2)) // the middleman's lock is held
		m.set(func(_ *http.Request, service string) (*refusal, bool) {
			if dice.IntN(3) > 0 {
				return nil, false
			}
			a := throttled(service, dice)
			return &a, dice.IntN(3) == 0
		})
		for n := range changes {
			w.step(r, n+1)
			pause(ctx, time.Duration(1000+r.IntN(3000))*time.Millisecond)
			w.complete()
		}
		// Then nothing passes but what the queue is asked, which gives a job again and again: longer than it takes to
		// give it up.
		m.set(func(_ *http.Request, service string) (*refusal, bool) {
			if service == messages {
				return nil, false
			}
			a := throttled(service, dice)
			return &a, false
		})
		w.step(r, changes+1)
		_, err := builder.RequestPlan(ctx, w.base.Ledger, w.base.Queue, builder.Request{})
		must(t, err)
		pause(ctx, 45*time.Second)
		w.complete()
		m.set(nil)
	})
	refused, passed := m.counts()
	for _, want := range []string{s3, dynamo, messages} {
		if refused[want+" after=false"] == 0 || refused[want+" after=true"] == 0 {
			t.Errorf("%s was not throttled in both ways: %v", want, refused)
		}
	}
	t.Logf("%s; refused %v, passed %d", w.told(), refused, passed)
	counted(t, "%d changes, and 45 s in which nothing passes", changes+1)
}
