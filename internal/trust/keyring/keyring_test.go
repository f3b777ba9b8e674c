package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

func key(seed byte) signing.PrivateKey {
	k, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

func public(seeds ...byte) []signing.PublicKey {
	var all []signing.PublicKey
	for _, s := range seeds {
		all = append(all, key(s).Public())
	}
	return all
}

var expires = time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)

func signed(t testing.TB, k keyring.Keyring, roots ...byte) *keyring.Keyring {
	t.Helper()
	var signers []signing.Signer
	for _, r := range roots {
		signers = append(signers, key(r))
	}
	if k.Expires.IsZero() {
		k.Expires = expires
	}
	s, err := k.Sign(context.Background(), signers...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The format is in devices: it changes only together with its first line.
func TestGolden(t *testing.T) {
	k := signed(t, keyring.Keyring{Version: 2, Roots: public(2, 1), Signing: public(4, 3), Revoked: []string{key(5).Public().ID()}}, 1, 2)
	const name = "testdata/keyring"
	if *update {
		if err := os.WriteFile(name, k.Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.Encode(), want) {
		t.Errorf("got\n%s\nwant\n%s", k.Encode(), want)
	}
	if !k.SignedBy(public(1)) || !k.SignedBy(public(9, 2)) || k.SignedBy(public(3)) || k.SignedBy(nil) {
		t.Error("signed by others than 1 and 2")
	}
}

func TestComesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seeds := rapid.SliceOfNDistinct(rapid.Byte(), 1, 12, rapid.ID).Draw(rt, "keys")
		nRoots := rapid.IntRange(1, len(seeds)).Draw(rt, "roots")
		nSigning := rapid.IntRange(0, len(seeds)-nRoots).Draw(rt, "signing")
		k := keyring.Keyring{
			Version: rapid.Uint64Range(1, 1<<64-1).Draw(rt, "version"),
			Roots:   public(seeds[:nRoots]...), Signing: public(seeds[nRoots : nRoots+nSigning]...),
			Expires: time.Unix(rapid.Int64Range(1e9, 2e11).Draw(rt, "expires"), 0),
		}
		for _, s := range seeds[nRoots+nSigning:] {
			k.Revoked = append(k.Revoked, key(s).Public().ID())
		}
		got, err := k.Sign(context.Background(), key(seeds[0]))
		if err != nil {
			rt.Fatal(err)
		}
		back, err := keyring.Parse(got.Encode())
		if err != nil || !bytes.Equal(back.Encode(), got.Encode()) || back.Version != k.Version || !back.Expires.Equal(k.Expires) {
			rt.Fatalf("%v\n%s", err, got.Encode())
		}
		if err := back.TrustedBy(k.Roots); err != nil {
			rt.Fatal(err)
		}
		// Any change of any byte is malformed, or not signed any more.
		data := got.Encode()
		i := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
		data[i] ^= byte(rapid.IntRange(1, 255).Draw(rt, "change"))
		if bad, err := keyring.Parse(data); err == nil && bad.TrustedBy(k.Roots) == nil {
			rt.Fatalf("byte %d of\n%s", i, data)
		}
	})
}

// Every line of a keyring has one form and one place.
func TestMalformed(t *testing.T) {
	k := signed(t, keyring.Keyring{Version: 3, Roots: public(1), Signing: public(2, 3), Revoked: []string{key(4).Public().ID(), key(5).Public().ID()}}, 1)
	good := string(k.Encode())
	lines := strings.SplitAfter(strings.TrimSuffix(good, "\n"), "\n")
	lines[len(lines)-1] += "\n"
	var bad []string
	for i := range lines {
		without := slices.Delete(slices.Clone(lines), i, i+1)
		if !strings.HasPrefix(lines[i], "signature") && !strings.HasPrefix(lines[i], "signing") && !strings.HasPrefix(lines[i], "revoked") {
			bad = append(bad, strings.Join(without, ""))
		}
		bad = append(bad, strings.Join(slices.Insert(slices.Clone(lines), i, lines[i]), ""))
		if i > 0 {
			swapped := slices.Clone(lines)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			bad = append(bad, strings.Join(swapped, ""))
		}
	}
	bad = append(bad, "", "\n", good+"\n", good+"x", good[:len(good)-1], strings.ReplaceAll(good, "\n", "\r\n"), "\xef\xbb\xbf"+good,
		strings.Replace(good, "version 3", "version 03", 1), strings.Replace(good, "version 3", "version 0", 1), strings.Replace(good, "version 3", "version  3", 1),
		strings.Replace(good, "Z\n", "+00:00\n", 1), strings.Replace(good, "00Z\n", "00.5Z\n", 1), strings.Replace(good, "2027", "1999", 1),
		strings.Replace(good, "root "+key(1).Public().ID(), "root "+key(9).Public().ID(), 1),
		strings.Replace(good, "revoked ", "revoked x", 1), strings.Replace(good, "signing ", "comment ", 1),
		good+"signature zz junk\n", good+"signature "+strings.Repeat("f", 64)+" AAAA\n", strings.Replace(good, "==\n", "=\n", 1),
		strings.Replace(good, "signature "+key(1).Public().ID(), "signature "+key(1).Public().ID()[1:], 1),
		strings.Replace(good, key(4).Public().ID(), key(2).Public().ID(), 1), good+strings.Repeat("revoked x\n", keyring.MaxBytes/10))
	for _, data := range bad {
		if _, err := keyring.Parse([]byte(data)); !errors.Is(err, keyring.ErrFormat) {
			t.Errorf("%v for\n%.2000s", err, data)
		}
	}
}

