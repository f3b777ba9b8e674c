package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"precast/internal/catalog"
	"precast/internal/index"
	"precast/internal/layout"
)

// Plan is what it takes to publish a snapshot of the catalog.
type Plan struct {
	Base     *index.Index // published when the plan was made; nil: nothing
	Target   *index.Index // to be published
	Coverage Coverage     // of the target
	Missing  []CoveredSet // of the coverage, not covered by the base
	Pieces   []catalog.Item
	Rejected []Rejection
}

// A Rejection is an item that cannot be published, and why. The release of it that is published, if
// any, stays.
type Rejection struct {
	Key     catalog.Key `json:"key"`
	Version string      `json:"version"`
	Reason  string      `json:"reason"`
}

// Changed tells whether the plan's target differs from what is published.
func (p *Plan) Changed() bool { return p.Base == nil || !sameContent(p.Base, p.Target) }

// sameContent compares all but the numbers.
func sameContent(a, b *index.Index) bool {
	x, y := *a, *b
	x.Generation, x.Sequence, y.Generation, y.Sequence = 0, 0, 0, 0
	return bytes.Equal(x.Encode(), y.Encode())
}

// Report is a plan in numbers.
type Report struct {
	Generation   uint64      `json:"generation"` // published now; 0: none
	Sequence     uint64      `json:"sequence"`   // of this plan; 0: a dry run
	Changed      bool        `json:"changed"`
	Items        int         `json:"items"`
	Combinations float64     `json:"combinations"`
	Considered   int         `json:"considered"`
	Matching     int         `json:"matching"`
	Sets         int         `json:"sets"`
	Bundles      int         `json:"bundles"` // covered, built or not; as many manifests
	Bytes        int64       `json:"bytes"`   // of the binaries in them, before compression
	Build        Work        `json:"build"`
	LeftOut      LeftOut     `json:"leftOut"`
	Rejected     []Rejection `json:"rejected"`
}

// Work is what a plan has to write.
type Work struct {
	Pieces      int   `json:"pieces"`      // binaries to check and compress
	PieceBytes  int64 `json:"pieceBytes"`  // before compression
	Bundles     int   `json:"bundles"`     // as many manifests
	BundleBytes int64 `json:"bundleBytes"` // of the binaries in them, before compression
}

// Report sums the plan up.
func (p *Plan) Report() Report {
	r := Report{
		Sequence:     p.Target.Sequence,
		Changed:      p.Changed(),
		Items:        len(p.Target.Items),
		Combinations: p.Coverage.Combinations,
		Considered:   p.Coverage.Considered,
		Matching:     p.Coverage.Matching,
		Sets:         len(p.Coverage.Sets),
		Bundles:      p.Coverage.Bundles,
		Bytes:        p.Coverage.Bytes,
		LeftOut:      p.Coverage.LeftOut,
		Rejected:     append([]Rejection{}, p.Rejected...),
	}
	if p.Base != nil {
		r.Generation = p.Base.Generation
	}
	r.Build.Pieces = len(p.Pieces)
	for _, it := range p.Pieces {
		r.Build.PieceBytes += it.Size
	}
	for _, s := range p.Missing {
		for _, m := range s.Masks {
			r.Build.Bundles++
			r.Build.BundleBytes += bundleBytes(s.Set, m)
		}
	}
	return r
}

// Plan plans items without writing anything.
func (b *Builder) Plan(ctx context.Context, items []catalog.Item, opt PlanOptions) (*Plan, error) {
	base, _, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	p := &Plan{Base: base}
	accepted, err := b.accept(ctx, p, items, opt)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	p.Target = index.New(index.Index{
		Format:  FormatID,
		BaseURL: b.opt.BaseURL,
		Params:  b.opt.Params,
		Items:   accepted,
	})
	if n := len(p.Target.Encode()); n > index.MaxEncoded-64 { // room for greater numbers
		return nil, fmt.Errorf("plan: the catalog makes an index of %d bytes, more than the %d that readers accept: it has too many items", n, index.MaxEncoded)
	}
	p.Coverage, p.Missing, err = b.missing(ctx, p.Target, base, opt.Verify)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}

