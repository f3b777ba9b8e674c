package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/layout"
)

// tb is what testing.TB and *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// binary is one file of a test bundle.
type binary struct {
	name    string
	content []byte
}

// packed is a composed bundle with the bytes of its pieces.
type packed struct {
	*bundle.Bundle
	pieces [][]byte
}

// pack compresses the binaries and composes a bundle of them.
func pack(t tb, manifest []byte, binaries ...binary) packed {
	t.Helper()
	var p packed
	files := make([]bundle.File, len(binaries))
	for i, b := range binaries {
		piece, z := compress(t, b.content)
		files[i] = bundle.File{Name: b.name, Piece: piece}
		p.pieces = append(p.pieces, z)
	}
	b, err := bundle.Compose(manifest, files)
	if err != nil {
		t.Fatalf("compose: %v", err)
	}
	p.Bundle = b
	return p
}

func compress(t tb, content []byte) (bundle.Piece, []byte) {
	t.Helper()
	var z bytes.Buffer
	piece, err := bundle.Compress(context.Background(), &z, bytes.NewReader(content))
	if err != nil {
		t.Fatalf("compress: %v", err)
	}
	return piece, z.Bytes()
}

// inMemory opens pieces as streams that implement io.WriterTo.
func (p packed) inMemory(_ context.Context, i int, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(p.pieces[i][off:])), nil
}

// remote opens pieces as streams that can do nothing but read and close, like those of a network.
func (p packed) remote(_ context.Context, i int, off int64) (io.ReadCloser, error) {
	return struct{ io.ReadCloser }{io.NopCloser(onlyReader{bytes.NewReader(p.pieces[i][off:])})}, nil
}

type onlyReader struct{ io.Reader }

type onlyWriter struct{ io.Writer }

// inFiles writes the pieces to a directory and opens them there.
func (p packed) inFiles(t testing.TB) bundle.OpenPiece {
	t.Helper()
	dir := t.TempDir()
	name := func(i int) string { return filepath.Join(dir, string(rune('a'+i))) }
	for i, z := range p.pieces {
		if err := os.WriteFile(name(i), z, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(_ context.Context, i int, off int64) (io.ReadCloser, error) {
		f, err := os.Open(name(i))
		if err != nil {
			return nil, err
		}
		_, err = f.Seek(off, io.SeekStart)
		return f, err
	}
}

// bytes reads the whole bundle.
func (p packed) bytes(t tb) []byte {
	t.Helper()
	r := p.Open(context.Background(), p.remote)
	all, err := io.ReadAll(onlyReader{r})
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read bundle: %v", err)
	}
	return all
}

// unpack reads a bundle with the standard library: one gzip member, nothing after it, and in it a
// tar archive with nothing after its end.
func unpack(t tb, whole []byte) (headers []*tar.Header, contents [][]byte) {
	t.Helper()
	rest := bytes.NewReader(whole) // an io.ByteReader: gzip takes no byte too many
	z, err := gzip.NewReader(rest)
	if err != nil {
		t.Fatalf("open gzip: %v", err)
	}
	z.Multistream(false)
	archive := tar.NewReader(z)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("read tar: %v", err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatalf("read %q: %v", h.Name, err)
		}
		headers = append(headers, h)
		contents = append(contents, content)
	}
	if tail, err := io.ReadAll(z); err != nil || len(tail) != 0 {
		t.Fatalf("%d bytes after the end of the archive, error %v", len(tail), err)
	}
	if rest.Len() != 0 {
		t.Fatalf("%d bytes after the gzip member", rest.Len())
	}
	return headers, contents
}

// wantContents fails unless the archive holds the manifest and the binaries, in order, and nothing
// else.
func wantContents(t tb, whole, manifest []byte, binaries []binary) {
	t.Helper()
	headers, contents := unpack(t, whole)
	want := append([]binary{{layout.ManifestName, manifest}}, binaries...)
	if len(headers) != len(want) {
		t.Fatalf("the archive has %d files, want %d", len(headers), len(want))
	}
	for i, w := range want {
		h := headers[i]
		mode := int64(0o755)
		if i == 0 {
			mode = 0o644
		}
		if h.Name != w.name || h.Mode != mode || h.Typeflag != tar.TypeReg {
			t.Fatalf("file %d is %q, mode %o, type %c; want %q, mode %o, regular", i, h.Name, h.Mode, h.Typeflag, w.name, mode)
		}
		if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Fatalf("the header of %q tells of its maker: %+v", h.Name, h)
		}
		if !bytes.Equal(contents[i], w.content) {
			t.Fatalf("%q has %d bytes that differ from the %d it was made of", w.name, len(contents[i]), len(w.content))
		}
	}
}

// program returns bytes about as compressible as machine code.
func program(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n+256)
	for len(b) < n {
		switch {
		case len(b) > 64 && r.IntN(3) != 0: // repeat something
			from := len(b) - 1 - r.IntN(min(len(b)-1, 30_000))
			b = append(b, b[from:min(len(b), from+4+r.IntN(20))]...)
		default:
			for range 4 + r.IntN(12) {
				b = append(b, byte(r.Uint32()))
			}
		}
	}
	return b[:n]
}

// noise returns bytes that cannot be compressed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}
