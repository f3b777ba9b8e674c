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

	"github.com/precast-ota/precast/builder"
)

// For a while the credentials that the process is given have expired, as when what renews them has stopped.
func TestExpiredCredentialsAWS(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	m := newMiddleman(t, c)
	const seed = 2
	t.Logf("seed %d", seed)
	// Services find out for themselves that credentials have expired, not all at once.
	var expired, known atomic.Bool
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
		if service != dynamo && !known.Load() {
			return nil, false
		}
		if service == s3 {
			return &refusal{http.StatusBadRequest, "ExpiredToken"}, false
		}
		return &refusal{http.StatusBadRequest, "com.amazon.coral.service#ExpiredTokenException"}, false
	})
	w.drive(seed, 0, func(ctx context.Context, r *rand.Rand) {
		// First all of them know, in the midst of a build.
		w.step(r, 1)
		pause(ctx, 2*time.Second)
		w.step(r, 2)
		pause(ctx, 150*time.Millisecond)
		known.Store(true)
		expired.Store(true)
		for range 3 {
			pause(ctx, 6*time.Second)
			w.complete()
		}
		expired.Store(false)
		pause(ctx, 3*time.Second)
		// Then DynamoDB alone: everything else looks well, and a job fails for longer than it takes to give it up.
		known.Store(false)
		expired.Store(true)
		w.step(r, 3)
		_, err := builder.RequestPlan(ctx, w.base.Ledger, w.base.Queue, builder.Request{})
		must(t, err)
		for range 6 {
			pause(ctx, 6*time.Second)
			w.complete()
		}
		expired.Store(false)
	})
	refused, passed := m.counts()
	if refused[s3+" after=false"] == 0 || refused[dynamo+" after=false"] < 5 {
		t.Errorf("only these refused: %v", refused)
	}
	t.Logf("%s; refused %v, passed %d, credentials asked for %d times", w.told(), refused, passed, provided.Load())
	counted(t, "18 s without any, 36 s without DynamoDB")
}
