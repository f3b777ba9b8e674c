package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
)

// Writer changes a catalog; see builder.Catalog and builder.CatalogWriter.
type Writer interface {
	Snapshot(ctx context.Context) ([]catalog.Item, error)
	Apply(ctx context.Context, edit catalog.Edit) error
}

// Numbers is the counter of a ledger.
type Numbers interface {
	// Advance makes every number that the ledger gives out from now on greater than n.
	Advance(ctx context.Context, n uint64) error
}

// Target is what a backup is restored to: an installation in which nothing has been done yet.
type Target struct {
	Objects builder.Objects
	Catalog Writer
	Numbers Numbers
}

// RestoreOptions say how to restore.
type RestoreOptions struct {
	// Seen is the newest generation that devices may have seen, if that is later than the backup's: what is restored
	// is published as the one after it. 0: nothing was published after the backup.
	Seen uint64
	// Build writes everything that devices can ask for before it is published.
	Build    bool
	SpoolDir string // default os.TempDir()
	Progress func(done, total int)
}

// Restored is what a restore did.
type Restored struct {
	Generation uint64   `json:"generation"` // published; 0: none
	Sequence   uint64   `json:"sequence"`
	Pin        string   `json:"pin,omitempty"`
	Items      int      `json:"items"`
	Binaries   int      `json:"binaries"`
	Missing    []string `json:"missing"` // binaries that the backup says it lacks
	Unbuilt    int      `json:"unbuilt"` // objects that devices can ask for, and that could not be built
}

// restoring is the pin of what is restored until all of it is there: nothing can be published over it.
const restoring = "a restore is not finished: run precast restore again"

// Restore brings a backup back. It verifies all of the backup first, and fails with history.ErrRefused, having written nothing,
// if the target has anything that is not of this backup. Interrupted, it can be run again.
//
// The index is written last, or before the catalog with a pin: so nothing is published in between, whoever watches.
func Restore(ctx context.Context, from Source, to Target, opt RestoreOptions) (Restored, error) {
	checked, err := check(ctx, from, nil)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	if len(checked.Problems) > 0 {
		return Restored{}, fmt.Errorf("restore: %w: %s; precast backup --check lists everything", ErrDamaged, checked.Problems[0])
	}
	r := &restorer{Target: to, opt: opt, backup: checked, state: checked.state}
	if err := r.run(ctx, from); err != nil {
		return r.res, fmt.Errorf("restore: %w", err)
	}
	return r.res, nil
}

type restorer struct {
	Target
	opt    RestoreOptions
	backup *Checked
	state  *state
	index  *index.Index // to be published; nil: none
	etag   string       // of an index that is there
	res    Restored
}

func (r *restorer) run(ctx context.Context, from Source) error {
	r.res = Restored{Items: len(r.state.items), Missing: append([]string{}, r.backup.Missing...)}
	if r.index = r.state.index; r.index != nil && r.opt.Seen > r.index.Generation {
		r.index = r.index.With(r.opt.Seen + 1)
	}
	items, err := r.vacant(ctx)
	if err != nil {
		return err
	}
	if err := r.binaries(ctx, from); err != nil {
		return err
	}
	for _, key := range r.order() {
		if _, err := r.Objects.Put(ctx, key, builder.BytesBody(r.state.small[key]), builder.PutOptions{}); err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
	}
	if err := r.Numbers.Advance(ctx, r.state.sequence()); err != nil {
		return err
	}
	if r.index == nil {
		return r.catalog(ctx, items)
	}
	r.res.Generation, r.res.Sequence, r.res.Pin = r.index.Generation, r.index.Sequence, r.index.Pin
	if r.opt.Build {
		if err := r.build(ctx); err != nil {
			return err
		}
	}
	if err := r.publish(ctx, pinned(r.index, restoring)); err != nil {
		return err
	}
	if err := r.catalog(ctx, items); err != nil {
		return err
	}
	return r.publish(ctx, r.index)
}

// pinned is an index with another pin.
func pinned(ix *index.Index, pin string) *index.Index {
	c := ix.With(ix.Generation)
	c.Pin = pin
	return c
}

// order is that of the small objects: what names others comes after them, and the index is not among them.
func (r *restorer) order() []string {
	keys := append(r.state.keys(layout.HistoryPrefix), r.state.keys(layout.KeyringHistoryPrefix)...)
	if _, ok := r.state.small[layout.KeyringKey]; ok {
		keys = append(keys, layout.KeyringKey)
	}
	return keys
}

