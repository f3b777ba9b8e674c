// Package fsck proves what is published complete: that every object which a device can be sent exists and
// is what it should be. It looks through the store, or as a device does, over HTTP.
package fsck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Kind is a kind of problem.
type Kind string

const (
	Missing     Kind = "missing"      // it is not there
	WrongLength Kind = "wrong length" //
	WrongBytes  Kind = "wrong bytes"  // of the right length
	Unreadable  Kind = "unreadable"   // the store fails to read it, or it cannot be parsed
	Unexpected  Kind = "unexpected"   // an answer or a header that should be another
)

// Problem is one thing that is not as it should be.
type Problem struct {
	Kind    Kind   `json:"kind"`
	Key     string `json:"key"` // of the object, or the URL that was asked
	Detail  string `json:"detail"`
	Devices string `json:"devices"` // what follows for devices
	// Repaired: it was rewritten. Otherwise Unrepaired says why not, if that was asked for.
	Repaired   bool   `json:"repaired,omitempty"`
	Unrepaired string `json:"unrepaired,omitempty"`

	of what
}

// what a problem's object is made from; the zero value: nothing.
type what struct {
	item *index.Item
	set  edge.Set
	held edge.Mask
}

// Report is what a check found.
type Report struct {
	Generation uint64 `json:"generation"` // that was checked
	Sequence   uint64 `json:"sequence"`
	URL        string `json:"url,omitempty"` // that was asked, if one was
	Deep       bool   `json:"deep"`          // every byte was read
	// Combinations are those looked at; Objects what was looked at for them: objects, or requests made.
	Combinations int   `json:"combinations"`
	Variants     int   `json:"variants"` // looked at beside those: in other rollouts, or before other floors
	Objects      int   `json:"objects"`
	Bytes        int64 `json:"bytes"` // read
	// Rest counts combinations that were not looked at: beyond the limits, they are composed when asked for.
	Rest     float64   `json:"rest"`
	Problems []Problem `json:"problems"` // sorted by key
	// More counts problems beyond the first 10,000.
	More     int `json:"more,omitempty"`
	Repaired int `json:"repaired"`
}

// Complete tells whether nothing is wrong, or nothing any more.
func (r *Report) Complete() bool { return len(r.Problems)+r.More == r.Repaired }

const maxProblems = 10_000

// Options of a check.
type Options struct {
	Deep bool // read every byte
	// Concurrency is how many objects are looked at at a time; 0: 16, or 4 if they are read.
	Concurrency int
	// Progress is told how many objects there are to look at, and how many have been; nil: nobody.
	Progress func(done, total int)
}

// ErrNothing: nothing is published.
var ErrNothing = errors.New("nothing is published")

// checker is one check of a store.
type checker struct {
	objects  builder.Objects
	composer *builder.Composer
	opt      Options

	mu    sync.Mutex
	rep   *Report
	total int
}

// Store checks everything that is published, through the store. Its error says that it could not look.
func Store(ctx context.Context, objects builder.Objects, opt Options) (*Report, error) {
	c := newChecker(objects, opt)
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("check what is published: %w", err)
	}
	slices.SortFunc(c.rep.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Kind, b.Kind))
	})
	return c.rep, nil
}

func newChecker(objects builder.Objects, opt Options) *checker {
	if opt.Concurrency <= 0 {
		if opt.Concurrency = 16; opt.Deep {
			opt.Concurrency = 4
		}
	}
	return &checker{
		objects: objects, composer: builder.NewComposer(objects), opt: opt,
		rep: &Report{Deep: opt.Deep, Problems: []Problem{}},
	}
}

