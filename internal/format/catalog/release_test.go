package catalog_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

// of returns a release of app/prod.
func of(version string, change ...func(*catalog.Item)) catalog.Item {
	it := bare(version)
	it.App, it.Track = "app", "prod"
	for _, c := range change {
		c(&it)
	}
	return it
}

// bare is a release as another one's floor or previous release.
func bare(version string) catalog.Item {
	digits := fmt.Sprintf("%x", version)
	return catalog.Item{Version: version, URL: "https://example.com/" + version, Size: 1,
		MD5: digits + strings.Repeat("0", 32-len(digits)), SHA256: digits + strings.Repeat("0", 64-len(digits))}
}

func rollout(percent float64, over *catalog.Item) func(*catalog.Item) {
	return func(it *catalog.Item) { it.Rollout, it.Previous = &catalog.Rollout{Percent: percent}, over }
}

func floors(versions ...string) func(*catalog.Item) {
	return func(it *catalog.Item) {
		it.Floors = []catalog.Item{}
		for _, v := range versions {
			it.Floors = append(it.Floors, bare(v))
		}
	}
}

// story writes an item's releases down: "3 10% <2 (1.5)> over 2".
func story(it catalog.Item) string {
	var b strings.Builder
	for release := &it; release != nil; release = release.Previous {
		if release != &it {
			b.WriteString(" over ")
		}
		b.WriteString(release.Version)
		if release.Rollout != nil {
			fmt.Fprintf(&b, " %v%%", release.Rollout.Percent)
		}
		for _, f := range release.Floors {
			b.WriteString(" <" + f.Version)
			for _, p := range f.Passed {
				b.WriteString(" (" + p.Version + ")")
			}
			b.WriteString(">")
		}
	}
	return b.String()
}

// What a release manager leaves out, the release that is replaced tells.
func TestSucceed(t *testing.T) {
	three := bare("3")
	three.Rollout, three.Previous = &catalog.Rollout{Percent: 50}, &catalog.Item{}
	*three.Previous = bare("2")
	deep := of("4", rollout(10, &three))
	old := of("2", floors("1"))
	noFloors := func(it *catalog.Item) { it.Floors = []catalog.Item{} }
	for _, c := range []struct {
		name string
		it   catalog.Item
		old  *catalog.Item
		want string
	}{
		{"the first release", of("1"), nil, "1"},
		{"the next release", of("2"), p(of("1")), "2"},
		{"a rollout is over what is replaced", of("2", rollout(10, nil)), p(of("1")), "2 10% over 1"},
		{"a rollout of the first release is over nothing", of("1", rollout(10, nil)), nil, "1 10%"},
		{"a rollout over what it says", of("3", rollout(10, p(bare("1")))), p(of("2")), "3 10% over 1"},
		{"a rollout over a rollout", of("3", rollout(10, nil)), p(of("2", rollout(50, p(bare("1"))))), "3 10% over 2 50% over 1"},
		{"a rollout over one that has ended", of("3", rollout(10, nil)), p(of("2", rollout(100, p(bare("1"))))), "3 10% over 2"},
		{"a rollout over the most releases", of("5", rollout(5, nil)), &deep, "5 5% over 4 10% over 3 50% over 2"},
		{"another share of the same release", of("2", rollout(20, nil)), p(of("2", rollout(10, p(bare("1"))))), "2 20% over 1"},
		{"the end of a rollout", of("2"), p(of("2", rollout(10, p(bare("1"))))), "2"},
		{"another release instead of a rollout", of("3"), p(of("2", rollout(10, p(bare("1"))))), "3"},
		{"floors stay, and what is replaced has passed them", of("3"), &old, "3 <1 (2)>"},
		{"floors are taken away", of("3", noFloors), &old, "3"},
		{"floors by their version", of("3", func(it *catalog.Item) { it.Floors = []catalog.Item{{Version: "1"}, {Version: "2"}} }), &old, "3 <1> <2>"},
		{"a floor brings its own", of("3", func(it *catalog.Item) { it.Floors = []catalog.Item{{Version: "2"}} }), &old, "3 <1> <2>"},
		{"a new floor, and one that stays", of("4", func(it *catalog.Item) { it.Floors = []catalog.Item{{Version: "1"}, bare("3")} }), &old, "4 <1 (2)> <3>"},
		{"floors of the same release", of("2", floors("1.5")), &old, "2 <1.5>"},
		{"a rollout with floors, over one with its own", of("3", rollout(10, nil), func(it *catalog.Item) { it.Floors = []catalog.Item{{Version: "2"}} }), &old, "3 10% <1> <2> over 2 <1>"},
		{"whoever holds one of two releases has passed", of("4"), p(of("3", rollout(10, p(of("2", floors("1")))), floors("1"))), "4 <1 (3) (2)>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before *catalog.Item
			if c.old != nil {
				before = p(c.old.Clone())
			}
			got, err := catalog.Succeed(c.it, c.old)
			if err != nil {
				t.Fatal(err)
			}
			if s := story(got); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
			if err := catalog.Validate([]catalog.Item{got}); err != nil {
				t.Error(err)
			}
			if c.old != nil && !reflect.DeepEqual(c.old, before) {
				t.Errorf("what is replaced has changed: %+v", c.old)
			}
			again, err := catalog.Succeed(got, &got)
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("once more: %q, %v", story(again), err)
			}
		})
	}
	unknown := of("3", func(it *catalog.Item) { it.Floors = []catalog.Item{{Version: "0"}} })
	for _, before := range []*catalog.Item{nil, &old} {
		_, err := catalog.Succeed(unknown, before)
		if want := `item app/prod: floor "0": the catalog has no such release of it: give its url, md5, sha256 and size`; fmt.Sprint(err) != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	many := old.Clone()
	for i := range 2 * catalog.MaxPassed {
		next, err := catalog.Succeed(of(fmt.Sprint("2.", i)), &many)
		if err != nil {
			t.Fatal(err)
		}
		many = next
	}
	if n := len(many.Floors[0].Passed); n != catalog.MaxPassed || many.Floors[0].Passed[n-1].Version != fmt.Sprint("2.", 2*catalog.MaxPassed-2) {
		t.Errorf("%d releases have passed, the last one %s", n, many.Floors[0].Passed[n-1].Version)
	}
}

