//go:build aws

package faults_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"
)

// tear makes a body break off.
func tear(body io.ReadCloser, after int64) io.ReadCloser {
	return &torn{body, after, errors.New("torn by the test")}
}

// reads tells whether a request only reads.
func reads(r *http.Request, service string) bool {
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	switch service {
	case s3:
		return r.Method == http.MethodGet || r.Method == http.MethodHead
	case dynamo:
		return op == "GetItem" || op == "Query" || op == "Scan"
	case streams:
		return true
	}
	return false
}

// internalError is what the services say when they fail.
func internalError(service string) *refusal {
	if service == s3 {
		return &refusal{http.StatusInternalServerError, "InternalError"}
	}
	return &refusal{http.StatusInternalServerError, "com.amazonaws.dynamodb.v20120810#InternalServerError"}
}

// Writes work, and reads fail or break off.
func TestReadErrorsAWS(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	m := newMiddleman(t, c)
	const seed, changes = 4, 5
	w := c.world(t, m.URL, nil)
	torn := 0
	w.drive(seed, 0, func(ctx context.Context, r *rand.Rand) {
		dice := rand.New(rand.NewPCG(seed, 2)) // the middleman's lock is held
		m.set(func(r *http.Request, service string) (*refusal, bool) {
			if !reads(r, service) || dice.IntN(3) > 0 {
				return nil, false
			}
			return internalError(service), false
		})
		m.mu.Lock()
		m.tear = func(r *http.Request, service string) bool {
			hit := service == s3 && r.Method == http.MethodGet && dice.IntN(4) == 0
			if hit {
				torn++
			}
			return hit
		}
		m.mu.Unlock()
		for n := range changes {
			w.step(r, n+1)
			pause(ctx, time.Duration(1000+r.IntN(3000))*time.Millisecond)
			w.complete()
		}
		// What there is to read of DynamoDB is little, and comes after S3: chance would seldom meet it.
		m.set(func(r *http.Request, service string) (*refusal, bool) {
			if service != dynamo || !reads(r, service) {
				return nil, false
			}
			return internalError(service), false
		})
		w.step(r, changes+1)
		await(t, time.Minute, "reads of DynamoDB that fail", func() bool {
			refused, _ := m.counts()
			return refused[dynamo+" after=false"] >= 6
		})
		w.complete()
		// Then nothing can be read, for longer than it takes to give a job up.
		m.set(func(r *http.Request, service string) (*refusal, bool) {
			if !reads(r, service) {
				return nil, false
			}
			return internalError(service), false
		})
		w.step(r, changes+2)
		pause(ctx, 30*time.Second)
		w.complete()
		m.set(nil)
		m.mu.Lock()
		m.tear = nil
		m.mu.Unlock()
	})
	refused, passed := m.counts()
	for _, want := range []string{s3, dynamo, streams} {
		if refused[want+" after=false"] == 0 {
			t.Errorf("no read of %s has failed: %v", want, refused)
		}
	}
	if torn == 0 {
		t.Error("no answer broke off")
	}
	t.Logf("%s; refused %v, torn %d, passed %d", w.told(), refused, torn, passed)
	counted(t, "%d changes, and 30 s in which nothing can be read", changes+2)
}
