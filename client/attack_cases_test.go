package client_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/internal/trust/keyring"
)

type attack struct {
	name string
	// check is the symptom that the device must tell.
	check client.Check
	// leftOut are the checks without which the attack succeeds; nil: check alone.
	leftOut []client.Check
	// play is what the attacker does. It is called after the device has installed release 1 of generation 1,
	// and may go on with the world (publish, rotate) before it returns the attacker's answers.
	play func(w *world) http.HandlerFunc
	// success tells whether the attack has succeeded against a client without the check; nil: it has updated
	// without an error.
	success func(t *testing.T, w *world, d *goDevice, err error) bool
}

// attacks are all of them, by the name that TUF or Uptane gives to their kind.
func attacks() []attack {
	return slices.Concat(
		arbitraryInstallationAttacks(),
		endlessDataAttacks(),
		extraneousDependencyAttacks(),
		fastForwardAttacks(),
		indefiniteFreezeAttacks(),
		maliciousMirrorAttacks(),
		mixAndMatchAttacks(),
		rollbackAttacks(),
		slowRetrievalAttacks(),
		wrongSoftwareAttacks(),
		keyCompromiseAttacks(),
		partialBundleAttacks(),
	)
}

// The attacker makes up what devices are to install.
func arbitraryInstallationAttacks() []attack {
	return []attack{
		{
			name:  "arbitrary installation: a statement by a key that nobody knows",
			check: client.UnknownKey,
			play: func(w *world) http.HandlerFunc {
				s, bundle := w.evil(2)
				said := w.signedBy(attackerKey, s)
				return answer(w, &said, &bundle)
			},
		},
		{
			name:  "arbitrary installation: a keyring of the attacker's own",
			check: client.UntrustedKeyring,
			play: func(w *world) http.HandlerFunc {
				k, err := keyring.Keyring{Version: 2, Expires: w.keyring.Expires, Roots: publics(attackerRoot), Signing: publics(attackerKey)}.Sign(w.t.Context(), attackerRoot)
				if err != nil {
					w.t.Fatal(err)
				}
				s, bundle := w.evil(2)
				said := w.signedBy(attackerKey, s)
				return only(isKeyring, recorded{200, nil, k.Encode()}.handle, answer(w, &said, &bundle))
			},
		},
		{
			name:  "arbitrary installation: a changed statement",
			check: client.WrongSignature,
			play: func(w *world) http.HandlerFunc {
				s, bundle := w.evil(2)
				said := w.signedBy(attackerKey, s)
				// The server's key, and the attacker's signature.
				said.body = []byte(strings.Replace(string(said.body), attackerKey.Public().ID(), w.signing.Public().ID(), 1))
				return answer(w, &said, &bundle)
			},
		},
		{
			name:    "arbitrary installation: changed content under the right name and length",
			check:   client.WrongFile,
			leftOut: []client.Check{client.WrongFile, client.WrongDetails},
			play: func(w *world) http.HandlerFunc {
				files := w.publish()
				for name, content := range files {
					files[name] = strings.Repeat("!", len(content))
				}
				bundle := w.bundle(files, files)
				return answer(w, nil, &bundle)
			},
			success: func(t *testing.T, w *world, d *goDevice, err error) bool {
				return err == nil && strings.HasPrefix(d.files["os_armv8_1.2"], "!!!")
			},
		},
	}
}

// The attacker sends more than a device can hold.
func endlessDataAttacks() []attack {
	return []attack{
		{
			name:  "endless data: a bundle without an end",
			check: client.TooLong,
			play: func(w *world) http.HandlerFunc {
				w.publish()
				return only(isBundle, endless, w.pass)
			},
			success: swallowed,
		},
		{
			name:  "endless data: a statement without an end",
			check: client.TooLong,
			play: func(w *world) http.HandlerFunc {
				return only(isStatement, endless, w.pass)
			},
			success: swallowed,
		},
		{
			name:  "endless data: a keyring without an end",
			check: client.TooLong,
			play: func(w *world) http.HandlerFunc {
				return endless
			},
			success: swallowed,
		},
	}
}

