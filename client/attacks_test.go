package client_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/keyring"
)

// The attacks that TUF (https://theupdateframework.io/docs/security/) and Uptane
// (https://uptane.org/docs/latest/standard/uptane-standard) list, each played by somebody who sits between a
// real server and real devices, and answers what they like.
//
// Every attack is played three times. Against each kind of device: it must install nothing, say the symptom,
// and recover as soon as the attacker has gone. And against a client in Go that leaves out the very checks that
// hold it off: the attack must then succeed, or else the test would not show that the check is needed.

// pass gives the server's own answer.
func (w *world) pass(rw http.ResponseWriter, r *http.Request) { w.forward(r).send(rw) }

// refusedBy returns the check that an error of either client tells.
func refusedBy(err error) string {
	if err == nil {
		return ""
	}
	_, rest, _ := strings.Cut(err.Error(), "refused (")
	check, _, _ := strings.Cut(rest, ")")
	return check
}

func TestAttacks(t *testing.T) { playAttacks(t, newWorld) }

// playAttacks plays all of them, each in worlds of its own.
func playAttacks(t *testing.T, newWorld func(testing.TB) *world) {
	kinds := shells(t)
	kinds["go"] = nil
	t.Logf("the devices are in %s", strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	if testing.Short() {
		delete(kinds, "busybox")
	}
	t.Attr("cases", fmt.Sprintf("%d attacks", len(attacks())))
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			t.Attr("cases", fmt.Sprintf("refused as %q by the clients in Go and in sh; gets further where that is not checked", a.check))
			for kind, sh := range kinds {
				t.Run(kind, func(t *testing.T) {
					t.Parallel()
					a.isRefused(t, newWorld(t), sh)
				})
			}
			t.Run("without the check", func(t *testing.T) {
				t.Parallel()
				a.succeedsUnchecked(t, newWorld(t))
			})
		})
	}
}

// isRefused plays an attack against the client in sh, or in Go if sh is nil: it refuses the answers for the right
// reason, installs nothing, and updates again when the attacker has gone.
func (a attack) isRefused(t *testing.T, w *world, sh *shDevice) {
	var d device = w.goDevice()
	if sh != nil {
		d = w.shDevice(sh)
	}
	w.under = d
	mustUpdate(t, d)
	attacker := a.play(w)
	before, times := d.installed()
	w.attacked(attacker)
	err := d.update()
	if got := refusedBy(err); got != string(a.check) {
		t.Errorf("the device says %v, want refused (%s)", err, a.check)
	}
	after, timesAfter := d.installed()
	if !maps.Equal(before, after) || timesAfter != times {
		t.Error("something has been installed")
	}
	// The attacker gains nothing by trying again.
	if sh == nil {
		if err := d.update(); err == nil {
			t.Error("the second time the attack succeeds")
		}
	}
	w.attacked(nil)
	want := w.publish()
	mustUpdate(t, d)
	wantFiles(t, d, want)
}

// succeedsUnchecked plays an attack against a client in Go that leaves the checks out: they are what stops it.
func (a attack) succeedsUnchecked(t *testing.T, w *world) {
	w.patient = true
	leftOut := a.leftOut
	if leftOut == nil {
		leftOut = []client.Check{a.check}
	}
	dir := t.TempDir()
	first := w.goDeviceAt(w.front, dir)
	w.under = first
	mustUpdate(t, first)
	attacker := a.play(w)
	d := w.goDeviceAt(w.front, dir, leftOut...)
	w.attacked(attacker)
	err := d.update()
	success := err == nil && d.times > 0
	if a.success != nil {
		success = a.success(t, w, d, err)
	} else if a.check == client.ExpiredStatement { // nothing new, and nobody notices
		success = err == nil
	}
	if !success {
		t.Errorf("the attack is held off by another check: %v", err)
	}
}

// Whoever steals a signing key can have devices install what they like, and count ahead, until it is revoked.
// Then all is as it was.
func TestFastForwardRecovery(t *testing.T) {
	for kind := range newWorld(t).devices() {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			d := w.devices()[kind]
			mustUpdate(t, d)
			s, bundle := w.evil(100_000)
			said := w.signedBy(signingKey, s)
			w.attacked(answer(w, &said, &bundle))
			mustUpdate(t, d)
			wantFiles(t, d, map[string]string{"os_armv8_6.6.6": "evil"})
			w.attacked(nil)
			if err := d.update(); refusedBy(err) != string(client.OldGeneration) {
				t.Fatalf("before the revocation: %v", err)
			}
			w.nextKeyring(func(k *keyring.Keyring) {
				k.Signing, k.Revoked = publics(key(3)), []string{signingKey.Public().ID()}
			}, rootKey)
			w.sign(key(3))
			want := w.publish()
			mustUpdate(t, d)
			wantFiles(t, d, want)
		})
	}
}

