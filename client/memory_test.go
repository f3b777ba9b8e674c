package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// Whatever anybody adds to a keyring, no device remembers it: the honest one is good as soon as they have gone.
func TestAddedSignatures(t *testing.T) {
	kinds := newWorld(t).devices()
	for what, c := range map[string]struct {
		add  func(ring []byte) []byte
		want client.Check // "": the device takes no notice
	}{
		"garbage":          {func(ring []byte) []byte { return append(ring, "signature zz junk\n"...) }, client.Malformed},
		"a short value":    {func(ring []byte) []byte { return append(ring, "signature "+strings.Repeat("f", 64)+" AAAA\n"...) }, client.Malformed},
		"an attacker's ID": {func(ring []byte) []byte { return addSignature(ring, attackerRoot.Public().ID()) }, ""},
		"a key's ID":       {func(ring []byte) []byte { return addSignature(ring, signingKey.Public().ID()) }, ""},
	} {
		for _, when := range []string{"first contact", "update"} {
			for kind := range kinds {
				t.Run(what+"/"+when+"/"+kind, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					d := w.devices()[kind]
					if when == "update" {
						mustUpdate(t, d)
						w.nextKeyring(func(k *keyring.Keyring) { k.Expires = k.Expires.Add(time.Hour) }, rootKey)
					}
					ring := recorded{200, nil, c.add(w.fetch("/keyring").body)}
					w.attacked(func(rw http.ResponseWriter, r *http.Request) {
						if isKeyring(r) {
							ring.send(rw)
							return
						}
						w.pass(rw, r)
					})
					for range 2 {
						if err := d.update(); refusedBy(err) != string(c.want) || c.want == "" && err != nil {
							t.Errorf("the device says %v, want %q", err, c.want)
						}
					}
					w.attacked(nil)
					want := w.publish()
					mustUpdate(t, d)
					wantFiles(t, d, want)
				})
			}
		}
	}
}

// A device that becomes another one gets other files of the generation that it has seen.
func TestAnotherSelection(t *testing.T) {
	for kind := range newWorld(t).devices() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.devices()[kind]
			mustUpdate(t, d)
			w.become(d, "cpuArch=armv7")
			mustUpdate(t, d)
			wantFiles(t, d, map[string]string{"os_armv7_1.1": contentOf("os_armv7", 1)})
			// It has not forgotten the generation.
			old := w.fetch("/package?cpuArch=armv7&payloadType=statement")
			w.publish()
			mustUpdate(t, d)
			w.attacked(answer(w, &old, nil))
			w.become(d, query)
			if err := d.update(); refusedBy(err) != string(client.OtherSelection) {
				t.Errorf("%v", err)
			}
			w.become(d, "cpuArch=armv7")
			if err := d.update(); refusedBy(err) != string(client.OldGeneration) {
				t.Errorf("%v", err)
			}
		})
	}
}

// become makes another device of one, with the same folder.
func (w *world) become(d device, query string) {
	switch d := d.(type) {
	case *goDevice:
		d.client = w.clientOf(d, query, w.front)
	case *shDevice:
		d.query = query
	}
}

