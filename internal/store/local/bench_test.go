package local

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

const benchSize = 20 << 20

// BenchmarkPut is one object of 20 MiB, against BenchmarkCopy, which copies and syncs a file.
func BenchmarkPut(b *testing.B) {
	o, err := OpenObjects(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	src := benchFile(b)
	sum := crc64nvme.New()
	if _, err := io.Copy(sum, src); err != nil {
		b.Fatal(err)
	}
	body := builder.Body{Reader: src, Size: benchSize, CRC64NVME: sum.Sum64(), Checked: true}
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := o.Put(b.Context(), layout.PlanKey(uint64(i%8)), body, builder.PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCopy(b *testing.B) {
	src, dir := benchFile(b), b.TempDir()
	b.SetBytes(benchSize)
	for i := 0; b.Loop(); i++ {
		if _, err := src.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		dst, err := os.Create(filepath.Join(dir, strconv.Itoa(i%8)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(dst, src); err != nil {
			b.Fatal(err)
		}
		if err := dst.Sync(); err != nil {
			b.Fatal(err)
		}
		dst.Close()
	}
}

func benchFile(b *testing.B) *os.File {
	path := filepath.Join(b.TempDir(), "source")
	if err := os.WriteFile(path, bytes.Repeat([]byte("0123456789abcdef"), benchSize/16), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}

func BenchmarkPutSmall(b *testing.B) {
	o, err := OpenObjects(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := o.Put(b.Context(), layout.PlanKey(uint64(i)), bodyOf("small"), builder.PutOptions{IfAbsent: true}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	o, err := OpenObjects(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := o.Put(b.Context(), layout.IndexKey, bodyOf("small"), builder.PutOptions{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, _, err := o.Get(b.Context(), layout.IndexKey, 0, -1)
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}

// BenchmarkQueue sends, receives and deletes a message, with so many others waiting behind or in
// flight: the cost must not depend on how many.
func BenchmarkQueue(b *testing.B) {
	for _, depth := range []int{0, 1000, 100_000} {
		b.Run(strconv.Itoa(depth), func(b *testing.B) {
			s, err := Open(b.TempDir(), Options{MaxReceives: 1 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			q := s.Queue()
			for left := depth; left > 0; left -= 1000 {
				if err := q.Send(b.Context(), make([][]byte, min(left, 1000))...); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if err := q.Send(b.Context(), []byte(`{"job":1}`)); err != nil {
					b.Fatal(err)
				}
				msgs, err := q.Receive(b.Context(), 1, time.Hour, 0)
				if err != nil || len(msgs) != 1 {
					b.Fatal(msgs, err)
				}
				if err := q.Delete(b.Context(), msgs[0].Receipt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
