//go:build unix

package bundle_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/precast-ota/precast/internal/format/layout"
)

// cpuTime is what this process has used so far, all of its threads.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkVsNaive makes a bundle of four binaries of 10 MiB in memory, by composing and reading it
// and by turns in the usual way: archive/tar into gzip of the same level.
func BenchmarkVsNaive(b *testing.B) {
	files, contents, pieces := releases(b, 10*mib)
	size := plan(b, files).Size()
	var out bytes.Buffer
	out.Grow(int(2 * size))
	out.Write(make([]byte, 2*size)) // so that neither pays for the first use of the memory
	var composed, naive time.Duration
	const batch = 20 // bundles between two looks at the clock: it may be as coarse as a scheduler's tick
	for b.Loop() {
		start := cpuTime(b)
		for range batch {
			out.Reset()
			p := packed{plan(b, files), pieces}
			if _, err := io.Copy(&out, p.Open(context.Background(), p.inMemory)); err != nil {
				b.Fatal(err)
			}
		}
		middle := cpuTime(b)
		out.Reset()
		z, err := gzip.NewWriterLevel(&out, 6)
		if err != nil {
			b.Fatal(err)
		}
		archive := tar.NewWriter(z)
		write := func(name string, mode int64, content []byte) {
			if err := archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
				b.Fatal(err)
			}
			if _, err := archive.Write(content); err != nil {
				b.Fatal(err)
			}
		}
		write(layout.ManifestName, 0o644, benchManifest)
		for i, f := range files {
			write(f.Name, 0o755, contents[i])
		}
		if err := archive.Close(); err != nil {
			b.Fatal(err)
		}
		if err := z.Close(); err != nil {
			b.Fatal(err)
		}
		composed += (middle - start) / batch
		naive += cpuTime(b) - middle
	}
	b.ReportMetric(composed.Seconds()*1e3/float64(b.N), "cpu-ms/composed")
	b.ReportMetric(naive.Seconds()*1e3/float64(b.N), "cpu-ms/naive")
	b.ReportMetric(naive.Seconds()/composed.Seconds(), "naive/composed")
}