func p(it catalog.Item) *catalog.Item { return &it }

// Steps are in the order of an index, and have no release that nobody can get.
func TestSteps(t *testing.T) {
	three := of("3", rollout(50, p(bare("2"))), floors("1"))
	three.App, three.Track = "", ""
	for want, it := range map[string]catalog.Item{
		"[1]":                     of("1"),
		"[4 3 1f 2]":              of("4", rollout(10, &three)),
		"[4 3.5f 3.2f 3 1f 2]":    of("4", rollout(10, &three), floors("3.2", "3.5")),
		"[4 3.5f]":                of("4", rollout(100, &three), floors("3.5")),
		"[4 3 1f 2] and nothing ": of("4", rollout(0, &three)),
	} {
		var got []string
		for _, s := range it.Steps() {
			if s.App != "app" || s.Track != "prod" {
				t.Errorf("%s is of %s", s.Version, s.Key())
			}
			name := s.Version
			if s.Role == index.Floor {
				name += "f"
			}
			got = append(got, name)
		}
		if s := fmt.Sprint(got); !strings.HasPrefix(want, s) {
			t.Errorf("got %s, want %s", s, want)
		}
	}
}

func TestRolloutProblems(t *testing.T) {
	one := bare("1")
	two := bare("2")
	passed := func(n int) func(*catalog.Item) {
		return func(it *catalog.Item) {
			it.Floors = []catalog.Item{one}
			for i := range n {
				it.Floors[0].Passed = append(it.Floors[0].Passed, catalog.Item{Version: fmt.Sprint(i), MD5: one.MD5, SHA256: one.SHA256})
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*catalog.Item)
		want   string // of the first problem; empty: none
	}{
		{"half a percent", rollout(0.5, &one), ""},
		{"the smallest share", rollout(0.01, &one), ""},
		{"nobody", rollout(0, &one), ""},
		{"everybody", rollout(100, &one), ""},
		{"over nothing", rollout(10, nil), ""},
		{"a salt", func(it *catalog.Item) { it.Rollout = &catalog.Rollout{Percent: 1, Salt: "spring_2-7"} }, ""},
		{"the most floors", func(it *catalog.Item) {
			for i := range catalog.MaxFloors {
				it.Floors = append(it.Floors, bare(fmt.Sprint("f", i)))
			}
		}, ""},
		{"the most passed releases", passed(catalog.MaxPassed), ""},

		{"a thousandth", rollout(0.001, &one), "rollout.percent: 0.001 is not a number from 0 to 100 with at most two digits after the point"},
		{"negative", rollout(-1, &one), "rollout.percent: -1 is not a number from 0 to 100 with at most two digits after the point"},
		{"more than all", rollout(101, &one), "rollout.percent: 101 is not a number from 0 to 100 with at most two digits after the point"},
		{"a salt in upper case", func(it *catalog.Item) { it.Rollout = &catalog.Rollout{Percent: 1, Salt: "Spring"} }, `rollout.salt: "Spring" is not 1 to 32 of the characters a-z, 0-9, - and _`},
		{"over itself", func(it *catalog.Item) { rollout(10, p(it.Bare()))(it); it.Previous.App, it.Previous.Track = "", "" }, "previous: is the same release"},
		{"previous without a rollout", func(it *catalog.Item) { it.Previous = &one }, "previous: nobody would get it: there is no rollout"},
		{"previous without a digest", func(it *catalog.Item) { rollout(10, p(one))(it); it.Previous.MD5 = "" }, "previous.md5: is missing: give 32 hex digits, or a file to compute them from"},
		{"previous of an app", func(it *catalog.Item) { rollout(10, p(of("1")))(it) }, "previous.app: a previous release has the app and track of its item, and no passed releases"},
		{"too many releases", func(it *catalog.Item) {
			at := it
			for i := range catalog.MaxReleases {
				rollout(10, p(bare(fmt.Sprint("p", i))))(at)
				at = at.Previous
			}
		}, "previous.previous.previous.previous: is one more than the 4 releases that an item may have: end the rollout of one"},
		{"other content of one version", func(it *catalog.Item) { rollout(10, p(two))(it); it.Previous.Version = "9" },
			`version: version "9" has other content in item app/prod: give the new content a new version`},
		{"too many floors", func(it *catalog.Item) { it.Floors = make([]catalog.Item, catalog.MaxFloors+1) }, "floors: are 17, more than 16"},
		{"a floor without a version", func(it *catalog.Item) { it.Floors = []catalog.Item{one}; it.Floors[0].Version = "" }, "floors[0].version: is empty"},
		{"a floor without a place", func(it *catalog.Item) { it.Floors = []catalog.Item{one}; it.Floors[0].URL = "" }, "floors[0].url: is missing: give where the binary can be read, or a file"},
		{"a floor twice", floors("1", "1"), "floors[1].sha256: is that of the release itself, or of another floor"},
		{"a floor that is the release", floors("9"), "floors[0].sha256: is that of the release itself, or of another floor"},
		{"a floor for gamers", func(it *catalog.Item) {
			it.Floors = []catalog.Item{one}
			it.Floors[0].DeviceAttr = map[string]bool{"gamer": true}
		},
			"floors[0].app: a floor applies to the devices of the release after it: it has no app, track, attributes, rollout, previous release or floors"},
		{"too many passed releases", passed(catalog.MaxPassed + 1), "floors[0].passed: are 65, more than 64"},
		{"a passed release without a digest", func(it *catalog.Item) { passed(1)(it); it.Floors[0].Passed[0].SHA256 = "" }, "floors[0].passed[0].sha256: is missing: give 64 hex digits, or a file to compute them from"},
		{"passed releases of no floor", func(it *catalog.Item) { it.Passed = []catalog.Item{one} }, "passed: is for floors only"},
		{"a floor of the previous release", func(it *catalog.Item) { rollout(10, p(one))(it); it.Previous.Floors = []catalog.Item{{Version: "0"}} },
			"previous.floors[0].md5: is missing: give 32 hex digits, or a file to compute them from"},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems := catalog.Check([]catalog.Item{of("9", c.change)})
			switch {
			case c.want == "" && len(problems) > 0:
				t.Error(problems)
			case c.want != "" && (len(problems) == 0 || problems[0].Error() != "item app/prod: "+c.want):
				t.Errorf("got  %v\nwant item app/prod: %s", problems, c.want)
			}
		})
	}
}

