package pipeline_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// copies counts the bundles and manifests that are stored.
func copies(t *testing.T, d pipeline.Drivers) (n int) {
	t.Helper()
	for _, prefix := range []string{layout.BundlePrefix, layout.ManifestPrefix} {
		must(t, d.Objects.List(t.Context(), prefix, func(builder.ObjectInfo) error { n++; return nil }))
	}
	return n
}

// C19: a folder from before is full of copies. The next plan publishes it without; they are removed then, and no rollback
// writes them again.
func TestC19AFolderFromBefore(t *testing.T) {
	d := open(t, local.Options{})
	with := pipeline.New(d, pipeline.Config{})
	put(t, d, "os_a", "1", 1000, 1)
	put(t, d, "b", "1", 1000, 2)
	must(t, with.Build(t.Context(), builder.PlanOptions{}, nil))
	before := copies(t, d)
	if before == 0 {
		t.Fatal("there are no copies")
	}

	opt := without(t)
	opt.Clock.Time = func() time.Time { return time.Now().Add(time.Hour) }
	p := pipeline.New(d, pipeline.Config{Builder: opt, History: 90 * 24 * time.Hour})
	if rep, err := p.Collect(t.Context()); err != nil || rep.Removed().Objects > 0 {
		t.Fatalf("what is published with copies lost %+v, %v", rep, err)
	}
	put(t, d, "b", "2", 1000, 3)
	must(t, p.Build(t.Context(), builder.PlanOptions{}, nil))
	rep, err := p.Collect(t.Context())
	must(t, err)
	if n := copies(t, d); n > 0 || rep.Removed().Objects < before {
		t.Fatalf("%d copies are left of %d: %+v", n, before, rep)
	}
	complete(t, d.Objects)

	res, err := p.Rollback(t.Context(), history.Request{Generation: 1})
	must(t, err)
	_, err = p.Unpin(t.Context(), catalog.Author{})
	must(t, err)
	must(t, p.Build(t.Context(), builder.PlanOptions{}, nil)) // does the jobs that there are
	if n := copies(t, d); n > 0 || len(res.Missing) > 0 || res.Lacking > 0 {
		t.Fatalf("a rollback wrote %d copies: %+v", n, res)
	}
	must(t, with.Build(t.Context(), builder.PlanOptions{}, nil))
	if n := copies(t, d); n < before {
		t.Fatalf("with copies again there are %d", n)
	}
	complete(t, d.Objects)
}

// C19: fsck proves that every combination can be answered: a piece that is gone or damaged is found and made again, and
// so is an index that this program does not compose for.
func TestC19FsckProvesThatEveryCombinationCanBeAnswered(t *testing.T) {
	d := open(t, local.Options{})
	p := pipeline.New(d, pipeline.Config{Builder: without(t)})
	put(t, d, "os_a", "1", 1000, 1)
	put(t, d, "b", "1", 1000, 2)
	must(t, p.Build(t.Context(), builder.PlanOptions{}, nil))
	complete(t, d.Objects)
	ix, etag, err := builder.ReadIndex(t.Context(), d.Objects)
	must(t, err)

	must(t, d.Disk.Delete(t.Context(), builder.PieceKey(&ix.Items[0])))
	rep, err := fsck.Store(t.Context(), d.Objects, fsck.Options{})
	must(t, err)
	if len(rep.Problems) != 1 || rep.Problems[0].Kind != fsck.Missing || !strings.Contains(rep.Problems[0].Devices, "503") {
		t.Fatalf("a piece is gone: %+v", rep.Problems)
	}
	must(t, (&fsck.Repairer{Objects: d.Objects}).Repair(t.Context(), rep))
	complete(t, d.Objects)

	other := *ix
	other.Format = "2.other"
	_, err = d.Objects.Put(t.Context(), layout.IndexKey, builder.BytesBody(other.Encode()), builder.PutOptions{IfMatch: etag})
	must(t, err)
	if rep, err = fsck.Store(t.Context(), d.Objects, fsck.Options{}); err != nil || rep.Complete() || rep.Problems[0].Key != layout.IndexKey {
		t.Fatalf("an index that nobody composes for: %+v, %v", rep, err)
	}
	must(t, p.Build(t.Context(), builder.PlanOptions{}, nil))
	complete(t, d.Objects)
}

// A program with another encoder answers from the pieces that are there, until its own are made.
func TestPiecesOfAnotherEncoderAreComposed(t *testing.T) {
	d := open(t, local.Options{})
	put(t, d, "os_a", "1", 1000, 1)
	must(t, pipeline.New(d, pipeline.Config{Builder: without(t)}).Build(t.Context(), builder.PlanOptions{}, nil))
	ix, _, err := builder.ReadIndex(t.Context(), d.Objects)
	must(t, err)
	old := *ix
	old.Format = strings.Replace(ix.Format, bundle.EncoderID, "older-1", 1)
	key, ok := builder.PieceKeyIn(&old, &ix.Items[0])
	if !ok || !strings.HasSuffix(key, "/older-1") {
		t.Fatal(key, ok)
	}
	body, info, err := d.Objects.Get(t.Context(), builder.PieceKey(&ix.Items[0]), 0, -1)
	must(t, err)
	defer body.Close()
	piece, err := io.ReadAll(body)
	must(t, err)
	_, err = d.Objects.Put(t.Context(), key, builder.BytesBody(piece), builder.PutOptions{Meta: info.Meta})
	must(t, err)
	read := func(set edge.Set) []byte {
		t.Helper()
		answer, err := builder.NewComposer(d.Objects).Compose(t.Context(), layout.Bundle, set, edge.Mask{})
		must(t, err)
		defer answer.Close()
		data, err := io.ReadAll(answer)
		must(t, err)
		return data
	}
	if !bytes.Equal(read(edge.Set{Index: &old, Positions: []int32{0}}), read(edge.Set{Index: ix, Positions: []int32{0}})) {
		t.Fatal("the bundles differ")
	}
}
