package rig

import (
	"fmt"
	"strings"
	"time"
)

// Trace tells how one request was answered.
type Trace struct {
	ID       string // X-Amz-Cf-Id of the answer
	Method   string
	URL      string // as the viewer sent it
	Pattern  string // of the behavior
	Key      string // of the cache, once the Function has run
	Status   int
	Bytes    int
	XCache   string // without " from cloudfront"
	Stale    bool   // a copy that had expired was sent
	Joined   bool   // another request's fetch answered
	Function time.Duration
	// Handler is the time of all runs of the origin-request function.
	Handler     time.Duration
	HandlerRuns int
	// Origin is what the answer, or the cached copy, is from: an origin's name, "edge" for a response that the
	// origin-request function generated, or empty.
	Origin   string
	Fetches  []string // "name method target status", in order
	Failover int      // status of the primary that led to the secondary; 0: none
	Broken   error    // the rule that was broken, a *Broken, or nil
}

// String is one line for logs.
func (t Trace) String() string {
	parts := []string{fmt.Sprintf("%s %s %d %d bytes", t.Method, t.URL, t.Status, t.Bytes), "x-cache=" + t.XCache}
	if t.Origin != "" {
		parts = append(parts, "origin="+t.Origin)
	}
	if t.Failover != 0 {
		parts = append(parts, fmt.Sprintf("failover=%d", t.Failover))
	}
	if t.Stale {
		parts = append(parts, "stale")
	}
	if t.Joined {
		parts = append(parts, "joined")
	}
	if t.Function > 0 {
		parts = append(parts, fmt.Sprintf("function=%.2fms", milliseconds(t.Function)))
	}
	if t.HandlerRuns > 0 {
		parts = append(parts, fmt.Sprintf("handler=%.2fms/%d", milliseconds(t.Handler), t.HandlerRuns))
	}
	if t.Broken != nil {
		parts = append(parts, fmt.Sprintf("broken=%q", t.Broken))
	}
	return strings.Join(parts, " ")
}

// maxTraces is how many traces are kept.
const maxTraces = 10_000

func (c *CloudFront) record(t Trace) {
	c.mu.Lock()
	if len(c.traces) >= maxTraces {
		c.traces = append(c.traces[:0], c.traces[maxTraces/2:]...)
	}
	c.traces = append(c.traces, t)
	c.mu.Unlock()
	if c.onTrace != nil {
		c.onTrace(t)
	}
}

// Traces returns the traces of the latest requests, in the order in which they were answered. Fetches in the
// background have traces of their own, without a status.
func (c *CloudFront) Traces() []Trace {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Trace(nil), c.traces...)
}

// Trace returns the trace of the answer with this X-Amz-Cf-Id.
func (c *CloudFront) Trace(id string) (Trace, bool) {
	for _, t := range c.Traces() {
		if t.ID == id {
			return t, true
		}
	}
	return Trace{}, false
}
