package cdn_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudfront"

	"precast/builder"
	"precast/internal/cdn"
)

type client struct {
	got []*cloudfront.CreateInvalidationInput
	err error
}

func (c *client) CreateInvalidation(_ context.Context, in *cloudfront.CreateInvalidationInput, _ ...func(*cloudfront.Options)) (*cloudfront.CreateInvalidationOutput, error) {
	c.got = append(c.got, in)
	return &cloudfront.CreateInvalidationOutput{}, c.err
}

func TestAPublishInvalidatesTheAnswers(t *testing.T) {
	var log strings.Builder
	var waited time.Duration
	c := &client{}
	v := &cdn.Invalidator{Client: c, Distribution: "D", Log: slog.New(slog.NewTextHandler(&log, nil)),
		Wait: func(_ context.Context, d time.Duration) error { waited = d; return nil }}
	v.Published(t.Context(), builder.Published{Generation: 4, Sequence: 9})
	if len(c.got) != 0 {
		t.Fatal("a publish that changed nothing was invalidated")
	}
	v.Published(t.Context(), builder.Published{Generation: 5, Sequence: 10, Changed: true})
	v.Published(t.Context(), builder.Published{Generation: 5, Sequence: 10, Changed: true})
	v.Published(t.Context(), builder.Published{Generation: 6, Sequence: 11, Changed: true})
	if len(c.got) != 6 || *c.got[0].DistributionId != "D" || c.got[0].InvalidationBatch.Paths.Items[0] != "/package*" {
		t.Fatalf("%+v", c.got)
	}
	references := map[string]int{}
	for _, in := range c.got {
		references[*in.InvalidationBatch.CallerReference]++
	}
	if len(references) != 4 {
		t.Fatalf("references %v: one publish must be one pair of invalidations, however often it is told", references)
	}
	if waited != cdn.Settled {
		t.Fatalf("the second came after %v", waited)
	}
}

func TestAFailureIsLogged(t *testing.T) {
	for name, v := range map[string]*cdn.Invalidator{
		"refused": {Client: &client{err: errors.New("throttled")}, Wait: func(context.Context, time.Duration) error { return nil }},
		"ended":   {Client: &client{}, Wait: func(context.Context, time.Duration) error { return errors.New("throttled") }},
	} {
		var log strings.Builder
		v.Log = slog.New(slog.NewTextHandler(&log, nil))
		v.Published(t.Context(), builder.Published{Generation: 7, Sequence: 12, Changed: true})
		if !strings.Contains(log.String(), "throttled") {
			t.Errorf("%s: a failure is not in the log: %s", name, &log)
		}
	}
}
