//go:build aws

package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
)

// S3, then DynamoDB, fail for longer than it takes to receive a job as often as it may be: with 500 for everybody,
// from any moment of a build on. A process does the jobs, or functions on Lambda do.
func TestOutageAWS(t *testing.T) {
	t.Parallel()
	const failures = 20
	shared := newCloud(t)
	for _, lambda := range []bool{false, true} {
		t.Run(fmt.Sprintf("lambda=%v", lambda), func(t *testing.T) {
			t.Parallel()
			c := *shared
			c.resources = shared.setup(t, fmt.Sprintf("-%v", lambda))
			m := newMiddleman(t, &c)
			w := c.world(t, m.URL, nil)
			if lambda {
				w.onLambda(40*time.Second, nil)
			}
			w.drive(7, 0, func(ctx context.Context, r *rand.Rand) {
				for n, out := range []string{s3, dynamo} {
					w.settle(2*time.Minute, 250*time.Millisecond)
					var left atomic.Int64
					left.Store(int64(r.IntN(40)))
					m.set(func(_ *http.Request, service string) (*refusal, bool) {
						if service != out || left.Add(-1) >= 0 {
							return nil, false
						}
						return internalError(service), false
					})
					w.step(r, n+1)
					for begun := false; !begun; { // what a change needs may be done before: then a plan meets it
						begun = left.Load() < 0
						_, err := builder.RequestPlan(ctx, w.base.Ledger, w.base.Queue, builder.Request{})
						must(t, err)
						pause(ctx, time.Second)
					}
					w.outlast(failures, 5*time.Minute, time.Second)
					m.set(nil)
				}
			})
			t.Log(w.told())
		})
	}
	counted(t, "2 outages for each worker, %d failed deliveries each", failures)
}
