package history_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// conditional counts writes, and those of them that are conditional on what they replace.
type conditional struct {
	builder.Objects
	mu                   sync.Mutex
	writes, replacements int
}

func (c *conditional) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	c.mu.Lock()
	c.writes++
	if opt.IfMatch != "" {
		c.replacements++
	}
	c.mu.Unlock()
	return c.Objects.Put(ctx, key, body, opt)
}

// published counts what a CDN is told: it makes one invalidation of each.
type published struct {
	builder.Silent
	mu sync.Mutex
	n  int
}

func (p *published) Published(context.Context, builder.Published) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
}

// BenchmarkRollback goes back and forth between two generations of a data folder on the disk, with 8 apps for one
// attribute each: until the index is written, and until all that devices may ask for has been looked up.
func BenchmarkRollback(b *testing.B) {
	ctx := b.Context()
	store, err := local.Open(b.TempDir(), local.Options{})
	must(b, err)
	b.Cleanup(func() { store.Close() })
	d := pipeline.Local(store)
	for generation := range 3 {
		var releases []release.Release
		for i := range 8 {
			it := catalog.Item{App: fmt.Sprint("app", i), Track: "prod", Version: fmt.Sprint(generation), DeviceAttr: map[string]bool{fmt.Sprint("attr", i): true}}
			content := fmt.Sprint(strings.Repeat("content ", 1000), i, generation)
			releases = append(releases, release.Release{Item: it, Open: func() (io.ReadSeekCloser, error) {
				return builder.NopCloser{ReadSeeker: strings.NewReader(content)}, nil
			}})
		}
		im := &release.Importer{Objects: d.Objects, Catalog: store.Catalog()}
		_, err := im.Import(ctx, releases, false)
		must(b, err)
		must(b, pipeline.New(d, pipeline.Config{}).Build(ctx, builder.PlanOptions{}, nil))
	}
	objects, told := &conditional{Objects: d.Objects}, &published{}
	d.Objects = objects
	// Whoever publishes makes the copy for the history; a rollback leaves its own to the next. Not counted here.
	remember := func() {
		ix, _, err := builder.ReadIndex(ctx, store.Objects())
		must(b, err)
		must(b, builder.Remember(ctx, store.Objects(), ix))
	}
	st := pipeline.New(d, pipeline.Config{Builder: builder.Options{Observer: told}})
	var written, checked float64
	n := uint64(0)
	for b.Loop() {
		// Generation 3 is published at first, then 4, 5, 6 and so on, with the content of 2, 3, 2, 3.
		res, err := st.Rollback(ctx, history.Request{Generation: 2 + n})
		must(b, err)
		if res.Problem != "" || len(res.Missing) > 0 {
			b.Fatalf("%+v", res)
		}
		n++
		written += res.Seconds
		checked += res.Checked
		b.StopTimer()
		remember()
		b.StartTimer()
	}
	runs := float64(b.N)
	b.ReportMetric(written*1e3/runs, "ms-to-written")
	b.ReportMetric(checked*1e3/runs, "ms-to-checked")
	b.ReportMetric(float64(objects.writes)/runs, "writes/op")
	b.ReportMetric(float64(objects.replacements)/runs, "conditional-writes/op")
	b.ReportMetric(float64(told.n)/runs, "invalidations/op")
}