// missing returns what is covered for target and what of it is not covered for base. That the
// objects of a published index exist is what publishing means; verify does not believe it.
func (b *Builder) missing(ctx context.Context, target, base *index.Index, verify bool) (Coverage, []CoveredSet, error) {
	var built Coverage
	var history []*index.Index
	if base != nil {
		before, err := b.earlier(ctx, base.Generation, max(base.Params.Retain, target.Params.Retain))
		if err != nil {
			return Coverage{}, nil, err
		}
		if !verify {
			built = Cover(base, before[:min(len(before), int(base.Params.Retain))])
		}
		// A target that equals its base will not become a generation of its own.
		if history = before; !sameContent(target, base) {
			history = append([]*index.Index{base}, before...)
		}
		history = history[:min(len(history), int(target.Params.Retain))]
	}
	coverage := Cover(target, history)
	return coverage, coverage.without(built), nil
}

// accept turns catalog items into index items. It fills in the plan's rejections, and its pieces:
// the items whose binary is not known to be checked and stored. A rejected item is replaced by its
// published release.
func (b *Builder) accept(ctx context.Context, p *Plan, items []catalog.Item, opt PlanOptions) ([]index.Item, error) {
	rejected := make(map[catalog.Key]bool)
	reject := func(it catalog.Item, reason string) {
		if !rejected[it.Key()] {
			p.Rejected = append(p.Rejected, Rejection{it.Key(), it.Version, reason})
		}
		rejected[it.Key()] = true
	}
	byKey := make(map[catalog.Key]catalog.Item, len(items))
	for _, it := range items {
		byKey[it.Key()] = it
	}
	for _, problem := range catalog.Check(items) {
		reject(byKey[problem.Key], problem.Field+": "+problem.Reason)
	}

	published := make(map[content]bool)
	publishedItems := make(map[catalog.Key]index.Item)
	if p.Base != nil {
		for _, it := range p.Base.Items {
			published[contentOf(it)] = true
			publishedItems[catalog.Key{App: it.App, Track: it.Track}] = it
		}
	}
	sorted := slices.SortedFunc(slices.Values(items), catalog.Compare)
	var accepted []index.Item
	var unknown []catalog.Item
	for _, it := range sorted {
		if rejected[it.Key()] {
			continue
		}
		entry, err := indexItem(it)
		if err != nil {
			return nil, err
		}
		accepted = append(accepted, entry)
		if opt.Verify || !published[contentOf(entry)] {
			unknown = append(unknown, it)
		}
	}
	states, err := b.lookUp(ctx, unknown, opt)
	if err != nil {
		return nil, err
	}
	pieces := make(map[string]bool)
	for i, it := range unknown {
		switch {
		case states[i].rejected != "":
			reject(it, states[i].rejected)
		case !states[i].stored && !pieces[layout.BinaryKey(it.SHA256, it.App, it.Version)]:
			pieces[layout.BinaryKey(it.SHA256, it.App, it.Version)] = true
			p.Pieces = append(p.Pieces, it)
		}
	}

	accepted = slices.DeleteFunc(accepted, func(it index.Item) bool {
		return rejected[catalog.Key{App: it.App, Track: it.Track}]
	})
	files := make(map[string][32]byte)
	for _, it := range accepted {
		files[layout.FileName(it.App, it.Version)] = it.SHA256
	}
	for _, r := range p.Rejected {
		it, ok := publishedItems[r.Key]
		if !ok {
			continue
		}
		// Never two contents under one name, even if the one that holds the name is new.
		name := layout.FileName(it.App, it.Version)
		if sum, taken := files[name]; !taken || sum == it.SHA256 {
			files[name] = it.SHA256
			accepted = append(accepted, it)
		}
	}
	return accepted, nil
}

// content is what must be the same for an item's objects to be the same.
type content struct {
	app, version string
	size         int64
	md5          [16]byte
	sha256       [32]byte
}

func contentOf(it index.Item) content {
	return content{it.App, it.Version, it.Size, it.MD5, it.SHA256}
}

func indexItem(it catalog.Item) (index.Item, error) {
	out := index.Item{App: it.App, Track: it.Track, Version: it.Version, Size: it.Size, Attrs: it.Attrs()}
	if _, err := hex.Decode(out.MD5[:], []byte(it.MD5)); err != nil {
		return out, fmt.Errorf("item %s: md5: %w", it.Key(), err)
	}
	if _, err := hex.Decode(out.SHA256[:], []byte(it.SHA256)); err != nil {
		return out, fmt.Errorf("item %s: sha256: %w", it.Key(), err)
	}
	return out, nil
}

