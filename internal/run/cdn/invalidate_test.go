package cdn_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudfront"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/cdn"
)

// client takes invalidations.
type client struct {
	got []*cloudfront.CreateInvalidationInput
	ctx context.Context // of the last one
	err error
	on  func()
}

func (c *client) CreateInvalidation(ctx context.Context, in *cloudfront.CreateInvalidationInput, _ ...func(*cloudfront.Options)) (*cloudfront.CreateInvalidationOutput, error) {
	c.got, c.ctx = append(c.got, in), ctx
	if c.on != nil {
		c.on()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &cloudfront.CreateInvalidationOutput{}, c.err
}

// passed lets time pass without waiting.
func passed(context.Context, time.Duration) error { return nil }

// One publish is one invalidation, when every instance at the edge has seen it.
func TestAPublishInvalidatesTheAnswersOnce(t *testing.T) {
	c := &client{}
	waited := time.Duration(0)
	v := &cdn.Invalidator{Client: c, Distribution: "D", Wait: func(_ context.Context, d time.Duration) error {
		if len(c.got) > 0 {
			t.Error("it was invalidated before the edge had settled")
		}
		waited += d
		return nil
	}}
	done, err := v.Invalidate(t.Context(), builder.Published{Generation: 5, Sequence: 10, Changed: true})
	if err != nil || done != cdn.Invalidated || waited != cdn.Settled {
		t.Fatalf("%v, %v after %v", done, err, waited)
	}
	if len(c.got) != 1 || *c.got[0].DistributionId != "D" || len(c.got[0].InvalidationBatch.Paths.Items) != 1 || c.got[0].InvalidationBatch.Paths.Items[0] != "/package*" {
		t.Fatalf("%+v", c.got)
	}
}

// CloudFront takes two calls with one reference for one invalidation.
func TestAPublishToldTwiceIsOneInvalidation(t *testing.T) {
	c := &client{}
	v := &cdn.Invalidator{Client: c, Distribution: "D", Wait: passed}
	for _, p := range []builder.Published{{Generation: 5, Sequence: 10}, {Generation: 5, Sequence: 10}, {Generation: 6, Sequence: 10}, {Generation: 7, Sequence: 11}} {
		if _, err := v.Invalidate(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	references := map[string]int{}
	for _, in := range c.got {
		references[*in.InvalidationBatch.CallerReference]++
	}
	if len(references) != 3 {
		t.Fatalf("references %v: want one for each publish", references)
	}
}

// A function that runs out of time, or a command that is interrupted, invalidates at once: nobody else would.
func TestAnInterruptedWaitInvalidatesAtOnce(t *testing.T) {
	c := &client{}
	ctx, cancel := context.WithCancel(t.Context())
	v := &cdn.Invalidator{Client: c, Distribution: "D", Wait: func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	}}
	done, err := v.Invalidate(ctx, builder.Published{Generation: 5, Sequence: 10, Changed: true})
	if err != nil || done != cdn.InvalidatedEarly || len(c.got) != 1 {
		t.Fatalf("%v, %v, %d calls", done, err, len(c.got))
	}
	if _, bounded := c.ctx.Deadline(); !bounded {
		t.Error("the call may take for ever")
	}
}

func TestARefusedInvalidationIsAnError(t *testing.T) {
	v := &cdn.Invalidator{Client: &client{err: errors.New("throttled")}, Distribution: "D", Wait: passed}
	if done, err := v.Invalidate(t.Context(), builder.Published{Generation: 5, Changed: true}); err == nil || done != cdn.InvalidatedNot {
		t.Fatalf("%v, %v", done, err)
	}
}