// The attacker adds files to a release.
func extraneousDependencyAttacks() []attack {
	return []attack{
		{
			name:  "extraneous dependency: one file more in the bundle",
			check: client.ExtraFile,
			play: func(w *world) http.HandlerFunc {
				files := w.publish()
				more := maps.Clone(files)
				more["cryptominer_1.0"] = "evil"
				bundle := w.bundle(more, files)
				return answer(w, nil, &bundle)
			},
		},
	}
}

// The attacker raises the generation so far that devices refuse all honest ones.
func fastForwardAttacks() []attack {
	return []attack{
		{
			name:  "fast-forward: a stolen key counts far ahead",
			check: client.FarGeneration,
			play: func(w *world) http.HandlerFunc {
				s, bundle := w.evil(1 << 40)
				said := w.signedBy(w.signing, s)
				return answer(w, &said, &bundle)
			},
		},
	}
}

// The attacker repeats old answers, so that devices never see a new release.
func indefiniteFreezeAttacks() []attack {
	return []attack{
		{
			name:  "indefinite freeze: the same answers for ever",
			check: client.ExpiredStatement,
			play: func(w *world) http.HandlerFunc {
				frozen := replay(w)
				w.publish()
				w.clock.advance(7 * 24 * time.Hour)
				return frozen
			},
		},
		{
			name:  "indefinite freeze: the same keyring for ever",
			check: client.ExpiredKeyring,
			play: func(w *world) http.HandlerFunc {
				ring := w.fetch("/keyring")
				w.clock.advance(365 * 24 * time.Hour)
				w.nextKeyring(func(k *keyring.Keyring) { k.Expires = w.clock.Now().Add(365 * 24 * time.Hour) }, rootKey)
				w.publish()
				return only(isKeyring, ring.handle, w.pass)
			},
		},
	}
}

// The attacker changes bytes on the way.
func maliciousMirrorAttacks() []attack {
	return []attack{
		{
			name:    "malicious mirror: it changes a byte on the way",
			check:   client.WrongFile,
			leftOut: []client.Check{client.WrongFile, client.WrongDetails},
			play: func(w *world) http.HandlerFunc {
				files := w.publish()
				name := "scoreboard_1.2"
				files[name] = files[name][:20000] + "X" + files[name][20001:]
				bundle := w.bundle(files, files)
				return answer(w, nil, &bundle)
			},
		},
		{
			// Signatures are not signed. A device that remembered the one added would refuse the honest keyring
			// of this version for ever.
			name:  "malicious mirror: it adds a signature to the keyring",
			check: client.UnknownKey,
			play: func(w *world) http.HandlerFunc {
				w.nextKeyring(func(k *keyring.Keyring) { k.Expires = k.Expires.Add(time.Hour) }, rootKey)
				ring := recorded{200, nil, addSignature(w.fetch("/keyring").body, attackerRoot.Public().ID())}
				s, bundle := w.evil(2)
				said := w.signedBy(attackerKey, s)
				return only(isKeyring, ring.handle, answer(w, &said, &bundle))
			},
		},
	}
}

// The attacker combines files of different generations.
func mixAndMatchAttacks() []attack {
	return []attack{
		{
			name:    "mix-and-match: the new statement, a new file and old ones under new names",
			check:   client.WrongFile,
			leftOut: []client.Check{client.WrongFile, client.WrongDetails},
			play: func(w *world) http.HandlerFunc {
				files := w.publish()
				files["scoreboard_1.2"] = contentOf("scoreboard", 1)
				bundle := w.bundle(files, files)
				return answer(w, nil, &bundle)
			},
			success: func(t *testing.T, w *world, d *goDevice, err error) bool {
				return err == nil && d.files["scoreboard_1.2"] == contentOf("scoreboard", 1) && d.files["os_armv8_1.2"] == contentOf("os_armv8", 2)
			},
		},
		{
			name:  "mix-and-match: the new statement and the old bundle",
			check: client.ExtraFile,
			// Left out, the files of the new generation are still missing.
			leftOut: []client.Check{client.ExtraFile},
			play: func(w *world) http.HandlerFunc {
				bundle := w.fetch("/package?" + selection)
				w.publish()
				return answer(w, nil, &bundle)
			},
			success: func(t *testing.T, w *world, d *goDevice, err error) bool {
				return refusedBy(err) != string(client.ExtraFile)
			},
		},
	}
}

