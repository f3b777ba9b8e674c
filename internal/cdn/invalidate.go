// Package cdn tells a CloudFront distribution that the answers to /package have changed.
package cdn

import (
	"context"
	"fmt"
	"log/slog"

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

// Invalidator is a builder.Observer that invalidates a distribution at every new generation. A wildcard
// path counts as one of the 1,000 that are free each month
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/PayingForInvalidation.html).
type Invalidator struct {
	builder.Silent
	Client       Client
	Distribution string // its ID
	Log          *slog.Logger
}

var _ builder.Observer = (*Invalidator)(nil)

// Connect makes an invalidator from the environment's AWS configuration.
func Connect(ctx context.Context, distribution string, log *slog.Logger) (*Invalidator, error) {
	cfg, err := awsstore.LoadConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to CloudFront: %w", err)
	}
	return &Invalidator{Client: cloudfront.NewFromConfig(cfg), Distribution: distribution, Log: log}, nil
}

// Published implements builder.Observer. A failure is only logged: without the invalidation, answers are
// stale for as long as their Cache-Control allows, which is half a minute.
func (v *Invalidator) Published(ctx context.Context, p builder.Published) {
	if !p.Changed {
		return
	}
	// The reference makes the same publish, delivered twice, one invalidation.
	reference := fmt.Sprintf("precast-generation-%d-plan-%d", p.Generation, p.Sequence)
	path, quantity := Paths, int32(1)
	_, err := v.Client.CreateInvalidation(ctx, &cloudfront.CreateInvalidationInput{
		DistributionId: &v.Distribution,
		InvalidationBatch: &types.InvalidationBatch{
			CallerReference: &reference,
			Paths:           &types.Paths{Quantity: &quantity, Items: []string{path}},
		},
	})
	if err != nil {
		v.Log.ErrorContext(ctx, "invalidate the CDN", "distribution", v.Distribution, "error", err)
	}
}
