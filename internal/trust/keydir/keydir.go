// Package keydir keeps keys and keyrings in a folder, makes new versions of the keyring and publishes them.
//
//	keyring                the newest
//	keyring.d/<version>    all of them
//	root-<id>.pem          root keys: they belong offline
//	root-<id>.pub.pem      what devices are made with
//	signing-<id>.pem       signing keys, unless KMS has them
package keydir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// Folder is a folder of keys.
type Folder struct {
	Dir    string
	Random io.Reader // for new keys
	Now    func() time.Time
	// Valid is how long a new version of the keyring is good for.
	Valid time.Duration
	// Root is a root key that is not in the folder, or nil.
	Root signing.Signer
}

func short(k signing.PublicKey) string { return k.ID()[:8] }

func (f *Folder) path(name string) string { return filepath.Join(f.Dir, filepath.FromSlash(name)) }

// RootFile, RootPublicFile and SigningFile are the names of keys in the folder.
func (f *Folder) RootFile(k signing.PublicKey) string { return f.path("root-" + short(k) + ".pem") }
func (f *Folder) RootPublicFile(k signing.PublicKey) string {
	return f.path("root-" + short(k) + ".pub.pem")
}
func (f *Folder) SigningFile(k signing.PublicKey) string {
	return f.path("signing-" + short(k) + ".pem")
}

// maxKeyring bounds a keyring, in bytes.
const maxKeyring = 1 << 20

// Keyring reads the newest keyring.
func (f *Folder) Keyring() (*keyring.Keyring, error) {
	data, err := files.Read(f.path(layout.KeyringKey), maxKeyring)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read keyring: there is none in %s (precast keys init makes one): %w", f.Dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read keyring: %w", err)
	}
	k, err := keyring.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path(layout.KeyringKey), err)
	}
	return k, nil
}

// Init makes the first keyring with a new root key. Statements are signed by signer, or, if that is nil, by a new
// key in the folder.
func (f *Folder) Init(ctx context.Context, signer signing.Signer) (*keyring.Keyring, error) {
	if _, err := os.Stat(f.path(layout.KeyringKey)); err == nil {
		return nil, fmt.Errorf("make keyring: there is one in %s already", f.Dir)
	}
	if err := os.MkdirAll(f.path("keyring.d"), 0o700); err != nil {
		return nil, fmt.Errorf("make keyring: %w", err)
	}
	root, err := f.newRoot()
	if err != nil {
		return nil, err
	}
	public, err := f.newSigning(signer)
	if err != nil {
		return nil, err
	}
	k := keyring.Keyring{Version: 1, Expires: f.expires(), Roots: []signing.PublicKey{root.Public()}, Signing: []signing.PublicKey{public}}
	return f.write(ctx, nil, k, root)
}

// expires is in whole seconds, as the format has it.
func (f *Folder) expires() time.Time { return f.Now().Add(f.Valid).UTC().Truncate(time.Second) }

func (f *Folder) newRoot() (signing.PrivateKey, error) {
	k, err := signing.Generate(f.Random)
	if err != nil {
		return k, err
	}
	if err := signing.WriteFile(f.RootFile(k.Public()), k); err != nil {
		return k, err
	}
	return k, os.WriteFile(f.RootPublicFile(k.Public()), signing.PublicPEM(k.Public()), 0o644)
}

func (f *Folder) newSigning(signer signing.Signer) (signing.PublicKey, error) {
	if signer != nil {
		return signer.Public(), nil
	}
	k, err := signing.Generate(f.Random)
	if err != nil {
		return k.Public(), err
	}
	return k.Public(), signing.WriteFile(f.SigningFile(k.Public()), k)
}

// Renew makes the next version with the same keys.
func (f *Folder) Renew(ctx context.Context) (*keyring.Keyring, error) {
	return f.next(ctx, func(*keyring.Keyring) ([]signing.Signer, error) { return nil, nil })
}

// Rotate adds a signing key: signer, or, if that is nil, a new one in the folder. The earlier keys stay
// good, until they are revoked.
func (f *Folder) Rotate(ctx context.Context, signer signing.Signer) (*keyring.Keyring, error) {
	return f.next(ctx, func(k *keyring.Keyring) ([]signing.Signer, error) {
		public, err := f.newSigning(signer)
		if err == nil && slices.Contains(k.Signing, public) {
			err = fmt.Errorf("key %s is in the keyring already", public.ID())
		}
		k.Signing = append(slices.Clone(k.Signing), public)
		return nil, err
	})
}

// RotateRoot puts a new root key in the place of all others.
func (f *Folder) RotateRoot(ctx context.Context) (*keyring.Keyring, error) {
	return f.next(ctx, func(k *keyring.Keyring) ([]signing.Signer, error) {
		root, err := f.newRoot()
		k.Roots = []signing.PublicKey{root.Public()}
		return []signing.Signer{root}, err
	})
}

// Revoke makes devices refuse whatever a signing key has signed. id may be the beginning of one.
func (f *Folder) Revoke(ctx context.Context, id string) (*keyring.Keyring, error) {
	return f.next(ctx, func(k *keyring.Keyring) ([]signing.Signer, error) {
		var found []string
		for _, s := range k.Signing {
			if strings.HasPrefix(s.ID(), id) {
				found = append(found, s.ID())
			}
		}
		if len(found) != 1 || len(id) < 4 {
			return nil, fmt.Errorf("%q is not the ID of one signing key of the keyring, nor its first four digits or more", id)
		}
		k.Signing = slices.DeleteFunc(slices.Clone(k.Signing), func(s signing.PublicKey) bool { return s.ID() == found[0] })
		k.Revoked = append(slices.Clone(k.Revoked), found[0])
		return nil, nil
	})
}