// Signatures are of the right form, whoever made them; what is signed stays the same.
func TestAddedSignature(t *testing.T) {
	k := signed(t, keyring.Keyring{Version: 1, Roots: public(1), Signing: public(3)}, 1)
	more, err := keyring.Parse(fmt.Appendf(k.Encode(), "signature %s %s==\n", strings.Repeat("f", 64), strings.Repeat("A", 86)))
	if err != nil || bytes.Equal(more.Encode(), k.Encode()) || !bytes.Equal(more.Text(), k.Text()) {
		t.Fatalf("%v", err)
	}
	if bare, err := keyring.Parse(k.Text()); err != nil || bare.SignedBy(public(1)) {
		t.Errorf("without signatures: %v", err)
	}
}

func TestFollows(t *testing.T) {
	one := signed(t, keyring.Keyring{Version: 1, Roots: public(1), Signing: public(3)}, 1)
	for _, c := range []struct {
		why  string
		next *keyring.Keyring
		want error // errAny: some error
	}{
		{"the same root", signed(t, keyring.Keyring{Version: 2, Roots: public(1), Signing: public(4)}, 1), nil},
		{"a new root, signed by both", signed(t, keyring.Keyring{Version: 2, Roots: public(2)}, 1, 2), nil},
		{"a new root beside the old one", signed(t, keyring.Keyring{Version: 2, Roots: public(1, 2)}, 1), nil},
		{"a new root, signed by itself", signed(t, keyring.Keyring{Version: 2, Roots: public(2)}, 2), keyring.ErrUntrusted},
		{"a new root that has not signed", signed(t, keyring.Keyring{Version: 2, Roots: public(2)}, 1), keyring.ErrUntrusted},
		{"signed by a signing key", signed(t, keyring.Keyring{Version: 2, Roots: public(1)}, 3), keyring.ErrUntrusted},
		{"a signing key that makes itself a root", signed(t, keyring.Keyring{Version: 2, Roots: public(3)}, 3), keyring.ErrUntrusted},
		{"not signed", signed(t, keyring.Keyring{Version: 2, Roots: public(1)}), keyring.ErrUntrusted},
		{"the same version", one, errAny},
		{"a version left out", signed(t, keyring.Keyring{Version: 3, Roots: public(1)}, 1), errAny},
	} {
		err := c.next.Follows(one)
		if c.want == errAny && err == nil || c.want != errAny && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.why, err)
		}
	}
}

var errAny = fmt.Errorf("any error")

func TestSigningKeys(t *testing.T) {
	k := signed(t, keyring.Keyring{Version: 1, Roots: public(1), Signing: public(2), Revoked: []string{key(3).Public().ID()}}, 1)
	if got, err := k.SigningKey(key(2).Public().ID()); err != nil || got != key(2).Public() {
		t.Errorf("known key: %v", err)
	}
	if _, err := k.SigningKey(key(3).Public().ID()); !errors.Is(err, keyring.ErrRevoked) {
		t.Errorf("revoked key: %v", err)
	}
	for _, seed := range []byte{1, 4} { // a root signs keyrings only
		if _, err := k.SigningKey(key(seed).Public().ID()); !errors.Is(err, keyring.ErrUnknownKey) {
			t.Errorf("key %d: %v", seed, err)
		}
	}
	if err := k.Expired(expires.Add(-time.Second)); err != nil {
		t.Error(err)
	}
	if err := k.Expired(expires); !errors.Is(err, keyring.ErrExpired) {
		t.Errorf("at its expiry: %v", err)
	}
}

func TestServes(t *testing.T) {
	k := signed(t, keyring.Keyring{Version: 1, Roots: public(1), Signing: public(2), Revoked: []string{key(3).Public().ID()}}, 1)
	for _, c := range []struct {
		seed   byte
		before time.Duration // its expiry
		want   error
	}{
		{2, keyring.Renewal + time.Second, nil}, {2, keyring.Renewal, keyring.ErrExpiring}, {2, time.Second, keyring.ErrExpiring},
		{2, 0, keyring.ErrExpired}, {3, time.Hour, keyring.ErrRevoked}, {4, time.Hour, keyring.ErrUnknownKey}, {1, time.Hour, keyring.ErrUnknownKey},
	} {
		if err := k.Serves(key(c.seed).Public().ID(), expires.Add(-c.before)); !errors.Is(err, c.want) {
			t.Errorf("key %d, %s before its expiry: %v, want %v", c.seed, c.before, err, c.want)
		}
	}
}

// What is parsed is encoded as it was, and nothing in it needs another look.
func FuzzParse(f *testing.F) {
	golden, err := os.ReadFile("testdata/keyring")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte("precast keyring 1\nversion 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := keyring.Parse(data)
		if err != nil {
			if !errors.Is(err, keyring.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(k.Encode(), data) {
			t.Fatalf("%q comes back as %q", data, k.Encode())
		}
		if k.SignedBy(public(7)) {
			t.Fatal("forged")
		}
		for _, s := range k.Signing {
			if got, err := k.SigningKey(s.ID()); err != nil || got != s {
				t.Fatal(err)
			}
		}
	})
}
