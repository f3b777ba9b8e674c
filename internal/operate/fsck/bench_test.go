package fsck_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// tenThousand is a data folder with that many bundles.
func tenThousand(b *testing.B) builder.Objects {
	b.Helper()
	store, err := local.Open(b.TempDir(), local.Options{})
	must(b, err)
	b.Cleanup(func() { store.Close() })
	d := pipeline.Local(store)
	fill(b, d)
	return d.Objects
}

// fill publishes 10,000 bundles of binaries of 8 KiB.
func fill(b *testing.B, d pipeline.Drivers) {
	b.Helper()
	var releases []release.Release
	for i := range 12 {
		it := catalog.Item{App: fmt.Sprint("app", i), Track: "prod", Version: "1", DeviceAttr: map[string]bool{fmt.Sprint("attr", i): true}}
		content := strings.Repeat(fmt.Sprint(i, " is the number of this binary. "), 300)[:8<<10]
		releases = append(releases, release.Release{Item: it, Open: func() (io.ReadSeekCloser, error) {
			return builder.NopCloser{ReadSeeker: strings.NewReader(content)}, nil
		}})
	}
	im := &release.Importer{Objects: d.Objects, Catalog: struct {
		builder.Catalog
		builder.CatalogWriter
	}{d.Catalog, d.Writer}}
	_, err := im.Import(b.Context(), releases, false)
	must(b, err)
	must(b, pipeline.New(d, pipeline.Config{Workers: 4}).Build(b.Context(), builder.PlanOptions{}, nil))
}

func allNeeded(b *testing.B, objects builder.Objects) []string {
	b.Helper()
	ix, _, err := builder.ReadIndex(b.Context(), objects)
	must(b, err)
	coverage := builder.Cover(ix, nil)
	keys := coverage.Keys()
	for i := range ix.Items {
		keys = append(keys, builder.PieceKey(&ix.Items[i]), builder.BinaryKey(&ix.Items[i]))
	}
	b.Logf("%d bundles", coverage.Bundles)
	slices.Sort(keys)
	return slices.Compact(keys)
}

// BenchmarkCheck checks 10,000 bundles, shallow and deep, beside what plain Stats of the same objects, one
// after the other, and SHA-256 of the same bytes take, in the same run.
func BenchmarkCheck(b *testing.B) {
	objects := tenThousand(b)
	var shallow, deep, stats, sums time.Duration
	var n, bytesRead int64
	keys := allNeeded(b, objects)
	for b.Loop() {
		timed(&shallow, func() {
			rep, err := fsck.Store(b.Context(), objects, fsck.Options{})
			must(b, err)
			if !rep.Complete() {
				b.Fatalf("%+v", rep.Problems[0])
			}
			n = int64(rep.Objects)
		})
		timed(&deep, func() {
			rep, err := fsck.Store(b.Context(), objects, fsck.Options{Deep: true})
			must(b, err)
			bytesRead = rep.Bytes
		})
		timed(&stats, func() {
			for _, key := range keys {
				_, err := objects.Stat(b.Context(), key)
				must(b, err)
			}
		})
		timed(&sums, func() {
			sha := sha256.New()
			for _, key := range keys {
				body, _, err := objects.Get(b.Context(), key, 0, -1)
				must(b, err)
				_, err = io.Copy(sha, body)
				must(b, err)
				body.Close()
			}
		})
	}
	runs := float64(b.N)
	b.ReportMetric(float64(n), "objects")
	b.ReportMetric(float64(n)*runs/shallow.Seconds(), "objects/s-shallow")
	b.ReportMetric(float64(n)*runs/deep.Seconds(), "objects/s-deep")
	b.ReportMetric(float64(bytesRead)*runs/deep.Seconds()/(1<<20), "MiB/s-deep")
	b.ReportMetric(stats.Seconds()/shallow.Seconds(), "stat/shallow")
	b.ReportMetric(sums.Seconds()/deep.Seconds(), "sha256/deep")
}

func timed(total *time.Duration, f func()) {
	start := time.Now()
	f()
	*total += time.Since(start)
}
