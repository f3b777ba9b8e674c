//go:build aws

package faults_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// On AWS the only disk is the one where a binary and its piece lie on their way.
func TestDiskFullAWS(t *testing.T) {
	if os.Getenv(envInside) == "" {
		t.Parallel()
		inNamespace(t, "AWS")
		counted(t, "more than 5 failed tries")
		return
	}
	v := mount(t, "1m")
	c := newCloud(t)
	w := c.world(t, c.url, nil)
	w.opt.SpoolDir = v.dir
	w.drive(6, 0, func(ctx context.Context, r *rand.Rand) {
		w.settle(90*time.Second, 250*time.Millisecond)
		v.leave(0)
		before, err := published(ctx, w.base.Objects)
		must(t, err)
		w.step(r, 1)
		// Longer than it takes to give a job up.
		await(t, time.Minute, "six failed tries", func() bool { return w.log.count("no space left on device") >= 6 })
		w.complete()
		after, err := published(ctx, w.base.Objects)
		must(t, err)
		if len(after) == 0 || len(before) != len(after) {
			t.Fatalf("published %v, before %v", after, before)
		}
		must(t, os.Remove(filepath.Join(v.dir, "filler")))
	})
	if left, err := os.ReadDir(v.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