// Whoever has a signing key decides what a device installs, but not where it writes.
func TestHostileNames(t *testing.T) {
	w := newWorld(t)
	s := w.statementNow()
	const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // of nothing
	good := "item " + digest + " 0 a 1\n"
	for what, lines := range map[string]string{
		"a path upwards":           "item " + digest + " 0 ..%2F..%2Fpwned 1\n",
		"a path in the version":    "item " + digest + " 0 a %2Fpwned\n",
		"a raw path":               "item " + digest + " 0 ../../pwned 1\n",
		"a backslash":              "item " + digest + " 0 a%5Cpwned 1\n",
		"a hidden file":            "item " + digest + " 0 .pwned 1\n",
		"an escaped hidden file":   "item " + digest + " 0 %2Epwned 1\n",
		"an option":                "item " + digest + " 0 -pwned 1\n",
		"a new line":               "item " + digest + " 0 a%0Apwned 1\n",
		"a NUL":                    "item " + digest + " 0 a%00pwned 1\n",
		"a raw NUL":                "item " + digest + " 0 a\x00 1\n",
		"a delete":                 "item " + digest + " 0 a%7F 1\n",
		"no name":                  "item " + digest + " 0  1\n",
		"no version":               "item " + digest + " 0 a \n",
		"three fields":             "item " + digest + " 0 a\n",
		"five fields":              "item " + digest + " 0 a 1 2\n",
		"half an escape":           "item " + digest + " 0 a%2 1\n",
		"lower case":               "item " + digest + " 0 a%2fpwned 1\n",
		"another spelling":         "item " + digest + " 0 a%41 1\n",
		"the manifest":             "item " + digest + " 0 package details.json\n",
		"one file twice":           good + good,
		"one file of two releases": "item " + digest + " 0 a 1_2\nitem " + digest + " 0 a_1 2\n",
		"a path as a digest":       "item ../../" + digest[6:] + " 0 a 1\n",
		"a short digest":           "item " + digest[2:] + " 0 a 1\n",
		"no number":                "item " + digest + " x a 1\n",
		"a negative number":        "item " + digest + " -1 a 1\n",
		"a leading zero":           "item " + digest + " 00 a 1\n",
		"nothing":                  "",
	} {
		for kind := range w.devices() {
			t.Run(what+"/"+kind, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				d := w.devices()[kind]
				said := recorded{200, nil, w.raw(s, lines)}
				bundle := w.bundle(map[string]string{"a_1": ""}, map[string]string{"a_1": ""})
				w.attacked(answer(w, &said, &bundle))
				if err := d.update(); refusedBy(err) != string(client.Malformed) {
					t.Errorf("%v", err)
				}
				if _, times := d.installed(); times != 0 {
					t.Error("something has been installed")
				}
			})
		}
	}
	// Sound, so that the cases above fail for what they say.
	for kind, d := range w.devices() {
		said := recorded{200, nil, w.raw(s, good)}
		bundle := w.bundle(map[string]string{"a_1": ""}, map[string]string{"a_1": ""})
		w.attacked(answer(w, &said, &bundle))
		if err := d.update(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// raw is a statement with these lines in place of its items, signed as it is.
func (w *world) raw(s statement.Statement, lines string) []byte {
	w.t.Helper()
	text := fmt.Sprintf("precast statement 1\ngeneration %d\nselection %s\nset %s\nexpires %s\n%skey %s\n",
		s.Generation, s.Selection, s.Set, s.Expires.UTC().Format(time.RFC3339), lines, signingKey.Public().ID())
	value, err := signing.Sign(w.t.Context(), signingKey, []byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Appendf(nil, "%ssignature %s\n", text, value)
}

// What a power cut has left empty is as if it were not there.
func TestEmptyFiles(t *testing.T) {
	for kind, sh := range shells(t) {
		for _, name := range []string{"keyring", "state"} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				d := w.shDevice(sh)
				mustUpdate(t, d)
				if err := os.Truncate(filepath.Join(d.dir, "work", name), 0); err != nil {
					t.Fatal(err)
				}
				want := w.publish()
				mustUpdate(t, d)
				wantFiles(t, d, want)
			})
		}
	}
}

// A device that has missed more keyrings than it follows in one update catches up over several.
func TestManyKeyrings(t *testing.T) {
	for kind := range newWorld(t).devices() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.limits.MaxVersions = 3
			d := w.devices()[kind]
			mustUpdate(t, d)
			before, _ := d.installed()
			for i := range byte(7) { // version 8, and the first signing key is gone
				w.nextKeyring(func(k *keyring.Keyring) { k.Signing = publics(key(20 + i)) }, rootKey)
			}
			w.sign(key(26))
			want := w.publish()
			for _, at := range []string{"4 of 8", "7 of 8"} {
				if err := d.update(); err == nil || refusedBy(err) != "" || !strings.Contains(err.Error(), "keyring is at version "+at) {
					t.Fatalf("at version %s the device says %v", at, err)
				}
				wantFiles(t, d, before)
			}
			mustUpdate(t, d)
			wantFiles(t, d, want)
		})
	}
}

// The keyrings that a device has verified are remembered, also if the way to the newest one breaks off.
func TestKeyringsAreRemembered(t *testing.T) {
	w := newWorld(t)
	d := w.goDevice()
	mustUpdate(t, d)
	for range 4 {
		w.nextKeyring(func(k *keyring.Keyring) { k.Expires = k.Expires.Add(time.Hour) }, rootKey)
	}
	asked := make(map[string]int)
	w.attacked(func(rw http.ResponseWriter, r *http.Request) {
		asked[r.URL.Path]++
		if strings.HasSuffix(r.URL.Path, "4") && asked[r.URL.Path] == 1 {
			panic(http.ErrAbortHandler)
		}
		w.pass(rw, r)
	})
	if err := d.update(); err == nil || errors.As(err, new(*client.Refusal)) {
		t.Fatalf("%v", err)
	}
	mustUpdate(t, d)
	first := fmt.Sprintf("/keyring.d/%020d", 2)
	if asked[first] != 1 {
		t.Errorf("asked for %v", asked)
	}
}

// The first generation that a device sees may be any, within reason: whoever has stolen a key cannot put all those to
// come out of reach.
func TestFirstGeneration(t *testing.T) {
	for kind := range newWorld(t).devices() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.devices()[kind]
			s, bundle := w.evil(1<<40 + 1)
			said := w.signedBy(signingKey, s)
			w.attacked(answer(w, &said, &bundle))
			if err := d.update(); refusedBy(err) != string(client.FarGeneration) {
				t.Errorf("%v", err)
			}
			s.Generation--
			said = w.signedBy(signingKey, s)
			mustUpdate(t, d)
		})
	}
}
