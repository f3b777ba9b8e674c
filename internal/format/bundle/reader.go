package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// OpenPiece opens the piece of file i (as numbered in Compose) at a byte offset. The stream must
// yield the rest of the piece and then end. It should give up when ctx is done.
type OpenPiece func(ctx context.Context, i int, off int64) (io.ReadCloser, error)

// Reader reads a bundle. It is for one goroutine at a time.
type Reader struct {
	ctx    context.Context
	bundle *Bundle
	open   OpenPiece

	pos    int64         // of the next byte
	part   int           // index of the part that holds pos, when pos < size
	stream io.ReadCloser // of that part, at pos; nil: not open
	err    error         // repeated until Seek
	buf    []byte        // of copyStream; nil until needed
}

var (
	_ io.ReadSeekCloser = (*Reader)(nil)
	_ io.WriterTo       = (*Reader)(nil)
)

// errTooLong: a piece is longer than the length it was planned with.
var errTooLong = errors.New("piece is longer than planned")

// Open returns a reader of the bundle's bytes. A piece is opened when the first of its bytes is
// needed, and closed when the reader leaves it; at most one is open. Memory is constant.
//
// A piece that is shorter than planned gives an error that wraps io.ErrUnexpectedEOF, a longer one is
// an error as well. The bytes of pieces are not summed: a receiver that does not trust them has
// CRC64NVME, and the CRC-32 in the bundle itself.
//
// After an error, every call returns it until Seek, which starts afresh.
func (b *Bundle) Open(ctx context.Context, piece OpenPiece) *Reader {
	return &Reader{ctx: ctx, bundle: b, open: piece}
}

// Read implements io.Reader. It fails when the context is done.
func (r *Reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := r.ready(); err != nil {
		return 0, err
	}
	p := r.bundle.parts[r.part]
	if p.frame != nil {
		n := copy(b, p.frame[r.pos-p.off:])
		r.advance(int64(n))
		return n, nil
	}
	if err := r.openStream(); err != nil {
		return 0, r.fail(err)
	}
	if left := p.off + p.len - r.pos; int64(len(b)) > left {
		b = b[:left]
	}
	n, err := r.stream.Read(b)
	if n < 0 || n > len(b) {
		return 0, r.fail(fmt.Errorf("read piece of file %d: invalid count from Read", p.file))
	}
	return n, r.fail(r.took(int64(n), err))
}

// WriteTo implements io.WriterTo: it writes what is left of the bundle, letting the system copy
// files to sockets and files, and pieces in memory write themselves in one go.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		err := r.ready()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := r.writePart(w)
		total += n
		if err != nil {
			return total, r.fail(err)
		}
	}
}

// writePart writes at least one byte of the current part, or fails.
func (r *Reader) writePart(w io.Writer) (int64, error) {
	p := r.bundle.parts[r.part]
	if p.frame != nil {
		n, err := writeAll(w, p.frame[r.pos-p.off:])
		r.advance(int64(n))
		return int64(n), err
	}
	if err := r.openStream(); err != nil {
		return 0, err
	}
	n, err := r.copyStream(w, p.off+p.len-r.pos)
	return n, r.took(n, err)
}

// copyChunk is how many bytes are copied between two looks at the context.
const copyChunk = 8 << 20

// copyStream copies up to left bytes of the stream to w. Its error is io.EOF if the stream ended.
func (r *Reader) copyStream(w io.Writer, left int64) (int64, error) {
	// A file can be sent by the system (sendfile, copy_file_range): os and net look for exactly this,
	// an io.LimitedReader around something with a descriptor.
	if _, ok := r.stream.(syscall.Conn); !ok {
		if wt, ok := r.stream.(io.WriterTo); ok {
			return r.streamTo(wt, w, left)
		}
	}
	if _, ok := w.(io.ReaderFrom); !ok && r.buf == nil {
		r.buf = make([]byte, bufferSize)
	}
	chunk := min(left, copyChunk)
	n, err := io.CopyBuffer(w, &io.LimitedReader{R: r.stream, N: chunk}, r.buf)
	if err == nil && n < chunk {
		err = io.EOF
	}
	return n, err
}

