package release

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// Nothing that an archive says of itself is believed: memory and time are bounded by what has been read of it, and by
// these.
const (
	// maxDepth bounds the folders above a file: they are not counted among its files.
	maxDepth = 16
	// maxWindow is how much a decompressor may keep of what it has put out: as much as zstd -22 and xz -9 need.
	maxWindow = 128 << 20
	// memberOverhead is what a member's headers may take besides its content, on average, in bytes.
	memberOverhead = 4 << 10
	// baseOverhead is what an archive may take besides its members: GNU tar fills up its last record.
	baseOverhead = 4 << 20
	// maxTarget bounds where a symbolic link leads, in bytes.
	maxTarget = 4096
)

// Limits bound what an archive may unpack to, so that a small file cannot fill the disk.
type Limits struct {
	Files int   // with folders and links
	Bytes int64 // of all of them
}

// DefaultLimits are those of an Importer that has none.
func DefaultLimits() Limits { return Limits{Files: 10_000, Bytes: 32 << 30} }

// overhead is what headers may take.
func (l Limits) overhead() int64 { return int64(l.Files)*memberOverhead + baseOverhead }

var (
	errTooMuch = errors.New("it unpacks to more bytes than are allowed (--bytes)")
	errTooMany = errors.New("it holds too many files (--files)")
	errFormat  = errors.New("it is in no format that can be read: those are zip, and tar, plain or compressed with gzip, zstd or xz (a catalog file ends in .json)")
)

// member is one entry of an archive.
type member struct {
	name string
	mode fs.FileMode // the type, and for a hard link that of a regular file
	// target is where a link leads: for a hard link another member, for a symbolic one a path from its own folder.
	target string
	body   func() (io.ReadCloser, error) // of a file
}

// members passes every member of an archive to each, in its order. Which format it is in, its content tells.
func members(ctx context.Context, f *os.File, limits Limits, each func(member) error) error {
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if m := string(magic); m == "PK\x03\x04" || m == "PK\x05\x06" {
		return zipMembers(ctx, f, limits, each)
	}
	in := bufio.NewReader(contextReader{ctx, f})
	stream, closeStream, err := decompress(in)
	if err != nil {
		return err
	}
	defer closeStream()
	return tarMembers(&bounded{stream, limits.Bytes + min(limits.overhead(), math.MaxInt64-limits.Bytes)}, each)
}

func decompress(in *bufio.Reader) (io.Reader, func(), error) {
	magic, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(in)
		return z, func() {}, err
	case bytes.HasPrefix(magic, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		z, err := xz.NewReader(in, maxWindow)
		return z, func() {}, err
	}
	return in, func() {}, nil
}

// bounded fails once more has been read than is left.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooMuch
	}
	return n, err
}

func tarMembers(stream io.Reader, each func(member) error) error {
	r := tar.NewReader(stream)
	for first := true; ; first = false {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			// What follows is filling, and the checksum of the compressed stream.
			_, err := io.Copy(io.Discard, stream)
			return err
		}
		if first && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)) {
			return errFormat
		}
		if err != nil {
			return err
		}
		m := member{name: h.Name, mode: h.FileInfo().Mode().Type(), body: func() (io.ReadCloser, error) { return io.NopCloser(r), nil }}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir:
		case tar.TypeXGlobalHeader: // says something of the members after it
			m.mode = fs.ModeDir
		case tar.TypeLink:
			m.mode, m.target = 0, h.Linkname
		case tar.TypeSymlink:
			m.target = h.Linkname
		case tar.TypeGNUSparse:
			return fmt.Errorf("%q is stored as a sparse file: pack it without --sparse", h.Name)
		default:
			m.mode = fs.ModeIrregular
		}
		for record := range h.PAXRecords {
			if strings.HasPrefix(record, "GNU.sparse.") {
				return fmt.Errorf("%q is stored as a sparse file: pack it without --sparse", h.Name)
			}
		}
		if err := each(m); err != nil {
			return err
		}
	}
}

func zipMembers(ctx context.Context, f *os.File, limits Limits, each func(member) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// The whole directory is kept in memory, and room is made for as many members as it claims.
	claimed, err := zipClaims(f, info.Size())
	if err != nil {
		return err
	}
	if claimed > uint64(limits.Files) {
		return errTooMany
	}
	in := &boundedAt{f, min(limits.overhead(), int64(limits.Files)*512+baseOverhead)}
	r, err := zip.NewReader(in, info.Size())
	if err != nil {
		return err
	}
	in.left = math.MaxInt64
	for _, file := range r.File {
		m := member{name: file.Name, mode: file.Mode().Type()}
		m.body = func() (io.ReadCloser, error) {
			body, err := file.Open()
			return struct {
				io.Reader
				io.Closer
			}{contextReader{ctx, body}, body}, err
		}
		if file.Flags&1 != 0 {
			return fmt.Errorf("%q is encrypted", file.Name)
		}
		if m.mode&fs.ModeSymlink != 0 {
			if m.target, err = content(m.body); err != nil {
				return fmt.Errorf("read %q: %w", file.Name, err)
			}
		}
		if err := each(m); err != nil {
			return err
		}
	}
	return nil
}

