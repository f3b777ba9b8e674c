// Package gc removes objects that no retained generation reaches. It may run beside builds, imports and
// rollbacks: docs/gc.md says why.
package gc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/history"
)

// Deleter removes objects.
type Deleter interface {
	// Delete removes objects; removing what is not there is no error. On error some of them may have been
	// removed.
	Delete(ctx context.Context, keys ...string) error
}

// Catalog is where binaries are kept that no plan knows yet; see builder.Catalog.
type Catalog interface {
	Snapshot(ctx context.Context) ([]catalog.Item, error)
}

// Options of a sweep. The zero value of each means its default.
type Options struct {
	// Keep is how many generations before the published one stay restorable; default 16. It is never less
	// than history.Near and than what upgrade paths need.
	Keep uint64
	// Grace is how old an object must be to be removed; default 48 h.
	Grace time.Duration
	// History is for how long generations stay restorable, however many there are; default Grace.
	History time.Duration
	// Rebuilt gives up pieces, bundles and manifests sooner, since they can be made again: they are kept for the published
	// generation, for those before it that upgrade paths and history.Near need, and for this long. 0: as everything else.
	Rebuilt time.Duration
	// Lease is how long the fence may stay up at a time, and builds wait; default 30 s.
	Lease time.Duration
	// Margin before the end of the lease nothing is removed any more: for clocks that differ, and for
	// requests that take long; default a third of the lease.
	Margin time.Duration
	// Pause between leases lets builds go on; default 5 s.
	Pause time.Duration
	// Batch is how many objects are removed at a time; default 1,000.
	Batch int
	// Candidates is how many objects a round holds in memory; default 100,000.
	Candidates int
	// Keys is how many keys of each kind a report names.
	Keys  int
	ID    string // tells this sweep from others
	Clock builder.Clock
	Log   *slog.Logger
	// Progress is told how many objects were removed, of how many; nil: nobody.
	Progress func(done, total int)
}

// Collector removes what is not needed.
type Collector struct {
	Objects builder.Objects
	Deleter Deleter
	Catalog Catalog
	opt     Options
}

// New makes a collector.
func New(objects builder.Objects, deleter Deleter, items Catalog, opt Options) *Collector {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&opt.Grace, 48*time.Hour)
	set(&opt.History, opt.Grace)
	set(&opt.Lease, 30*time.Second)
	set(&opt.Margin, opt.Lease/3)
	set(&opt.Pause, 5*time.Second)
	if opt.Keep == 0 {
		opt.Keep = 16
	}
	if opt.Batch <= 0 {
		opt.Batch = 1000
	}
	if opt.Candidates <= 0 {
		opt.Candidates = 100_000
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Collector{Objects: objects, Deleter: deleter, Catalog: items, opt: opt}
}

// Report is what a sweep would remove, or has removed.
type Report struct {
	Generation uint64 `json:"generation"` // published
	Oldest     uint64 `json:"oldest"`     // generation that stays restorable
	Deleted    bool   `json:"deleted"`    // it was removed; otherwise it would be
	Rounds     int    `json:"rounds"`     // how often builds were held up
	Kinds      []Kind `json:"kinds"`      // in the order in which they are removed
	Kept       Sum    `json:"kept"`       // objects of these kinds that stay
	Young      Sum    `json:"young"`      // of those, only because they are younger than the grace period
	Spared     int    `json:"spared"`     // candidates that were needed again by the time of their removal
}

// Kind sums up one kind of object.
type Kind struct {
	Kind string `json:"kind"` // the first part of its keys
	Sum
	Keys []string `json:"keys"` // the first few
}

// Sum counts objects.
type Sum struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (s *Sum) add(size int64) { s.Objects++; s.Bytes += size }

// Removed sums all kinds up.
func (r *Report) Removed() Sum {
	var all Sum
	for _, k := range r.Kinds {
		all.Objects += k.Objects
		all.Bytes += k.Bytes
	}
	return all
}

// swept are the kinds of objects that are removed, in the order of removal: a generation is given up before what it needs, so that none in the
// history has lost anything; and bundles before what they could be composed from.
var swept = [...]layout.Kind{
	layout.IndexHistory, layout.Plan, layout.Reject, layout.Bundle, layout.Manifest, layout.Piece, layout.Binary,
}

// Errors of a sweep that did not begin, or not end.
var (
	// ErrBusy: another sweep is running.
	ErrBusy = errors.New("another sweep is running")
	// ErrNothing: nothing is published, so nothing can be told to be unneeded.
	ErrNothing = errors.New("nothing is published")
	// ErrLease: removing took longer than the lease; what is left is for another sweep.
	ErrLease = errors.New("the lease has ended")
)

// Look reports what Sweep would remove, and changes nothing.
func (c *Collector) Look(ctx context.Context) (*Report, error) {
	rep, _, _, err := c.mark(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("look for unneeded objects: %w", err)
	}
	return rep, nil
}

// Sweep removes what no retained generation, waiting plan or catalog item reaches. On error, the report
// says what was removed until then.
func (c *Collector) Sweep(ctx context.Context) (*Report, error) {
	total := newReport()
	total.Deleted = true
	for {
		before := total.Removed().Objects
		full, err := c.pass(ctx, total)
		if err != nil {
			return total, fmt.Errorf("sweep: %w", err)
		}
		if !full || total.Removed().Objects == before {
			return total, nil
		}
	}
}

// Some is Sweep for as many objects as a round holds in memory: what is left is for the next time.
func (c *Collector) Some(ctx context.Context) (*Report, error) {
	total := newReport()
	total.Deleted = true
	if _, err := c.pass(ctx, total); err != nil {
		return total, fmt.Errorf("sweep: %w", err)
	}
	return total, nil
}