// itemState is what the object store knows of an item's binary.
type itemState struct {
	stored   bool   // checked, its piece and itself stored
	rejected string // why it cannot be
}

func (b *Builder) lookUp(ctx context.Context, items []catalog.Item, opt PlanOptions) ([]itemState, error) {
	states := make([]itemState, len(items))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, it := range items {
		g.Go(func() error {
			var err error
			states[i], err = b.state(ctx, it, opt)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return states, nil
}

func (b *Builder) state(ctx context.Context, it catalog.Item, opt PlanOptions) (itemState, error) {
	entry, err := indexItem(it)
	if err != nil {
		return itemState{}, err
	}
	info, err := b.Objects.Stat(ctx, pieceKey(&entry))
	switch {
	case err == nil:
		if reason := disagrees(it, info.Meta); reason != "" {
			return itemState{rejected: reason}, nil
		}
		_, err := b.Objects.Stat(ctx, layout.BinaryKey(it.SHA256, it.App, it.Version))
		if err == nil {
			return itemState{stored: true}, nil
		}
		if !errors.Is(err, ErrNotExist) {
			return itemState{}, err
		}
	case !errors.Is(err, ErrNotExist):
		return itemState{}, err
	}
	if opt.Retry {
		return itemState{}, nil
	}
	note, _, err := readAll(ctx, b.Objects, layout.RejectKey(rejectDigest(it)), 1<<20)
	if errors.Is(err, ErrNotExist) {
		return itemState{}, nil
	}
	if err != nil {
		return itemState{}, err
	}
	var r Rejection
	if err := json.Unmarshal(note, &r); err != nil {
		return itemState{}, fmt.Errorf("read the rejection of %s: %w", it.Key(), err)
	}
	return itemState{rejected: r.Reason}, nil
}

// rejectDigest names an item's rejection: it ends when anything changes that could mend it.
func rejectDigest(it catalog.Item) string {
	h := sha256.New()
	for _, s := range []string{it.App, it.Version, it.URL, it.MD5, it.SHA256, fmt.Sprint(it.Size)} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// handlePlan makes a plan and sends its jobs.
func (b *Builder) handlePlan(ctx context.Context, j job) error {
	b.mu.Lock()
	covered := b.planned > j.After && j.PlanOptions == (PlanOptions{})
	b.mu.Unlock()
	if covered {
		return nil
	}
	published, _, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return err
	}
	if published != nil && published.Sequence > j.After && j.PlanOptions == (PlanOptions{}) {
		return nil
	}
	// The number comes first, then the snapshot: of two plans, the one with the greater number has
	// seen every change that was acknowledged before that number was taken.
	sequence, err := b.Ledger.Next(ctx)
	if err != nil {
		return err
	}
	items, err := b.Catalog.Snapshot(ctx)
	if err != nil {
		return err
	}
	p, err := b.Plan(ctx, items, j.PlanOptions)
	if err != nil {
		return err
	}
	p.Target.Sequence = sequence
	log := b.opt.Log.With("sequence", sequence)
	for _, r := range p.Rejected {
		log.WarnContext(ctx, "item rejected", "item", r.Key.String(), "version", r.Version, "reason", r.Reason)
		b.opt.Observer.Rejected(ctx, r)
	}
	report := p.Report()
	log.InfoContext(ctx, "planned", "changed", report.Changed, "items", report.Items, "sets", report.Sets,
		"bundles", report.Bundles, "buildPieces", report.Build.Pieces, "buildBundles", report.Build.Bundles)
	b.opt.Observer.Planned(ctx, report)
	if err := b.start(ctx, p, j.origin()); err != nil {
		return err
	}
	b.mu.Lock()
	b.planned = max(b.planned, sequence)
	b.mu.Unlock()
	return nil
}

// start sends a plan's first jobs. A plan that changes nothing is published all the same, under the
// generation that is there: its sequence tells plans that saw an older catalog, and are still being
// built, that they are superseded.
func (b *Builder) start(ctx context.Context, p *Plan, o origin) error {
	sequence := p.Target.Sequence
	b.remember(p.Target)
	if len(p.Pieces) == 0 {
		return b.stageBundles(ctx, sequence, o)
	}
	if err := b.writePlan(ctx, p.Target); err != nil {
		return err
	}
	entry := fmt.Sprintf("%d/pieces", sequence)
	jobs := make([]job, len(p.Pieces))
	for i, it := range p.Pieces {
		jobs[i] = job{Kind: jobPiece, Sequence: sequence, Entry: entry, Part: i, Item: &it}
		o.onto(&jobs[i])
	}
	if err := b.Ledger.Open(ctx, entry, len(jobs)); err != nil {
		return err
	}
	return send(ctx, b.Queue, jobs...)
}

// writePlan stores a planned index for the workers of its jobs.
func (b *Builder) writePlan(ctx context.Context, target *index.Index) error {
	_, err := b.Objects.Put(ctx, layout.PlanKey(target.Sequence), bytesBody(target.Encode()), PutOptions{IfAbsent: true})
	if err != nil && !errors.Is(err, ErrPrecondition) {
		return fmt.Errorf("write plan %d: %w", target.Sequence, err)
	}
	return nil
}

func bytesBody(data []byte) Body {
	return Body{Reader: bytes.NewReader(data), Size: int64(len(data))}
}

// target returns the planned index of a sequence.
func (b *Builder) target(ctx context.Context, sequence uint64) (*index.Index, error) {
	b.mu.Lock()
	ix := b.targets[sequence]
	b.mu.Unlock()
	if ix != nil {
		return ix, nil
	}
	ix, _, err := readIndex(ctx, b.Objects, layout.PlanKey(sequence))
	if err != nil {
		return nil, err
	}
	b.remember(ix)
	return ix, nil
}

// remember keeps the planned indexes of the newest few plans.
func (b *Builder) remember(target *index.Index) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets[target.Sequence] = target
	for len(b.targets) > 4 {
		oldest := target.Sequence
		for s := range b.targets {
			oldest = min(oldest, s)
		}
		delete(b.targets, oldest)
	}
}

// stageBundles sends the jobs for what a plan lacks, compared with what is published now; with
// nothing lacking it publishes.
func (b *Builder) stageBundles(ctx context.Context, sequence uint64, o origin) error {
	target, err := b.target(ctx, sequence)
	if err != nil {
		return err
	}
	base, _, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return err
	}
	var generation uint64
	if base != nil {
		if base.Sequence >= sequence {
			return nil // superseded, or published already
		}
		generation = base.Generation
	}
	_, missing, err := b.missing(ctx, target, base, o.verify)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		return b.publish(ctx, sequence, generation, o)
	}
	if err := b.writePlan(ctx, target); err != nil {
		return err
	}
	parts := split(missing, b.opt.PartBytes)
	encoded, err := json.Marshal(parts)
	if err != nil {
		return fmt.Errorf("encode parts: %w", err)
	}
	// The entry's name covers the parts: should a second run of this stage split the work in another
	// way, it counts for itself.
	sum := sha256.Sum256(encoded)
	entry := fmt.Sprintf("%d/bundles/%d/%s", sequence, generation, hex.EncodeToString(sum[:8]))
	if err := b.Ledger.Open(ctx, entry, len(parts)); err != nil {
		return err
	}
	jobs := make([]job, len(parts))
	for i, sets := range parts {
		jobs[i] = job{Kind: jobBundles, Sequence: sequence, Entry: entry, Part: i, Base: generation, Sets: sets}
		o.onto(&jobs[i])
	}
	return send(ctx, b.Queue, jobs...)
}

// Limits of one job's message, which must stay below 256 KiB: SQS long had that limit, and other
// queues still do.
const (
	maxPartBundles = 500
	maxPartJSON    = 128 << 10 // bytes, roughly
)

// split cuts missing bundles into parts of about size bytes of binaries.
func split(missing []CoveredSet, size int64) [][]setJob {
	var parts [][]setJob
	var part []setJob
	var bundles, encoded int
	var bytes int64
	for _, s := range missing {
		next := setJob{Positions: s.Set.Positions}
		encoded += 8 * len(next.Positions)
		for _, m := range s.Masks {
			next.Masks = append(next.Masks, m.String())
			bundles++
			bytes += bundleBytes(s.Set, m)
			encoded += 3 + len(next.Masks[len(next.Masks)-1])
			if bytes >= size || bundles >= maxPartBundles || encoded >= maxPartJSON {
				parts = append(parts, append(part, next))
				part, next.Masks, bundles, bytes, encoded = nil, nil, 0, 0, 8*len(next.Positions)
			}
		}
		if len(next.Masks) > 0 {
			part = append(part, next)
		}
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts
}