// A thief may state a set under the very ID of the one that is released: it is taken out all the same.
func TestForgedSetIDRecovery(t *testing.T) {
	w := newWorld(t)
	d := w.goDevice()
	s, bundle := w.evil(1) // with the set ID of what is released
	said := w.signedBy(signingKey, s)
	w.attacked(answer(w, &said, &bundle))
	mustUpdate(t, d)
	w.attacked(nil)
	w.nextKeyring(func(k *keyring.Keyring) {
		k.Signing, k.Revoked = publics(key(3)), []string{signingKey.Public().ID()}
	}, rootKey)
	w.sign(key(3))
	mustUpdate(t, d)
	if files, _ := d.installed(); files["os_armv8_1.1"] == "" || len(files) != 3 {
		t.Errorf("%d files are installed", len(files))
	}
}

// Two statements of one generation: somebody has two truths.
func TestTwoStatementsOfOneGeneration(t *testing.T) {
	for kind := range newWorld(t).devices() {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			d := w.devices()[kind]
			mustUpdate(t, d)
			s, bundle := w.evil(1)
			said := w.signedBy(signingKey, s)
			w.attacked(answer(w, &said, &bundle))
			if err := d.update(); refusedBy(err) != string(client.OtherContent) {
				t.Errorf("%v", err)
			}
			if _, times := d.installed(); times != 1 {
				t.Error("something has been installed")
			}
		})
	}
}

// A malicious mirror works as long as it behaves; when it does not, any other one will do.
func TestMaliciousMirror(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	evil := w.goDeviceAt(w.front, dir)
	mustUpdate(t, evil) // through it
	want := w.publish()
	files := maps.Clone(want)
	files["os_armv8_1.2"] = strings.Repeat("!", fileSize)
	bundle := w.bundle(files, files)
	w.attacked(answer(w, nil, &bundle))
	if err := evil.update(); refusedBy(err) != string(client.WrongFile) {
		t.Fatalf("%v", err)
	}
	other := w.goDeviceAt(w.origin, dir)
	mustUpdate(t, other)
	wantFiles(t, other, want)
}

// Requests that are dropped, at every point: nothing is installed, and the device goes on when it can.
func TestDropRequest(t *testing.T) {
	for kind := range newWorld(t).devices() {
		for what, is := range map[string]func(*http.Request) bool{
			"all": func(*http.Request) bool { return true }, "keyring": isKeyring, "statement": isStatement, "bundle": isBundle,
		} {
			t.Run(kind+"/"+what, func(t *testing.T) {
				w := newWorld(t)
				d := w.devices()[kind]
				mustUpdate(t, d)
				before, _ := d.installed()
				want := w.publish()
				w.attacked(func(rw http.ResponseWriter, r *http.Request) {
					if is(r) {
						panic(http.ErrAbortHandler)
					}
					w.pass(rw, r)
				})
				if err := d.update(); err == nil || refusedBy(err) != "" {
					t.Errorf("the device says %v", err)
				}
				wantFiles(t, d, before)
				w.attacked(nil)
				mustUpdate(t, d)
				wantFiles(t, d, want)
			})
		}
	}
}

// An interrupted download is resumed: whatever came before is not sent again.
func TestPartialBundleIsResumed(t *testing.T) { onBothKinds(t, partialBundleIsResumed) }

func partialBundleIsResumed(t *testing.T, newWorld func(testing.TB) *world) {
	for kind := range newWorld(t).devices() {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			d := w.devices()[kind]
			const first = 30_000
			var broke, resumedAt int
			w.attacked(func(rw http.ResponseWriter, r *http.Request) {
				if !isBundle(r) {
					w.pass(rw, r)
					return
				}
				a := w.forward(r)
				if broke == 0 {
					broke = len(a.body)
					rw.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
					rw.Header().Set("ETag", a.header.Get("ETag"))
					_, _ = rw.Write(a.body[:first])
					_ = http.NewResponseController(rw).Flush()
					panic(http.ErrAbortHandler)
				}
				if a.status != http.StatusPartialContent || len(a.body) >= broke {
					t.Errorf("asked anew: %d, %d bytes", a.status, len(a.body))
				}
				resumedAt = broke - len(a.body)
				a.send(rw)
			})
			for range 2 { // the client in sh leaves the second try to the next run
				if d.update() == nil {
					break
				}
			}
			if files, times := d.installed(); len(files) != 3 || times != 1 {
				t.Fatalf("%d files, installed %d times", len(files), times)
			}
			// How much of what was sent had arrived when the connection broke is the network's matter.
			if resumedAt == 0 || resumedAt > first {
				t.Errorf("resumed at %d", resumedAt)
			}
		})
	}
}

// What an attacker has begun to send is no obstacle to the rest.
func TestSpoiltBeginning(t *testing.T) { onBothKinds(t, spoiltBeginning) }