// A share is a whole number of places, whatever floats make of its percentage.
func TestPlaces(t *testing.T) {
	for n := range index.Slots + 1 {
		r := catalog.Rollout{Percent: float64(n) / 100}
		if got := r.Places(); got != n {
			t.Fatalf("%v %% are %d places", r.Percent, got)
		}
		if err := catalog.Validate([]catalog.Item{of("9", func(it *catalog.Item) { it.Rollout = &r })}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSalt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		it := of("1")
		it.Version = rapid.String().Draw(t, "version")
		if !index.IsSalt(it.Salt()) || it.Salt() == of("another").Salt() {
			t.Fatalf("%q has the salt %q", it.Version, it.Salt())
		}
		it.Rollout = &catalog.Rollout{Salt: "x"}
		if it.Salt() != "x" {
			t.Fatalf("salt %q", it.Salt())
		}
	})
}

// A copy shares nothing with what it was made of.
func TestClone(t *testing.T) {
	it := of("3", rollout(10, p(bare("1"))), floors("2"))
	it.Floors[0].Passed = []catalog.Item{bare("2.5")}
	it.Previous.DeviceAttr = map[string]bool{"a": true}
	c, want := it.Clone(), it.Clone()
	c.Rollout.Percent, c.Previous.Version, c.Floors[0].Version, c.Floors[0].Passed[0].Version, c.Previous.DeviceAttr["a"] = 20, "x", "x", "x", false
	if !reflect.DeepEqual(it, want) || it.Same(c) {
		t.Errorf("%+v", it)
	}
}
