package release_test

import (
	"errors"
	"testing"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
)

// A rollout grows, ends or is cancelled; what is not being rolled out is refused, and nothing changes.
func TestRolloutRules(t *testing.T) {
	im, _ := newImporter(t)
	key := catalog.Key{App: "a", Track: "prod"}
	put := func(version string, rollout *catalog.Rollout) {
		t.Helper()
		r := releaseOf(key.App, key.Track, version, version)
		r.Rollout = rollout
		if _, err := im.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	is := func(version string, percent float64, previous string) {
		t.Helper()
		it, err := im.Item(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		gotPercent, gotPrevious := 100.0, ""
		if it.Rollout != nil {
			gotPercent = it.Rollout.Percent
		}
		if it.Previous != nil {
			gotPrevious = it.Previous.Version
		}
		if it.Version != version || gotPercent != percent || gotPrevious != previous {
			t.Errorf("%s at %v %% over %q, want %s at %v %% over %q", it.Version, gotPercent, gotPrevious, version, percent, previous)
		}
	}
	refused := func(_ catalog.Item, err error) {
		t.Helper()
		if _, ok := errors.AsType[release.Refusal](err); !ok {
			t.Errorf("error %v, want a refusal", err)
		}
	}
	current := func() catalog.Item {
		t.Helper()
		it, err := im.Item(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return it
	}
	refused(im.Item(t.Context(), key))
	refused(im.Remove(t.Context(), key))
	put("1", &catalog.Rollout{Percent: 5})
	refused(im.CancelRollout(t.Context(), current())) // over nothing
	is("1", 5, "")
	if _, err := im.SetRollout(t.Context(), current(), 100); err != nil {
		t.Fatal(err)
	}
	is("1", 100, "")
	refused(im.SetRollout(t.Context(), current(), 10))
	refused(im.CancelRollout(t.Context(), current()))
	put("2", &catalog.Rollout{Percent: 5, Salt: "spring"})
	is("2", 5, "1")
	if it, err := im.SetRollout(t.Context(), current(), 60); err != nil || it.Rollout.Salt != "spring" {
		t.Fatal(it, err)
	}
	is("2", 60, "1")
	if _, err := im.SetRollout(t.Context(), current(), 101); err == nil {
		t.Error("101 % is accepted")
	}
	is("2", 60, "1")
	if _, err := im.CancelRollout(t.Context(), current()); err != nil {
		t.Fatal(err)
	}
	is("1", 100, "")
	if _, err := im.Remove(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	refused(im.Item(t.Context(), key))
}
