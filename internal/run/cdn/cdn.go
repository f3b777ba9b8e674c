// Package cdn brings a CloudFront distribution to what is published: the table by which its function tells
// which devices are in a rollout, and the answers to /package that it has cached.
package cdn

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudfront"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

// CDN is a builder.Observer that brings a distribution to what has been published: first the table, which
// decides what an answer is cached under, then the answers.
//
// A failure is logged, and changes nothing of the publish. The next plan mends the table, and so do the
// scheduled ones; answers are stale for as long as the distribution's cache policy allows, which is a minute.
type CDN struct {
	builder.Silent
	Rollouts    *Rollouts    // nil: there is no table
	Invalidator *Invalidator // nil: there is no distribution
}

var _ builder.Observer = (*CDN)(nil)

// Planned implements builder.Observer.
func (c *CDN) Planned(ctx context.Context, r builder.Report) {
	if c.Rollouts != nil {
		c.Rollouts.Planned(ctx, r)
	}
}

// Published implements builder.Observer.
func (c *CDN) Published(ctx context.Context, p builder.Published) {
	if c.Rollouts != nil {
		c.Rollouts.Published(ctx, p)
	}
	if c.Invalidator != nil {
		c.Invalidator.Published(ctx, p)
	}
}

// Resources name the parts of CloudFront that are updated after a publish; an empty name is left alone.
type Resources struct {
	Distribution  string // its ID
	KeyValueStore string // its ARN
}

// Connect makes a CDN from the environment's AWS configuration. Objects have the published index.
func Connect(ctx context.Context, r Resources, objects builder.Objects, log *slog.Logger) (*CDN, error) {
	cfg, err := awsstore.LoadConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to CloudFront: %w", err)
	}
	c := &CDN{}
	if r.Distribution != "" {
		c.Invalidator = &Invalidator{Client: cloudfront.NewFromConfig(cfg), Distribution: r.Distribution, Log: log, Wait: builder.Pause}
	}
	if r.KeyValueStore != "" {
		c.Rollouts = &Rollouts{Client: NewKeyValues(cfg), Store: r.KeyValueStore, Objects: objects, Table: valuesOf, Log: log, Now: time.Now}
	}
	return c, nil
}

func valuesOf(ix *index.Index) []string { return edge.TableOf(ix).Values() }

// What has been published is told to the CDN even if ctx has ended: tableCalls bounds the calls for a table,
// lastCall an invalidation without a wait. Together they are less than a function keeps before its deadline
// (PRECAST_DEADLINE_MARGIN).
const (
	tableCalls = 10 * time.Second
	lastCall   = 5 * time.Second
)
