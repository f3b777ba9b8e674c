package builder

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
)

// Composer makes the bundle or manifest of any set of a published index out of stored pieces. It is
// safe for concurrent use.
type Composer struct {
	objects Objects
	pieces  *lru.Cache[string, bundle.Piece] // by key; immutable objects, so never stale
}

// NewComposer makes a composer.
func NewComposer(objects Objects) *Composer {
	return &Composer{objects: objects, pieces: newCache[string, bundle.Piece](maxPieces)}
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
	return &Answer{composed.Open(ctx), composed.Size(), composed.CRC64NVME(), true}, nil
}

// NopCloser is a reader that needs no Close.
type NopCloser struct{ io.ReadSeeker }

// Close does nothing.
func (NopCloser) Close() error { return nil }

// Composed is a bundle that exists only as a plan over stored pieces.
type Composed struct {
	*bundle.Bundle
	objects Objects
	keys    []string // of the pieces, by file
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
	composed := &Composed{objects: c.objects}
	var files []bundle.File
	for i := range set.Len() {
		if held.Has(i) {
			continue
		}
		it := set.Item(i)
		key := layout.PieceKey(edge.Hex(it.SHA256[:]), encoder)
		piece, err := c.piece(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("compose bundle of set %s: %w", set.ID(), err)
		}
		if piece.Raw != it.Size {
			return nil, fmt.Errorf("compose bundle of set %s: piece of %s is of a file of %d bytes, not %d", set.ID(), it.App, piece.Raw, it.Size)
		}
		files = append(files, bundle.File{Name: layout.FileName(it.App, it.Version), Piece: piece})
		composed.keys = append(composed.keys, key)
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
		body, _, err := c.objects.Get(ctx, c.keys[i], off, -1)
		return body, err
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

func (c *Composer) piece(ctx context.Context, key string) (bundle.Piece, error) {
	if piece, ok := c.pieces.Get(key); ok {
		return piece, nil
	}
	info, err := c.objects.Stat(ctx, key)
	if err != nil {
		return bundle.Piece{}, fmt.Errorf("find %s: %w", key, err)
	}
	piece, err := bundle.ParseMeta(info.Meta)
	if err != nil {
		return piece, fmt.Errorf("find %s: %w", key, err)
	}
	if piece.Len != info.Size {
		return piece, fmt.Errorf("find %s: the object has %d bytes, its metadata says %d", key, info.Size, piece.Len)
	}
	c.pieces.Add(key, piece)
	return piece, nil
}
