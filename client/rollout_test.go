package client_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// Devices of the staged world, by the place of their slot in the rollout to a quarter of the fleet: 207, 4066 and none.
const (
	insideQuery  = query + "&slot=7"
	outsideQuery = query + "&slot=0"
)

func newStagedWorld(t testing.TB) *world { return staging(newWorld(t)) }

func staging(w *world) *world {
	w.kind.staged = true
	return w
}

// devicesAs returns a device of each kind.
func (w *world) devicesAs(query string) map[string]device {
	d := &goDevice{t: w.t, dir: w.t.TempDir()}
	d.client = w.clientOf(d, query, w.front)
	all := map[string]device{"go": d}
	for name, s := range shells(w.t) {
		one := w.shDevice(s)
		one.query = query
		all[name] = one
	}
	return all
}

// os returns the version of the operating system that a device has.
func osOf(d device) string {
	files, _ := d.installed()
	for name := range files {
		if version, ok := strings.CutPrefix(name, "os_armv8_"); ok {
			return version
		}
	}
	return ""
}

func wantOS(t *testing.T, d device, want string) {
	t.Helper()
	mustUpdate(t, d)
	if got := osOf(d); got != want {
		t.Fatalf("it has %s, want %s", got, want)
	}
}

// A release reaches the devices whose slots are in its rollout, and a floor those that have not passed it.
func TestRolloutAndFloor(t *testing.T) { onBothKinds(t, rolloutAndFloor) }

func rolloutAndFloor(t *testing.T, newWorld func(testing.TB) *world) {
	for kind := range staging(newWorld(t)).devicesAs(query) {
		t.Run(kind, func(t *testing.T) {
			w := staging(newWorld(t))
			inside, outside := w.devicesAs(insideQuery)[kind], w.devicesAs(outsideQuery)[kind]
			drawn := w.devices()[kind]
			late := w.devicesAs(outsideQuery)[kind]
			for _, d := range []device{inside, outside, drawn} {
				wantOS(t, d, "1.1")
			}
			w.publish() // 1.2 for a quarter
			wantOS(t, inside, "1.2")
			wantOS(t, outside, "1.1")
			mustUpdate(t, drawn)
			want := "1.1"
			if edge.Place("spring", slotOf(t, drawn)) < 2500 {
				want = "1.2"
			}
			if got := osOf(drawn); got != want {
				t.Errorf("slot %d has %s, want %s", slotOf(t, drawn), got, want)
			}
			before := slotOf(t, drawn)
			w.publish() // 1.3 for all who have had 1.2
			wantOS(t, inside, "1.3")
			wantOS(t, outside, "1.2")
			wantOS(t, outside, "1.3")
			wantOS(t, outside, "1.3")
			if _, times := outside.installed(); times != 3 {
				t.Errorf("files were taken into use %d times, want 3", times)
			}
			w.publish() // 1.4, with the same floor
			wantOS(t, inside, "1.4")
			wantOS(t, late, "1.2") // new from the factory
			wantOS(t, late, "1.4")
			mustUpdate(t, drawn)
			if after := slotOf(t, drawn); after != before {
				t.Errorf("the slot was %d and is %d", before, after)
			}
		})
	}
}

