package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/flate"
	"github.com/minio/crc64nvme"
	"pgregory.net/rapid"

	"github.com/precast-ota/precast/internal/format/bundle"
)

func TestPieceDescribesItsBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		content := genContent().Draw(t, "content")
		p, z := compress(t, content)
		want := bundle.Piece{
			Raw: int64(len(content)), CRC32: crc32.ChecksumIEEE(content),
			Len: int64(len(z)), CRC64NVME: crc64nvme.Checksum(z),
		}
		if p != want {
			t.Fatalf("the piece is %+v, want %+v", p, want)
		}
		if !bytes.HasSuffix(z, []byte{0, 0, 0xff, 0xff}) {
			t.Fatal("the piece does not end with a sync flush")
		}
		// Not final: inflating the piece alone gives the content and asks for more.
		got, err := io.ReadAll(flate.NewReader(bytes.NewReader(z)))
		if err != io.ErrUnexpectedEOF || !bytes.Equal(got, content) {
			t.Fatalf("it inflates to %d bytes, error %v; want %d, %v", len(got), err, len(content), io.ErrUnexpectedEOF)
		}
		if q, err := bundle.ParseMeta(p.Meta()); err != nil || q != p {
			t.Fatalf("ParseMeta refuses it: %v", err)
		}
	})
}

// However the bytes of a binary arrive, its piece is the same.
func TestPieceDoesNotDependOnReads(t *testing.T) {
	t.Parallel()
	content := append(program(1, 200_000), noise(1, 100_000)...)
	want, wantZ := compress(t, content)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
	} {
		var z bytes.Buffer
		got, err := bundle.Compress(context.Background(), &z, wrap(bytes.NewReader(content)))
		if err != nil || got != want || !bytes.Equal(z.Bytes(), wantZ) {
			t.Errorf("%s: %+v, error %v; want %+v", name, got, err, want)
		}
	}
}

func TestCompressReportsErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	content := bytes.NewReader(noise(1, 1<<20))
	broken := io.MultiReader(io.LimitReader(content, 1000), iotest.ErrReader(errStorage))
	if p, err := bundle.Compress(ctx, io.Discard, broken); !errors.Is(err, errStorage) || p != (bundle.Piece{}) {
		t.Errorf("a reader that fails: %+v, error %v", p, err)
	}
	// A connection that breaks may say so with an error that wraps io.EOF. It is not the end.
	lost := iotest.ErrReader(errors.Join(errStorage, io.EOF))
	if _, err := bundle.Compress(ctx, io.Discard, lost); !errors.Is(err, errStorage) {
		t.Errorf("a reader that loses its connection: error %v", err)
	}
	full := writeFunc(func([]byte) (int, error) { return 0, errStorage })
	for _, n := range []int{0, 10, 1 << 20} {
		if _, err := bundle.Compress(ctx, full, bytes.NewReader(noise(1, n))); !errors.Is(err, errStorage) {
			t.Errorf("a writer that fails, %d bytes: error %v", n, err)
		}
	}
}

func TestCompressGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	reads := 0
	endless := readFunc(func(b []byte) (int, error) {
		if reads++; reads == 3 {
			cancel()
		}
		return len(b), nil
	})
	if _, err := bundle.Compress(ctx, io.Discard, endless); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
	if reads > 3 {
		t.Errorf("it reads %d times after the context is done", reads-3)
	}
}
