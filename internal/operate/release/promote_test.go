package release_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
)

// content lists the objects that are neither an index nor what the builder keeps for itself.
func (g guarded) content() (keys []string) {
	g.t.Helper()
	for _, prefix := range []string{layout.BinaryPrefix, layout.PiecePrefix, layout.BundlePrefix, layout.ManifestPrefix} {
		g.must(g.p.Objects.List(g.t.Context(), prefix, func(o builder.ObjectInfo) error { keys = append(keys, o.Key+" "+o.ETag); return nil }))
	}
	slices.Sort(keys)
	return keys
}

func (g guarded) item(app, track string) catalog.Item {
	g.t.Helper()
	it, err := g.im.Item(g.t.Context(), catalog.Key{App: app, Track: track})
	g.must(err)
	return it
}

// A promotion to a track of which everything was built writes nothing but the index, and brings attributes and floors.
func TestPromotionWritesOnlyTheIndex(t *testing.T) {
	g := newGuarded(t)
	g.published(onTrack("beta", "os_a", "1"), onTrack("beta", "a", "1", attrs("x")), one("os_b", "1"))
	g.published(onTrack("beta", "os_a", "2", floors("1")))
	before := g.content()
	res, err := g.im.Promote(t.Context(), release.Promotion{From: "beta", To: "prod"})
	g.must(err)
	g.build()
	if after := g.content(); len(before) == 0 || !slices.Equal(before, after) {
		t.Errorf("there were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if len(res.Items) != 2 || !slices.Equal(g.item("a", "prod").Attrs(), []string{"x"}) {
		t.Errorf("promoted: %+v", res.Items)
	}
	if f := g.item("os_a", "prod").Floors; len(f) != 1 || f[0].Version != "1" {
		t.Errorf("the floors are %+v", f)
	}
	// What is the same already is left out.
	g.must(g.bring(onTrack("beta", "a", "2")))
	res, err = g.im.Promote(t.Context(), release.Promotion{From: "beta", To: "prod"})
	g.must(err)
	if len(res.Items) != 1 || res.Items[0].Version != "2" {
		t.Errorf("promoted again: %+v", res.Items)
	}
}

func TestRefusedPromotions(t *testing.T) {
	for name, pr := range map[string]release.Promotion{
		"to the same track":     {From: "beta", To: "beta"},
		"from an unknown track": {From: "nowhere", To: "prod"},
		"of an unknown app":     {App: "b", From: "beta", To: "prod"},
		"of a rollout":          {App: "os_a", From: "beta", To: "prod"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuarded(t)
			g.published(onTrack("beta", "os_a", "1", share(10)))
			if res, err := g.im.Promote(t.Context(), pr); !errors.Is(err, history.ErrRefused) {
				t.Fatalf("it is not refused: %+v, %v", res, err)
			}
			if items, err := g.p.Snapshot(t.Context()); err != nil || len(items) != 1 {
				t.Fatalf("the catalog has %+v, %v", items, err)
			}
		})
	}
}

// overtaken is a catalog that somebody else changes before the first edit is made.
type overtaken struct {
	release.Catalog
	first func()
}

func (o *overtaken) Apply(ctx context.Context, edit catalog.Edit) error {
	if first := o.first; first != nil {
		o.first = nil
		first()
	}
	return o.Catalog.Apply(ctx, edit)
}

// S6: a promotion that somebody overtakes is worked out anew from what the catalog is then.
func TestS6PromotionOvertaken(t *testing.T) {
	g := newGuarded(t)
	g.published(onTrack("beta", "os_a", "1"))
	im := *g.im
	im.Catalog = &overtaken{g.p, func() { g.must(g.bring(onTrack("beta", "os_a", "2"))) }}
	_, err := im.Promote(t.Context(), release.Promotion{App: "os_a", From: "beta", To: "prod"})
	g.must(err)
	if it := g.item("os_a", "prod"); it.Version != "2" {
		t.Fatalf("%s was promoted", it.Version)
	}
}
