package aws

import (
	"context"
	"errors"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// How often and how soon to try again what the SDK does not try again by itself.
const (
	attempts     = 8
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// retryer tries again what lost against somebody else's doing. Faults of the network and the service
// are the SDK's to try again.
type retryer struct {
	sleep  func(context.Context, time.Duration) error
	random func() float64 // in [0, 1)
}

// do calls f until it returns something other than conflict, and then returns what f returned last.
// Waiting times are random below a limit that doubles, so that those who met do not meet again
// (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
func (r retryer) do(ctx context.Context, f func() (conflict bool, err error)) error {
	limit := firstBackoff
	for attempt := 1; ; attempt++ {
		conflict, err := f()
		if !conflict || attempt == attempts {
			return err
		}
		if err := r.sleep(ctx, time.Duration(r.random()*float64(limit))); err != nil {
			return err
		}
		limit = min(2*limit, maxBackoff)
	}
}

// codeOf returns the service's code of an error, empty if it is not a service's.
func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// statusOf returns the HTTP status of an error, 0 if it has none.
func statusOf(err error) int {
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) {
		return resp.HTTPStatusCode()
	}
	return 0
}