// next makes the next version of the keyring. change returns the signers that it needs besides a root of the version
// before.
func (f *Folder) next(ctx context.Context, change func(*keyring.Keyring) ([]signing.Signer, error)) (*keyring.Keyring, error) {
	before, err := f.Keyring()
	if err != nil {
		return nil, err
	}
	root, err := f.root(before)
	if err != nil {
		return nil, err
	}
	k := *before
	k.Version, k.Expires = before.Version+1, f.expires()
	more, err := change(&k)
	if err != nil {
		return nil, fmt.Errorf("change keyring: %w", err)
	}
	return f.write(ctx, before, k, append([]signing.Signer{root}, more...)...)
}

// root finds a private root key of a keyring.
func (f *Folder) root(k *keyring.Keyring) (signing.Signer, error) {
	for _, public := range k.Roots {
		if f.Root != nil && f.Root.Public() == public {
			return f.Root, nil
		}
		key, err := signing.ReadFile(f.RootFile(public))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil && key.Public() != public {
			err = fmt.Errorf("%s is another key", f.RootFile(public))
		}
		return key, err
	}
	return nil, fmt.Errorf("change keyring: its root key is not here: put %s back for as long as this takes, or its content into PRECAST_ROOT_KEY", f.RootFile(k.Roots[0]))
}

// write signs a version and writes it, into the history first.
func (f *Folder) write(ctx context.Context, before *keyring.Keyring, k keyring.Keyring, by ...signing.Signer) (*keyring.Keyring, error) {
	next, err := k.Sign(ctx, by...)
	if err != nil {
		return nil, err
	}
	if before != nil {
		err = next.Follows(before)
	} else {
		err = next.TrustedBy(next.Roots)
	}
	if err != nil {
		return nil, fmt.Errorf("write keyring: %w", err) // no device would follow
	}
	for _, name := range []string{layout.KeyringVersionKey(next.Version), layout.KeyringKey} {
		if err := replace(f.path(name), next.Encode()); err != nil {
			return nil, fmt.Errorf("write keyring: %w", err)
		}
	}
	return next, nil
}

// replace writes a file whole or not at all.
func replace(name string, data []byte) error {
	t, err := os.CreateTemp(filepath.Dir(name), "new-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // unless it has got its name
	_, err = t.Write(data)
	if err := errors.Join(err, t.Chmod(0o644), t.Sync(), t.Close()); err != nil {
		return err
	}
	return os.Rename(t.Name(), name)
}

// Objects is where keyrings are published: two methods of builder.Objects.
type Objects interface {
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error)
	Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error)
}

// ErrConflict: what is published does not come from this folder, or is newer.
var ErrConflict = errors.New("another keyring is published")

// Publish puts every version into the object store, and then the newest in the place of the current one. It tells
// whether that has changed.
func (f *Folder) Publish(ctx context.Context, objects Objects) (*keyring.Keyring, bool, error) {
	newest, err := f.Keyring()
	if err != nil {
		return nil, false, err
	}
	for version := uint64(1); version <= newest.Version; version++ {
		data, err := files.Read(f.path(layout.KeyringVersionKey(version)), maxKeyring)
		if err != nil {
			return nil, false, fmt.Errorf("publish keyring: %w", err)
		}
		if err := publishVersion(ctx, objects, version, data); err != nil {
			return nil, false, fmt.Errorf("publish keyring: %w", err)
		}
	}
	changed, err := publishCurrent(ctx, objects, newest)
	if err != nil {
		return nil, false, fmt.Errorf("publish keyring: %w", err)
	}
	return newest, changed, nil
}

func publishVersion(ctx context.Context, objects Objects, version uint64, data []byte) error {
	key := layout.KeyringVersionKey(version)
	_, err := objects.Put(ctx, key, builder.BytesBody(data), builder.PutOptions{IfAbsent: true})
	if !errors.Is(err, builder.ErrPrecondition) {
		return err
	}
	there, _, err := builder.ReadAll(ctx, objects, key, keyring.MaxBytes)
	if err == nil && !bytes.Equal(there, data) {
		err = fmt.Errorf("%w as version %d", ErrConflict, version)
	}
	return err
}

func publishCurrent(ctx context.Context, objects Objects, newest *keyring.Keyring) (changed bool, err error) {
	opt := builder.PutOptions{IfAbsent: true}
	there, info, err := builder.ReadAll(ctx, objects, layout.KeyringKey, keyring.MaxBytes)
	switch {
	case errors.Is(err, builder.ErrNotExist):
	case err != nil:
		return false, err
	case bytes.Equal(there, newest.Encode()):
		return false, nil
	default:
		published, err := keyring.Parse(there)
		if err != nil {
			return false, fmt.Errorf("read what is published: %w", err)
		}
		if published.Version >= newest.Version {
			return false, fmt.Errorf("%w: version %d, and this folder has version %d", ErrConflict, published.Version, newest.Version)
		}
		opt = builder.PutOptions{IfMatch: info.ETag}
	}
	_, err = objects.Put(ctx, layout.KeyringKey, builder.BytesBody(newest.Encode()), opt)
	if errors.Is(err, builder.ErrPrecondition) {
		return false, fmt.Errorf("%w meanwhile", ErrConflict)
	}
	return true, err
}
