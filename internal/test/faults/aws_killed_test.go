//go:build aws

package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/awspipeline"
	"github.com/precast-ota/precast/internal/run/pipeline"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

// site is where a process of its own finds a pipeline.
type site struct {
	URL       string
	Resources awsdrivers.Resources
}

// encode is what stands for a data folder's path.
func (s site) encode() string {
	data, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings
	}
	return string(data)
}

func openSite(ctx context.Context, text string) (pipeline.Drivers, error) {
	os.Unsetenv("AWS_CA_BUNDLE") // the stand-in speaks HTTP
	var s site
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return pipeline.Drivers{}, err
	}
	cfg, err := configFor(ctx, s.URL, nil)
	if err != nil {
		return pipeline.Drivers{}, err
	}
	return awspipeline.Open(awsstore.NewClients(cfg), s.Resources)
}

// hidden is for how long nobody else gets a job whose process has died.
const hidden = 2 * time.Second

func awsRoles() map[string]func(dir, arg string) error {
	return map[string]func(dir, arg string) error{
		"pipeline on AWS": func(dir, arg string) error {
			ctx := context.Background()
			d, err := openSite(ctx, dir)
			if err != nil {
				return err
			}
			c, err := parseCrash(arg)
			if err != nil {
				return err
			}
			if err := playStory(ctx, d, c, hidden); err != nil {
				return err
			}
			return drain(ctx, d)
		},
		"rollback on AWS": func(dir, arg string) error {
			ctx := context.Background()
			d, err := openSite(ctx, dir)
			if err != nil {
				return err
			}
			return rollBack(ctx, d, arg)
		},
	}
}

// As TestKilledAtEveryWrite, over S3, DynamoDB and SQS.
func TestKilledAtEveryWriteAWS(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	ctx := t.Context()
	want := c.drivers(t, c.url, nil)
	out, err := child("pipeline on AWS", site{c.url, c.resources}.encode(), "0 false")
	must(t, err)
	writes, _ := counts(t, out)
	if writes < 30 {
		t.Fatalf("the story has only %d writes", writes)
	}
	reference, err := contentsOf(ctx, want.Objects)
	must(t, err)
	points := make(chan int, writes)
	for n := range writes {
		points <- n + 1
	}
	close(points)
	var killed, mid atomic.Int64
	var all sync.WaitGroup
	for range 8 { // mostly they wait for a job that its dead process has hidden
		all.Go(func() {
			for at := range points {
				crashed, published, err := c.killedAt(t, at, reference)
				if err != nil {
					t.Errorf("killed at write %d of %d: %v", at, writes, err)
				}
				if crashed {
					killed.Add(1)
				}
				if published {
					mid.Add(1)
				}
			}
		})
	}
	all.Wait()
	// How often a queue is asked before it has a job to give is chance: the last writes may not be reached.
	if int(killed.Load()) < writes*9/10 || mid.Load() == 0 {
		t.Errorf("%d processes were killed at %d writes; something was published at %d of the crashes", killed.Load(), writes, mid.Load())
	}
	t.Logf("%d writes, %d kills, something was published at %d of them", writes, killed.Load(), mid.Load())
	counted(t, "more than %d kills", (writes-1)/10*10)
}

// killedAt plays one crash and the restart, on resources of its own.
func (c *cloud) killedAt(t *testing.T, at int, want map[string]string) (killed, published bool, err error) {
	ctx := t.Context()
	s := site{c.url, c.setup(t, fmt.Sprint("-", at))}
	d, err := openSite(ctx, s.encode())
	if err != nil {
		return false, false, err
	}
	if _, err = child("pipeline on AWS", s.encode(), fmt.Sprint(at, " false")); err != nil && !errors.Is(err, errKilled) {
		return false, false, err
	}
	killed = err != nil
	ix, _, err := builder.ReadIndex(ctx, d.Objects)
	if err != nil {
		return killed, false, err
	}
	published = ix != nil
	if err := complete(ctx, d.Objects); err != nil {
		return killed, published, err
	}
	if _, err := child("pipeline on AWS", s.encode(), "0 false"); err != nil {
		return killed, published, fmt.Errorf("started again: %w", err)
	}
	if err := complete(ctx, d.Objects); err != nil {
		return killed, published, fmt.Errorf("after the restart: %w", err)
	}
	got, err := contentsOf(ctx, d.Objects)
	if err != nil {
		return killed, published, err
	}
	if !maps.Equal(got, want) {
		return killed, published, fmt.Errorf("%d objects, %d without a crash, or others", len(got), len(want))
	}
	if waiting, inFlight, dead, err := d.DeadLetters.Depth(ctx); err != nil || waiting+inFlight+dead > 0 {
		return killed, published, fmt.Errorf("%d jobs wait, %d are in flight, %d dead: %w", waiting, inFlight, dead, err)
	}
	return killed, published, nil
}

// As TestRollbackKilledAtEveryWrite, over S3, DynamoDB and SQS.
func TestRollbackKilledAtEveryWriteAWS(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	d := c.drivers(t, c.url, nil)
	killRollbacks(t, d, func(arg string) (string, error) {
		return child("rollback on AWS", site{c.url, c.resources}.encode(), arg)
	}, func() pipeline.Drivers { return d })
}