// pass removes what a round holds in memory. It tells whether there may be more.
func (c *Collector) pass(ctx context.Context, total *Report) (full bool, err error) {
	rep, m, candidates, err := c.mark(ctx, []candidate{})
	if err != nil {
		return false, err
	}
	total.Generation, total.Oldest, total.Kept, total.Young = rep.Generation, rep.Oldest, rep.Kept, rep.Young
	return len(candidates) == c.opt.Candidates, c.remove(ctx, m, candidates, total)
}

func newReport() *Report {
	r := &Report{Kinds: make([]Kind, len(swept))}
	for i, k := range swept {
		r.Kinds[i] = Kind{Kind: strings.TrimSuffix(layout.PrefixOf(k), "/"), Keys: []string{}}
	}
	return r
}

// candidate is an object that may be removed.
type candidate struct {
	key  string
	size int64
	kind int // in swept
}

func (c *Collector) note(rep *Report, o candidate) {
	k := &rep.Kinds[o.kind]
	k.add(o.size)
	if len(k.Keys) < c.opt.Keys {
		k.Keys = append(k.Keys, o.key)
	}
}

// mark finds what is needed, then lists everything. Candidates are collected unless the slice is nil.
func (c *Collector) mark(ctx context.Context, candidates []candidate) (*Report, *marks, []candidate, error) {
	now := c.opt.Clock.Now()
	m := newMarks(c.opt, now)
	if err := m.read(ctx, c.Objects, c.Catalog); err != nil {
		return nil, nil, nil, err
	}
	rep := newReport()
	rep.Generation, rep.Oldest = m.current, m.floor
	collect := candidates != nil
	for kind := range swept {
		young := now.Add(-c.opt.grace(swept[kind]))
		err := c.Objects.List(ctx, layout.PrefixOf(swept[kind]), func(o builder.ObjectInfo) error {
			switch {
			case m.needs(o.Key):
				rep.Kept.add(o.Size)
			case !o.Modified.Before(young):
				rep.Kept.add(o.Size)
				rep.Young.add(o.Size)
			case collect && len(candidates) == c.opt.Candidates:
				return errEnough
			default:
				found := candidate{o.Key, o.Size, kind}
				c.note(rep, found)
				if collect {
					candidates = append(candidates, found)
				}
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			break
		}
		if err != nil {
			return nil, nil, nil, err
		}
	}
	return rep, m, candidates, nil
}

var errEnough = errors.New("enough candidates")

// remove removes candidates, a lease at a time. m is what was needed when they were found.
func (c *Collector) remove(ctx context.Context, m *marks, candidates []candidate, total *Report) error {
	all := len(candidates)
	for len(candidates) > 0 {
		if total.Rounds > 0 {
			// Builds that were held up come in between.
			if err := c.opt.Clock.Wait(ctx, c.opt.Pause); err != nil {
				return err
			}
		}
		lease, err := c.take(ctx)
		if err != nil {
			return err
		}
		total.Rounds++
		candidates, err = c.round(ctx, lease, m, candidates, total)
		if c.opt.Progress != nil {
			c.opt.Progress(all-len(candidates), all)
		}
		if endErr := c.give(ctx, lease); endErr != nil {
			// It ends by itself.
			c.opt.Log.WarnContext(ctx, "take the sweep's fence down", "until", lease.fence.Until, "error", endErr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// round removes what it can within one lease, and returns what is left.
func (c *Collector) round(ctx context.Context, l *lease, m *marks, candidates []candidate, total *Report) ([]candidate, error) {
	// What was published, planned or imported before the fence was up is here to be seen; whoever comes
	// after it waits. So what is not needed now will not be needed while the lease holds.
	if err := m.read(ctx, c.Objects, c.Catalog); err != nil {
		return candidates, err
	}
	removed := 0
	for len(candidates) > 0 {
		left := l.left(c.opt)
		if left <= 0 {
			if removed == 0 {
				return candidates, fmt.Errorf("%w before anything was removed: make it longer than %s", ErrLease, c.opt.Lease)
			}
			return candidates, nil
		}
		batch := candidates[:c.batch(candidates)]
		var doomed []candidate
		var keys []string
		for _, o := range batch {
			if m.needs(o.key) {
				total.Spared++
				continue
			}
			doomed, keys = append(doomed, o), append(keys, o.key)
		}
		if len(keys) > 0 {
			// Not one request may still be on its way when the lease ends, by anybody's clock.
			limited, cancel := context.WithTimeout(ctx, left)
			err := c.Deleter.Delete(limited, keys...)
			late := limited.Err() != nil && ctx.Err() == nil
			cancel()
			if err != nil && late {
				return candidates, fmt.Errorf("%w while objects were being removed: %w", ErrLease, err)
			}
			if err != nil {
				return candidates, err
			}
		}
		for _, o := range doomed {
			c.note(total, o)
		}
		removed += len(batch)
		candidates = candidates[len(batch):]
	}
	return nil, nil
}

// batch is how many of the candidates are removed next. Generations go alone: as long as one is in the
// history, everything that it needs is there.
func (c *Collector) batch(candidates []candidate) int {
	n := min(len(candidates), c.opt.Batch)
	if swept[candidates[0].kind] == layout.IndexHistory {
		for i := range n {
			if candidates[i].kind != candidates[0].kind {
				return i
			}
		}
	}
	return n
}

// grace is how old an object of a kind must be to be removed.
func (opt Options) grace(kind layout.Kind) time.Duration {
	if opt.Rebuilt > 0 && (kind == layout.Piece || kind == layout.Bundle || kind == layout.Manifest) {
		return opt.Rebuilt
	}
	return opt.Grace
}

// near is how many generations before the current one are kept whatever is asked for.
func near(keep, retain uint64) uint64 { return max(keep, retain, history.Near) }