func spoiltBeginning(t *testing.T, newWorld func(testing.TB) *world) {
	for kind := range newWorld(t).devices() {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			d := w.devices()[kind]
			tag := w.fetch("/package?" + selection).header.Get("ETag")
			w.attacked(func(rw http.ResponseWriter, r *http.Request) {
				if !isBundle(r) {
					w.pass(rw, r)
					return
				}
				if r.Header.Get("Range") != "" {
					panic(http.ErrAbortHandler)
				}
				rw.Header().Set("Content-Length", "90000")
				rw.Header().Set("ETag", tag) // so that the server will go on with it
				_, _ = io.WriteString(rw, strings.Repeat("evil", 5000))
				_ = http.NewResponseController(rw).Flush()
				panic(http.ErrAbortHandler)
			})
			if err := d.update(); err == nil {
				t.Fatal("no error")
			}
			w.attacked(nil)
			mustUpdate(t, d)
			if files, _ := d.installed(); len(files) != 3 {
				t.Errorf("%d files", len(files))
			}
		})
	}
}

// Things that an archive must not have, whatever they would do on which device.
func TestHostileArchives(t *testing.T) {
	w := newWorld(t)
	files := w.publish()
	details := member{name: layout.ManifestName, content: detailsOf(t, w, files)}
	good := append([]member{details}, members(files)...)
	outside := filepath.Join(t.TempDir(), "outside")
	for name, more := range map[string][]member{
		"a path upwards":         {{name: "../../evil", content: "evil"}},
		"an absolute path":       {{name: outside, content: "evil"}},
		"a folder":               {{name: "dir/evil", content: "evil"}},
		"a symbolic link":        {{name: "link", content: "/etc/passwd", kind: '2'}},
		"a hard link":            {{name: "hard", content: "/etc/passwd", kind: '1'}},
		"a device":               {{name: "null", kind: '3'}},
		"a file twice":           {{name: "os_armv8_1.2", content: files["os_armv8_1.2"]}},
		"a manifest twice":       {details},
		"an empty stranger":      {{name: "x", content: ""}},
		"a name with a new line": {{name: "a\nos_armv8_1.2", content: ""}},
	} {
		bundle := recorded{200, nil, pack(t, append(good[:len(good):len(good)], more...)...)}
		for kind, d := range w.devices() {
			t.Run(name+"/"+kind, func(t *testing.T) {
				w.attacked(answer(w, nil, &bundle))
				if err := d.update(); refusedBy(err) != string(client.ExtraFile) {
					t.Errorf("%v", err)
				}
				if _, times := d.installed(); times != 0 {
					t.Error("something has been installed")
				}
				if _, err := os.Stat(outside); err == nil {
					t.Error("something was written outside")
				}
			})
		}
	}
	// Sound, so that the cases above fail for what they say.
	bundle := recorded{200, nil, pack(t, good...)}
	for kind, d := range w.devices() {
		w.attacked(answer(w, nil, &bundle))
		if err := d.update(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func detailsOf(t *testing.T, w *world, files map[string]string) string {
	t.Helper()
	for name, content := range unpackAll(t, w.bundle(files, files).body) {
		if name == layout.ManifestName {
			return content
		}
	}
	t.Fatal("no manifest")
	return ""
}

// Root rotation: a device with any old root follows, one of another installation does not.
func TestRootRotations(t *testing.T) {
	w := newWorld(t)
	devices := w.devices() // fresh ones, whose root will be old
	roots := []byte{1, 11, 12, 13}
	old := w.devices()
	for _, d := range old {
		mustUpdate(t, d)
	}
	for i := 1; i < len(roots); i++ {
		w.nextKeyring(func(k *keyring.Keyring) { k.Roots = publics(key(roots[i])) }, key(roots[i-1]), key(roots[i]))
	}
	want := w.publish()
	for _, group := range []map[string]device{devices, old} {
		for kind, d := range group {
			if err := d.update(); err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			wantFiles(t, d, want)
		}
	}
	// The first root is not trusted any more by whoever has followed.
	k := *w.keyring
	k.Version++
	k.Roots = publics(rootKey)
	forged, err := k.Sign(t.Context(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	w.attacked(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keyring" {
			recorded{200, nil, forged.Encode()}.send(rw)
			return
		}
		w.pass(rw, r)
	})
	for kind, d := range old {
		if err := d.update(); refusedBy(err) != string(client.UntrustedKeyring) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// The server of an installation without keys says so, and nothing is installed.
func TestNothingIsSigned(t *testing.T) {
	w := newWorld(t)
	w.attacked(func(rw http.ResponseWriter, r *http.Request) {
		if isStatement(r) {
			rw.WriteHeader(404)
			_, _ = io.WriteString(rw, `{"error":"Statements are not signed here"}`)
			return
		}
		w.pass(rw, r)
	})
	for kind, d := range w.devices() {
		if err := d.update(); err == nil || refusedBy(err) != "" || !strings.Contains(err.Error(), "404") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
