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
		if _, err := im.Import(t.Context(), []release.Release{r}, false); err != nil {
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
	refused := func(err error) {
		t.Helper()
		if _, ok := errors.AsType[release.Refusal](err); !ok {
			t.Errorf("error %v, want a refusal", err)
		}
	}
	item := func() error {
		_, err := im.Item(t.Context(), key)
		return err
	}
	remove := func() error {
		_, _, err := im.Remove(t.Context(), key)
		return err
	}
	cancel := func() error {
		_, err := im.CancelRollout(t.Context(), key)
		return err
	}
	set := func(percent float64) error {
		_, err := im.SetRollout(t.Context(), key, percent)
		return err
	}
	refused(item())
	refused(remove())
	put("1", &catalog.Rollout{Percent: 5})
	refused(cancel()) // over nothing
	is("1", 5, "")
	if err := set(100); err != nil {
		t.Fatal(err)
	}
	is("1", 100, "")
	refused(set(10))
	refused(cancel())
	put("2", &catalog.Rollout{Percent: 5, Salt: "spring"})
	is("2", 5, "1")
	if res, err := im.SetRollout(t.Context(), key, 60); err != nil || res.Items[0].Rollout.Salt != "spring" {
		t.Fatal(res, err)
	}
	is("2", 60, "1")
	if err := set(101); err == nil {
		t.Error("101 % is accepted")
	}
	is("2", 60, "1")
	if err := cancel(); err != nil {
		t.Fatal(err)
	}
	is("1", 100, "")
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	refused(item())
}
