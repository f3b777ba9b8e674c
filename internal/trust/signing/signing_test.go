package signing_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/trust/signing"

	"pgregory.net/rapid"
)

// fixed is a key that is the same in every run. (Ed25519 keys are made of 32 bytes of any value.)
func fixed(t testing.TB, seed byte) signing.PrivateKey {
	t.Helper()
	k, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignAndVerify(t *testing.T) {
	key, other := fixed(t, 1), fixed(t, 2)
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.SliceOf(rapid.Byte()).Draw(rt, "text")
		signature, err := signing.Sign(context.Background(), key, text)
		if err != nil {
			rt.Fatal(err)
		}
		if err := signing.Verify(key.Public(), text, signature); err != nil {
			rt.Fatal(err)
		}
		changed := append(bytes.Clone(text), 'x')
		for what, err := range map[string]error{
			"another key":  signing.Verify(other.Public(), text, signature),
			"another text": signing.Verify(key.Public(), changed, signature),
			"no base64":    signing.Verify(key.Public(), text, signature[1:]),
			"two lines":    signing.Verify(key.Public(), text, signature[:10]+"\n"+signature[10:]),
			"nothing":      signing.Verify(key.Public(), text, ""),
		} {
			if !errors.Is(err, signing.ErrSignature) {
				rt.Fatalf("%s: %v", what, err)
			}
		}
		again, _ := signing.Sign(context.Background(), key, text)
		if again != signature {
			rt.Fatal("two signatures of one text")
		}
	})
}

func TestKeysComeBack(t *testing.T) {
	key := fixed(t, 3)
	text, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := signing.ParsePrivateKey(text); err != nil || back.Public() != key.Public() {
		t.Errorf("private key: %v", err)
	}
	if back, err := signing.ParsePublicKey(key.Public().String()); err != nil || back != key.Public() {
		t.Errorf("public key: %v", err)
	}
	if back, err := signing.ParsePublicPEM(signing.PublicPEM(key.Public())); err != nil || back != key.Public() {
		t.Errorf("public PEM: %v", err)
	}
	if !signing.IsID(key.Public().ID()) {
		t.Errorf("ID %s", key.Public().ID())
	}
	for _, id := range []string{"", "x", strings.ToUpper(key.Public().ID()), key.Public().ID()[1:], key.Public().ID() + "0"} {
		if signing.IsID(id) {
			t.Errorf("%q is an ID", id)
		}
	}
}

func TestBadKeys(t *testing.T) {
	good := fixed(t, 4)
	text, _ := good.PEM()
	for _, bad := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", string(signing.PublicPEM(good.Public())), string(text[:60])} {
		if _, err := signing.ParsePrivateKey([]byte(bad)); err == nil {
			t.Errorf("%q is a private key", bad)
		} else if len(bad) > 60 && strings.Contains(err.Error(), bad[40:50]) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
	for _, bad := range []string{"", "x", good.Public().String()[4:], good.Public().String() + "AAAA", string(text)} {
		if _, err := signing.ParsePublicKey(bad); err == nil {
			t.Errorf("%q is a public key", bad)
		}
	}
	if _, err := signing.ParsePublicPEM(text); err == nil {
		t.Error("a private key is a public key")
	}
}

func TestFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key.pem")
	key := fixed(t, 5)
	if err := signing.WriteFile(name, key); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if back, err := signing.ReadFile(name); err != nil || back.Public() != key.Public() {
		t.Errorf("read back: %v", err)
	}
	if err := signing.WriteFile(name, fixed(t, 6)); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key was replaced: %v", err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := signing.ReadFile(name); err == nil || !strings.Contains(err.Error(), "others may read it") {
		t.Errorf("a key that others may read: %v", err)
	}
	if _, err := signing.ReadFile(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := signing.Generate(io.LimitReader(strings.NewReader("short"), 5)); err == nil {
		t.Error("a key without randomness")
	}
}

// A signer that answers something else, such as a KMS key of another kind, is noticed here and not on the
// devices.
type liar struct{ signing.PrivateKey }

func (liar) Sign(context.Context, []byte) ([]byte, error) {
	return make([]byte, ed25519.SignatureSize), nil
}

func TestSignerThatLies(t *testing.T) {
	if _, err := signing.Sign(context.Background(), liar{fixed(t, 7)}, []byte("x")); err == nil {
		t.Error("a wrong signature was passed on")
	}
}

// openssl reads what this package writes, and verifies what it signs: devices without Go rely on it.
func TestOpenSSLAgrees(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal(err) // the tests need it: see README.md
	}
	dir := t.TempDir()
	key := fixed(t, 8)
	private, _ := key.PEM()
	text := []byte("precast statement 1\n")
	signature, _ := key.Sign(context.Background(), signing.Message(text))
	for name, data := range map[string][]byte{"private.pem": private, "public.pem": signing.PublicPEM(key.Public()), "message": signing.Message(text), "signature": signature} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command(openssl, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}
	if got := run("pkey", "-in", "private.pem", "-pubout"); string(got) != string(signing.PublicPEM(key.Public())) {
		t.Errorf("openssl says the public key is %s", got)
	}
	run("pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "message", "-sigfile", "signature")
	run("genpkey", "-algorithm", "ed25519", "-out", "theirs.pem")
	theirs, err := os.ReadFile(filepath.Join(dir, "theirs.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signing.ParsePrivateKey(theirs); err != nil {
		t.Errorf("a key of openssl's: %v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	key, text := fixed(b, 1), bytes.Repeat([]byte("x"), 1000)
	for b.Loop() {
		if _, err := signing.Sign(context.Background(), key, text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	key, text := fixed(b, 1), bytes.Repeat([]byte("x"), 1000)
	signature, _ := signing.Sign(context.Background(), key, text)
	for b.Loop() {
		if err := signing.Verify(key.Public(), text, signature); err != nil {
			b.Fatal(err)
		}
	}
}
