package builder

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/internal/format/layout"
)

// ErrOutage: the driver's backing service is failing for every caller. It is out of reach or throttles, or the
// credentials have expired. Drivers wrap it. Errors of the operating system say it themselves.
var ErrOutage = errors.New("a service that everything needs fails")

// ErrPaused: there is too little room for what a job would write. It is tried again, and goes on when there is more.
var ErrPaused = errors.New("builds are paused")

// sourceError is a failure of where the catalog says that a binary is. It is the item's, whatever it wraps.
type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

// probeTimeout is how long a service may take to answer a question before it counts as failing.
const probeTimeout = settleTimeout / 2

// probeEntry is a ledger entry that nobody opens.
const probeEntry = "probe"

// outage tells whether a job failed for a reason that is not its own: then it will be done when that has
// passed, and is no dead letter however long that takes. It takes at most half of the time that ctx has left.
func (b *Builder) outage(ctx context.Context, err error) bool {
	var source sourceError
	if errors.As(err, &source) {
		return false
	}
	if errors.Is(err, ErrOutage) || errors.Is(err, ErrSweeping) || errors.Is(err, ErrPaused) {
		return true
	}
	for _, e := range exhausted {
		if errors.Is(err, e) {
			return true
		}
	}
	return b.servicesFail(ctx)
}

// servicesFail asks the object store and the ledger a question each. One object that cannot be read is its
// job's trouble, a store of which nothing can be read is not.
func (b *Builder) servicesFail(ctx context.Context) bool {
	timeout := probeTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { _, err := b.Objects.Stat(ctx, layout.IndexKey); return unlessAbsent(err) })
	g.Go(func() error { _, err := b.Ledger.Done(ctx, probeEntry, 0); return unlessAbsent(err) })
	return g.Wait() != nil
}

func unlessAbsent(err error) error {
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}
