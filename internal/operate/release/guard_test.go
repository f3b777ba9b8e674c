package release_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/source"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// guarded is an installation whose commands the guards look at.
type guarded struct {
	t  *testing.T
	p  *pipeline.Pipeline
	im *release.Importer
}

func newGuarded(t *testing.T) guarded {
	m := storetest.NewMemory(time.Now, 5)
	p := pipeline.New(pipeline.Drivers{
		Ports:  builder.Ports{Objects: m.Objects, Catalog: m.Catalog, Queue: m.Queue, Ledger: m.Ledger, Sources: &source.Sources{Objects: m.Objects}},
		Writer: m.Catalog, DeadLetters: m.Queue,
	}, pipeline.Config{Builder: builder.Options{Log: slog.New(slog.DiscardHandler)}})
	return guarded{t, p, &release.Importer{Objects: m.Objects, Catalog: p, Preview: p.Preview}}
}

func (g guarded) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g guarded) build() { g.t.Helper(); g.must(g.p.Build(g.t.Context(), builder.PlanOptions{}, nil)) }

// bring imports releases of versions whose content is their name.
func (g guarded) bring(all ...release.Release) error {
	_, err := g.im.Import(g.t.Context(), all, false)
	return err
}

func (g guarded) replace(all ...release.Release) error {
	_, err := g.im.Import(g.t.Context(), all, true)
	return err
}

func (g guarded) rollout(app string, percent float64) error {
	_, err := g.im.SetRollout(g.t.Context(), catalog.Key{App: app, Track: "prod"}, percent)
	return err
}

func (g guarded) promote(app string) error {
	_, err := g.im.Promote(g.t.Context(), release.Promotion{App: app, From: "beta", To: "prod"})
	return err
}

// published brings releases in and publishes them.
func (g guarded) published(all ...release.Release) { g.t.Helper(); g.must(g.bring(all...)); g.build() }

type setting func(*release.Release)

func attrs(names ...string) setting {
	return func(r *release.Release) { r.DeviceAttr = release.Attributes(names...) }
}

func share(percent float64) setting {
	return func(r *release.Release) { r.Rollout = &catalog.Rollout{Percent: percent, Salt: "spring"} }
}

func floors(versions ...string) setting {
	return func(r *release.Release) { r.Floors = release.Floors(versions...) }
}

func one(app, version string, settings ...setting) release.Release {
	return onTrack("prod", app, version, settings...)
}

func onTrack(track, app, version string, settings ...setting) release.Release {
	r := releaseOf(app, track, version, strings.ToLower(app)+" "+version)
	for _, set := range settings {
		set(&r)
	}
	return r
}

// other has content that no release of the version had before.
func other(app, version string) release.Release {
	return releaseOf(app, "prod", version, "other content of "+version)
}

func many(n int) (all []release.Release) {
	for i := range n {
		all = append(all, one(fmt.Sprintf("os_%03d", i), "1"))
	}
	return all
}

