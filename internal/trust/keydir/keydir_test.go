package keydir_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/trust/keydir"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 500, time.UTC)

func folder(t *testing.T) *keydir.Folder {
	t.Helper()
	return &keydir.Folder{Dir: filepath.Join(t.TempDir(), "keys"), Random: rand.Reader, Now: func() time.Time { return now }, Valid: 24 * time.Hour}
}

func objects(t *testing.T) builder.Objects {
	t.Helper()
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store.Objects()
}

func TestLife(t *testing.T) {
	f, ctx := folder(t), t.Context()
	one, err := f.Init(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if one.Version != 1 || len(one.Roots) != 1 || len(one.Signing) != 1 || !one.Expires.Equal(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("%s", one.Encode())
	}
	for _, name := range []string{f.RootFile(one.Roots[0]), f.SigningFile(one.Signing[0])} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	public, err := os.ReadFile(f.RootPublicFile(one.Roots[0]))
	if err != nil {
		t.Fatal(err)
	}
	if k, err := signing.ParsePublicPEM(public); err != nil || k != one.Roots[0] {
		t.Errorf("what devices get: %v", err)
	}
	if _, err := f.Init(ctx, nil); err == nil {
		t.Error("a keyring was replaced by a first one")
	}

	two, err := f.Rotate(ctx, nil)
	if err != nil || len(two.Signing) != 2 {
		t.Fatalf("rotate: %v", err)
	}
	three, err := f.Revoke(ctx, one.Signing[0].ID()[:10])
	if err != nil || len(three.Signing) != 1 || three.Signing[0] == one.Signing[0] || three.Revoked[0] != one.Signing[0].ID() {
		t.Fatalf("revoke: %v", err)
	}
	for _, id := range []string{"", three.Signing[0].ID()[:3], one.Signing[0].ID(), three.Roots[0].ID(), "zzzz"} {
		if _, err := f.Revoke(ctx, id); err == nil {
			t.Errorf("%q was revoked", id)
		}
	}
	four, err := f.RotateRoot(ctx)
	if err != nil || len(four.Roots) != 1 || four.Roots[0] == one.Roots[0] {
		t.Fatalf("rotate root: %v", err)
	}
	if err := four.Follows(three); err != nil {
		t.Error(err)
	}
	// The old root is not needed any more, and does not help.
	if err := os.Remove(f.RootFile(one.Roots[0])); err != nil {
		t.Fatal(err)
	}
	five, err := f.Renew(ctx)
	if err != nil || five.Version != 5 || five.Follows(four) != nil {
		t.Fatalf("renew: %v", err)
	}
}

func TestRootElsewhere(t *testing.T) {
	f, ctx := folder(t), t.Context()
	one, err := f.Init(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := signing.ReadFile(f.RootFile(one.Roots[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.RootFile(one.Roots[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Renew(ctx); err == nil || !strings.Contains(err.Error(), "PRECAST_ROOT_KEY") {
		t.Errorf("no root key: %v", err)
	}
	if f.Root, err = signing.Generate(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Renew(ctx); err == nil {
		t.Error("another root key was taken")
	}
	f.Root = root
	if _, err := f.Renew(ctx); err != nil {
		t.Errorf("root key from elsewhere: %v", err)
	}
}

func TestPublish(t *testing.T) {
	f, ctx, store := folder(t), t.Context(), objects(t)
	if _, _, err := f.Publish(ctx, store); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no keyring: %v", err)
	}
	if _, err := f.Init(ctx, nil); err != nil {
		t.Fatal(err)
	}
	publish := func(want uint64, wantChanged bool) {
		t.Helper()
		k, changed, err := f.Publish(ctx, store)
		if err != nil || k.Version != want || changed != wantChanged {
			t.Fatalf("version %v, changed %t, error %v", k, changed, err)
		}
		for _, key := range []string{layout.KeyringKey, layout.KeyringVersionKey(want)} {
			info, err := store.Stat(ctx, key)
			if err != nil || info.Size != int64(len(k.Encode())) {
				t.Errorf("%s: %v", key, err)
			}
		}
	}
	publish(1, true)
	publish(1, false)
	for range 2 {
		if _, err := f.Rotate(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	publish(3, true) // and version 2 in the history
	if _, err := store.Stat(ctx, layout.KeyringVersionKey(2)); err != nil {
		t.Error(err)
	}
	// Another folder, and an older copy of this one, do not replace it.
	other := folder(t)
	if _, err := other.Init(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.Publish(ctx, store); !errors.Is(err, keydir.ErrConflict) {
		t.Errorf("another folder: %v", err)
	}
	old, err := os.ReadFile(filepath.Join(f.Dir, "keyring.d", "00000000000000000002"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.Dir, "keyring"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Publish(ctx, store); !errors.Is(err, keydir.ErrConflict) {
		t.Errorf("an older copy: %v", err)
	}
	k, err := f.Keyring()
	if err != nil || k.Version != 2 {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.Dir, "keyring"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Keyring(); !errors.Is(err, keyring.ErrFormat) {
		t.Errorf("damaged: %v", err)
	}
}