// streamTo has the stream write itself.
func (r *Reader) streamTo(wt io.WriterTo, w io.Writer, left int64) (int64, error) {
	bounded := &boundedWriter{ctx: r.ctx, w: w, left: left}
	_, err := wt.WriteTo(bounded)
	if err == nil {
		err = bounded.err // whatever a careless WriteTo makes of it
	}
	if err == nil {
		err = io.EOF // a stream that has written itself has ended
	}
	return left - bounded.left, err
}

// boundedWriter fails on the first byte beyond left.
type boundedWriter struct {
	ctx  context.Context
	w    io.Writer
	left int64
	err  error
}

func (w *boundedWriter) Write(b []byte) (int, error) {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return 0, w.err
	}
	within := b[:min(int64(len(b)), w.left)]
	n, err := writeAll(w.w, within)
	w.left -= int64(n)
	if err == nil && n < len(b) {
		err = errTooLong
	}
	w.err = err
	return n, err
}

// writeAll makes a writer that breaks the contract of io.Writer fail.
func writeAll(w io.Writer, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := w.Write(b)
	if n < 0 || n > len(b) {
		return 0, errors.New("invalid count from Write")
	}
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Seek implements io.Seeker. A stream that is open stays so only if the position does not change.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.bundle.size
	default:
		return 0, fmt.Errorf("seek in bundle: unknown whence %d", whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek in bundle: %d is before its start", offset)
	}
	if r.err == errClosed {
		return 0, r.err
	}
	r.err = nil
	if offset != r.pos {
		// A stream that is given up half-way has nothing to tell.
		_ = r.closeStream()
		r.pos = offset
		r.part = r.bundle.partAt(offset)
	}
	return offset, nil
}

var errClosed = errors.New("read bundle: reader is closed")

// Close closes the piece that is open, if any. The reader cannot be used any more.
func (r *Reader) Close() error {
	r.err = errClosed
	if err := r.closeStream(); err != nil {
		return fmt.Errorf("close piece: %w", err)
	}
	return nil
}

// ready returns nil if there is a byte to read at pos.
func (r *Reader) ready() error {
	if r.err != nil {
		return r.err
	}
	if r.pos >= r.bundle.size {
		return io.EOF
	}
	return r.fail(r.ctx.Err())
}

// fail keeps an error, with its subject, and closes the stream, whose position is not known any more.
func (r *Reader) fail(err error) error {
	if err == nil {
		return nil
	}
	_ = r.closeStream()
	r.err = fmt.Errorf("read bundle: %w", err)
	return r.err
}

func (r *Reader) openStream() error {
	if r.stream != nil {
		return nil
	}
	p := r.bundle.parts[r.part]
	stream, err := r.open(r.ctx, p.file, r.pos-p.off)
	if err != nil {
		return fmt.Errorf("open piece of file %d: %w", p.file, err)
	}
	r.stream = stream
	return nil
}

func (r *Reader) closeStream() error {
	if r.stream == nil {
		return nil
	}
	stream := r.stream
	r.stream = nil
	return stream.Close()
}

// took accounts for n bytes of the stream that came with err. At the end of the piece it sees to it
// that the stream ends as well, and closes it.
func (r *Reader) took(n int64, err error) error {
	p := r.bundle.parts[r.part]
	end := p.off + p.len
	ended := err == io.EOF // not errors.Is: a broken connection may wrap it
	switch {
	case err != nil && !ended:
		r.advance(n)
		return fmt.Errorf("transfer piece of file %d: %w", p.file, err)
	case r.pos+n < end && ended:
		r.advance(n)
		return fmt.Errorf("transfer piece of file %d: ended at byte %d of %d: %w", p.file, r.pos-p.off, p.len, io.ErrUnexpectedEOF)
	case r.pos+n == end:
		if !ended {
			err = atEnd(r.stream)
		}
		if err == io.EOF {
			err = r.closeStream()
		}
		r.advance(n)
		if err != nil {
			return fmt.Errorf("end piece of file %d: %w", p.file, err)
		}
		return nil
	}
	r.advance(n)
	return nil
}

// atEnd returns io.EOF if nothing is left in the stream.
func atEnd(stream io.Reader) error {
	var b [1]byte
	_, err := io.ReadFull(stream, b[:])
	if err == nil {
		return errTooLong
	}
	return err
}

// advance moves on by n bytes within the current part, and to the next one at its end.
func (r *Reader) advance(n int64) {
	r.pos += n
	if p := r.bundle.parts[r.part]; r.pos == p.off+p.len {
		r.part++
	}
}
