package edge_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

// The slots of a salt have all places, each one of them; and the places are those that a shell can work out.
func TestPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		salt := rapid.StringMatching(`[a-z0-9_-]{1,32}`).Draw(t, "salt")
		taken := make([]bool, index.Slots)
		for slot := range index.Slots {
			taken[edge.Place(salt, slot)] = true
		}
		if slices.Contains(taken, false) {
			t.Fatal("two slots have one place")
		}
		sum := sha256.Sum256([]byte("precast rollout 1 " + salt))
		a := int(binary.BigEndian.Uint32(sum[:]))%1000*10 + []int{1, 3, 7, 9}[sum[4]&3]
		b := int(binary.BigEndian.Uint32(sum[5:])) % 10000
		if slot := rapid.IntRange(0, 9999).Draw(t, "slot"); edge.Place(salt, slot) != (a*slot+b)%10000 {
			t.Fatalf("slot %d has place %d", slot, edge.Place(salt, slot))
		}
	})
	// docs/rollouts.md has this one.
	if got := fmt.Sprint(edge.Place("spring", 0), edge.Place("spring", 1), edge.Place("spring", 4711)); got != "4066 9229 6959" {
		t.Errorf("places %s", got)
	}
}

// Devices that are in one rollout are in another one as if by chance.
func TestRolloutsAreIndependent(t *testing.T) {
	const salts = 40
	var in [salts][index.Slots]bool
	for i := range salts {
		for slot := range index.Slots {
			in[i][slot] = edge.Place(fmt.Sprint("salt", i), slot) < index.Slots/10
		}
	}
	var sum, squares float64
	n := 0.0
	for i := range salts {
		for j := range i {
			both := 0
			for slot := range index.Slots {
				if in[i][slot] && in[j][slot] {
					both++
				}
			}
			sum, squares, n = sum+float64(both), squares+float64(both*both), n+1
		}
	}
	mean := sum / n
	t.Logf("of 10,000 slots, 1,000 in each of two rollouts, %.0f are in both (standard deviation %.0f)", mean, math.Sqrt(squares/n-mean*mean))
	if mean < 80 || mean > 120 {
		t.Errorf("%.0f slots are in both", mean)
	}
}

// app is an item as a release manager thinks of it.
type app struct {
	name, track string
	releases    []release // the newest first
}

type release struct {
	version string
	attrs   []string
	salt    string // empty: for everybody
	share   int
	floors  []floor // the oldest first
}

type floor struct {
	version string
	passed  []string
}

func (a app) items() []index.Item {
	var all []index.Item
	for i, r := range a.releases {
		it := item(a.name, a.track, r.version, r.attrs...)
		it.Salt, it.Share = r.salt, uint16(r.share)
		if i > 0 {
			it.Role = index.Previous
		}
		all = append(all, it)
		for _, f := range slices.Backward(r.floors) {
			it := item(a.name, a.track, f.version)
			it.Role = index.Floor
			for _, p := range f.passed {
				q := item(a.name, "", p)
				it.Passed = append(it.Passed, index.Digests{MD5: q.MD5, SHA256: q.SHA256})
			}
			all = append(all, it)
		}
	}
	return all
}

// gets is what a device gets of an app, the plain way; "" for nothing. Attr says by which attribute, or "" by name.
func (a app) gets(slot int, held map[string]bool, attr string) string {
	has := func(version string) bool { return held[md5Of(a.name, version)] || held[sha256Of(a.name, version)] }
	further := false
	for _, r := range a.releases {
		further = further || has(r.version)
		if r.salt != "" && (slot < 0 || edge.Place(r.salt, slot) >= r.share) {
			continue
		}
		if attr != "" && !slices.Contains(r.attrs, attr) {
			return ""
		}
		// How many floors has it passed?
		passed := 0
		for i, f := range r.floors {
			if has(f.version) || slices.ContainsFunc(f.passed, has) {
				passed = i + 1
			}
		}
		if further || passed == len(r.floors) {
			return r.version
		}
		return r.floors[passed].version
	}
	return ""
}

