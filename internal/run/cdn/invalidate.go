package cdn

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"

	"github.com/precast-ota/precast/builder"
)

// Paths are what a publish makes stale: objects are immutable, answers to /package are not.
const Paths = "/package*"

// Client is the part of the CloudFront client that invalidates.
type Client interface {
	CreateInvalidation(ctx context.Context, in *cloudfront.CreateInvalidationInput, opt ...func(*cloudfront.Options)) (*cloudfront.CreateInvalidationOutput, error)
}

// Settled is how long after a publish every instance at the edge answers from it: edge/shim uses an index
// for twice its refresh of 5 seconds at most, and may take 2 more to fetch the next. edge/cmd/pack allows no more.
// An instance that cannot reach S3 keeps answering from the last one, and looks every second.
const Settled = 12 * time.Second

// Invalidation is whether answers were invalidated.
type Invalidation int

const (
	InvalidatedNot   Invalidation = iota
	InvalidatedEarly              // interrupted, before the edge had settled: some may be stale for a minute
	Invalidated                   // every later answer is from what was published
)

// Invalidator is a builder.Observer that invalidates a distribution, once for every new generation: when the
// edge has settled. Before that, the answers of instances that have not seen the generation yet would be cached again; after it,
// every answer is right. A wildcard path counts as one of the 1,000 that are free each month
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

// Published implements builder.Observer. Errors of AWS say the ID of the request.
func (v *Invalidator) Published(ctx context.Context, p builder.Published) {
	if !p.Changed {
		return
	}
	log := v.Log.With("distribution", v.Distribution, "generation", p.Generation)
	if done, err := v.Invalidate(ctx, p); err != nil {
		log.ErrorContext(ctx, "invalidate the CDN", "error", err)
	} else if done == InvalidatedEarly {
		log.WarnContext(ctx, "the CDN was invalidated before the edge had settled: there was no time")
	}
}

// Invalidate waits and invalidates. If ctx ends meanwhile it invalidates at once: nobody else will do it
// later, and nearly every instance looks at the index within the first seconds.
func (v *Invalidator) Invalidate(ctx context.Context, p builder.Published) (Invalidation, error) {
	done := Invalidated
	if v.Wait(ctx, Settled) != nil {
		done = InvalidatedEarly
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastCall)
		defer cancel()
	}
	// The reference makes the same publish, delivered twice, one invalidation.
	reference := fmt.Sprintf("precast-generation-%d-plan-%d", p.Generation, p.Sequence)
	quantity := int32(1)
	_, err := v.Client.CreateInvalidation(ctx, &cloudfront.CreateInvalidationInput{
		DistributionId: &v.Distribution,
		InvalidationBatch: &types.InvalidationBatch{
			CallerReference: &reference,
			Paths:           &types.Paths{Quantity: &quantity, Items: []string{Paths}},
		},
	})
	if err != nil {
		return InvalidatedNot, fmt.Errorf("invalidate %s: %w", Paths, err)
	}
	return done, nil
}
