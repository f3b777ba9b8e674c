package builder_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

func TestBuildOfTheSample(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.seed(3000)
	w.build(builder.PlanOptions{})
	w.checkComplete()
	if w.generation() != 1 {
		t.Fatalf("generation %d, want 1", w.generation())
	}
	// 2 tracks of the operating system, 3 architectures (one unknown), gamer and camera on two tracks
	// or none, cellular on one or none.
	want := builder.Report{Sequence: w.events.plans[0].Sequence, Changed: true, Items: 9,
		Combinations: 2 * 3 * 3 * 3 * 2, Considered: 108, Matching: 106, Sets: 79, Copies: true, Bundles: 529, Bytes: 996 * 3000,
		Build: builder.Work{Pieces: 9, PieceBytes: 9 * 3000, Bundles: 529, BundleBytes: 996 * 3000}}
	if got := w.events.plans[0]; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("report\n%+v, want\n%+v", got, want)
	}
	if got := w.events.writtenUnder(layout.BundlePrefix); got != 529 {
		t.Fatalf("%d bundles written, want 529", got)
	}

	w.events.reset()
	w.build(builder.PlanOptions{})
	if len(w.events.written) != 0 || w.generation() != 1 {
		t.Fatalf("a second build wrote %v, generation %d", w.events.written, w.generation())
	}
}

func TestAChangeTouchesOnlyWhatItAffects(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.seed(3000)
	w.build(builder.PlanOptions{})
	before := w.objects(served...)
	pieces := w.objects(layout.PiecePrefix)

	w.events.reset()
	w.put("scoreboard", "prod", "1.0.1", "new scoreboard", "gamer")
	w.build(builder.PlanOptions{})
	w.checkComplete()
	if n := w.events.writtenUnder(layout.PiecePrefix); n != 1 {
		t.Fatalf("%d pieces written, want 1", n)
	}
	after := w.objects(served...)
	for key, data := range before {
		if after[key] != data {
			t.Fatalf("%s was rewritten or removed", key)
		}
	}
	for _, key := range w.events.written {
		if _, ok := before[key]; ok {
			t.Fatalf("%s was there and was written again", key)
		}
		if !strings.HasSuffix(key, ".tar.gz") && !strings.HasSuffix(key, ".json") {
			continue
		}
		manifest := strings.Replace(strings.Replace(key, layout.BundlePrefix, layout.ManifestPrefix, 1), ".tar.gz", ".json", 1)
		if !strings.Contains(after[manifest], `"latestVersion": "1.0.1"`) {
			t.Fatalf("%s was written but is not affected: %s", key, after[manifest])
		}
	}
	for key, data := range pieces {
		if w.read(key) != data {
			t.Fatalf("%s changed", key)
		}
	}
}

func TestPromotionWritesNothing(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.put("tool", "beta", "2", "content of two", "x")
	w.build(builder.PlanOptions{})
	w.events.reset()
	w.put("tool", "prod", "2", "content of two", "x")
	w.build(builder.PlanOptions{})
	if len(w.events.written) != 0 {
		t.Fatalf("the same release on another track wrote %v", w.events.written)
	}
	if w.generation() != 2 {
		t.Fatalf("generation %d, want 2", w.generation())
	}
}

