package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	tarBlock     = 512          // bytes
	endOfArchive = 2 * tarBlock // zeros after the last file
	maxStored    = 65535        // bytes in one stored block: its length has 16 bits (RFC 1951, 3.2.4)
	storedHeader = 5            // bytes: type, length and its complement, at a byte boundary
	gzipTrailer  = 8            // bytes: CRC-32 and length (RFC 1952, 2.3.1)
	manifestMode = 0o644
	binaryMode   = 0o755
)

// appendGzipHeader appends the header of a gzip member that says nothing about where and when it was
// made: no flags, no time, no extra flags, unknown system (RFC 1952, 2.3).
func appendGzipHeader(dst []byte) []byte {
	return append(dst, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff)
}

// appendGzipTrailer appends the end of a gzip member; length is counted modulo 2^32.
func appendGzipTrailer(dst []byte, crc uint32, length int64) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, crc)
	return binary.LittleEndian.AppendUint32(dst, uint32(length))
}

// appendStored appends raw as stored deflate blocks. The few hundred bytes around a piece are not
// worth an encoder: stored, they cost no time and depend on no library's version. Each block starts
// with 3 bits (final, 00) and padding up to the next byte, the whole byte here, because what
// precedes ends on a boundary.
func appendStored(dst, raw []byte, final bool) []byte {
	for {
		n := min(len(raw), maxStored)
		var kind byte
		if final && n == len(raw) {
			kind = 1
		}
		dst = append(dst, kind)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(n))
		dst = binary.LittleEndian.AppendUint16(dst, ^uint16(n))
		dst = append(dst, raw[:n]...)
		raw = raw[n:]
		if len(raw) == 0 {
			return dst
		}
	}
}

// tarHeader writes the header of a regular file. Every field that could tell one machine or moment
// from another is zero. archive/tar chooses USTAR where it can hold the file, and PAX where it
// cannot: 8 GiB and more, names beyond 100 bytes or ASCII
// (https://pkg.go.dev/archive/tar#Format).
func tarHeader(dst *bytes.Buffer, name string, size, mode int64) error {
	err := tar.NewWriter(dst).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Size:     size,
		Mode:     mode,
		ModTime:  time.Unix(0, 0),
	})
	if err != nil {
		return fmt.Errorf("write tar header of %q: %w", name, err)
	}
	if b := dst.Bytes(); !isASCII(name) {
		nameInUTF8(b[len(b)-tarBlock:], name)
	}
	return nil
}

// nameInUTF8 puts a name into the block that follows a PAX header, where archive/tar drops what is
// not ASCII. Readers that know nothing of PAX (Perl's Archive::Tar among them) find the name there,
// and would otherwise give two files one name.
func nameInUTF8(block []byte, name string) {
	// Offsets and the checksum (the sum of the block's bytes, its own counted as spaces) are those of
	// https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06.
	field, checksum := block[:100], block[148:156]
	for len(name) > len(field) {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	clear(field[copy(field, name):])
	copy(checksum, "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(checksum, fmt.Sprintf("%06o\x00 ", sum))
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// padding is how many zeros follow a file of this size in a tar archive.
func padding(size int64) int { return int(-size & (tarBlock - 1)) }
