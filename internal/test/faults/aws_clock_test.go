//go:build aws

package faults_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// signedWithin is how far the time of a request may be from that of AWS
// (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: RequestTimeTooSkewed).
const signedWithin = 15 * time.Minute

// elsewhere is the time of AWS as a machine sees it whose own clock is wrong by as much.
type elsewhere struct {
	mu     sync.Mutex
	offset time.Duration
}

func (e *elsewhere) set(offset time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.offset = offset
}

func (e *elsewhere) now() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Now().Add(e.offset)
}

// judge refuses what is signed at another time, as the services do.
func (e *elsewhere) judge(r *http.Request, service string) (*refusal, bool) {
	signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err == nil && e.now().Sub(signed).Abs() <= signedWithin {
		return nil, false
	}
	if service == s3 {
		return &refusal{http.StatusForbidden, "RequestTimeTooSkewed"}, false
	}
	return &refusal{http.StatusBadRequest, "com.amazon.coral.service#InvalidSignatureException"}, false
}

// The clock of the machine that builds is set hours forward and back. AWS's own is right: requests are signed with a
// time that AWS does not take, and the builder counts leases and delays by it.
func TestClockJumpsAWS(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	m := newMiddleman(t, c)
	const seed, jumps = 5, 8
	machine, cloud := &jumping{}, &elsewhere{}
	w := c.world(t, m.URL, nil)
	w.opt.Clock = machine.keeping()
	m.mu.Lock()
	m.date = cloud.now
	m.mu.Unlock()
	w.drive(seed, 0, func(ctx context.Context, r *rand.Rand) {
		m.set(cloud.judge)
		for n := range jumps {
			w.step(r, n+1)
			pause(ctx, time.Duration(r.IntN(1500))*time.Millisecond)
			offset := time.Duration(r.IntN(24*60)-12*60) * time.Minute
			machine.set(offset)
			cloud.set(-offset)
			pause(ctx, 2*time.Second)
			w.complete()
		}
	})
	refused, passed := m.counts()
	for _, want := range []string{s3, dynamo, messages} {
		if refused[want+" after=false"] == 0 {
			t.Errorf("%s has refused no signature: %v", want, refused)
		}
	}
	t.Logf("%s; refused %v, passed %d", w.told(), refused, passed)
	counted(t, "%d jumps of up to 12 h", jumps)
}
