package bundle

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

// EncoderID names the encoder, its level and the version of its library: everything besides a
// binary's content that decides the bytes of its piece. It is part of a piece's key.
const EncoderID = "klauspost6-v1.20.3"

// Piece describes the cached piece of one binary: a run of deflate blocks (RFC 1951) that begins and
// ends on a byte boundary, is not final and refers to nothing before itself, so that pieces can
// follow one another in a stream in any order. It ends with a sync flush, the empty stored block that
// brings a stream to a byte boundary.
type Piece struct {
	Raw       int64  // length of the binary, bytes
	CRC32     uint32 // of the binary, as in gzip (RFC 1952)
	Len       int64  // length of the piece, bytes
	CRC64NVME uint64 // of the piece, as in S3 full-object checksums
}

// Metadata names of a piece object; the values are decimal lengths and zero-padded hex checksums.
const (
	metaRaw   = "raw-size"
	metaCRC32 = "raw-crc32"
	metaLen   = "size"
	metaCRC64 = "crc64nvme"
)

// Meta returns the piece as the metadata of the object that holds its bytes.
func (p Piece) Meta() map[string]string {
	return map[string]string{
		metaRaw:   strconv.FormatInt(p.Raw, 10),
		metaCRC32: fmt.Sprintf("%08x", p.CRC32),
		metaLen:   strconv.FormatInt(p.Len, 10),
		metaCRC64: fmt.Sprintf("%016x", p.CRC64NVME),
	}
}

// ParseMeta is the inverse of Meta. It accepts what Meta returns for a piece that can exist, and no
// other spelling of it; metadata of other names is ignored.
func ParseMeta(m map[string]string) (Piece, error) {
	var (
		p    Piece
		errs [4]error
	)
	p.Raw, errs[0] = metaSize(m, metaRaw)
	p.Len, errs[1] = metaSize(m, metaLen)
	var crc uint64
	crc, errs[2] = metaChecksum(m, metaCRC32, 32)
	p.CRC32 = uint32(crc)
	p.CRC64NVME, errs[3] = metaChecksum(m, metaCRC64, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return Piece{}, fmt.Errorf("parse piece metadata: %w", err)
	}
	if err := p.check(); err != nil {
		return Piece{}, fmt.Errorf("parse piece metadata: %w", err)
	}
	return p, nil
}

func metaSize(m map[string]string, name string) (int64, error) {
	v, ok := m[name]
	if !ok {
		return 0, fmt.Errorf("no %s", name)
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != v {
		return 0, fmt.Errorf("%s %q is not a decimal length", name, v)
	}
	return n, nil
}

func metaChecksum(m map[string]string, name string, bits int) (uint64, error) {
	v, ok := m[name]
	if !ok {
		return 0, fmt.Errorf("no %s", name)
	}
	n, err := strconv.ParseUint(v, 16, bits)
	if err != nil || fmt.Sprintf("%0*x", bits/4, n) != v {
		return 0, fmt.Errorf("%s %q is not %d lower-case hex digits", name, v, bits/4)
	}
	return n, nil
}

const (
	// minPiece is the length of a sync flush on its own: a stored block's 3 header bits, padded to a
	// byte, and 00 00 FF FF.
	minPiece = 5
	// maxRatio is what deflate can shrink to at best: 258 bytes in 2 bits (a one-bit length code and
	// a one-bit distance code), https://zlib.net/zlib_tech.html.
	maxRatio = 1032
	// maxRaw is far beyond any binary, and keeps sums of lengths far from overflow.
	maxRaw = 1 << 40
)

// check refuses what no encoder makes: lengths that were mixed up, cut off or made up.
func (p Piece) check() error {
	switch {
	case p.Raw < 0 || p.Raw > maxRaw:
		return fmt.Errorf("a binary of %d bytes is out of range", p.Raw)
	case p.Len < minPiece:
		return fmt.Errorf("a piece of %d bytes is shorter than a sync flush", p.Len)
	case p.Raw/maxRatio > p.Len:
		return fmt.Errorf("a piece of %d bytes is too short for a binary of %d", p.Len, p.Raw)
	// What cannot be compressed is stored, at 5 bytes per 65535: 1/1024 is ten times that.
	case p.Len > p.Raw+p.Raw/1024+64:
		return fmt.Errorf("a piece of %d bytes is too long for a binary of %d", p.Len, p.Raw)
	case p.Raw == 0 && p.CRC32 != crc32.ChecksumIEEE(nil):
		return fmt.Errorf("CRC-32 %08x of an empty binary", p.CRC32)
	}
	return nil
}