func TestABinaryThatIsNotWhatTheCatalogSays(t *testing.T) {
	good, other := "the right content", "some other content"
	wrongSize := remote("bad", "2", "http://host/bad", good)
	wrongSize.Size++
	wrongMD5 := remote("bad", "2", "http://host/bad", good)
	wrongMD5.MD5, _ = sums(other)
	for _, c := range []struct {
		name   string
		item   catalog.Item
		reason string
	}{
		{"content", remote("bad", "2", "http://host/bad", strings.Repeat("x", len(good))), "sha256: the catalog says"},
		{"md5", wrongMD5, "md5: the catalog says"},
		{"too short", wrongSize, "size: the catalog says 18 bytes, the binary has 17"},
		{"too long", func() catalog.Item {
			it := remote("bad", "2", "http://host/bad", good)
			it.Size--
			return it
		}(), "size: the catalog says 16 bytes, the binary has more"},
		{"not in the catalog's form", func() catalog.Item {
			it := remote("bad", "2", "http://host/bad", good)
			it.SHA256 = "abc"
			return it
		}(), `sha256: "abc" is not 64 lower-case hex digits`},
	} {
		t.Run(c.name, func(t *testing.T) {
			sources := memorySources{"http://host/bad": "first release", "http://host/good": "good one"}
			w := newWorld(t, t.TempDir(), builder.Options{}, withSources(sources))
			defer w.close()
			w.apply(catalog.Put(remote("bad", "1", "http://host/bad", "first release")))
			w.build(builder.PlanOptions{})

			sources["http://host/bad"] = good
			w.apply(catalog.Put(c.item), catalog.Put(remote("good", "1", "http://host/good", "good one")))
			w.build(builder.PlanOptions{})
			w.checkComplete()
			if got, want := w.versions(), []string{"bad/prod 1", "good/prod 1"}; !slices.Equal(got, want) {
				t.Fatalf("published %v, want %v: the bad item's previous release, and the others' new ones", got, want)
			}
			last := w.events.plans[len(w.events.plans)-1]
			if len(last.Rejected) != 1 || last.Rejected[0].Key.App != "bad" || !strings.Contains(last.Rejected[0].Reason, c.reason) {
				t.Fatalf("rejected %+v, want bad because of %q", last.Rejected, c.reason)
			}
			if keys := sortedKeys(w.objects(layout.PiecePrefix)); len(keys) != 2 {
				t.Fatalf("pieces %v: want those of the two good binaries", keys)
			}
			st, err := w.pipeline().Status(context.Background())
			must(t, err)
			if st.UpToDate && len(st.Rejected) == 0 || st.Dead != 0 {
				t.Fatalf("status %+v: want the rejection, and no dead letter", st)
			}

			// A corrected item ends it.
			w.apply(catalog.Put(remote("bad", "3", "http://host/bad", good)))
			w.build(builder.PlanOptions{})
			if got, want := w.versions(), []string{"bad/prod 3", "good/prod 1"}; !slices.Equal(got, want) {
				t.Fatalf("published %v, want %v", got, want)
			}
		})
	}
}

func TestARejectedBinaryIsTriedAgainWhenAsked(t *testing.T) {
	sources := memorySources{"http://host/a": "spoilt"}
	w := newWorld(t, t.TempDir(), builder.Options{}, withSources(sources))
	defer w.close()
	w.put("b", "prod", "1", "always sound")
	w.apply(catalog.Put(remote("a", "1", "http://host/a", "sound!")))
	w.build(builder.PlanOptions{})
	if got, want := w.versions(), []string{"b/prod 1"}; !slices.Equal(got, want) {
		t.Fatalf("published %v, want %v", got, want)
	}
	sources["http://host/a"] = "sound!"
	w.build(builder.PlanOptions{})
	if got, want := w.versions(), []string{"b/prod 1"}; !slices.Equal(got, want) {
		t.Fatalf("published %v without being asked to try again", got)
	}
	w.build(builder.PlanOptions{Retry: true})
	if got, want := w.versions(), []string{"a/prod 1", "b/prod 1"}; !slices.Equal(got, want) {
		t.Fatalf("published %v, want %v", got, want)
	}
}

func TestVerifyMendsLostObjects(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.seed(500)
	w.build(builder.PlanOptions{})
	want := w.objects(append(served, layout.PiecePrefix)...)
	i := 0
	for _, key := range sortedKeys(want) {
		// A binary that is lost cannot be made again: its source is itself.
		if i++; i%3 == 0 && !strings.HasPrefix(key, layout.BinaryPrefix) {
			must(t, w.delete(key))
		}
	}
	w.build(builder.PlanOptions{})
	if got := w.objects(append(served, layout.PiecePrefix)...); len(got) == len(want) {
		t.Fatal("the loss went unnoticed by the test itself")
	}
	w.build(builder.PlanOptions{Verify: true})
	got := w.objects(append(served, layout.PiecePrefix)...)
	if fmt.Sprint(sortedKeys(got)) != fmt.Sprint(sortedKeys(want)) {
		t.Fatalf("%d objects after mending, want %d", len(got), len(want))
	}
	for key := range want {
		if got[key] != want[key] {
			t.Fatalf("%s has other bytes than before", key)
		}
	}
	if w.generation() != 1 {
		t.Fatalf("generation %d: mending is not a publish", w.generation())
	}
}

