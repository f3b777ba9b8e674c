// Package builder turns the catalog into prebuilt objects: it plans (snapshot, combinations,
// resolved sets, missing objects), builds (pieces, then bundles and manifests, all immutable and
// named by content) and publishes (one conditional write of the index, last).
//
// Every step is idempotent and every hand-over between steps is durable, so that any worker may
// stop at any instant, jobs may be delivered twice and in any order, and builds may race: what is
// published is always complete, and always the newest catalog that any finished plan has seen.
package builder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// FormatID names everything besides the items that decides object bytes and coverage. Change its
// first part whenever Cover or package manifest begin to give other answers: set IDs change with
// it, so nothing is taken for built that was built by other rules.
const FormatID = "1." + bundle.FormatID

// Ports are a builder's connections to the outside.
type Ports struct {
	Objects Objects
	Catalog Catalog
	Queue   Queue
	Ledger  Ledger
	Sources Sources
}

// Options are a builder's settings. The zero value of each means its default.
type Options struct {
	Params   index.Params // default DefaultParams()
	BaseURL  string       // put before /binaries/... in manifests
	SpoolDir string       // for binaries and pieces on their way; default os.TempDir()
	// PartBytes is how many bytes of binaries, before compression, the bundles of one job bring;
	// default 256 MiB.
	PartBytes int64
	// Concurrency is how many objects one job writes at a time; default 4.
	Concurrency int
	// Attempts is how often a binary that cannot be read is tried before its item is rejected;
	// it must not be more than the queue's receives before a dead letter. Default 5.
	Attempts int
	// Patience is how long a plan waits for a binary that comes from outside of its own store. What takes longer is
	// left out of the plan and follows when it is there. Default 20 s.
	Patience time.Duration
	// SweepWait is how long a plan's job waits for a sweep to end before it is handed back; less than 0: not
	// at all. The default, 15 s, and the queue's receives outlast a sweep's lease several times.
	SweepWait time.Duration
	// Room fails with ErrPaused if there is no room for objects of so many bytes. Jobs that write pieces, bundles or
	// manifests ask it first: a plan that needs none of them is published all the same. nil: there always is.
	Room     func(bytes int64) error
	Clock    Clock        // default: the real one
	Log      *slog.Logger // default: discard
	Observer Observer     // default Silent
}

// Builder plans, builds and publishes. It is safe for concurrent use.
type Builder struct {
	Ports
	opt      Options
	composer *Composer

	mu      sync.Mutex
	planned uint64 // newest plan of this process whose jobs are all in the queue
	// reading are the binaries that this process reads beside plans, by the keys of their notes.
	reading map[string]bool

	paused atomic.Pointer[int64] // what the last job wanted to write, if there was no room for it

	targets *lru.Cache[uint64, *target]      // planned indexes, by sequence
	history *lru.Cache[uint64, *index.Index] // superseded indexes, by generation
}