// C12 to C16: what would hurt devices is refused, and the refusal names the flags; with them it is done.
func TestGuards(t *testing.T) {
	const w, s, o, c, r, e = release.AllowWithdraw, release.AllowShrink, release.AllowOlder, release.AllowContent, release.AllowRemoval, release.AllowEmpty
	tests := []struct {
		name   string
		before func(g guarded)
		change func(g guarded) error
		want   []string // flags; none: it is done
	}{
		{"C12 a rollout of what everybody has", func(g guarded) { g.published(one("os_a", "2")) },
			func(g guarded) error { return g.bring(one("os_a", "2", share(10))) }, []string{w}},
		{"C12 a rollout of what everybody has, in other case", func(g guarded) { g.published(one("os_a", "2")); g.must(g.remove("os_a")) },
			func(g guarded) error { return g.bring(one("os_A", "2", share(10))) }, []string{w}},
		{"C12 a first rollout", func(g guarded) { g.published(one("os_b", "1")) },
			func(g guarded) error { return g.bring(one("os_a", "1", share(10))) }, nil},
		{"C12 an import removes an item", func(g guarded) { g.published(one("os_a", "1"), one("os_b", "1")) },
			func(g guarded) error { return g.replace(one("os_b", "1")) }, []string{w}},
		{"C12 an import moves an item to another track", func(g guarded) { g.published(one("os_a", "1")) },
			func(g guarded) error { return g.replace(onTrack("beta", "os_a", "1")) }, []string{w}},
		{"C12 another track as well", func(g guarded) { g.published(one("os_a", "1")) },
			func(g guarded) error { return g.bring(onTrack("beta", "os_a", "2")) }, nil},
		{"C12 a rollout of a file that waits for everybody", func(g guarded) { g.published(one("os_b", "1")); g.must(g.bring(one("os_a", "2"))) },
			func(g guarded) error { return g.bring(one("os_a", "2", share(10))) }, []string{w}},
		{"C15 a rollout that leaves no room for one that waits", func(g guarded) {
			var first, second []release.Release
			for i := range edge.MaxRollouts + 1 {
				app := fmt.Sprintf("app%02d", i)
				first = append(first, one(app, "1"))
				if i > 0 {
					second = append(second, one(app, "2", func(r *release.Release) { r.Rollout = &catalog.Rollout{Percent: 10, Salt: app} }))
				}
			}
			g.published(first...)
			g.must(g.bring(second...))
		}, func(g guarded) error {
			return g.bring(one("app00", "2", func(r *release.Release) { r.Rollout = &catalog.Rollout{Percent: 10, Salt: "a"} }))
		}, []string{s}},
		{"C12 fewer attributes", func(g guarded) { g.published(one("a", "1", attrs("x", "y"))) },
			func(g guarded) error { return g.bring(one("a", "2", attrs("x"))) }, []string{w}},
		{"C12 other attributes", func(g guarded) { g.published(one("a", "1", attrs("x"))) },
			func(g guarded) error { return g.bring(one("a", "1", attrs("y"))) }, []string{w}},
		{"C12 more attributes", func(g guarded) { g.published(one("a", "1", attrs("x"))) },
			func(g guarded) error { return g.bring(one("a", "2", attrs("x", "y"))) }, nil},
		{"C12 attributes that wait", func(g guarded) {
			g.published(one("a", "1", attrs("x")))
			g.must(g.bring(one("a", "2", attrs("x", "y"))))
		}, func(g guarded) error { return g.bring(one("a", "2", attrs("x"))) }, []string{w}},
		{"C12 a promotion from a narrower track", func(g guarded) {
			g.published(one("a", "1", attrs("x", "y")), onTrack("beta", "a", "2", attrs("x")))
		}, func(g guarded) error { return g.promote("a") }, []string{w}},
		{"C12 a removal by name", func(g guarded) { g.published(one("os_a", "1")) },
			func(g guarded) error { return g.remove("os_a") }, nil},
		{"C13 other content", func(g guarded) { g.published(one("os_a", "1")) },
			func(g guarded) error { return g.bring(other("os_a", "1")) }, []string{c}},
		{"C13 other content of a release before", func(g guarded) { g.published(one("os_a", "1")); g.published(one("os_a", "2")) },
			func(g guarded) error { return g.bring(other("os_a", "1")) }, []string{c}},
		{"C13 other content of what waits", func(g guarded) { g.published(one("os_a", "1")); g.must(g.bring(one("os_a", "2"))) },
			func(g guarded) error { return g.bring(other("os_a", "2")) }, []string{c}},
		{"C13 a release that was replaced", func(g guarded) { g.published(one("os_a", "1")); g.published(one("os_a", "2")) },
			func(g guarded) error { return g.bring(one("os_a", "1")) }, []string{o}},
		{"C13 a release that is being replaced", func(g guarded) { g.published(one("os_a", "1")); g.must(g.bring(one("os_a", "2"))) },
			func(g guarded) error { return g.bring(one("os_a", "1")) }, []string{o}},
		{"C13 promotion of a release that was replaced", func(g guarded) {
			g.published(one("os_a", "1"), onTrack("beta", "os_a", "1"))
			g.published(one("os_a", "2"))
		}, func(g guarded) error { return g.promote("os_a") }, []string{o}},
		{"C13 a lower number", func(g guarded) { g.published(one("os_a", "2")) },
			func(g guarded) error { return g.bring(one("os_a", "1")) }, nil},
		{"C13 while it is pinned", func(g guarded) {
			g.published(one("os_a", "1"))
			g.published(one("os_a", "2"))
			g.rollback()
			g.must(g.bring(one("os_a", "3")))
		}, func(g guarded) error { return g.bring(one("os_a", "1")) }, nil},
		{"C15 a smaller share", func(g guarded) { g.published(one("os_a", "1")); g.published(one("os_a", "2", share(60))) },
			func(g guarded) error { return g.rollout("os_a", 5) }, []string{s}},
		{"C15 a smaller share by put", func(g guarded) { g.published(one("os_a", "1")); g.published(one("os_a", "2", share(60))) },
			func(g guarded) error { return g.bring(one("os_a", "2", share(5))) }, []string{s}},
		{"C15 a smaller share after one that waits", func(g guarded) {
			g.published(one("os_a", "1"))
			g.published(one("os_a", "2", share(10)))
			g.must(g.rollout("os_a", 60))
		}, func(g guarded) error { return g.rollout("os_a", 20) }, []string{s}},
		{"C15 a larger share after one that waits", func(g guarded) {
			g.published(one("os_a", "1"))
			g.published(one("os_a", "2", share(10)))
			g.must(g.rollout("os_a", 60))
		}, func(g guarded) error { return g.rollout("os_a", 70) }, nil},
		{"C15 another release for a smaller share", func(g guarded) { g.published(one("os_a", "1")); g.published(one("os_a", "2", share(60))) },
			func(g guarded) error { return g.bring(one("os_a", "3", share(5))) }, nil},
		{"C16 three of 20", func(g guarded) { g.must(g.bring(many(20)...)) },
			func(g guarded) error { return g.replace(many(17)...) }, nil},
		{"C16 three of three", func(g guarded) { g.must(g.bring(many(3)...)) },
			func(g guarded) error { return g.replace() }, nil},
		{"C16 four of four", func(g guarded) { g.must(g.bring(many(4)...)) },
			func(g guarded) error { return g.replace() }, []string{r}},
		{"C16 four of 39", func(g guarded) { g.must(g.bring(many(39)...)) },
			func(g guarded) error { return g.replace(many(35)...) }, []string{r}},
		{"C16 four of 40", func(g guarded) { g.must(g.bring(many(40)...)) },
			func(g guarded) error { return g.replace(many(36)...) }, nil},
		{"C16 six of 50", func(g guarded) { g.must(g.bring(many(50)...)) },
			func(g guarded) error { return g.replace(many(44)...) }, []string{r}},
		{"C16 an empty file", func(g guarded) {},
			func(g guarded) error { return g.bring(releaseOf("os_a", "prod", "1", "")) }, []string{e}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGuarded(t)
			test.before(g)
			err := test.change(g)
			if len(test.want) == 0 {
				g.must(err)
				return
			}
			if !errors.Is(err, history.ErrRefused) {
				t.Fatalf("it was not refused: %v", err)
			}
			g.im.Allow = test.want
			g.must(test.change(g))
		})
	}
}

func (g guarded) remove(app string) error {
	_, _, err := g.im.Remove(g.t.Context(), catalog.Key{App: app, Track: "prod"})
	return err
}

func (g guarded) rollback() {
	g.t.Helper()
	_, err := g.p.Rollback(g.t.Context(), history.Request{By: catalog.Author{Message: "it hangs"}})
	g.must(err)
}

// Of what waits, the difference for devices says nothing: it is against what is published.
func TestDifferenceIsAgainstWhatIsPublished(t *testing.T) {
	g := newGuarded(t)
	g.published(one("os_a", "1"))
	g.must(g.bring(one("os_a", "2")))
	res, err := g.im.Import(t.Context(), []release.Release{one("os_a", "3")}, false)
	g.must(err)
	want := release.Gets{From: "1", To: "3", Devices: release.Devices{Slots: index.Slots, NoSlot: true}}
	if d := res.Difference; len(d.Items) != 1 || len(d.Items[0].Gets) != 1 || d.Items[0].Gets[0] != want {
		t.Fatalf("the difference is %+v", d)
	}
}
