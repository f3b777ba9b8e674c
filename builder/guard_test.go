package builder_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// remove takes items of the track prod out of the catalog, as a writer of its table would.
func (w *world) remove(apps ...string) {
	w.t.Helper()
	var changes []catalog.Change
	for _, app := range apps {
		changes = append(changes, catalog.Remove(catalog.Key{App: app, Track: "prod"}))
	}
	w.apply(changes...)
}

// A catalog that has lost most of what is published is not published: that is pinned, and says why. One command accepts
// it, mending the catalog ends it.
func TestS1PlanThatDropsMostIsHeldBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	apps := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}
	for _, app := range apps {
		w.put(app, "prod", "1", "the first "+app, "x")
	}
	w.build(builder.PlanOptions{})
	all := w.versions()
	w.remove(apps[1:]...)

	held := func() *pipeline.PinnedError {
		t.Helper()
		var pinned *pipeline.PinnedError
		if err := w.pipeline().Build(t.Context(), builder.PlanOptions{}, nil); !errors.As(err, &pinned) {
			t.Fatalf("the build says %v", err)
		}
		if got := w.versions(); fmt.Sprint(got) != fmt.Sprint(all) || w.generation() != 1 {
			t.Fatalf("generation %d: %v", w.generation(), got)
		}
		return pinned
	}
	if pinned := held(); !strings.Contains(pinned.Reason, "the catalog has 1 item, 9 are published, and 8 of these would be gone") ||
		!strings.Contains(pinned.Reason, "precast unpin --accept-removals") {
		t.Errorf("the reason is %q", pinned.Reason)
	}
	st, err := w.pipeline().Status(t.Context())
	must(t, err)
	if !builder.IsHeldBack(st.Pin) || st.UpToDate {
		t.Errorf("the status is %+v", st)
	}
	if last := w.events.plans[len(w.events.plans)-1]; last.HeldBack != st.Pin {
		t.Errorf("the last plan says %q, the pin %q", last.HeldBack, st.Pin)
	}
	// Taking the pin off does not accept it.
	_, err = w.pipeline().Unpin(t.Context(), catalog.Author{})
	must(t, err)
	held()

	// Mended: what is left to drop is everyday work.
	for _, app := range apps[1:7] {
		w.put(app, "prod", "1", "the first "+app, "x")
	}
	_, err = w.pipeline().Unpin(t.Context(), catalog.Author{})
	must(t, err)
	w.build(builder.PlanOptions{})
	if got := w.versions(); len(got) != 7 {
		t.Fatalf("published %v", got)
	}

	// Accepted, whether it has been pinned by then or not.
	w.remove(apps[1:7]...)
	var pinned *pipeline.PinnedError
	if err := w.pipeline().Build(t.Context(), builder.PlanOptions{}, nil); !errors.As(err, &pinned) {
		t.Fatalf("the build says %v", err)
	}
	w.build(builder.PlanOptions{AcceptRemovals: true})
	if got := w.versions(); len(got) != 1 {
		t.Fatalf("published %v", got)
	}
	// A pin of an operator it does not accept.
	_, err = w.pipeline().Pin(t.Context(), catalog.Author{Message: "trade fair"})
	must(t, err)
	w.put("b", "prod", "1", "the first b", "x")
	if err := w.pipeline().Build(t.Context(), builder.PlanOptions{AcceptRemovals: true}, nil); !errors.As(err, &pinned) || pinned.Reason != "trade fair" {
		t.Fatalf("the build says %v", err)
	}
	if _, err := w.pipeline().Pin(t.Context(), catalog.Author{Message: st.Pin}); !errors.Is(err, history.ErrRefused) {
		t.Errorf("an operator's pin may say %q: %v", st.Pin, err)
	}
}