// New makes a builder.
func New(ports Ports, opt Options) *Builder {
	if opt.Params == (index.Params{}) {
		opt.Params = DefaultParams()
	}
	if opt.PartBytes <= 0 {
		opt.PartBytes = 256 << 20
	}
	if opt.Concurrency <= 0 {
		opt.Concurrency = 4
	}
	if opt.Attempts <= 0 {
		opt.Attempts = 5
	}
	if opt.Patience <= 0 {
		opt.Patience = 20 * time.Second
	}
	if opt.SweepWait == 0 {
		opt.SweepWait = 15 * time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Observer == nil {
		opt.Observer = Silent{}
	}
	b := &Builder{
		Ports:   ports,
		opt:     opt,
		reading: make(map[string]bool),
		targets: newCache[uint64, *target](4),
		history: newCache[uint64, *index.Index](2 * index.MaxRetain),
	}
	b.composer = NewMendingComposer(ports.Objects, b, opt.Clock)
	return b
}

// Mend implements Mender.
func (b *Builder) Mend(ctx context.Context, it *index.Item) error {
	return PieceMaker{b.Objects, b.opt.SpoolDir, b.opt.Log, b.opt.Observer}.Mend(ctx, it)
}

// room asks Options.Room for a job, and remembers the job if there is none.
func (b *Builder) room(ctx context.Context, bytes int64) error {
	if b.opt.Room == nil {
		return nil
	}
	if err := b.opt.Room(bytes); err != nil {
		b.paused.Store(&bytes)
		return err
	}
	b.unpause(ctx)
	return nil
}

// unpause forgets a job that there was no room for: there is now, or what it was to write is not wanted any more.
func (b *Builder) unpause(ctx context.Context) {
	if b.paused.Swap(nil) != nil {
		b.opt.Log.InfoContext(ctx, "builds go on")
	}
}

// Paused fails with ErrPaused while there is no room for a job that has asked for it.
func (b *Builder) Paused() error {
	if bytes := b.paused.Load(); bytes != nil {
		return b.opt.Room(*bytes)
	}
	return nil
}

// newCache makes a cache of at most size entries.
func newCache[K comparable, V any](size int) *lru.Cache[K, V] {
	cache, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // size is below 1
	}
	return cache
}

// ReadIndex returns the published index and its ETag, or nil before the first publish.
func ReadIndex(ctx context.Context, objects Objects) (*index.Index, string, error) {
	ix, etag, err := readIndex(ctx, objects, layout.IndexKey)
	if errors.Is(err, ErrNotExist) {
		return nil, "", nil
	}
	return ix, etag, err
}

// ReadGeneration returns the index of an earlier generation; it fails with ErrNotExist if that is not in
// the history.
func ReadGeneration(ctx context.Context, objects Objects, generation uint64) (*index.Index, error) {
	ix, _, err := readIndex(ctx, objects, layout.HistoryKey(generation))
	return ix, err
}

// ReadPlan returns a planned index; it fails with ErrNotExist if there is none of that sequence.
func ReadPlan(ctx context.Context, objects Objects, sequence uint64) (*index.Index, error) {
	ix, _, err := readIndex(ctx, objects, layout.PlanKey(sequence))
	return ix, err
}

func readIndex(ctx context.Context, objects Objects, key string) (*index.Index, string, error) {
	data, info, err := ReadAll(ctx, objects, key, index.MaxEncoded)
	if err != nil {
		return nil, "", err
	}
	ix, err := index.Parse(data)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", key, err)
	}
	return ix, info.ETag, nil
}

// Earlier returns up to n indexes that came before generation, the latest first. One that is gone is left out: devices
// then only lack its upgrade paths. If some cannot be read, it fails and returns the others.
func Earlier(ctx context.Context, objects Objects, generation, n uint64) ([]*index.Index, error) {
	return earlier(generation, n, func(g uint64) (*index.Index, error) { return ReadGeneration(ctx, objects, g) })
}

// earlier is Earlier with another way to read an index.
func earlier(generation, n uint64, read func(uint64) (*index.Index, error)) ([]*index.Index, error) {
	var indexes []*index.Index
	var failed error
	for back := uint64(1); back <= n && back < generation; back++ {
		ix, err := read(generation - back)
		switch {
		case err == nil:
			indexes = append(indexes, ix)
		case errors.Is(err, ErrOutage): // the next one would only wait as long
			return indexes, errors.Join(failed, err)
		case !errors.Is(err, ErrNotExist):
			failed = errors.Join(failed, err)
		}
	}
	return indexes, failed
}

// readGeneration is ReadGeneration with a cache: a generation in the history never changes.
func (b *Builder) readGeneration(ctx context.Context, generation uint64) (*index.Index, error) {
	if ix, ok := b.history.Get(generation); ok {
		return ix, nil
	}
	ix, err := ReadGeneration(ctx, b.Objects, generation)
	if err == nil {
		b.history.Add(generation, ix)
	}
	return ix, err
}
