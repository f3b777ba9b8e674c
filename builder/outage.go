package builder

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/precast-ota/precast/internal/format/layout"
)

// ErrOutage: what a driver stands on fails, whoever asks and for whatever: a service that is out of reach or
// throttles, credentials that have expired. Drivers wrap it. Errors of the operating system say it themselves.
var ErrOutage = errors.New("a service that everything needs fails")

// sourceError is a failure of where the catalog says that a binary is. It is the item's, whatever it wraps.
type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

// Full disks, quotas, exhausted tables: nobody's job is to blame.
var exhausted = [...]syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM}

// probeTimeout is how long a store may take to describe one object before it counts as failing.
const probeTimeout = 10 * time.Second

// outage tells whether a job failed for a reason that is not its own: then it will be done when that has
// passed, and is no dead letter however long that takes.
func (b *Builder) outage(ctx context.Context, err error) bool {
	var source sourceError
	if errors.As(err, &source) {
		return false
	}
	if errors.Is(err, ErrOutage) || errors.Is(err, ErrSweeping) {
		return true
	}
	for _, e := range exhausted {
		if errors.Is(err, e) {
			return true
		}
	}
	// One object that cannot be read is its job's trouble, a store of which nothing can be read is not.
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, probe := b.Objects.Stat(ctx, layout.IndexKey)
	return probe != nil && !errors.Is(probe, ErrNotExist)
}