// slotOf reads the slot that a device has drawn.
func slotOf(t *testing.T, d device) int {
	t.Helper()
	switch d := d.(type) {
	case *goDevice:
		data, err := os.ReadFile(filepath.Join(d.dir, "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(data), `"slot": `)
		n, err := strconv.Atoi(rest[:strings.IndexAny(rest+"\n", ",\n")])
		if !ok || err != nil {
			t.Fatalf("state %s: %v", data, err)
		}
		return n
	case *shDevice:
		data, err := os.ReadFile(filepath.Join(d.dir, "work", "slot"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return edge.NoSlot
}

// A device that was made with the floor need not go back to it.
func TestMadeWithTheFloor(t *testing.T) { onBothKinds(t, madeWithTheFloor) }

func madeWithTheFloor(t *testing.T, newWorld func(testing.TB) *world) {
	w := staging(newWorld(t))
	w.publish()
	w.publish()
	held := items(map[string]string{"os_armv8_1.2": contentOf("os_armv8", 2)})[0].SHA256
	d := &goDevice{t: t, dir: t.TempDir()}
	c, err := client.New(client.Options{URL: w.front, Selection: outsideQuery, Roots: signing.PublicPEM(rootKey.Public()), Dir: d.dir, Clock: w.clock, Held: []string{held},
		Install: func(_ context.Context, set client.Set) error {
			d.files = map[string]string{}
			for _, f := range set.Files {
				d.files[f.Name] = ""
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := c.Update(t.Context()); err != nil || res.More || osOf(d) != "1.3" {
		t.Fatalf("it has %s, more: %t, %v", osOf(d), res.More, err)
	}
	for name, s := range shells(t) {
		d := w.shDevice(s)
		d.query, d.env = outsideQuery, append(d.env, "PRECAST_HELD="+held)
		mustUpdate(t, d)
		if osOf(d) != "1.3" {
			t.Errorf("in %s it has %s", name, osOf(d))
		}
	}
}

// A device without a slot gets a release when its rollout has ended, and says nothing of itself.
func TestNoSlot(t *testing.T) {
	w := newStagedWorld(t)
	w.attacked(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "slot") {
			t.Errorf("it asks %s", r.URL)
		}
		w.forward(r).send(rw)
	})
	d := &goDevice{t: t, dir: t.TempDir()}
	d.client = w.clientOf(d, query, w.front)
	client.WithoutSlot(d.client)
	all := map[string]device{"go": d}
	for name, s := range shells(t) {
		one := w.shDevice(s)
		one.env = append(one.env, "PRECAST_NO_SLOT=1")
		all[name] = one
	}
	for range 2 {
		for kind, d := range all {
			mustUpdate(t, d)
			if osOf(d) != "1.1" {
				t.Errorf("%s: it has %s", kind, osOf(d))
			}
		}
		if w.release == 1 {
			w.publish()
		}
	}
}

// Answers that are signed, and for other devices: of the other side of a rollout, or of another step between floors.
func TestAnswersForOtherDevices(t *testing.T) {
	// The mirror asks as another device would, and holds what this one says that it holds.
	ask := func(w *world, query string, held ...string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/package" {
				w.forward(r).send(rw)
				return
			}
			list, ask := held, "/package?"+query
			if isStatement(r) {
				ask += "&payloadType=statement"
			} else if more := r.Header.Get("If-None-Match"); more != "" {
				list = append(slices.Clone(held), more)
			}
			var header []string
			if len(list) > 0 {
				header = []string{"If-None-Match", strings.Join(list, ",")}
			}
			w.fetch(ask, header...).send(rw)
		}
	}
	floor := items(map[string]string{"os_armv8_1.2": contentOf("os_armv8", 2)})[0].SHA256
	for _, c := range []struct {
		name  string
		query string // of the device
		had   int    // the generation that it has
		now   int    // the one of the attack
		play  func(w *world) http.HandlerFunc
		check client.Check
		gets  string // where that is not checked
	}{
		{"a release that is not for it yet", outsideQuery, 1, 2, func(w *world) http.HandlerFunc { return ask(w, insideQuery) }, client.OtherRollout, "1.2"},
		{"a release taken from it", insideQuery, 2, 2, func(w *world) http.HandlerFunc { return ask(w, outsideQuery) }, client.OtherRollout, ""},
		{"a floor left out", outsideQuery, 2, 3, func(w *world) http.HandlerFunc { return ask(w, query, floor) }, client.OtherStep, "1.3"},
		{"back to a floor", insideQuery, 3, 4, func(w *world) http.HandlerFunc { return ask(w, query) }, client.OtherStep, "1.2"},
	} {
		// attacked brings a device to where it is attacked, and plays the attack.
		attacked := func(w *world, d device) (had string, err error) {
			for w.release < c.had {
				w.publish()
			}
			mustUpdate(t, d)
			mustUpdate(t, d) // after a floor
			for w.release < c.now {
				w.publish()
			}
			had = osOf(d)
			w.attacked(c.play(w))
			return had, d.update()
		}
		t.Run(c.name, func(t *testing.T) {
			for kind := range newStagedWorld(t).devicesAs(c.query) {
				w := newStagedWorld(t)
				d := w.devicesAs(c.query)[kind]
				if had, err := attacked(w, d); refusedBy(err) != string(c.check) || osOf(d) != had {
					t.Errorf("%s: it has %s, after %s: %v", kind, osOf(d), had, err)
				}
				w.attacked(nil)
				mustUpdate(t, d)
			}
			w := newStagedWorld(t)
			d := &goDevice{t: t, dir: t.TempDir()}
			d.client = w.clientOf(d, c.query, w.front)
			client.LeaveOut(d.client, c.check)
			if _, err := attacked(w, d); refusedBy(err) == string(c.check) || c.gets != "" && (err != nil || osOf(d) != c.gets) {
				t.Errorf("without the check: it has %s, %v", osOf(d), err)
			}
		})
	}
}

// What comes after a floor may come in the same generation; anything else of that generation is another truth.
func TestOtherContentAfterAFloor(t *testing.T) {
	for kind := range newStagedWorld(t).devicesAs(outsideQuery) {
		w := newStagedWorld(t)
		d := w.devicesAs(outsideQuery)[kind]
		mustUpdate(t, d)
		w.publish()
		w.publish()
		wantOS(t, d, "1.2")
		s, bundle := w.evil(3)
		s.Claims = edge.Claims{}
		said := w.signedBy(signingKey, s)
		w.attacked(answer(w, &said, &bundle))
		if err := d.update(); refusedBy(err) != string(client.OtherContent) {
			t.Errorf("%s: %v", kind, err)
		}
		w.attacked(nil)
		wantOS(t, d, "1.3")
	}
}
