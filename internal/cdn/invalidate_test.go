package cdn_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

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
	c := &client{}
	v := &cdn.Invalidator{Client: c, Distribution: "D", Log: slog.New(slog.NewTextHandler(&log, nil))}
	v.Published(t.Context(), builder.Published{Generation: 4, Sequence: 9})
	if len(c.got) != 0 {
		t.Fatal("a publish that changed nothing was invalidated")
	}
	v.Published(t.Context(), builder.Published{Generation: 5, Sequence: 10, Changed: true})
	v.Published(t.Context(), builder.Published{Generation: 5, Sequence: 10, Changed: true})
	v.Published(t.Context(), builder.Published{Generation: 6, Sequence: 11, Changed: true})
	if len(c.got) != 3 || *c.got[0].DistributionId != "D" || c.got[0].InvalidationBatch.Paths.Items[0] != "/package*" {
		t.Fatalf("%+v", c.got)
	}
	reference := func(i int) string { return *c.got[i].InvalidationBatch.CallerReference }
	if reference(0) != reference(1) || reference(1) == reference(2) {
		t.Fatalf("references %q, %q, %q: one publish must be one invalidation", reference(0), reference(1), reference(2))
	}
	c.err = errors.New("throttled")
	v.Published(t.Context(), builder.Published{Generation: 7, Sequence: 12, Changed: true})
	if !strings.Contains(log.String(), "throttled") {
		t.Fatalf("a failure is not in the log: %s", &log)
	}
}