func apps() *rapid.Generator[[]app] {
	salts := []string{"spring", "winter", "a", "z9"}
	return rapid.Custom(func(t *rapid.T) []app {
		var all []app
		for i := range rapid.IntRange(1, 4).Draw(t, "apps") {
			a := app{name: []string{"os_armv8", "pump", "Valve 2", "größe"}[i], track: rapid.SampledFrom([]string{"prod", "Beta"}).Draw(t, "track")}
			n := 0
			version := func() string { n++; return fmt.Sprint(n) }
			for left := rapid.IntRange(1, 4).Draw(t, "releases"); left > 0; left-- {
				r := release{version: version(), attrs: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"Wet", "dry"}), 0, 2, rapid.ID).Draw(t, "attrs")}
				slices.Sort(r.attrs)
				if left > 1 || rapid.IntRange(0, 3).Draw(t, "over nothing") == 0 {
					r.salt, r.share = rapid.SampledFrom(salts).Draw(t, "salt"), rapid.SampledFrom([]int{0, 1, 100, 5000, 9999}).Draw(t, "share")
				}
				for range rapid.IntRange(-3, 3).Draw(t, "floors") {
					f := floor{version: version()}
					for range rapid.IntRange(0, 2).Draw(t, "passed") {
						f.passed = append(f.passed, version())
					}
					r.floors = append(r.floors, f)
				}
				a.releases = append(a.releases, r)
			}
			all = append(all, a)
		}
		return all
	})
}

func indexOfApps(all []app) *index.Index {
	var items []index.Item
	for _, a := range all {
		items = append(items, a.items()...)
	}
	return indexOf(items...)
}

// asks is what a device asks, and what it is to get by the plain way.
func asks(t *rapid.T, all []app, slot int) (query string, held []string, want []string) {
	params := map[string]string{"cpuArch": "armv8"}
	os := "prod"
	if rapid.Bool().Draw(t, "os") {
		os = "beta"
		params["os"] = os
	}
	for _, attr := range []string{"wet", "dry"} {
		if track := rapid.SampledFrom([]string{"", "prod", "beta"}).Draw(t, attr); track != "" {
			params["attr"+attr] = track
		}
	}
	holds := make(map[string]bool)
	for _, a := range all {
		if track := rapid.SampledFrom([]string{"", "", "prod", "beta"}).Draw(t, a.name); track != "" {
			params[a.name] = track
		}
		if v := rapid.IntRange(-2, 9).Draw(t, "holds"); v > 0 {
			digest := rapid.SampledFrom([]string{md5Of(a.name, fmt.Sprint(v)), sha256Of(a.name, fmt.Sprint(v))}).Draw(t, "digest")
			holds[digest] = true
			held = append(held, digest)
		}
	}
	for _, a := range all {
		got := make(map[string]bool)
		track := lower(a.track)
		if a.name == "os_armv8" && os == track || params[a.name] == track {
			got[a.gets(slot, holds, "")] = true
		}
		for _, attr := range []string{"Wet", "dry"} {
			if params["attr"+lower(attr)] == track {
				got[a.gets(slot, holds, attr)] = true
			}
		}
		delete(got, "")
		for v := range got {
			want = append(want, a.name+"_"+v)
		}
	}
	if slot >= 0 {
		params["slot"] = fmt.Sprint(slot)
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		parts = append(parts, edge.Escape(name)+"="+edge.Escape(params[name]))
	}
	slices.Sort(want)
	return strings.Join(parts, "&"), held, want
}

