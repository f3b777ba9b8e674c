package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// accept turns catalog items into index items. It fills in the plan's rejections, and its pieces:
// the items whose binary is not known to be checked and stored. A rejected item is replaced by its
// published release.
func (b *Builder) accept(ctx context.Context, p *Plan, items []catalog.Item, opt PlanOptions) ([]index.Item, error) {
	a := acceptance{Plan: p, rejected: make(map[catalog.Key]bool)}
	byKey := make(map[catalog.Key]catalog.Item, len(items))
	for _, it := range items {
		byKey[it.Key()] = it
	}
	for _, problem := range catalog.Check(items) {
		a.reject(byKey[problem.Key], Rejection{Reason: problem.Field + ": " + problem.Reason})
	}
	entries, unknown, err := a.entries(items, opt.Verify)
	if err != nil {
		return nil, err
	}
	states, err := b.lookUp(ctx, unknown, opt)
	if err != nil {
		return nil, err
	}
	a.record(unknown, states)
	return a.withPublished(slices.DeleteFunc(entries, func(it index.Item) bool { return a.rejected[keyOf(it)] })), nil
}

// acceptance is a plan whose items are being accepted.
type acceptance struct {
	*Plan
	rejected map[catalog.Key]bool
}

// reject records the first reason for which an item cannot be published, and whether it is tried again by itself.
func (a *acceptance) reject(it catalog.Item, note Rejection) {
	note.Key, note.Version = it.Key(), it.Version
	if !a.rejected[it.Key()] {
		a.Rejected = append(a.Rejected, note)
	}
	a.rejected[it.Key()] = true
	if !note.Retry.IsZero() {
		a.postponed = append(a.postponed, postponed{it, note})
	}
}

// entries returns the index items of all that is not rejected, and which binaries have to be looked up: those that
// the base does not have or, with verify, all of them.
func (a *acceptance) entries(items []catalog.Item, verify bool) (entries []index.Item, unknown []catalog.Item, err error) {
	published := make(map[content]bool)
	for _, it := range a.published() {
		published[contentOf(it)] = true
	}
	for _, it := range slices.SortedFunc(slices.Values(items), catalog.Compare) {
		if a.rejected[it.Key()] {
			continue
		}
		releases, err := IndexItems(it)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, releases...)
		for i, step := range it.Steps() {
			if verify || !published[contentOf(releases[i])] {
				unknown = append(unknown, step.Bare())
			}
		}
	}
	return entries, unknown, nil
}

// IndexItems returns the releases of an item as an index has them.
func IndexItems(it catalog.Item) ([]index.Item, error) {
	var releases []index.Item
	for _, step := range it.Steps() {
		release, err := indexItem(step)
		if err != nil {
			return nil, err
		}
		releases = append(releases, release)
	}
	return releases, nil
}

// published returns the items of the base.
func (a *acceptance) published() []index.Item {
	if a.Base == nil {
		return nil
	}
	return a.Base.Items
}

// record fills in the plan what the store knows of the binaries that were looked up.
func (a *acceptance) record(unknown []catalog.Item, states []itemState) {
	pieces := make(map[string]bool)
	for i, it := range unknown {
		key := layout.BinaryKey(it.SHA256, it.App, it.Version)
		switch {
		case states[i].note.Reason != "":
			a.reject(it, states[i].note)
		case states[i].stored:
			// It has to be looked at again once the plan is announced: see start.
			a.Found = append(a.Found, it)
		case !pieces[key]:
			pieces[key] = true
			a.Pieces = append(a.Pieces, it)
		}
	}
}

// withPublished adds the published releases of the rejected items.
func (a *acceptance) withPublished(accepted []index.Item) []index.Item {
	releases := make(map[catalog.Key][]index.Item)
	for _, it := range a.published() {
		releases[keyOf(it)] = append(releases[keyOf(it)], it)
	}
	files := make(map[string][32]byte)
	use := func(it index.Item) { files[layout.FileName(it.App, it.Version)] = it.SHA256 }
	for _, it := range accepted {
		use(it)
	}
	for _, r := range a.Rejected {
		// Never two contents under one name, even if the one that holds the name is new.
		if slices.ContainsFunc(releases[r.Key], func(it index.Item) bool {
			sum, taken := files[layout.FileName(it.App, it.Version)]
			return taken && sum != it.SHA256
		}) {
			continue
		}
		for _, it := range releases[r.Key] {
			use(it)
		}
		accepted = append(accepted, releases[r.Key]...)
	}
	return accepted
}

