package streampoll

import "time"

const (
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
)

// pace says when something may be done next.
type pace struct {
	at       time.Time
	failures int // in a row
}

func (p *pace) due(now time.Time) bool { return !now.Before(p.at) }

// soon lets it be done in the next round, failures or not. The caller has to be slowed down by
// something else.
func (p *pace) soon(now time.Time) {
	if now.Before(p.at) {
		p.at = now
	}
}

// worked sets the next time, unless it has been set already.
func (p *pace) worked(now time.Time, every time.Duration) {
	p.failures = 0
	if p.at.IsZero() {
		p.at = now.Add(every)
	}
}

// failed sets the next time by exponential backoff. Half of it is jitter: the other half is a pause
// that even the worst luck keeps
// (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
func (p *pace) failed(now time.Time, random float64) time.Duration {
	limit := maxBackoff
	if p.failures < 10 {
		limit = min(firstBackoff<<p.failures, maxBackoff)
	}
	p.failures++
	delay := limit/2 + time.Duration(random*float64(limit/2))
	p.at = now.Add(delay)
	return delay
}