// What a device gets, by its slot and what it holds, is what the plain way gives it; by a cohort it is the same.
func TestRollouts(t *testing.T) {
	statuses := make(map[int]int)
	rapid.Check(t, func(t *rapid.T) {
		all := apps().Draw(t, "apps")
		ix := indexOfApps(all)
		if _, err := index.Parse(ix.Encode()); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			slot := rapid.SampledFrom([]int{edge.NoSlot, 0, 1, 9999, rapid.IntRange(0, 9999).Draw(t, "any slot")}).Draw(t, "slot")
			query, held, want := asks(t, all, slot)
			d := edge.Decide(ix, query, strings.Join(held, ","))
			if len(want) == 0 {
				if d.Status != edge.StatusNotFound {
					t.Fatalf("%s: status %d, files %s", query, d.Status, files(d.Set))
				}
				continue
			}
			var got []string
			for i := range d.Set.Len() {
				got = append(got, d.Set.Item(i).App+"_"+d.Set.Item(i).Version)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("%s holding %q: got %q, want %q", query, held, got, want)
			}
			statuses[d.Status]++
			cohort := d.Cohort.String()
			if parsed := edge.ParseCohort(cohort); parsed.String() != cohort || len(cohort) > edge.MaxCohort {
				t.Fatalf("cohort %q is read as %q", cohort, parsed)
			}
			again := edge.DecideCohort(ix, d.Selection.String(), cohort, d.Held.String())
			if again.Status != d.Status || again.Status == 200 && keyOf(again) != keyOf(d) {
				t.Fatalf("%s: another answer to the cohort %q", query, cohort)
			}
			claims := edge.ClaimsOf(ix, d.Device)
			for _, c := range claims.Rollouts {
				if in := slot >= 0 && edge.Place(c.Salt, slot) < int(c.Places); in != c.In {
					t.Fatalf("%s: claims %+v", query, c)
				}
			}
			for _, sums := range claims.After {
				if !slices.ContainsFunc(sums, func(sum string) bool {
					return slices.Contains(held, sum) || slices.ContainsFunc(held, func(h string) bool { return len(h) == 32 && sameFile(all, h, sum) })
				}) {
					t.Fatalf("%s holding %s: the answer is for who holds one of %s", query, held, sums)
				}
			}
			for _, sum := range claims.Unless {
				if slices.Contains(held, sum) || slices.ContainsFunc(held, func(h string) bool { return len(h) == 32 && sameFile(all, h, sum) }) {
					t.Fatalf("%s holding %s: the answer is not for it", query, sum)
				}
			}
		}
	})
	t.Logf("statuses %v", statuses)
	if statuses[200] == 0 || statuses[304] == 0 {
		t.Error("a case did not occur")
	}
}

// sameFile tells whether an MD5 and a SHA-256 are those of one release of an app.
func sameFile(all []app, md5, sha256 string) bool {
	return slices.ContainsFunc(all, func(a app) bool {
		for v := range 60 {
			if md5Of(a.name, fmt.Sprint(v)) == md5 {
				return sha256Of(a.name, fmt.Sprint(v)) == sha256
			}
		}
		return false
	})
}

func keyOf(d edge.Decision) string {
	_, key := d.Object()
	return key
}

// While a rollout grows, nobody leaves it; and of two answers with the same claims, each is the other one.
func TestRolloutsGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		salt := rapid.StringMatching(`[a-z0-9_-]{1,32}`).Draw(t, "salt")
		shares := rapid.SliceOfN(rapid.IntRange(0, 9999), 2, 6).Draw(t, "shares")
		slices.Sort(shares)
		in := make([]bool, index.Slots)
		for _, share := range shares {
			old := item("pump", "prod", "1", "wet")
			old.Role = index.Previous
			next := item("pump", "prod", "2", "wet")
			next.Salt, next.Share = salt, uint16(share)
			table := edge.TableOf(indexOf(next, old))
			n := 0
			for slot := range index.Slots {
				got := table.Cohort(edge.Selection{Arch: "x", OS: "prod", Attrs: []edge.Param{{Name: "wet", Track: "prod"}}}, slot).In(salt, uint16(share))
				if in[slot] && !got {
					t.Fatalf("slot %d leaves at %d", slot, share)
				}
				if in[slot] = got; got {
					n++
				}
			}
			if n != share {
				t.Fatalf("%d slots of %d are in", n, share)
			}
		}
	})
}

// Two cohorts of one selection are one answer for each rollout: in it or not, and no more variants than that.
func TestTwoVariants(t *testing.T) {
	old := item("pump", "prod", "1", "wet")
	old.Role = index.Previous
	next := item("pump", "prod", "2", "wet")
	next.Salt, next.Share = "spring", 2500
	other := item("fan", "prod", "2", "dry")
	other.Salt, other.Share = "winter", 2500
	table := edge.TableOf(indexOf(next, old, other))
	seen := make(map[string]int)
	for slot := range index.Slots {
		d := table.Decide(fmt.Sprint("cpuArch=x&attrWet=prod&slot=", slot), "")
		seen[d.Cohort.String()+" "+d.Set.Item(0).Version]++
	}
	if !maps.Equal(seen, map[string]int{" 1": 7500, "spring~2500 2": 2500}) {
		t.Errorf("variants %v", seen)
	}
	if d := table.Decide("cpuArch=x&attrWet=prod", ""); d.Set.Item(0).Version != "1" {
		t.Error("a device without a slot is in a rollout")
	}
}

