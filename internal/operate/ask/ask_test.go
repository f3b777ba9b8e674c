package ask_test

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/ask"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// release makes a release whose digests follow from app and version.
func release(app, track, version string, attrs ...string) index.Item {
	content := []byte(app + " " + version)
	slices.Sort(attrs)
	return index.Item{App: app, Track: track, Version: version, Size: int64(len(content)), MD5: md5.Sum(content), SHA256: sha256.Sum256(content), Attrs: attrs}
}

func digestOf(app, version string) string {
	it := release(app, "", version)
	return edge.Hex(it.SHA256[:])
}

var (
	someApps   = []string{"os_armv8", "os_armv7", "pump", "Valve 2", "os_"}
	someTracks = []string{"prod", "Beta"}
	someAttrs  = []string{"Wet", "dry"}
)

// indexes generates indexes with rollouts and floors, in which one release is on two tracks now and then.
func indexes() *rapid.Generator[*index.Index] {
	return rapid.Custom(func(t *rapid.T) *index.Index {
		var items []index.Item
		for _, app := range someApps {
			for _, track := range someTracks {
				version := rapid.IntRange(1, 2).Draw(t, "first version")
				left := rapid.IntRange(0, 3).Draw(t, "releases")
				for i := range left {
					it := release(app, track, fmt.Sprint(version), rapid.SliceOfNDistinct(rapid.SampledFrom(someAttrs), 0, 2, rapid.ID).Draw(t, "attrs")...)
					if i > 0 {
						it.Role = index.Previous
					}
					if i < left-1 || rapid.IntRange(0, 3).Draw(t, "over nothing") == 0 {
						it.Salt, it.Share = rapid.SampledFrom([]string{"spring", "winter"}).Draw(t, "salt"), rapid.SampledFrom([]uint16{0, 1, 2500, 9999}).Draw(t, "share")
					}
					items = append(items, it)
					for range rapid.IntRange(-2, 2).Draw(t, "floors") {
						version += 2
						floor := release(app, track, fmt.Sprint(version))
						floor.Role = index.Floor
						if rapid.Bool().Draw(t, "passed") {
							p := release(app, track, fmt.Sprint(version, "b"))
							floor.Passed = []index.Digests{{MD5: p.MD5, SHA256: p.SHA256}}
						}
						items = append(items, floor)
					}
					version += 2
				}
			}
		}
		return index.New(index.Index{Generation: 3, Sequence: 4, Format: "test", Items: items})
	})
}

// questions generates what devices ask of such indexes.
func questions() *rapid.Generator[ask.Question] {
	return rapid.Custom(func(t *rapid.T) ask.Question {
		params := []string{"cpuArch=" + rapid.SampledFrom([]string{"armv8", "armv7", "sparc"}).Draw(t, "arch")}
		maybe := func(name string) {
			if track := rapid.SampledFrom([]string{"", "", "prod", "beta", "stage"}).Draw(t, name); track != "" {
				params = append(params, name+"="+track)
			}
		}
		for _, name := range []string{"os", "attrWet", "attrdry", "attrNone", "pump", "valve+2", "os_armv7"} {
			maybe(name)
		}
		if rapid.Bool().Draw(t, "sends a slot") {
			params = append(params, fmt.Sprint("slot=", rapid.IntRange(0, index.Slots-1).Draw(t, "slot")))
		}
		if rapid.IntRange(0, 3).Draw(t, "manifest") == 0 {
			params = append(params, "payloadType=metadataOnly")
		}
		var held []string
		for range rapid.IntRange(0, 4).Draw(t, "held") {
			held = append(held, digestOf(rapid.SampledFrom(someApps).Draw(t, "app"), fmt.Sprint(rapid.IntRange(1, 8).Draw(t, "version"), rapid.SampledFrom([]string{"", "", "b"}).Draw(t, "passed"))))
		}
		return ask.Question{Query: strings.Join(rapid.Permutation(params).Draw(t, "order"), "&"), Held: strings.Join(held, ",")}
	})
}

