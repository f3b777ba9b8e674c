// Package bundle composes .tar.gz bundles out of pieces: binaries that were compressed once, each on
// its own, and are put together without being looked at again.
//
// A bundle is one gzip member, because many readers stop after the first (RFC 1952 allows several).
// Every part of it begins and ends on a byte boundary:
//
//	gzip header
//	stored:  tar header, manifest, padding, tar header of the first binary
//	piece:   first binary
//	stored:  padding, tar header of the second binary
//	...
//	piece:   last binary
//	stored:  padding, 1024 zeros; final
//	CRC-32, length mod 2^32
//
// Its checksums are combined from those of the pieces, so that composing takes microseconds whatever
// the size of the binaries. The bytes are a function of the manifest, the names and the pieces.
package bundle

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/internal/format/layout"
)

// FormatID names everything besides the manifest, the names and the binaries that decides the bytes
// of a bundle: the encoder and the framing of this package. It is part of a set ID, since a bundle's
// key must change whenever its bytes do.
const FormatID = "f1." + EncoderID

// File is one binary in a bundle. Its mode is 0755.
type File struct {
	Name  string
	Piece Piece
}

// Bundle is the plan of a bundle: all of its bytes but those of the pieces. It does not change and
// may be used by many goroutines at once.
type Bundle struct {
	parts []part // in order, without gaps
	size  int64
	crc   uint64
}

// part is a run of the bundle's bytes: framing, or the piece of a file.
type part struct {
	off, len int64
	frame    []byte // nil: the piece of file
	file     int
}

// Compose plans a bundle of the manifest, named layout.ManifestName, and the files in the order given.
// It refuses names that could not be, or should not be, extracted into one directory, and pieces
// that no encoder makes. The manifest is copied.
func Compose(manifest []byte, files []File) (*Bundle, error) {
	if err := checkNames(files); err != nil {
		return nil, fmt.Errorf("compose bundle: %w", err)
	}
	c := composer{parts: make([]part, 0, 2*len(files)+1)}
	c.tar.Grow(len(manifest) + 4*tarBlock)
	c.frame = appendGzipHeader(nil)
	if err := tarHeader(&c.tar, layout.ManifestName, int64(len(manifest)), manifestMode); err != nil {
		return nil, fmt.Errorf("compose bundle: %w", err)
	}
	c.tar.Write(manifest)
	c.pad(padding(int64(len(manifest))))
	for i, f := range files {
		if err := f.Piece.check(); err != nil {
			return nil, fmt.Errorf("compose bundle: check piece of %q: %w", f.Name, err)
		}
		if err := tarHeader(&c.tar, f.Name, f.Piece.Raw, binaryMode); err != nil {
			return nil, fmt.Errorf("compose bundle: %w", err)
		}
		c.store(false)
		c.endFrame()
		c.piece(i, f.Piece)
		c.pad(padding(f.Piece.Raw))
	}
	c.pad(endOfArchive)
	c.store(true)
	c.frame = appendGzipTrailer(c.frame, c.crc32, c.raw)
	c.endFrame()
	return &Bundle{parts: c.parts, size: c.size, crc: c.crc64}, nil
}

// Size is the length of the bundle in bytes.
func (b *Bundle) Size() int64 { return b.size }

// CRC64NVME is the checksum of the whole bundle.
func (b *Bundle) CRC64NVME() uint64 { return b.crc }

// partAt returns the index of the part that holds the byte at off, 0 <= off < b.size.
func (b *Bundle) partAt(off int64) int {
	return sort.Search(len(b.parts), func(i int) bool { return b.parts[i].off+b.parts[i].len > off })
}

// composer puts parts together, with the checksums of what it has so far.
type composer struct {
	parts []part
	tar   bytes.Buffer // tar bytes that are not in a frame yet
	frame []byte       // frame that is not in a part yet

	raw   int64  // uncompressed bytes so far
	crc32 uint32 // of them
	size  int64  // bytes in parts
	crc64 uint64 // of them
}

func (c *composer) pad(zeros int) {
	var block [endOfArchive]byte
	c.tar.Write(block[:zeros])
}

// store moves the tar bytes into the frame.
func (c *composer) store(final bool) {
	raw := c.tar.Bytes()
	c.raw += int64(len(raw))
	c.crc32 = crc32.Update(c.crc32, crc32.IEEETable, raw)
	blocks := (len(raw) + maxStored - 1) / maxStored
	c.frame = slices.Grow(c.frame, len(raw)+blocks*storedHeader+gzipTrailer)
	c.frame = appendStored(c.frame, raw, final)
	c.tar.Reset()
}

// endFrame makes the frame a part.
func (c *composer) endFrame() {
	c.crc64 = crc64nvme.Update(c.crc64, c.frame)
	c.add(part{frame: c.frame, len: int64(len(c.frame))})
	c.frame = nil
}

// piece makes a file's piece a part.
func (c *composer) piece(i int, p Piece) {
	c.raw += p.Raw
	c.crc32 = combine32(c.crc32, p.CRC32, p.Raw)
	c.crc64 = combine64(c.crc64, p.CRC64NVME, p.Len)
	c.add(part{file: i, len: p.Len})
}

func (c *composer) add(p part) {
	p.off = c.size
	c.size += p.len
	c.parts = append(c.parts, p)
}