// vacant fails with history.ErrRefused unless the target has nothing, or only what an earlier run of this restore has written.
// It returns the items that are to be written.
func (r *restorer) vacant(ctx context.Context) ([]catalog.Item, error) {
	if err := r.unpublished(ctx); err != nil {
		return nil, err
	}
	data, _, err := builder.ReadAll(ctx, r.Objects, layout.KeyringKey, maxSmall)
	switch {
	case errors.Is(err, builder.ErrNotExist):
	case err != nil:
		return nil, err
	case !bytes.Equal(data, r.state.small[layout.KeyringKey]):
		return nil, r.occupied("another keyring")
	}
	return missingItems(ctx, r.Catalog, r.state.items, r.occupied)
}

// missingItems returns those of the items that a catalog does not have. It refuses a catalog that has others.
func missingItems(ctx context.Context, c Writer, items []catalog.Item, occupied func(what string) error) ([]catalog.Item, error) {
	have, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	byKey := make(map[catalog.Key]catalog.Item, len(have))
	for _, it := range have {
		byKey[it.Key()] = it
	}
	var missing []catalog.Item
	for _, it := range items {
		was, ok := byKey[it.Key()]
		delete(byKey, it.Key())
		if !ok {
			missing = append(missing, it)
		} else if !was.Same(it) {
			return nil, occupied(fmt.Sprintf("another release of item %s, %s", it.Key(), was.Version))
		}
	}
	for key := range byKey {
		return nil, occupied("item " + key.String())
	}
	return missing, nil
}

func (r *restorer) occupied(what string) error {
	return refuse("there is an installation already: it has %s; restore into an empty folder or bucket, or empty this one first", what)
}

// unpublished looks at the index, and what is left of earlier ones. One without items has been seen by no device.
func (r *restorer) unpublished(ctx context.Context) error {
	there, etag, err := builder.ReadIndex(ctx, r.Objects)
	if err != nil {
		return err
	}
	r.etag = etag
	switch {
	case there == nil || there.Len() == 0:
		if there != nil && r.index != nil && there.Generation >= r.index.Generation {
			r.index = r.index.With(there.Generation + 1)
		}
	case r.index == nil || !bytes.Equal(pinned(there, "").Encode(), pinned(r.index, "").Encode()) || there.Pin != restoring && there.Pin != r.index.Pin:
		return r.occupied(fmt.Sprintf("generation %d", there.Generation))
	}
	return r.Objects.List(ctx, layout.HistoryPrefix, func(o builder.ObjectInfo) error {
		g, err := layout.HistoryGeneration(o.Key)
		if err != nil {
			return err
		}
		data, _, err := builder.ReadAll(ctx, r.Objects, o.Key, index.MaxEncoded)
		if err != nil || bytes.Equal(data, r.state.small[o.Key]) {
			return err
		}
		if ix, err := index.Parse(data); err != nil || ix.Len() > 0 {
			return r.occupied(fmt.Sprintf("generation %d in its history", g))
		}
		return nil
	})
}

// binaries copies those that are not there.
func (r *restorer) binaries(ctx context.Context, from Source) error {
	keys := make(map[string][]Part)
	total := 0
	for _, p := range r.backup.Parts {
		if p.isBinary() {
			keys[p.SHA256] = append(keys[p.SHA256], p)
			total++
		}
	}
	return from.walk(ctx, r.backup.Manifest, func(p Part, body io.Reader) error {
		for _, same := range keys[p.SHA256] {
			info, err := r.Objects.Stat(ctx, same.Key)
			if err == nil && info.Size == same.Size {
				r.copied(total)
				continue
			}
			if err != nil && !errors.Is(err, builder.ErrNotExist) {
				return fmt.Errorf("find %s: %w", same.Key, err)
			}
			if body, err = r.copy(ctx, same, body); err != nil {
				return fmt.Errorf("write %s: %w", same.Key, err)
			}
			r.copied(total)
		}
		if c, ok := body.(*spooled); ok {
			c.discard()
		}
		return nil
	})
}

func (r *restorer) copied(total int) {
	if r.res.Binaries++; r.opt.Progress != nil {
		r.opt.Progress(r.res.Binaries, total)
	}
}

