package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
)

// Composer makes the bundle or manifest of any set of a published index out of stored pieces. It is
// safe for concurrent use.
//
// A piece that is read from its beginning is verified: what is read of a damaged one ends with an error that wraps a
// Damage. With a Mender, whoever needs that piece next waits until it has been made again.
type Composer struct {
	objects Objects
	pieces  *lru.Cache[string, bundle.Piece] // sound ones, as far as is known, by key

	mender  Mender // nil: damaged pieces stay as they are
	clock   Clock
	mending singleflight.Group
	mu      sync.Mutex
	damaged map[string]trouble // by key
}

// NewComposer makes a composer that mends nothing.
func NewComposer(objects Objects) *Composer { return NewMendingComposer(objects, nil, Clock{}) }

// NewMendingComposer makes a composer that has damaged pieces made again.
func NewMendingComposer(objects Objects, mender Mender, clock Clock) *Composer {
	return &Composer{
		objects: objects, pieces: newCache[string, bundle.Piece](maxPieces),
		mender: mender, clock: clock, damaged: make(map[string]trouble),
	}
}

// maxPieces bounds the cache of piece descriptions, about 150 bytes each.
const maxPieces = 100_000

// Manifest returns the bytes of a manifest.
func (c *Composer) Manifest(set edge.Set, held edge.Mask) ([]byte, error) {
	data, err := manifest.New(set, held).Encode()
	if err != nil {
		return nil, fmt.Errorf("compose manifest of set %s: %w", set.ID(), err)
	}
	return data, nil
}

// Answer is a bundle or manifest, ready to be read or stored.
type Answer struct {
	io.ReadSeekCloser
	Size int64 // bytes
	// Checked: CRC64NVME is known.
	CRC64NVME uint64
	Checked   bool

	composed *Composed // nil: a manifest
}

// Damage is the damage that reading the answer met; nil: none.
func (a *Answer) Damage() *Damage {
	if a.composed == nil {
		return nil
	}
	return a.composed.damage.Load()
}

// Body is the answer as Objects.Put takes it.
func (a *Answer) Body() Body {
	return Body{Reader: a, Size: a.Size, CRC64NVME: a.CRC64NVME, Checked: a.Checked}
}

// Compose returns the bundle or manifest (kind is layout.Bundle or layout.Manifest) of a set. It can be
// read until ctx is done.
func (c *Composer) Compose(ctx context.Context, kind layout.Kind, set edge.Set, held edge.Mask) (*Answer, error) {
	if kind == layout.Manifest {
		data, err := c.Manifest(set, held)
		if err != nil {
			return nil, err
		}
		return &Answer{ReadSeekCloser: NopCloser{bytes.NewReader(data)}, Size: int64(len(data))}, nil
	}
	composed, err := c.Bundle(ctx, set, held)
	if err != nil {
		return nil, err
	}
	return &Answer{composed.Open(ctx), composed.Size(), composed.CRC64NVME(), true, composed}, nil
}

// Store composes the bundle or manifest of a set and writes it. Pieces that turn out to be damaged are made again, each
// once.
func (c *Composer) Store(ctx context.Context, key string, kind layout.Kind, set edge.Set, held edge.Mask, opt PutOptions) (ObjectInfo, error) {
	for again := set.Len(); ; again-- {
		answer, err := c.Compose(ctx, kind, set, held)
		if err != nil {
			return ObjectInfo{}, err
		}
		info, err := c.objects.Put(ctx, key, answer.Body(), opt)
		answer.Close()
		info.Size = answer.Size
		if err == nil || errors.Is(err, ErrPrecondition) {
			return info, err
		}
		damage := answer.Damage()
		if damage == nil {
			return info, fmt.Errorf("write %s: %w", key, err)
		}
		if c.mender == nil || again == 0 {
			return info, fmt.Errorf("write %s: %w", key, damage)
		}
	}
}

// NopCloser is a reader that needs no Close.
type NopCloser struct{ io.ReadSeeker }

// Close does nothing.
func (NopCloser) Close() error { return nil }

// Composed is a bundle that exists only as a plan over stored pieces.
type Composed struct {
	*bundle.Bundle
	composer *Composer
	pieces   []stored // by file
	damage   atomic.Pointer[Damage]
}