// The attacker repeats an older generation.
func rollbackAttacks() []attack {
	return []attack{
		{
			name:  "rollback: the answers of the generation before",
			check: client.OldGeneration,
			play: func(w *world) http.HandlerFunc {
				old := replay(w)
				w.publish()
				mustUpdate(w.t, w.under)
				return old
			},
			success: func(t *testing.T, w *world, d *goDevice, err error) bool {
				return err == nil && d.files["os_armv8_1.1"] != ""
			},
		},
	}
}

// The attacker sends so slowly that a device never finishes.
func slowRetrievalAttacks() []attack {
	return []attack{
		{
			name:  "slow retrieval: the bundle drips",
			check: client.TooSlow,
			play: func(w *world) http.HandlerFunc {
				w.publish()
				return drip(w, isBundle, func() { w.clock.advance(client.DefaultLimits().RateWindow) })
			},
			success: func(t *testing.T, w *world, d *goDevice, err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) },
		},
		{
			name:  "slow retrieval: the keyring drips",
			check: client.TooSlow,
			play: func(w *world) http.HandlerFunc {
				return drip(w, isKeyring, func() { w.clock.advance(client.DefaultLimits().RateWindow) })
			},
			success: func(t *testing.T, w *world, d *goDevice, err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) },
		},
	}
}

// The attacker sends what is for other devices.
func wrongSoftwareAttacks() []attack {
	return []attack{
		{
			name:  "wrong software: the packages of another kind of device",
			check: client.OtherSelection,
			play: func(w *world) http.HandlerFunc {
				w.publish()
				said := w.fetch("/package?cpuArch=armv7&payloadType=statement")
				bundle := w.fetch("/package?cpuArch=armv7")
				return answer(w, &said, &bundle)
			},
			success: func(t *testing.T, w *world, d *goDevice, err error) bool {
				return err == nil && d.files["os_armv7_1.2"] != ""
			},
		},
	}
}

// The attacker has stolen a signing key.
func keyCompromiseAttacks() []attack {
	return []attack{
		{
			name:  "key compromise: a stolen signing key, after it has been revoked",
			check: client.RevokedKey,
			play: func(w *world) http.HandlerFunc {
				w.nextKeyring(func(k *keyring.Keyring) {
					k.Signing, k.Revoked = publics(key(3)), []string{w.signing.Public().ID()}
				}, rootKey)
				w.sign(key(3))
				s, bundle := w.evil(2)
				said := w.signedBy(w.signing, s)
				return answer(w, &said, &bundle)
			},
			leftOut: []client.Check{client.RevokedKey},
		},
		{
			name:  "key compromise: the revocation is kept from a device that has seen it",
			check: client.OldKeyring,
			play: func(w *world) http.HandlerFunc {
				ring := w.fetch("/keyring")
				w.nextKeyring(func(k *keyring.Keyring) {
					k.Signing, k.Revoked = publics(key(3)), []string{w.signing.Public().ID()}
				}, rootKey)
				w.sign(key(3))
				mustUpdate(w.t, w.under)
				s, bundle := w.evil(2)
				said := w.signedBy(w.signing, s)
				return only(isKeyring, ring.handle, answer(w, &said, &bundle))
			},
			// The device has the newer keyring all the same: the stolen key does not help.
			success: func(t *testing.T, w *world, d *goDevice, err error) bool {
				return refusedBy(err) == string(client.RevokedKey)
			},
		},
		{
			name:  "key compromise: a stolen signing key makes a keyring",
			check: client.UntrustedKeyring,
			play: func(w *world) http.HandlerFunc {
				k, err := keyring.Keyring{Version: 2, Expires: w.keyring.Expires, Roots: publics(rootKey), Signing: publics(attackerKey)}.Sign(w.t.Context(), w.signing)
				if err != nil {
					w.t.Fatal(err)
				}
				s, bundle := w.evil(2)
				said := w.signedBy(attackerKey, s)
				return only(isKeyring, recorded{200, nil, k.Encode()}.handle, answer(w, &said, &bundle))
			},
		},
	}
}

