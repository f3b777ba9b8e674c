package storetest

import (
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
)

// QueueOptions say how the queue under test was set up.
type QueueOptions struct {
	// Clock makes messages visible again: its Wait returns when the driver has seen the time pass.
	Clock builder.Clock
	// Visibility is the shortest visibility timeout that the driver can do; 0 means 1 s.
	Visibility time.Duration
	// Patience is how long to wait for a message that is due; 0 means 5 s.
	Patience time.Duration
	// MaxReceives is what the driver was configured with; at least 3, so that redelivery can be seen.
	MaxReceives int
	// Exact: counts and order of dead letters are exact, not approximate.
	Exact bool
}

func (opt QueueOptions) withDefaults(t *testing.T) QueueOptions {
	if opt.MaxReceives < 3 {
		t.Fatalf("QueueOptions.MaxReceives is %d, want at least 3", opt.MaxReceives)
	}
	if opt.Visibility == 0 {
		opt.Visibility = time.Second
	}
	if opt.Patience == 0 {
		opt.Patience = 5 * time.Second
	}
	return opt
}