// answer asks without objects: nothing can be composed, so only what is decided counts.
func answer(t *rapid.T, ix *index.Index, q ask.Question) *ask.Report {
	t.Helper()
	rep, err := ask.Source{Objects: storetest.NewMemory(nil, 1).Objects, Index: ix}.Ask(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// The items that ask names, and what it says of each, are what the edge gives.
func TestReasonsAreTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ix, q := indexes().Draw(t, "index"), questions().Draw(t, "question")
		got, want := answer(t, ix, q), edge.Decide(ix, q.Query, q.Held)
		if len(got.Items) != want.Set.Len() || got.Status != want.Status && got.Problem == "" {
			t.Fatalf("status %d, %d items; the edge says %d, %d items", got.Status, len(got.Items), want.Status, want.Set.Len())
		}
		_, slot, err := edge.ParseQuery(q.Query)
		if err != nil {
			t.Fatal(err)
		}
		for i, it := range got.Items {
			if w := want.Set.Item(i); it.App != w.App || it.Track != w.Track || it.Version != w.Version || it.SHA256 != edge.Hex(w.SHA256[:]) || it.Held != want.Mask.Has(i) {
				t.Fatalf("item %d is %+v, want %+v, held: %t", i, it, w, want.Mask.Has(i))
			}
			if len(it.By) == 0 {
				t.Fatalf("nothing brings %+v", it)
			}
			for _, by := range it.By {
				if !gives(ix, q, by+"&cpuArch=none", it.App, it.Version) {
					t.Fatalf("%s does not bring %+v", by, it)
				}
			}
			role, floors := index.Current, 0
			for j := want.Set.Positions[i]; int(j) < len(ix.Items) && (ix.Items[j].Role == index.Floor || j == want.Set.Positions[i]); j++ {
				if floors++; j == want.Set.Positions[i] {
					role, floors = ix.Items[j].Role, 0
				}
			}
			if (role == index.Floor) != (len(it.Before) > 0) || (floors > 0) != (it.Passed != "") || (it.Passed != "") != (it.Shown != "") {
				t.Fatalf("a release of role %d with %d floors before it is explained as %+v", role, floors, it)
			}
			for n, r := range it.Rollouts {
				in := slot != edge.NoSlot && float64(edge.Place(r.Salt, slot)) < r.Percent*100
				if r.In != in || in && n < len(it.Rollouts)-1 {
					t.Fatalf("slot %d: %+v of %+v", slot, r, it)
				}
			}
		}
		checkUnmet(t, ix, q, got)
		checkNear(t, ix, q, got)
	})
}

// gives tells whether a device that asks something else gets a release.
func gives(ix *index.Index, q ask.Question, query, app, version string) bool {
	d := edge.Decide(ix, query+"&slot="+slotOf(q), q.Held)
	return slices.ContainsFunc(setOf(d), func(it *index.Item) bool { return it.App == app && it.Version == version })
}

// checkUnmet: a parameter brings an item, or it is among those that bring nothing.
func checkUnmet(t *rapid.T, ix *index.Index, q ask.Question, got *ask.Report) {
	brings := make(map[string]bool)
	for _, it := range got.Items {
		for _, by := range it.By {
			brings[by] = true
		}
	}
	for _, u := range got.Unmet {
		if brings[u.Param] || u.Why == "" || edge.Decide(ix, u.Param+"&cpuArch=none&slot="+slotOf(q), q.Held).Set.Len() > 0 {
			t.Fatalf("%+v: it brings something", u)
		}
		brings[u.Param] = true
	}
	s, _, _ := edge.ParseQuery(q.Query)
	if want := 1 + len(s.Attrs) + len(s.Apps); len(brings) != want {
		t.Fatalf("%d parameters are explained, of %d: %v", len(brings), want, brings)
	}
}

func slotOf(q ask.Question) string {
	if _, slot, err := edge.ParseQuery(q.Query); err == nil && slot != edge.NoSlot {
		return fmt.Sprint(slot)
	}
	return ""
}

