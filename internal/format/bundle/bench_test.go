package bundle_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/format/bundle"
)

// releases is a bundle's worth of binaries, compressed.
func releases(b *testing.B, size int) (files []bundle.File, contents, pieces [][]byte) {
	b.Helper()
	for i := range 4 {
		content := program(uint64(i), size)
		piece, z := compress(b, content)
		files = append(files, bundle.File{Name: fmt.Sprintf("app%d_1.0.0", i), Piece: piece})
		contents = append(contents, content)
		pieces = append(pieces, z)
	}
	return files, contents, pieces
}

var benchManifest = make([]byte, 1500)

func plan(b *testing.B, files []bundle.File) *bundle.Bundle {
	p, err := bundle.Compose(benchManifest, files)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// BenchmarkCompose plans bundles of large and of small binaries by turns. Planning does not depend on
// their size but for its logarithm, in combining checksums.
func BenchmarkCompose(b *testing.B) {
	large, _, _ := releases(b, 10*mib)
	small, _, _ := releases(b, 10*kib)
	var largeTime, smallTime time.Duration
	const batch = 100 // plans between two looks at the clock
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		for range batch {
			plan(b, large)
		}
		middle := time.Now()
		for range batch {
			plan(b, small)
		}
		largeTime += middle.Sub(start)
		smallTime += time.Since(middle)
	}
	perPlan := func(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(b.N*batch) }
	b.ReportMetric(perPlan(largeTime), "us/plan-4x10MiB")
	b.ReportMetric(perPlan(smallTime), "us/plan-4x10KiB")
	b.ReportMetric(largeTime.Seconds()/smallTime.Seconds(), "large/small")
}

// BenchmarkRead copies a bundle out of memory into memory, by turns with the plain copying of the
// same pieces.
func BenchmarkRead(b *testing.B) {
	files, _, pieces := releases(b, 10*mib)
	p := packed{plan(b, files), pieces}
	dst := make([]byte, p.Size())
	var plain, writeTo, read time.Duration
	b.SetBytes(3 * p.Size())
	for b.Loop() {
		start := time.Now()
		n := 0
		for _, z := range pieces {
			n += copy(dst[n:], z)
		}
		plain += time.Since(start)

		start = time.Now()
		r := p.Open(context.Background(), p.inMemory)
		if n, err := r.WriteTo(&sliceWriter{dst}); err != nil || n != p.Size() {
			b.Fatal(n, err)
		}
		writeTo += time.Since(start)

		start = time.Now()
		r = p.Open(context.Background(), p.inMemory)
		if _, err := io.ReadFull(r, dst); err != nil {
			b.Fatal(err)
		}
		read += time.Since(start)
	}
	b.ReportMetric(100*plain.Seconds()/writeTo.Seconds(), "%memcpy-WriteTo")
	b.ReportMetric(100*plain.Seconds()/read.Seconds(), "%memcpy-Read")
}

// sliceWriter copies what it is given to the front of what is left of it.
type sliceWriter struct{ left []byte }

func (w *sliceWriter) Write(b []byte) (int, error) {
	n := copy(w.left, b)
	w.left = w.left[n:]
	if n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// BenchmarkCompress makes a piece: the work that is done once per binary.
func BenchmarkCompress(b *testing.B) {
	content := program(1, 10*mib)
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	var p bundle.Piece
	for b.Loop() {
		p, _ = compress(b, content)
	}
	b.ReportMetric(100*float64(p.Len)/float64(p.Raw), "%size")
}