func keyOf(it index.Item) catalog.Key { return catalog.Key{App: it.App, Track: it.Track} }

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

func indexItem(it catalog.Step) (index.Item, error) {
	out := index.Item{App: it.App, Track: it.Track, Version: it.Version, Size: it.Size, Attrs: it.Attrs(), Role: it.Role}
	if it.Partial() {
		out.Salt, out.Share = it.Salt(), uint16(it.Rollout.Places())
	}
	var err error
	if out.MD5, out.SHA256, err = digestsOf(it.Item); err != nil {
		return out, err
	}
	for _, passed := range it.Passed {
		var d index.Digests
		if d.MD5, d.SHA256, err = digestsOf(passed); err != nil {
			return out, fmt.Errorf("item %s: %w", it.Key(), err)
		}
		out.Passed = append(out.Passed, d)
	}
	return out, nil
}

func digestsOf(it catalog.Item) (md5 [16]byte, sha256 [32]byte, err error) {
	if _, err := hex.Decode(md5[:], []byte(it.MD5)); err != nil {
		return md5, sha256, fmt.Errorf("item %s: md5: %w", it.Key(), err)
	}
	if _, err := hex.Decode(sha256[:], []byte(it.SHA256)); err != nil {
		return md5, sha256, fmt.Errorf("item %s: sha256: %w", it.Key(), err)
	}
	return md5, sha256, nil
}

// itemState is what the object store knows of an item's binary.
type itemState struct {
	stored bool      // checked, its piece and itself stored
	note   Rejection // why it cannot be, if it has a reason
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

// gone returns those of the items, each binary once, that are not stored any more.
func (b *Builder) gone(ctx context.Context, items []catalog.Item) ([]catalog.Item, error) {
	states, err := b.lookUp(ctx, items, PlanOptions{Retry: true})
	if err != nil {
		return nil, err
	}
	var gone []catalog.Item
	seen := make(map[string]bool)
	for i, it := range items {
		if key := layout.BinaryKey(it.SHA256, it.App, it.Version); !states[i].stored && !seen[key] {
			seen[key] = true
			gone = append(gone, it)
		}
	}
	return gone, nil
}

func (b *Builder) state(ctx context.Context, it catalog.Item, opt PlanOptions) (itemState, error) {
	entry, err := indexItem(catalog.Step{Item: it})
	if err != nil {
		return itemState{}, err
	}
	info, err := b.Objects.Stat(ctx, pieceKey(&entry))
	switch {
	case err == nil:
		piece, damaged := described(info)
		if damaged != nil {
			break // it is made again
		}
		if reason := disagrees(it, piece, info.Meta); reason != "" {
			return itemState{note: Rejection{Reason: reason}}, nil
		}
		_, err := b.Objects.Stat(ctx, layout.BinaryKey(it.SHA256, it.App, it.Version))
		if err == nil {
			return itemState{stored: true}, nil
		}
		if !unsound(err) {
			return itemState{}, err
		}
	case !unsound(err):
		return itemState{}, err
	}
	if opt.Retry {
		return itemState{}, nil
	}
	note, _, err := ReadAll(ctx, b.Objects, layout.RejectKey(rejectDigest(it)), 1<<20)
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
	return itemState{note: r}, nil
}

// RejectKey is the key of the note that an item was rejected, if it was.
func RejectKey(it catalog.Item) string { return layout.RejectKey(rejectDigest(it)) }

// rejectDigest names an item's rejection: it ends when anything changes that could mend it.
func rejectDigest(it catalog.Item) string {
	h := sha256.New()
	for _, s := range []string{it.App, it.Version, it.URL, it.MD5, it.SHA256, fmt.Sprint(it.Size)} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))
}
