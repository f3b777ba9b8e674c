package builder_test

import (
	"context"
	"io"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// nth calls a function once, before the read or write with this number.
type nth struct {
	builder.Objects
	left atomic.Int64
	do   func()
}

func (n *nth) step() {
	if n.left.Add(-1) == -1 {
		n.do()
	}
}

func (n *nth) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, builder.ObjectInfo, error) {
	n.step()
	return n.Objects.Get(ctx, key, off, length)
}

func (n *nth) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	n.step()
	return n.Objects.Put(ctx, key, body, opt)
}

// Wherever an older plan is published while a newer one is built, the newer one is compared with it and published over
// it, complete.
func TestAnOlderPlanThatIsPublishedMeanwhileIsReplaced(t *testing.T) {
	params := builder.DefaultParams()
	params.SubsetItems = 0 // upgrade paths only
	for at := 0; ; at++ {
		w := newWorld(t, t.TempDir(), builder.Options{Params: params})
		defer w.close()
		w.put("a", "prod", "1", "one", "x")
		w.put("c", "prod", "1", "three", "x")
		w.put("b", "prod", "1", "first", "x")
		w.build(builder.PlanOptions{})
		objects := w.drivers.Objects
		first, _, err := builder.ReadIndex(t.Context(), objects)
		must(t, err)

		overtaken, published := false, false
		slow := w.drivers.Ports
		before := &nth{Objects: objects, do: func() {
			overtaken = true
			now, etag, err := builder.ReadIndex(t.Context(), objects)
			must(t, err)
			if now.Sequence > first.Sequence {
				return // the newer one has been published
			}
			// It has nothing prebuilt, and there is another upgrade path from it than from the first one.
			other := now.With(now.Generation + 1)
			other.Params.MaxBundles = 0
			other.Items = slices.Clone(now.Items)
			other.Items[0].SHA256[0]++
			_, err = objects.Put(t.Context(), layout.IndexKey, builder.BytesBody(other.Encode()), builder.PutOptions{IfMatch: etag})
			must(t, err)
			must(t, builder.Remember(t.Context(), objects, other))
			published = true
		}}
		before.left.Store(int64(at))
		slow.Objects = before
		w.put("b", "prod", "2", "second", "x")
		w.request()
		w.pump(builder.New(slow, w.opt), nil)
		if !overtaken {
			if at < 10 {
				t.Fatalf("a change takes %d reads and writes", at)
			}
			return
		}
		want := uint64(2)
		if published {
			want++
		}
		if got := w.versions(); !slices.Equal(got, []string{"a/prod 1", "b/prod 2", "c/prod 1"}) || w.generation() != want {
			t.Fatalf("overtaken at %d: published %v as generation %d, want %d", at, got, w.generation(), want)
		}
		w.checkComplete()
		ix, _, err := builder.ReadIndex(t.Context(), objects)
		must(t, err)
		coverage, err := builder.CoverPublished(t.Context(), objects, ix)
		must(t, err)
		for _, key := range coverage.Keys() {
			w.read(key) // upgrade paths, too
		}
	}
}
