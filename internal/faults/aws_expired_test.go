//go:build aws

package faults_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// For a while the credentials that the process is given have expired, as when what renews them has stopped.
func TestExpiredCredentialsAWS(t *testing.T) {
	describe(t, "AWS", "the credentials expire during a build, and for half a minute whoever provides them has none but those: S3, DynamoDB, its streams and SQS answer ExpiredToken",
		"what is published goes on being served as far as it can be read, or 503; when there are good credentials the same process goes on and builds all; no dead letter, no item rejected")
	c := newCloud(t)
	m := newMiddleman(t, c)
	const seed, changes = 2, 2
	t.Logf("seed %d", seed)
	var expired atomic.Bool
	var provided atomic.Int64
	w := c.world(t, m.URL, func(ctx context.Context) (aws.Credentials, error) {
		provided.Add(1)
		creds, err := steady(ctx)
		if expired.Load() {
			creds.AccessKeyID = "stale"
		}
		creds.CanExpire, creds.Expires = true, time.Now().Add(time.Second)
		return creds, err
	})
	m.set(func(r *http.Request, service string) (*refusal, bool) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=stale/") {
			return nil, false
		}
		if service == s3 {
			return &refusal{http.StatusBadRequest, "ExpiredToken"}, false
		}
		return &refusal{http.StatusBadRequest, "com.amazon.coral.service#ExpiredTokenException"}, false
	})
	w.drive(seed, 0, func(ctx context.Context, r *rand.Rand) {
		for n := range changes {
			w.step(r, 2*n+1)
			pause(ctx, 2*time.Second)
			w.step(r, 2*n+2)
			pause(ctx, 150*time.Millisecond) // within the build
			expired.Store(true)
			for range 3 {
				pause(ctx, 6*time.Second)
				w.complete()
			}
			expired.Store(false)
			pause(ctx, 3*time.Second)
		}
	})
	refused, passed := m.counts()
	// What else is asked before S3 stops a build, and between two long waits for a job, is chance.
	if refused[s3+" after=false"] == 0 || len(refused) < 2 {
		t.Errorf("only these refused: %v", refused)
	}
	counted(t, "%d times 18 s; %s; refused %v, passed %d, credentials asked for %d times", changes, w.told(), refused, passed, provided.Load())
}