// The attacker leaves part of a release out.
func partialBundleAttacks() []attack {
	return []attack{
		{
			name:    "partial bundle: a file is left out",
			check:   client.MissingFile,
			leftOut: []client.Check{client.MissingFile, client.WrongDetails},
			play: func(w *world) http.HandlerFunc {
				files := w.publish()
				less := maps.Clone(files)
				delete(less, "scoreboard_1.2")
				bundle := w.bundle(less, files)
				return answer(w, nil, &bundle)
			},
			// Left out, the device sees it when it looks at the files once more before it uses them.
			success: func(t *testing.T, w *world, d *goDevice, err error) bool { return errors.Is(err, os.ErrNotExist) },
		},
		{
			name:  "partial bundle: it is cut off and says that it is whole",
			check: client.MissingFile,
			play: func(w *world) http.HandlerFunc {
				w.publish()
				bundle := w.fetch("/package?" + selection)
				bundle.body = bundle.body[:len(bundle.body)/2]
				bundle.header.Del("Content-Length")
				return answer(w, nil, &bundle)
			},
			success: func(t *testing.T, w *world, d *goDevice, err error) bool { return err != nil }, // gzip itself cannot be read
		},
		{
			name:    "partial bundle: package_details.json says something else",
			check:   client.WrongDetails,
			leftOut: []client.Check{client.WrongDetails},
			play: func(w *world) http.HandlerFunc {
				files := w.publish()
				other := maps.Clone(files)
				other["os_armv8_1.2"] = "another one"
				bundle := w.bundle(files, other)
				return answer(w, nil, &bundle)
			},
		},
	}
}

// only has the attacker answer requests of one kind; rest answers the others.
func only(is func(*http.Request) bool, attack, rest http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if is(r) {
			attack(rw, r)
			return
		}
		rest(rw, r)
	}
}

// answer has the attacker answer for statements and bundles, and pass everything else on.
func answer(w *world, said, bundle *recorded) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case isStatement(r) && said != nil:
			said.send(rw)
		case isBundle(r) && bundle != nil:
			bundle.send(rw)
		default:
			w.pass(rw, r)
		}
	}
}

// replay answers as the server did when it was called.
func replay(w *world) http.HandlerFunc {
	ring := w.fetch("/keyring")
	said := w.fetch("/package?" + selection + "&payloadType=statement")
	bundle := w.fetch("/package?" + selection)
	return func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/keyring":
			ring.send(rw)
		case isStatement(r):
			said.send(rw)
		case isBundle(r):
			bundle.send(rw)
		default:
			w.pass(rw, r)
		}
	}
}

// addSignature adds a signature of the right form to a keyring, in its place.
func addSignature(ring []byte, id string) []byte {
	lines := strings.SplitAfter(strings.TrimSuffix(string(ring), "\n")+"\n", "\n")
	lines = append(lines[:len(lines)-1], fmt.Sprintf("signature %s %s==\n", id, strings.Repeat("A", 86)))
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "signature ") })
	slices.Sort(lines[at:])
	return []byte(strings.Join(lines, ""))
}

// enough is how much an endless answer has; far beyond any limit of the device in these tests.
const enough = 32 << 20

func endless(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "application/octet-stream")
	chunk := []byte(strings.Repeat("x", 64<<10))
	for range enough / len(chunk) {
		if _, err := rw.Write(chunk); err != nil {
			return // the device has had enough
		}
	}
}

// swallowed: a client without the limit took all of it.
func swallowed(t *testing.T, w *world, d *goDevice, err error) bool {
	return err != nil && refusedBy(err) != string(client.TooLong)
}

// drip sends a byte, lets the time pass and waits until the device goes; to whom does not mind it sends the beginning of an answer.
func drip(w *world, what func(*http.Request) bool, pass1 func()) http.HandlerFunc {
	w.hurried = true
	return func(rw http.ResponseWriter, r *http.Request) {
		if !what(r) {
			w.pass(rw, r)
			return
		}
		rw.Header().Set("Content-Length", "60000")
		_, _ = io.WriteString(rw, "\x1f")
		_ = http.NewResponseController(rw).Flush()
		pass1()
		if w.patient {
			panic(http.ErrAbortHandler)
		}
		<-r.Context().Done()
	}
}