// What devices are told apart covers what any device gets.
func TestDevices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := apps().Draw(t, "apps")
		ix := indexOfApps(all)
		dims := edge.DimensionsOf(ix)
		for range 5 {
			slot := rapid.IntRange(-1, 9999).Draw(t, "slot")
			query, held, _ := asks(t, all, slot)
			d := edge.Decide(ix, query, strings.Join(held, ","))
			devices, complete := dims.Devices(d.Selection)
			if len(devices) == 0 || len(devices) > 64 {
				t.Fatalf("%s: %d devices", query, len(devices))
			}
			found := d.Status == edge.StatusNotFound
			seen := make(map[string]bool)
			for _, device := range devices {
				set, err := edge.Resolve(ix, device)
				if err != nil {
					t.Fatal(err)
				}
				found = found || slices.Equal(set.Positions, d.Set.Positions)
				// It can be asked for.
				again := edge.Decide(ix, dims.Query(device), device.Held.String())
				if !slices.Equal(again.Set.Positions, set.Positions) || set.Len() > 0 && again.Cohort.String() != device.Cohort.String() {
					t.Fatalf("%s holding %s gets another set", dims.Query(device), device.Held)
				}
				key := device.Cohort.String() + " " + device.Held.String()
				if seen[key] {
					t.Fatalf("%s: %q is there twice", query, key)
				}
				seen[key] = true
			}
			if complete && !found {
				t.Fatalf("%s holding %q gets %s, which none of %d devices gets", query, held, files(d.Set), len(devices))
			}
		}
	})
}

// A table keeps the limits of the store, says what it has no room for, and nobody is in that.
func TestTableHasRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var items []index.Item
		for i := range rapid.IntRange(0, 300).Draw(t, "rollouts") {
			it := item(fmt.Sprint("app", i, strings.Repeat("ß", rapid.IntRange(0, 58).Draw(t, "long"))), "prod", "1")
			it.Salt = fmt.Sprint("salt", rapid.IntRange(0, 40).Draw(t, "salt"))
			it.Share = uint16(rapid.IntRange(0, 9999).Draw(t, "share"))
			items = append(items, it)
		}
		ix := indexOf(items...)
		table := edge.TableOf(ix)
		values := table.Values()
		if len(values) > 8 || len(values) > 0 && strings.HasSuffix(values[len(values)-1], "+\n") {
			t.Fatalf("%d values", len(values))
		}
		for i, v := range values {
			if len(v) == 0 || len(v) > 1024 || i < len(values)-1 && !strings.HasSuffix(v, "\n+\n") {
				t.Fatalf("value %d has %d bytes", i, len(v))
			}
		}
		named := strings.Count(strings.Join(values, ""), "=")
		for i := range items {
			if ix.Items[i].Share == 0 { // nobody has it
				named++
				continue
			}
			s := edge.Selection{Arch: "x", OS: "prod", Apps: []edge.Param{{Name: index.Fold(ix.Items[i].App), Track: "prod"}}}
			met := slices.ContainsFunc(table.Lines, func(l edge.Line) bool {
				return l.Salt == ix.Items[i].Salt && slices.ContainsFunc(l.Selectors, func(p []edge.Param) bool { return slices.Equal(p, s.Apps) })
			})
			if met == slices.Contains(table.LeftOut, int32(i)) {
				t.Fatalf("%s: in the table: %t, left out: %t", ix.Items[i].App, met, !met)
			}
		}
		if named+len(table.LeftOut) != len(items) {
			t.Fatalf("%d apps are in the table or for nobody, %d are left out, of %d", named, len(table.LeftOut), len(items))
		}
	})
}
