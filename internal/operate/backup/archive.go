package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Archive writes a backup as a tar archive: the contents, under the names that they have in a folder, then the manifest.
type Archive struct {
	tar    *tar.Writer
	packer io.WriteCloser // nil: it is not compressed
	added  map[string]bool
	now    time.Time
}

// IsArchive tells whether a file is to be an archive, by the end of its name.
func IsArchive(name string) bool {
	for _, end := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// NewArchive writes an archive to w, compressed as the end of its name says.
func NewArchive(w io.Writer, name string) (*Archive, error) {
	a := &Archive{added: make(map[string]bool)}
	switch {
	case strings.HasSuffix(name, "gz"):
		a.packer = gzip.NewWriter(w)
	case strings.HasSuffix(name, ".zst"):
		packer, err := zstd.NewWriter(w)
		if err != nil {
			return nil, fmt.Errorf("compress the backup: %w", err)
		}
		a.packer = packer
	}
	if a.packer != nil {
		w = a.packer
	}
	a.tar = tar.NewWriter(w)
	return a, nil
}

// Before implements Sink: an archive is always a new one.
func (a *Archive) Before() (*Manifest, error) { return nil, nil }

// Has implements Sink.
func (a *Archive) Has(p Part) (bool, error) { return a.added[p.SHA256], nil }

// Add implements Sink. What cannot be read to its end is filled up, and not in the manifest.
func (a *Archive) Add(_ context.Context, p Part, body io.Reader) error {
	if err := a.begin(contentDir+"/"+p.SHA256, p.Size); err != nil {
		return err
	}
	n, err := io.Copy(a.tar, body)
	if errors.Is(err, errUnread) {
		if _, fill := io.CopyN(a.tar, zeros{}, p.Size-n); fill != nil {
			return fill
		}
	}
	if err != nil {
		return err
	}
	a.added[p.SHA256] = true
	return a.tar.Flush()
}

func (a *Archive) begin(name string, size int64) error {
	return a.tar.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, ModTime: a.now, Format: tar.FormatPAX})
}

// zeros reads zeros without an end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Commit implements Sink.
func (a *Archive) Commit(_ context.Context, m *Manifest) error {
	data, err := encodeManifest(m)
	if err != nil {
		return err
	}
	a.now = m.Made
	if err := a.begin(manifestName, int64(len(data))); err != nil {
		return err
	}
	if _, err := a.tar.Write(data); err != nil {
		return err
	}
	if err := a.tar.Close(); err != nil {
		return err
	}
	if a.packer != nil {
		return a.packer.Close()
	}
	return nil
}

// ArchiveFile is a backup in an archive, which is read from the beginning each time.
type ArchiveFile struct{ name string }

// ReadArchive opens an archive that has a backup.
func ReadArchive(name string) *ArchiveFile { return &ArchiveFile{name} }

// members calls yield for every member.
func (a *ArchiveFile) members(ctx context.Context, yield func(h *tar.Header, body io.Reader) error) error {
	file, err := os.Open(a.name)
	if err != nil {
		return fmt.Errorf("open backup: %w", err)
	}
	defer file.Close()
	body, closeAll, err := unpack(bufio.NewReaderSize(file, 1<<20))
	if err != nil {
		return err
	}
	defer closeAll()
	archive := tar.NewReader(body)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: read archive: %w", ErrDamaged, err)
		}
		if err := yield(h, archive); err != nil {
			return err
		}
	}
}

// maxWindow bounds the memory that a zstd archive can ask for, bytes.
const maxWindow = 64 << 20

// unpack reads a compressed archive, whatever its name says.
func unpack(r *bufio.Reader) (io.Reader, func(), error) {
	head, _ := r.Peek(4) // a shorter one is no archive, which its reader tells
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: read archive: %w", ErrDamaged, err)
		}
		return z, func() { z.Close() }, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: read archive: %w", ErrDamaged, err)
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

// manifest implements Source.
func (a *ArchiveFile) manifest() (m *Manifest, err error) {
	err = a.members(context.Background(), func(h *tar.Header, body io.Reader) error {
		if h.Name != manifestName {
			return nil
		}
		data, err := readMost(body, maxManifest)
		if err == nil {
			m, err = parseManifest(data)
		}
		return err
	})
	if err == nil && m == nil {
		err = fmt.Errorf("%w in %s", ErrNone, a.name)
	}
	return m, err
}

// walk implements Source.
func (a *ArchiveFile) walk(ctx context.Context, m *Manifest, yield func(p Part, body io.Reader) error) error {
	parts := make(map[string]Part)
	for _, p := range m.Parts {
		parts[contentDir+"/"+p.SHA256] = p
	}
	return a.members(ctx, func(h *tar.Header, body io.Reader) error {
		p, ok := parts[h.Name]
		if !ok || h.Typeflag != tar.TypeReg {
			return nil
		}
		return yield(p, body)
	})
}
