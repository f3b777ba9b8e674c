//go:build unix

package builder_test

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/seed"
)

// cpu is the processor time that this process has used, user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails for the process itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBuildOfTheSample compares, in one run, a full build of 529 bundles of real code, the build
// after one item's change, and what writing each bundle by archive/tar and gzip level 6 takes. The
// builds sync every object to disk, the naive way does not even write to one.
func BenchmarkBuildOfTheSample(b *testing.B) {
	var full, incremental, naive, fullCPU, incrementalCPU, naiveCPU time.Duration
	for b.Loop() {
		dir, err := os.MkdirTemp("", "precast-bench-")
		if err != nil {
			b.Fatal(err)
		}
		w := newWorld(b, filepath.Join(dir, "data"), builder.Options{})
		for i, it := range seed.SampleItems() {
			w.put(it.App, it.Track, it.Version, program(b, i), it.Attrs()...)
		}
		measure(&full, &fullCPU, func() { w.build(builder.PlanOptions{}) })
		ix, _, err := builder.ReadIndex(context.Background(), w.base.Objects)
		if err != nil {
			b.Fatal(err)
		}
		measure(&naive, &naiveCPU, func() {
			for _, s := range builder.Cover(ix, nil).Sets {
				for _, m := range s.Masks {
					z, _ := gzip.NewWriterLevel(io.Discard, 6) // a valid level
					t := tar.NewWriter(z)
					data, err := manifest.New(s.Set, m).Encode()
					if err != nil {
						b.Fatal(err)
					}
					write := func(name string, content []byte) {
						if err := t.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o755}); err != nil {
							b.Fatal(err)
						}
						if _, err := t.Write(content); err != nil {
							b.Fatal(err)
						}
					}
					write(layout.ManifestName, data)
					for i := range s.Set.Len() {
						if it := s.Set.Item(i); !m.Has(i) {
							write(layout.FileName(it.App, it.Version), []byte(w.read(layout.BinaryKey(edge.Hex(it.SHA256[:]), it.App, it.Version))))
						}
					}
					if err := t.Close(); err != nil {
						b.Fatal(err)
					}
					if err := z.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		w.put("modemFW", "prod", "1.1", program(b, 20), "cellular")
		measure(&incremental, &incrementalCPU, func() { w.build(builder.PlanOptions{}) })
		w.close()
		os.RemoveAll(dir)
	}
	b.ReportMetric(float64(naiveCPU)/float64(fullCPU), "naive/full-cpu")
	b.ReportMetric(float64(naive)/float64(full), "naive/full-time")
	b.ReportMetric(float64(full)/float64(incremental), "full/incremental-time")
	b.ReportMetric(float64(fullCPU)/float64(incrementalCPU), "full/incremental-cpu")
}

// BenchmarkWorkers builds more than 1,000 bundles with 1, 2 and 4 workers.
func BenchmarkWorkers(b *testing.B) {
	took := make(map[int]time.Duration)
	for b.Loop() {
		for _, workers := range []int{1, 2, 4} {
			dir, err := os.MkdirTemp("", "precast-bench-")
			if err != nil {
				b.Fatal(err)
			}
			w := newWorld(b, filepath.Join(dir, "data"), builder.Options{PartBytes: 4 << 20, Concurrency: 1})
			w.seed(64 << 10)
			w.put("extra", "prod", "1", "one more attribute", "extra")
			s := pipeline.New(w.drivers, pipeline.Config{Builder: w.opt, Workers: workers})
			start := time.Now()
			if err := s.Build(context.Background(), builder.PlanOptions{}, nil); err != nil {
				b.Fatal(err)
			}
			took[workers] += time.Since(start)
			if n := w.events.writtenUnder(layout.BundlePrefix); n < 1000 {
				b.Fatalf("only %d bundles", n)
			}
			w.close()
			os.RemoveAll(dir)
		}
	}
	b.ReportMetric(float64(took[1])/float64(took[2]), "1-worker/2-workers")
	b.ReportMetric(float64(took[1])/float64(took[4]), "1-worker/4-workers")
}

func measure(wall, processor *time.Duration, f func()) {
	start, before := time.Now(), cpu()
	f()
	*wall += time.Since(start)
	*processor += cpu() - before
}

// program is half a MiB of real machine code and data: the nth piece of this very program.
func program(b *testing.B, n int) string {
	const size = 512 << 10
	path, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, size)
	if _, err := f.ReadAt(data, int64(n)*size); err != nil {
		b.Fatal(err)
	}
	return string(data)
}
