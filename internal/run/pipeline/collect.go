package pipeline

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/precast-ota/precast/internal/operate/gc"
)

const (
	// firstCollect is how long after its start a pipeline first removes what nothing needs, and how long it waits for
	// builds to end; collectEvery how often it does.
	firstCollect = time.Minute
	collectEvery = 10 * time.Minute
	// collectShare bounds the time that it takes: it rests so many times as long as it took.
	collectShare = 100
	// rebuiltGrace is how old pieces, bundles and manifests have to be: they can be made again.
	rebuiltGrace = 10 * time.Minute
	// collectSome is how many objects it removes at a time.
	collectSome = 10_000
)

// collect removes what nothing needs, again and again until ctx is done.
func (p *Pipeline) collect(ctx context.Context) {
	clock, log := p.cfg.Builder.Clock, p.cfg.Builder.Log
	for wait := firstCollect; clock.Wait(ctx, wait) == nil; {
		start := clock.Now()
		rep, err := p.Collect(ctx)
		wait = max(collectEvery, collectShare*clock.Now().Sub(start))
		switch {
		case rep == nil && err == nil: // jobs first
			wait = firstCollect
		case err != nil && ctx.Err() == nil && !errors.Is(err, gc.ErrNothing):
			log.WarnContext(ctx, "remove what nothing needs", "error", err)
		}
		if rep == nil {
			continue
		}
		if removed := rep.Removed(); removed.Objects > 0 {
			log.InfoContext(ctx, "removed what nothing needs", "objects", removed.Objects, "bytes", removed.Bytes, "freed", humanize.IBytes(uint64(removed.Bytes)))
		}
	}
}

// Collect removes some of what nothing needs: what can be made again (pieces, bundles, manifests) as soon as no retained
// generation needs it, binaries that were never published, and generations that are older than History, with their
// binaries. While jobs wait or are being done, unless that is for want of room, it removes nothing, and returns neither a
// report nor an error.
func (p *Pipeline) Collect(ctx context.Context) (*gc.Report, error) {
	waiting, inFlight, _, err := p.DeadLetters.Depth(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for jobs: %w", err)
	}
	if waiting+inFlight > 0 && p.Paused() == nil {
		return nil, nil
	}
	opt := gc.Options{
		History: p.cfg.History, Rebuilt: rebuiltGrace, Candidates: collectSome,
		ID: rand.Text(), Clock: p.cfg.Builder.Clock, Log: p.cfg.Builder.Log,
	}
	return gc.New(p.Objects, p.Disk, p.Catalog, opt).Some(ctx)
}
