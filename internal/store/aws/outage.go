package aws

import (
	"context"
	"errors"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go/middleware"

	"github.com/precast-ota/precast/builder"
)

// outageError is an error that every other request would meet as well.
type outageError struct{ error }

func (e outageError) Unwrap() []error { return []error{e.error, builder.ErrOutage} }

// stale are the codes of credentials that were good and will be again once they are renewed. That
// a request is forbidden is not among them: it may be forbidden for good.
var stale = [...]string{
	"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired",
	"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId",
}

// outages marks what is left of such errors when the SDK has given up.
func outages(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Outage", markOutage), middleware.Before)
}

func markOutage(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	out, meta, err := next.HandleInitialize(ctx, in)
	if err != nil && ctx.Err() == nil && isOutage(err) {
		err = outageError{err}
	}
	return out, meta, err
}

// isOutage: what the SDK tries again, it tries because the request is not to blame.
func isOutage(err error) bool {
	if slices.Contains(stale[:], codeOf(err)) {
		return true
	}
	var exhausted *retry.MaxAttemptsError
	if errors.As(err, &exhausted) {
		return true
	}
	return retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary
}