// Bundle plans a bundle. It reads the descriptions of the pieces, not the pieces.
func (c *Composer) Bundle(ctx context.Context, set edge.Set, held edge.Mask) (*Composed, error) {
	encoder, ok := Encoder(set.Index)
	if !ok {
		return nil, fmt.Errorf("compose bundle: the index was published in format %q, this program makes %q: publish again", set.Index.Format, FormatID)
	}
	data, err := c.Manifest(set, held)
	if err != nil {
		return nil, err
	}
	composed := &Composed{composer: c}
	var files []bundle.File
	for i := range set.Len() {
		if held.Has(i) {
			continue
		}
		it := set.Item(i)
		key := layout.PieceKey(edge.Hex(it.SHA256[:]), encoder)
		piece, err := c.piece(ctx, key, it)
		if err != nil {
			return nil, fmt.Errorf("compose bundle of set %s: %w", set.ID(), err)
		}
		files = append(files, bundle.File{Name: layout.FileName(it.App, it.Version), Piece: piece})
		composed.pieces = append(composed.pieces, stored{key, it, piece})
	}
	composed.Bundle, err = bundle.Compose(data, files)
	if err != nil {
		return nil, fmt.Errorf("compose bundle of set %s: %w", set.ID(), err)
	}
	return composed, nil
}

// Open returns a reader of the bundle's bytes, valid until ctx is done.
func (c *Composed) Open(ctx context.Context) *bundle.Reader {
	return c.Bundle.Open(ctx, func(ctx context.Context, i int, off int64) (io.ReadCloser, error) {
		return c.composer.open(ctx, c.pieces[i], off, &c.damage)
	})
}

// Encoder returns the encoder of an index's pieces. It tells whether this program composes bundles of them: pieces of
// every encoder are put together in the same way.
func Encoder(ix *index.Index) (encoder string, ok bool) {
	return strings.CutPrefix(ix.Format, strings.TrimSuffix(FormatID, bundle.EncoderID))
}

// PieceKeyIn is the key of the piece of an item's binary, as an index needs it. It is not known of an index that this
// program does not compose for.
func PieceKeyIn(ix *index.Index, it *index.Item) (key string, ok bool) {
	encoder, ok := Encoder(ix)
	return layout.PieceKey(edge.Hex(it.SHA256[:]), encoder), ok
}

// PieceKey is the key of the piece of an item's binary, as this program makes it.
func PieceKey(it *index.Item) string { return pieceKey(it) }

// BinaryKey is the key of an item's binary.
func BinaryKey(it *index.Item) string {
	return layout.BinaryKey(edge.Hex(it.SHA256[:]), it.App, it.Version)
}

func pieceKey(it *index.Item) string {
	return layout.PieceKey(edge.Hex(it.SHA256[:]), bundle.EncoderID)
}

// piece describes the piece of an item, which may have to be made again first.
func (c *Composer) piece(ctx context.Context, key string, it *index.Item) (bundle.Piece, error) {
	if piece, ok := c.pieces.Get(key); ok && piece.Raw == it.Size {
		return piece, nil
	}
	damage := c.known(key)
	var piece bundle.Piece
	var err error
	if damage == nil {
		piece, err = c.describe(ctx, key, it)
	}
	if damage != nil || c.mender != nil && errors.As(err, &damage) {
		piece, err = c.mended(ctx, damage)
	}
	if err == nil {
		c.pieces.Add(key, piece)
	}
	return piece, err
}

// describe reads the description of an item's piece. Its error is a Damage unless the store fails.
func (c *Composer) describe(ctx context.Context, key string, it *index.Item) (bundle.Piece, error) {
	info, err := c.objects.Stat(ctx, key)
	if unsound(err) {
		return bundle.Piece{}, c.noticed(key, it, err)
	}
	if err != nil {
		return bundle.Piece{}, fmt.Errorf("find %s: %w", key, err)
	}
	piece, err := described(info)
	if err == nil && piece.Raw != it.Size {
		err = fmt.Errorf("it is of a file of %d bytes, not %d", piece.Raw, it.Size)
	}
	if err != nil {
		return piece, c.noticed(key, it, err)
	}
	return piece, nil
}

// described is what a piece's metadata says of it. It fails if that cannot be true.
func described(info ObjectInfo) (bundle.Piece, error) {
	piece, err := bundle.ParseMeta(info.Meta)
	if err == nil && piece.Len != info.Size {
		err = wrongLength(info, piece)
	}
	return piece, err
}