// An operator goes back from a generation to one with few items: nobody holds that back.
func TestS1RollbackIsNotHeldBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.put("a", "prod", "1", "a", "x")
	w.build(builder.PlanOptions{})
	for _, app := range []string{"b", "c", "d", "e"} {
		w.put(app, "prod", "1", app, "x")
	}
	w.build(builder.PlanOptions{})
	res, err := w.pipeline().Rollback(t.Context(), history.Request{})
	must(t, err)
	if got := w.versions(); len(got) != 1 || builder.IsHeldBack(res.Pin) {
		t.Errorf("published %v, pinned: %s", got, res.Pin)
	}
}

// Whatever is published and whatever the catalog says: a plan is held back if it drops three items or more and more than
// half of them, and only then.
func TestS1WhatIsHeldBack(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	for _, app := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		w.put(app, "prod", "1", app, "x")
	}
	all, err := w.base.Catalog.Snapshot(t.Context())
	must(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		some := func(label string) map[string]catalog.Item {
			chosen := make(map[string]catalog.Item)
			for _, it := range all {
				if rapid.Bool().Draw(rt, label+" "+it.App) {
					chosen[it.App] = it
				}
			}
			return chosen
		}
		plan := func(items map[string]catalog.Item, opt builder.PlanOptions) *builder.Plan {
			p, err := builder.New(w.base.Ports, w.opt).Plan(ctx, slices.Collect(maps.Values(items)), opt)
			if err != nil {
				rt.Fatal(err)
			}
			return p
		}
		published, wanted := some("published"), some("wanted")
		index := plan(published, builder.PlanOptions{}).Target.With(1)
		if _, err := w.base.Objects.Put(ctx, layout.IndexKey, builder.BytesBody(index.Encode()), builder.PutOptions{}); err != nil {
			rt.Fatal(err)
		}
		dropped := 0
		for app := range published {
			if _, ok := wanted[app]; !ok {
				dropped++
			}
		}
		want := dropped >= 3 && 2*dropped > len(published)
		if p := plan(wanted, builder.PlanOptions{}); (p.HeldBack != "") != want {
			rt.Fatalf("%d of %d dropped: %q", dropped, len(published), p.HeldBack)
		}
		if p := plan(wanted, builder.PlanOptions{AcceptRemovals: true}); p.HeldBack != "" {
			rt.Fatalf("accepted: %q", p.HeldBack)
		}
	})
}

// No empty generation is published because every item was left out: devices are to come back. A catalog that is empty
// is published as that.
func TestC10NoEmptyFirstGeneration(t *testing.T) {
	sources := memorySources{}
	w := newWorld(t, t.TempDir(), builder.Options{Attempts: 1}, withSources(sources))
	defer w.close()
	a, b := remote("a", "1", "http://x/a", "the binary a"), remote("b", "2", "http://x/b", "the binary b")
	w.apply(catalog.Put(a), catalog.Put(b))
	for range 2 { // with the rejections written down, and without
		var leftOut *pipeline.LeftOutError
		if err := w.pipeline().Build(t.Context(), builder.PlanOptions{}, nil); !errors.As(err, &leftOut) || len(leftOut.Rejected) != 2 ||
			!strings.Contains(err.Error(), "a/prod 1: ") || !strings.Contains(err.Error(), "b/prod 2: ") {
			t.Fatalf("the build says %v", err)
		}
		if w.generation() != 0 {
			t.Fatalf("generation %d is published: %v", w.generation(), w.versions())
		}
	}
	sources["http://x/a"] = "the binary a"
	w.build(builder.PlanOptions{Retry: true})
	if got := w.versions(); len(got) != 1 || got[0] != "a/prod 1" {
		t.Fatalf("published %v", got)
	}
	empty := newWorld(t, t.TempDir(), builder.Options{})
	defer empty.close()
	empty.build(builder.PlanOptions{})
	if empty.generation() != 1 || len(empty.versions()) != 0 {
		t.Fatalf("an empty catalog is published as generation %d: %v", empty.generation(), empty.versions())
	}
}