// checkNear: what would bring an item that the device does not get does, and nothing else is said to.
func checkNear(t *rapid.T, ix *index.Index, q ask.Question, got *ask.Report) {
	if got.Status == edge.StatusNotFound && len(got.Near) == 0 && len(ix.Items) > 0 {
		t.Fatal("nothing is near")
	}
	for _, n := range got.Near {
		if slices.ContainsFunc(got.Items, func(it ask.Item) bool {
			return it.App == n.App && (it.Track == n.Track || slices.Contains(it.Also, n.Track))
		}) {
			t.Fatalf("%+v is what the device gets", n)
		}
		if (n.Needs == "") != (n.Has == "" && n.Why != "") && n.Needs == "" {
			t.Fatalf("%+v: why does the device not get it?", n)
		}
		brought := n.Needs != "" && gives(ix, q, n.Needs+"&"+q.Query, n.App, n.Version) // the first parameter of a name counts
		if brought != (n.Why == "") {
			t.Fatalf("%+v: does it bring it? %t", n, brought)
		}
	}
}

func setOf(d edge.Decision) []*index.Item {
	var all []*index.Item
	for i := range d.Set.Len() {
		all = append(all, d.Set.Item(i))
	}
	return all
}

// Every slot is counted, with the answer that devices with that slot get.
func TestAnswersForSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ix, q := indexes().Draw(t, "index"), questions().Draw(t, "question")
		if slotOf(q) != "" {
			t.Skip("a device with a slot")
		}
		got := answer(t, ix, q)
		counted := got.More
		for _, o := range got.Slots {
			counted += o.Slots
			one := answer(t, ix, ask.Question{Query: q.Query + fmt.Sprint("&slot=", o.Example), Held: q.Held})
			if !one.Answer.Same(&o.Answer) || o.Answer.Same(&got.Answer) {
				t.Fatalf("slot %d: %+v, said to be %+v", o.Example, one.Answer, o.Answer)
			}
		}
		differ, table := 0, edge.TableOf(ix)
		plain := idOf(table.Decide(q.Query, q.Held))
		for slot := range index.Slots {
			if idOf(table.Decide(q.Query+fmt.Sprint("&slot=", slot), q.Held)) != plain {
				differ++
			}
		}
		if differ != counted {
			t.Fatalf("%d slots are said to get something else, and %d do", counted, differ)
		}
	})
}

// idOf is the same for answers with the same packages.
func idOf(d edge.Decision) string {
	if d.Set.Len() == 0 {
		return ""
	}
	return d.Set.ID() + d.Mask.String()
}

func TestQuery(t *testing.T) {
	for text, want := range map[string]string{
		"cpuArch=armv8&attrGamer=prod":                     "cpuArch=armv8&attrGamer=prod",
		"?cpuArch=armv8":                                   "cpuArch=armv8",
		"/package?cpuArch=armv8":                           "cpuArch=armv8",
		"https://h:8080/package?cpuArch=armv8&x=%3F#there": "cpuArch=armv8&x=%3F",
		"h:8080/package?cpuArch=armv8":                     "cpuArch=armv8",
		"cpuArch=armv8&a=b?c":                              "cpuArch=armv8&a=b?c",
		"https://h/package":                                "",
		"/package":                                         "",
		"package?":                                         "",
		" cpuArch=armv8\n":                                 "cpuArch=armv8",
		"cpuArch=armv8&callback=https://h/package?cpuArch=1": "cpuArch=armv8&callback=https://h/package?cpuArch=1",
	} {
		if got := ask.Query(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// docs/formats.md names every field that is printed as JSON.
func TestTheFieldsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), "## What `precast ask --json` prints\n")
	section, _, _ = strings.Cut(section, "\n## ")
	fields := 0
	for _, of := range []reflect.Type{reflect.TypeFor[ask.Report](), reflect.TypeFor[ask.Item](), reflect.TypeFor[ask.Rollout](), reflect.TypeFor[ask.Unmet](),
		reflect.TypeFor[ask.Near](), reflect.TypeFor[ask.OfSlots](), reflect.TypeFor[ask.Waiting]()} {
		for _, f := range reflect.VisibleFields(of) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				if f.IsExported() && !f.Anonymous {
					t.Errorf("%s.%s has no name in JSON", of, f.Name)
				}
				continue
			}
			if fields++; !strings.Contains(section, "`"+name+"`") && !strings.Contains(section, `"`+name+`":`) {
				t.Errorf("docs/formats.md does not name %s", name)
			}
		}
	}
	if fields < 40 {
		t.Errorf("only %d fields", fields)
	}
}
