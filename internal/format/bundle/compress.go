package bundle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/minio/crc64nvme"
)

const (
	encoderLevel = 6
	bufferSize   = 64 << 10 // bytes
)

// Compress reads a binary from r to its end and writes its piece to w. The piece depends on nothing
// but the binary's bytes and EncoderID. Memory is constant. The context is looked at between reads;
// when an error is returned, what was written to w is of no use.
func Compress(ctx context.Context, w io.Writer, r io.Reader) (Piece, error) {
	out := &tally{w: w}
	// The encoder writes some 250 bytes at a time: https://github.com/klauspost/compress/blob/v1.20.3/flate/huffman_bit_writer.go
	buffered := bufio.NewWriterSize(out, bufferSize)
	encoder, err := flate.NewWriter(buffered, encoderLevel)
	if err != nil {
		return Piece{}, fmt.Errorf("start deflate encoder: %w", err)
	}
	var p Piece
	buf := make([]byte, bufferSize)
	for {
		if err := ctx.Err(); err != nil {
			return Piece{}, fmt.Errorf("compress binary: %w", err)
		}
		n, err := r.Read(buf)
		p.Raw += int64(n)
		p.CRC32 = crc32.Update(p.CRC32, crc32.IEEETable, buf[:n])
		if _, err := encoder.Write(buf[:n]); err != nil {
			return Piece{}, fmt.Errorf("write piece: %w", err)
		}
		if err == io.EOF { // not errors.Is: a broken connection may wrap it
			break
		}
		if err != nil {
			return Piece{}, fmt.Errorf("read binary: %w", err)
		}
	}
	// Flush ends the run with a sync flush; Close would end it with a final block.
	if err := errors.Join(encoder.Flush(), buffered.Flush()); err != nil {
		return Piece{}, fmt.Errorf("write piece: %w", err)
	}
	p.Len, p.CRC64NVME = out.n, out.crc
	return p, nil
}

// tally counts and sums what goes through it.
type tally struct {
	w   io.Writer
	n   int64
	crc uint64
}

func (t *tally) Write(b []byte) (int, error) {
	n, err := t.w.Write(b)
	t.n += int64(n)
	t.crc = crc64nvme.Update(t.crc, b[:n])
	return n, err
}
