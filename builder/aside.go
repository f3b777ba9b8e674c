package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

// A binary that comes slowly, or whose source fails, holds nobody else up. Its item is left out of plans like a rejected
// one, so that its previous release stays published, and the others' new ones are. Its note says when it is tried
// again: the first plan after that sends a job for it, beside the plan. Once the binary is stored, that job asks for a
// plan, which has the item.

var (
	errTooManySlow = errors.New("too many other sources are slow")
	errOutOfTime   = errors.New("its source is slow: the binary could not be read in the time that the worker has")
)

// outside tells whether an item's binary is not in this pipeline's own store.
func outside(it catalog.Item) bool { return !strings.HasPrefix(it.URL, catalog.StorePrefix) }

// stopBefore is how long before its context ends a job gives up a source, to write that down.
const stopBefore = 5 * time.Second

// fetch is storePiece for a job. If that takes longer than the builder's patience, fetch sets the item aside, and the
// worker does other jobs meanwhile: detach says whether it may. It tells whether the item was set aside.
func (b *Builder) fetch(ctx context.Context, j job, detach func() bool) (aside bool, err error) {
	it := *j.Item
	if !outside(it) {
		return false, b.storePiece(ctx, it)
	}
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if deadline, ok := ctx.Deadline(); ok {
		timer := time.AfterFunc(time.Until(deadline)-stopBefore, func() { cancel(errOutOfTime) })
		defer timer.Stop()
	}
	done := make(chan error, 1)
	go func() { done <- b.storePiece(reading, it) }()
	patience := time.NewTimer(b.opt.Patience)
	defer patience.Stop()
	select {
	case err = <-done:
	case <-patience.C:
		aside = true
		if !detach() {
			cancel(errTooManySlow)
		} else if j.Entry != "" {
			slow := fmt.Errorf("its source is slow: the binary is still being read after %s", b.opt.Patience)
			if err := b.postpone(ctx, j, slow); err != nil && ctx.Err() == nil {
				b.opt.Log.ErrorContext(ctx, "set an item aside whose source is slow", "item", it.Key().String(), "error", err)
			}
		}
		err = <-done
	}
	if cause := context.Cause(reading); err != nil && (errors.Is(cause, errTooManySlow) || errors.Is(cause, errOutOfTime)) {
		return true, sourceError{cause}
	}
	return aside, err
}

// postpone is reject for what may have passed later.
func (b *Builder) postpone(ctx context.Context, j job, cause error) error {
	tries := max(j.Tries, 1)
	return b.reject(ctx, j, Rejection{j.Item.Key(), j.Item.Version, cause.Error(), b.opt.Clock.Now().Add(retryAfter(tries)), tries})
}

// retryAfter is how long after its nth try a source is tried again: 30 s, 1 min, 2 min ..., at most an hour.
func retryAfter(tries int) time.Duration {
	return min(30*time.Second<<min(max(tries-1, 0), 7), time.Hour)
}

// writeNote writes down why an item is left out.
func (b *Builder) writeNote(ctx context.Context, it catalog.Item, note Rejection) error {
	data, err := json.Marshal(note)
	if err != nil {
		return fmt.Errorf("encode rejection of %s: %w", it.Key(), err)
	}
	if _, err := b.Objects.Put(ctx, layout.RejectKey(rejectDigest(it)), BytesBody(data), PutOptions{}); err != nil {
		return fmt.Errorf("write rejection of %s: %w", it.Key(), err)
	}
	return nil
}

// postponed is an item that is left out of a plan until its source answers.
type postponed struct {
	item catalog.Item
	note Rejection
}

// retryDue sends jobs for the binaries that a plan is not waiting for and whose time has come. The notes say before when
// they are tried next, so that the next plan does not send the same ones.
func (b *Builder) retryDue(ctx context.Context, p *Plan, o origin) error {
	now := b.opt.Clock.Now()
	var jobs []job
	for _, late := range p.postponed {
		if late.note.Retry.After(now) {
			continue
		}
		late.note.Tries++
		late.note.Retry = now.Add(retryAfter(late.note.Tries))
		if err := b.writeNote(ctx, late.item, late.note); err != nil {
			return err
		}
		for i := range p.Rejected {
			if r := &p.Rejected[i]; r.Key == late.note.Key && r.Version == late.note.Version {
				*r = late.note
			}
		}
		j := job{Kind: jobPiece, Item: &late.item, Tries: late.note.Tries}
		o.onto(&j)
		jobs = append(jobs, j)
	}
	if len(jobs) == 0 {
		return nil
	}
	return send(ctx, b.Queue, jobs...)
}

// startReading tells whether nobody in this process is reading a binary beside a plan already; stop ends that.
func (b *Builder) startReading(it catalog.Item) (stop func(), ok bool) {
	key := RejectKey(it)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reading[key] {
		return nil, false
	}
	b.reading[key] = true
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.reading, key)
	}, true
}