func (c *checker) run(ctx context.Context) error {
	ix, _, err := builder.ReadIndex(ctx, c.objects)
	if errors.Is(err, index.ErrCorrupt) || errors.Is(err, index.ErrVersion) {
		c.problem(Problem{Kind: Unreadable, Key: layout.IndexKey, Detail: err.Error() + "; " + noPin, Devices: "servers that hold an older index keep using it, others answer 503"})
		return nil
	}
	if err != nil {
		return err
	}
	if ix == nil {
		return c.nothing(ctx)
	}
	c.rep.Generation, c.rep.Sequence = ix.Generation, ix.Sequence
	if err := c.records(ctx, ix); err != nil {
		return err
	}
	// One that cannot be read has been reported, and costs its upgrade paths.
	before, _ := builder.Earlier(ctx, c.objects, ix.Generation, ix.Params.Retain)
	coverage := builder.Cover(ix, before)
	c.rep.Combinations, c.rep.Variants, c.rep.Rest = coverage.Considered, coverage.Variants, coverage.LeftOut.Combinations

	binaries, pieces := make(map[string]*index.Item), make(map[string]*index.Item)
	for i := range ix.Items {
		it := &ix.Items[i]
		binaries[builder.BinaryKey(it)] = it
		if key, ok := builder.PieceKeyIn(ix, it); ok {
			pieces[key] = it
		}
	}
	c.mu.Lock()
	c.total = c.rep.Objects + len(binaries) + len(pieces) + 2*coverage.Bundles
	c.mu.Unlock()
	if err := c.objectsOf(ctx, pieces, binaries, coverage); err != nil || ix.Params.Copies() {
		return err
	}
	return c.composable(ctx, ix, coverage)
}

// objectsOf checks pieces, binaries and what is prebuilt.
func (c *checker) objectsOf(ctx context.Context, pieces, binaries map[string]*index.Item, coverage builder.Coverage) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.opt.Concurrency)
	for key, it := range pieces {
		g.Go(func() error { return c.looked(ctx, c.piece(ctx, key, it)) })
	}
	for key, it := range binaries {
		g.Go(func() error { return c.looked(ctx, c.binary(ctx, key, it)) })
	}
	for _, s := range coverage.Sets {
		for _, m := range s.Masks {
			if ctx.Err() != nil {
				break
			}
			g.Go(func() error { return c.looked(ctx, c.manifest(ctx, s, m)) })
			g.Go(func() error { return c.looked(ctx, c.bundle(ctx, s, m)) })
		}
	}
	return g.Wait()
}

// noPin is what an operator has to know before building over an index that is lost.
const noPin = "a pin (rollback, precast pin) is lost with it: the next build publishes what the catalog says"

// nothing tells a store in which nothing was ever published from one that has lost its index.
func (c *checker) nothing(ctx context.Context) error {
	var last string
	if err := c.objects.List(ctx, layout.HistoryPrefix, func(o builder.ObjectInfo) error { last = o.Key; return nil }); err != nil {
		return err
	}
	if last == "" {
		return ErrNothing
	}
	return fmt.Errorf("%w any more, though there is %s: precast build publishes the catalog again; %s", ErrNothing, last, noPin)
}

// problem reports one.
func (c *checker) problem(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rep.Problems) == maxProblems {
		c.rep.More++
		return
	}
	c.rep.Problems = append(c.rep.Problems, p)
}

// looked counts an object, and ends the check if err says that the store itself fails.
func (c *checker) looked(ctx context.Context, err error) error {
	c.mu.Lock()
	c.rep.Objects++
	done, total := c.rep.Objects, c.total
	c.mu.Unlock()
	if c.opt.Progress != nil {
		c.opt.Progress(done, max(done, total))
	}
	if err != nil {
		return err
	}
	return ctx.Err()
}

func (c *checker) read(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rep.Bytes += n
}

// failed makes of an object's error a problem, unless the store fails altogether.
func (c *checker) failed(ctx context.Context, err error, p Problem) error {
	if errors.Is(err, builder.ErrNotExist) {
		p.Kind, p.Detail = Missing, "there is no such object"
		c.problem(p)
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, probe := c.objects.Stat(ctx, layout.IndexKey); probe != nil {
		return err
	}
	p.Kind, p.Detail = Unreadable, err.Error()
	c.problem(p)
	return nil
}