// The bytes depend on the catalog alone: not on the way it came to be, nor on the folder.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	contents := rapid.StringMatching(`[ab]{0,40}`)
	rapid.Check(t, func(rt *rapid.T) {
		opt := builder.Options{PartBytes: rapid.Int64Range(1, 200).Draw(rt, "part bytes")}
		w := newWorld(rt, t.TempDir(), opt)
		defer w.close()
		for step := range rapid.IntRange(1, 3).Draw(rt, "steps") {
			items, err := w.base.Catalog.Snapshot(context.Background())
			if err != nil {
				rt.Fatal(err)
			}
			for range rapid.IntRange(0, 3).Draw(rt, "changes") {
				app := rapid.SampledFrom([]string{"os_a", "b", "c"}).Draw(rt, "app")
				track := rapid.SampledFrom([]string{"prod", "beta"}).Draw(rt, "track")
				if rapid.IntRange(0, 3).Draw(rt, "kind") == 0 && len(items) > 0 {
					w.apply(catalog.Remove(items[0].Key()))
					continue
				}
				attrs := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "Y"}), 0, 2, rapid.ID[string]).Draw(rt, "attrs")
				content := contents.Draw(rt, "content")
				w.release(w.staging(rt, itemOf(app, track, fmt.Sprintf("%d%s%x", step, track, content), attrs...)), content)
			}
			w.build(builder.PlanOptions{})
		}
		w.checkEqualsFromScratch(newWorld(rt, t.TempDir(), builder.Options{}))
	})
}

func TestABurstOfWritesMakesAFewPlans(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.put("tool", "prod", "0", "content", "x")
	s := pipeline.New(w.drivers, pipeline.Config{Builder: w.opt, Workers: 2, Window: 200 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	published := make(chan struct{}, 10_000)
	unsubscribe := s.Subscribe(func(ev pipeline.Event) {
		if ev.Published != nil {
			published <- struct{}{}
		}
	})
	defer unsubscribe()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	items, err := w.base.Catalog.Snapshot(ctx)
	must(t, err)
	const writes = 1000
	for i := 1; i <= writes; i++ {
		it := items[0]
		it.Ident = fmt.Sprint(i)
		it.DeviceAttr = map[string]bool{fmt.Sprintf("attr%d", i%7): true}
		w.apply(catalog.Put(it))
	}
	last := items[0]
	last.DeviceAttr = map[string]bool{"last": true}
	w.apply(catalog.Put(last))
	for {
		select {
		case <-published:
		case err := <-ended:
			t.Fatalf("the pipeline ended: %v", err)
		}
		ix, _, err := builder.ReadIndex(ctx, w.base.Objects)
		must(t, err)
		if ix != nil && len(ix.Items) == 1 && slices.Equal(ix.Items[0].Attrs, []string{"last"}) {
			break
		}
	}
	cancel()
	must(t, <-ended)
	// The writes take seconds, each of them synced; every plan serves a window of them.
	w.events.mu.Lock()
	defer w.events.mu.Unlock()
	if n := len(w.events.plans); n > writes/20 {
		t.Fatalf("%d writes made %d plans", writes, n)
	} else {
		t.Logf("%d writes made %d plans", writes, n)
	}
}

func TestTheEncoderIsPartOfEveryName(t *testing.T) {
	if !strings.Contains(builder.FormatID, bundle.FormatID) {
		t.Fatalf("%s does not cover %s", builder.FormatID, bundle.FormatID)
	}
}

func TestAnUnknownJobBecomesADeadLetter(t *testing.T) {
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	ctx := context.Background()
	b := builder.New(w.drivers.Ports, w.opt)
	for _, body := range []string{"", "{", `{"kind":"surprise"}`, `{"kind":"piece"}`, `{"kind":"bundles","sequence":9}`} {
		if err := b.Handle(ctx, builder.Message{ID: "m", Body: []byte(body)}); err == nil {
			t.Fatalf("job %q was done", body)
		}
	}
	if err := b.Handle(ctx, builder.Message{ID: "m", Body: []byte(`{"kind":"bundles","sequence":9}`)}); !errors.Is(err, builder.ErrNotExist) {
		t.Fatalf("a job of a plan that is gone: %v", err)
	}
}