// copy writes a binary. It returns the body to write it from once more, which is a spooled one unless it was before.
func (r *restorer) copy(ctx context.Context, p Part, body io.Reader) (io.Reader, error) {
	s, ok := body.(*spooled)
	if !ok {
		var err error
		if s, err = r.spool(ctx, p, body); err != nil {
			return body, err
		}
	}
	_, err := r.Objects.Put(ctx, p.Key, builder.Body{Reader: s.ReadSeeker, Size: p.Size, CRC64NVME: s.crc, Checked: true}, builder.PutOptions{})
	if err != nil {
		s.discard()
	}
	return s, err
}

// spooled is a content that has been verified, and can be read again.
type spooled struct {
	io.ReadSeeker
	crc     uint64
	discard func()
}

// spool verifies a content. A file is read again where it is; the store verifies its checksum.
func (r *restorer) spool(ctx context.Context, p Part, body io.Reader) (*spooled, error) {
	sha, crc := sha256.New(), crc64nvme.New()
	s := &spooled{discard: func() {}}
	sums := io.MultiWriter(sha, crc)
	if file, ok := body.(io.ReadSeeker); ok {
		s.ReadSeeker = file
	} else {
		f, err := os.CreateTemp(r.opt.SpoolDir, "precast-restore-*")
		if err != nil {
			return nil, fmt.Errorf("make spool file: %w", err)
		}
		s.ReadSeeker, s.discard = f, func() { f.Close(); os.Remove(f.Name()) }
		os.Remove(f.Name()) // where the system allows it, nothing is left behind by a crash
		sums = io.MultiWriter(f, sha, crc)
	}
	n, err := io.Copy(sums, contextReader{ctx, body})
	if err == nil && (n != p.Size || hex.EncodeToString(sha.Sum(nil)) != p.SHA256) {
		err = ErrDamaged
	}
	if err != nil {
		s.discard()
		return nil, err
	}
	s.crc = crc.Sum64()
	return s, nil
}

type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// build writes what devices can ask for, as a repair of the index that is not published yet.
func (r *restorer) build(ctx context.Context) error {
	objects := unpublished{r.Objects, r.index.Encode()}
	repairer := &fsck.Repairer{Objects: objects, SpoolDir: r.opt.SpoolDir}
	for {
		rep, err := fsck.Store(ctx, objects, fsck.Options{})
		if err != nil {
			return err
		}
		if err := repairer.Repair(ctx, rep); err != nil {
			return err
		}
		r.res.Unbuilt = len(rep.Problems) + rep.More - rep.Repaired
		if rep.More == 0 || rep.Repaired == 0 {
			return nil
		}
	}
}

// unpublished is an object store as it will be when an index is published.
type unpublished struct {
	builder.Objects
	index []byte
}

func (o unpublished) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if key != layout.IndexKey {
		return o.Objects.Stat(ctx, key)
	}
	return builder.ObjectInfo{Key: key, Size: int64(len(o.index)), Headers: layout.HeadersOf(layout.Index)}, nil
}

func (o unpublished) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if key != layout.IndexKey {
		return o.Objects.Get(ctx, key, off, n)
	}
	info, err := o.Stat(ctx, key)
	end := info.Size
	if off = min(off, end); n >= 0 {
		end = min(end, off+n)
	}
	return io.NopCloser(bytes.NewReader(o.index[off:end])), info, err
}

// publish writes the index in the place of the one that was there when this began.
func (r *restorer) publish(ctx context.Context, ix *index.Index) error {
	info, err := r.Objects.Put(ctx, layout.IndexKey, builder.BytesBody(ix.Encode()), builder.PutOptions{IfMatch: r.etag, IfAbsent: r.etag == ""})
	if errors.Is(err, builder.ErrPrecondition) {
		return errors.New("somebody else has published meanwhile: stop what builds there, and run it again")
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", layout.IndexKey, err)
	}
	r.etag = info.ETag
	return nil
}

// catalog writes items as they were, with the times of their changes.
func (r *restorer) catalog(ctx context.Context, items []catalog.Item) error {
	var changes []catalog.Change
	for _, it := range items {
		changes = append(changes, catalog.Put(it))
	}
	return r.Catalog.Apply(ctx, catalog.Edit{Changes: changes, By: catalog.Author{Message: "restored from a backup"}})
}