// content is a link's target, which zip keeps where a file's content is.
func content(open func() (io.ReadCloser, error)) (string, error) {
	body, err := open()
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxTarget+1))
	if err == nil && len(data) > maxTarget {
		err = fmt.Errorf("it leads to a path longer than %d bytes", maxTarget)
	}
	return string(data), err
}

// zipClaims is how many members the end of a zip archive claims that there are
// (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.14 to 4.3.16).
func zipClaims(r io.ReaderAt, size int64) (uint64, error) {
	const endLength, locatorLength, end64Length = 22, 20, 56
	tail := make([]byte, min(size, 65<<10+locatorLength))
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	at := bytes.LastIndex(tail[:max(len(tail)-endLength+4, 0)], []byte("PK\x05\x06"))
	if at < 0 {
		return 0, zip.ErrFormat
	}
	claimed := uint64(binary.LittleEndian.Uint16(tail[at+10:]))
	if at < locatorLength || !bytes.HasPrefix(tail[at-locatorLength:], []byte("PK\x06\x07")) {
		return claimed, nil
	}
	end := make([]byte, end64Length)
	offset := binary.LittleEndian.Uint64(tail[at-locatorLength+8:])
	if offset >= uint64(size) {
		return 0, zip.ErrFormat
	}
	if _, err := r.ReadAt(end, int64(offset)); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return max(claimed, binary.LittleEndian.Uint64(end[32:])), nil
}

// boundedAt is bounded for an io.ReaderAt.
type boundedAt struct {
	r    io.ReaderAt
	left int64
}

func (b *boundedAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.r.ReadAt(p, off)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooMany
	}
	return n, err
}

// unpacker writes members below root.
type unpacker struct {
	root *os.Root
	left Limits
}

func (u *unpacker) member(m member) error {
	if u.left.Files--; u.left.Files < 0 {
		return errTooMany
	}
	name := strings.TrimPrefix(m.name, "./")
	link := m.target != "" || m.mode&fs.ModeSymlink != 0
	if m.mode.IsDir() || name == "" || name == "." {
		return nil
	}
	if !link && !m.mode.IsRegular() {
		return fmt.Errorf("%q is not a regular file", m.name)
	}
	if !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00") || !filepath.IsLocal(filepath.FromSlash(name)) {
		return fmt.Errorf("%q leads out of the archive", m.name)
	}
	if strings.Count(name, "/") > maxDepth {
		return fmt.Errorf("%q lies too deep", m.name)
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	write := u.file
	if link {
		write = u.link
	}
	err := write(name, m)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%q is in it twice", name)
	}
	return err
}

func (u *unpacker) file(name string, m member) error {
	in, err := m.body()
	if err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	defer in.Close()
	out, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	// The size that an archive states is not believed: what comes out is counted.
	n, err := io.Copy(out, io.LimitReader(in, min(u.left.Bytes, math.MaxInt64-1)+1))
	if err != nil {
		return fmt.Errorf("unpack %q: %w", name, err)
	}
	if u.left.Bytes -= n; u.left.Bytes < 0 {
		return errTooMuch
	}
	return out.Close()
}

// link makes a link as the archive has it, so that an archive means what the folder meant that it was made of. The
// Root follows none that leaves it.
func (u *unpacker) link(name string, m member) error {
	if m.mode&fs.ModeSymlink != 0 {
		if leadsOut(name, m.target) {
			return fmt.Errorf("%q is a link to %q, which leads out of the archive", name, m.target)
		}
		return u.root.Symlink(m.target, name)
	}
	target := strings.TrimPrefix(m.target, "./")
	if leadsOut(".", target) {
		return fmt.Errorf("%q is a link to %q, which leads out of the archive", name, m.target)
	}
	err := u.root.Link(target, name)
	if errors.Is(err, fs.ErrExist) && u.same(target, name) {
		return nil // GNU tar writes a file that it is given twice as a link to itself
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%q is a link to %q, which is not before it in the archive", name, m.target)
	}
	return err
}

func (u *unpacker) same(a, b string) bool {
	one, err := u.root.Lstat(a)
	if err != nil {
		return false
	}
	other, err := u.root.Lstat(b)
	return err == nil && os.SameFile(one, other)
}
