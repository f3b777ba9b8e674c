// Package backup copies everything of an installation that cannot be built again, and brings it back: the catalog, the
// binaries, the published index and the generations before it, and the keyring. docs/formats.md has the format.
package backup

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Objects is what of an object store is read; see builder.Objects.
type Objects interface {
	builder.Getter
	Stat(ctx context.Context, key string) (builder.ObjectInfo, error)
	List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error
}

// Catalog is where the items are; see builder.Catalog.
type Catalog interface {
	Snapshot(ctx context.Context) ([]catalog.Item, error)
}

// Installation is what is backed up. It may be changed, published and swept meanwhile.
type Installation struct {
	Objects Objects
	Catalog Catalog
}

// Sink is where a backup is written.
type Sink interface {
	// Before returns the manifest of the backup that is there already, nil if there is none.
	Before() (*Manifest, error)
	// Has tells whether the content of a part is there.
	Has(p Part) (bool, error)
	// Add writes the content of a part, whole or not at all. It fails if body does.
	Add(ctx context.Context, p Part, body io.Reader) error
	// Commit makes all that was added the backup, in the place of the one that was there.
	Commit(ctx context.Context, m *Manifest) error
}

// Options of a backup.
type Options struct {
	// Keep is how many generations before the published one are in it; 0: 16, as many as gc keeps.
	Keep uint64
	// Replace lets a backup take the place of one of a later generation.
	Replace bool
	Now     func() time.Time
	// Progress is told how many binaries are done, of how many; nil: nobody.
	Progress func(done, total int)
}

// Result is what a backup did.
type Result struct {
	*Manifest
	Copied      int   `json:"copied"` // binaries
	CopiedBytes int64 `json:"copiedBytes"`
}

// rounds is how often the installation is read anew because a binary was gone when it was to be copied.
const rounds = 3

// Create writes a backup. What the sink has already is not copied again. It fails with history.ErrRefused if the sink has a
// backup of a later generation.
func (in Installation) Create(ctx context.Context, to Sink, opt Options) (Result, error) {
	if opt.Keep == 0 {
		opt.Keep = 16
	}
	res, err := in.create(ctx, to, opt)
	if err != nil {
		return res, fmt.Errorf("back up: %w", err)
	}
	return res, nil
}

func (in Installation) create(ctx context.Context, to Sink, opt Options) (Result, error) {
	before, err := to.Before()
	if err != nil {
		return Result{}, err
	}
	var res Result
	for round := 1; ; round++ {
		s, err := in.read(ctx, opt.Keep)
		if err != nil {
			return res, err
		}
		m := &Manifest{Version: Version, Made: opt.Now().UTC().Truncate(time.Second), Items: len(s.items)}
		if s.index != nil {
			m.Generation, m.Sequence, m.Pin = s.index.Generation, s.index.Sequence, s.index.Pin
		}
		if before != nil && before.Generation > m.Generation && !opt.Replace {
			return res, refuse("the backup that is there is of generation %d, and this installation is at generation %d: "+
				"it has lost something, or is another one; write to another folder, or give --replace", before.Generation, m.Generation)
		}
		c := copying{objects: in.Objects, to: to, manifest: m, res: &res}
		if err := c.binaries(ctx, s, opt.Progress); err != nil {
			return res, err
		}
		// What a sweep has removed, nothing needs any more: it is not named when the installation is read again.
		if len(m.Missing) > 0 && round < rounds {
			continue
		}
		if err := c.small(ctx, s); err != nil {
			return res, err
		}
		slices.SortFunc(m.Parts, func(a, b Part) int { return cmp.Compare(a.Key, b.Key) })
		res.Manifest = m
		return res, to.Commit(ctx, m)
	}
}

// copying is one round of a backup.
type copying struct {
	objects  Objects
	to       Sink
	manifest *Manifest
	res      *Result
}

func (c *copying) binaries(ctx context.Context, s *state, progress func(done, total int)) error {
	keys := slices.Sorted(maps.Keys(s.binaries))
	for i, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		part, err := c.binary(ctx, key)
		switch {
		case err == nil:
			c.manifest.Parts = append(c.manifest.Parts, part)
		case errors.Is(err, builder.ErrNotExist) && !s.binaries[key]:
		case errors.Is(err, errUnread) && ctx.Err() == nil && c.storeWorks(ctx):
			c.manifest.Missing = append(c.manifest.Missing, key)
		default:
			return fmt.Errorf("copy %s: %w", key, err)
		}
		if progress != nil {
			progress(i+1, len(keys))
		}
	}
	return nil
}

func (c *copying) binary(ctx context.Context, key string) (Part, error) {
	info, err := c.objects.Stat(ctx, key)
	if err != nil {
		return Part{}, unread(err)
	}
	part := Part{key, info.Size, digestOf(key)}
	if there, err := c.to.Has(part); there || err != nil {
		return part, err
	}
	body, _, err := c.objects.Get(ctx, key, 0, -1)
	if err != nil {
		return part, unread(err)
	}
	defer body.Close()
	if err := c.to.Add(ctx, part, verify(ctx, body, part)); err != nil {
		return part, err
	}
	c.res.Copied++
	c.res.CopiedBytes += part.Size
	return part, nil
}

func (c *copying) small(ctx context.Context, s *state) error {
	for _, key := range slices.Sorted(maps.Keys(s.small)) {
		data := s.small[key]
		sum := sha256.Sum256(data)
		part := Part{key, int64(len(data)), hex.EncodeToString(sum[:])}
		there, err := c.to.Has(part)
		if err == nil && !there {
			err = c.to.Add(ctx, part, verify(ctx, bytes.NewReader(data), part))
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", key, err)
		}
		c.manifest.Parts = append(c.manifest.Parts, part)
	}
	return nil
}

// storeWorks tells whether objects can be read at all: then it is one of them that is lost or damaged.
func (c *copying) storeWorks(ctx context.Context) bool {
	_, err := c.objects.Stat(ctx, layout.IndexKey)
	return err == nil || errors.Is(err, builder.ErrNotExist)
}

// errUnread: the fault is with what was to be copied, not with where it was to go.
var errUnread = errors.New("it cannot be read")

func unread(err error) error { return fmt.Errorf("%w: %w", errUnread, err) }

// verifying reads a part's content, and fails in the place of its end if that is not what the part says.
type verifying struct {
	ctx  context.Context
	r    io.Reader
	hash hash.Hash
	n    int64
	part Part
}

func verify(ctx context.Context, r io.Reader, p Part) *verifying {
	return &verifying{ctx, r, sha256.New(), 0, p}
}

func (v *verifying) Read(b []byte) (int, error) {
	if err := v.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := v.r.Read(b)
	v.hash.Write(b[:n])
	v.n += int64(n)
	switch {
	case v.n > v.part.Size || err == io.EOF && (v.n != v.part.Size || hex.EncodeToString(v.hash.Sum(nil)) != v.part.SHA256):
		return n, unread(errors.New("it does not have its size or its digest"))
	case err != nil && err != io.EOF:
		return n, unread(err)
	}
	return n, err
}
