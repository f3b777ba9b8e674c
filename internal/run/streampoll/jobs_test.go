package streampoll

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/precast-ota/precast/builder"
)

// plan is a plan that was asked for.
type plan struct {
	After uint64 `json:"after"`
	Since int64  `json:"since"` // Unix milliseconds
	at    time.Time
}

// jobs are the ledger and the queue: the parts of them that ask for plans.
type jobs struct {
	builder.Ledger
	builder.Queue

	mu     sync.Mutex
	number uint64
	plans  []plan
	fault  func(call string) error
}

func (j *jobs) fail(call string) error {
	if j.fault == nil {
		return nil
	}
	return j.fault(call)
}

func (j *jobs) Next(context.Context) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.fail("Next"); err != nil {
		return 0, err
	}
	j.number++
	return j.number, nil
}

func (j *jobs) Send(_ context.Context, bodies ...[]byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	fault := j.fail("Send")
	if fault != nil && !errors.Is(fault, errAnswer) {
		return fault
	}
	for _, b := range bodies {
		p := plan{at: time.Now()}
		if err := json.Unmarshal(b, &p); err != nil {
			return err
		}
		j.plans = append(j.plans, p)
	}
	return fault
}

func (j *jobs) last() (n int, p plan) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.plans) > 0 {
		p = j.plans[len(j.plans)-1]
	}
	return len(j.plans), p
}

// taken is the last number that was taken.
func (j *jobs) taken() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.number
}
