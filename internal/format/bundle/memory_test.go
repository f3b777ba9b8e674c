package bundle_test

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"testing"

	"github.com/precast-ota/precast/internal/format/bundle"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// allocated returns how many bytes f allocates in all, freed or not. Tests that use it must not be
// parallel: those that are wait until these are done.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// zeros yields n zeros.
type zeros struct{ n int64 }

func (z *zeros) Read(b []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), z.n)]
	clear(b)
	z.n -= int64(len(b))
	return len(b), nil
}

// drain reads all there is. (io.Discard does as well, but its pool of buffers forgets some.)
type drain struct{ buf []byte }

func (d *drain) Write(b []byte) (int, error) { return len(b), nil }

func (d *drain) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		m, err := r.Read(d.buf)
		n += int64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// What is allocated may differ by less than this between a small binary and a large one.
const slack = 128 * kib

func TestCompressTakesConstantMemory(t *testing.T) {
	compress := func(size int64) uint64 {
		return allocated(func() {
			if _, err := bundle.Compress(context.Background(), io.Discard, &zeros{size}); err != nil {
				t.Fatal(err)
			}
		})
	}
	compress(mib)
	small, large := compress(mib), compress(128*mib)
	t.Logf("1 MiB: %d KiB allocated, 128 MiB: %d KiB", small/kib, large/kib)
	if large > small+slack {
		t.Errorf("128 MiB take %d KiB, 1 MiB %d KiB", large/kib, small/kib)
	}
	if small > 4*mib {
		t.Errorf("a small binary takes %d KiB", small/kib)
	}
}

func TestReaderTakesConstantMemory(t *testing.T) {
	read := func(size int64, w io.Writer, wrap func(io.Reader) io.Reader) uint64 {
		b, err := bundle.Compose([]byte("[]"), []bundle.File{
			{Name: "a", Piece: bundle.Piece{Raw: size, Len: size}},
			{Name: "b", Piece: bundle.Piece{Raw: size, Len: size}},
		})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 32*kib)
		return allocated(func() {
			r := b.Open(context.Background(), func(_ context.Context, _ int, off int64) (io.ReadCloser, error) {
				return io.NopCloser(&zeros{size - off}), nil
			})
			n, err := io.CopyBuffer(w, wrap(r), buf)
			if err != nil || n != b.Size() {
				t.Fatalf("%d of %d bytes, error %v", n, b.Size(), err)
			}
		})
	}
	asReader := func(r io.Reader) io.Reader { return onlyReader{r} }
	asWriterTo := func(r io.Reader) io.Reader { return r }
	for _, way := range []struct {
		name string
		w    io.Writer
		wrap func(io.Reader) io.Reader
	}{
		{"Read", onlyWriter{io.Discard}, asReader},
		{"WriteTo a writer", onlyWriter{io.Discard}, asWriterTo},
		{"WriteTo a reader-from", &drain{buf: make([]byte, 32*kib)}, asWriterTo},
	} {
		read(mib, way.w, way.wrap)
		small, large := read(mib, way.w, way.wrap), read(256*mib, way.w, way.wrap)
		t.Logf("%s: 2 x 1 MiB: %d bytes allocated, 2 x 256 MiB: %d", way.name, small, large)
		if large > small+slack || small > slack {
			t.Errorf("%s: 2 x 256 MiB take %d bytes, 2 x 1 MiB %d", way.name, large, small)
		}
	}
}

// A plan holds the manifest and a few hundred bytes per file, whatever the size of the binaries.
func TestPlanTakesConstantMemory(t *testing.T) {
	manifest := bytes.Repeat([]byte("x"), 1000)
	plan := func(size int64) uint64 {
		files := []bundle.File{{Name: "a", Piece: bundle.Piece{Raw: size, Len: size}}}
		least := uint64(1 << 63) // the runtime's own goroutines allocate now and then
		for range 20 {
			least = min(least, allocated(func() {
				if _, err := bundle.Compose(manifest, files); err != nil {
					t.Fatal(err)
				}
			}))
		}
		return least
	}
	if small, large := plan(kib), plan(4*gib); large > small+kib {
		t.Errorf("a binary of 4 GiB takes %d bytes, one of 1 KiB %d", large, small)
	}
}
