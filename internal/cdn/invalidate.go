// Package cdn tells a CloudFront distribution that the answers to /package have changed.
package cdn

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"

	"precast/builder"
	"precast/internal/awsstore"
)

// Paths are what a publish makes stale: objects are immutable, answers to /package are not.
const Paths = "/package*"

// Client is the part of the CloudFront client that is used.
type Client interface {
	CreateInvalidation(ctx context.Context, in *cloudfront.CreateInvalidationInput, opt ...func(*cloudfront.Options)) (*cloudfront.CreateInvalidationOutput, error)
}

// Settled is how long after a publish every instance at the edge answers from it: edge/shim uses an index
// for twice its refresh of 5 seconds at most, and may take 2 more to fetch the next.
const Settled = 12 * time.Second

// Invalidator is a builder.Observer that invalidates a distribution at every new generation: at once, for
// the many instances at the edge that see it at once, and when it has settled, for answers that slower ones
// gave in between. A wildcard path counts as one of the 1,000 that are free each month
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/PayingForInvalidation.html).
type Invalidator struct {
	builder.Silent
	Client       Client
	Distribution string // its ID
	Log          *slog.Logger
	// Wait returns after a duration, or with ctx's error.
	Wait func(ctx context.Context, d time.Duration) error
}

var _ builder.Observer = (*Invalidator)(nil)

// Connect makes an invalidator from the environment's AWS configuration.
func Connect(ctx context.Context, distribution string, log *slog.Logger) (*Invalidator, error) {
	cfg, err := awsstore.LoadConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to CloudFront: %w", err)
	}
	return &Invalidator{Client: cloudfront.NewFromConfig(cfg), Distribution: distribution, Log: log, Wait: wait}, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Published implements builder.Observer. A failure is only logged: without the invalidation, answers are
// stale for as long as the distribution's cache policy allows, which is a minute.
func (v *Invalidator) Published(ctx context.Context, p builder.Published) {
	if !p.Changed {
		return
	}
	// The references make the same publish, delivered twice, one pair of invalidations.
	reference := fmt.Sprintf("precast-generation-%d-plan-%d", p.Generation, p.Sequence)
	err := v.invalidate(ctx, reference)
	if err == nil {
		err = v.Wait(ctx, Settled)
	}
	if err == nil {
		err = v.invalidate(ctx, reference+"-settled")
	}
	if err != nil {
		v.Log.ErrorContext(ctx, "invalidate the CDN", "distribution", v.Distribution, "generation", p.Generation, "error", err)
	}
}

func (v *Invalidator) invalidate(ctx context.Context, reference string) error {
	quantity := int32(1)
	_, err := v.Client.CreateInvalidation(ctx, &cloudfront.CreateInvalidationInput{
		DistributionId: &v.Distribution,
		InvalidationBatch: &types.InvalidationBatch{
			CallerReference: &reference,
			Paths:           &types.Paths{Quantity: &quantity, Items: []string{Paths}},
		},
	})
	return err
}
