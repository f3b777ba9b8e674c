// Package keyring reads and writes keyrings: the list of keys that sign, itself signed by root keys that are
// kept offline. A device that has one root key follows all later ones: every version is signed by a
// root of the version before.
//
//	precast keyring 1
//	version 2
//	expires 2027-01-31T00:00:00Z
//	root <key ID> <public key>
//	signing <key ID> <public key>
//	revoked <key ID>
//	signature <root's key ID> <base64>
//
// Lines of one kind are sorted by key ID; docs/trust.md repeats this.
package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/precast-ota/precast/internal/trust/signing"
)

// Limits of a keyring.
const (
	MaxBytes = 64 << 10
	MaxKeys  = 256 // of each kind
)

const firstLine = "precast keyring 1"

// Keyring is one version of the list of keys. It is not changed once made.
type Keyring struct {
	Version uint64 // from 1
	Expires time.Time
	Roots   []signing.PublicKey // sign keyrings
	Signing []signing.PublicKey // sign statements
	Revoked []string            // IDs of keys that must not be believed any more, whatever signed them

	signatures []signature
}

type signature struct{ root, value string }

// Errors that say why a keyring, or a key, is not to be used.
var (
	ErrFormat     = errors.New("keyring is malformed")
	ErrExpired    = errors.New("keyring has expired")
	ErrUntrusted  = errors.New("keyring is not signed by a root key that is trusted")
	ErrUnknownKey = errors.New("key is not in the keyring")
	ErrRevoked    = errors.New("key has been revoked")
)

// Text is everything that is signed: the keyring without its signatures, as Parse reads it too. Anybody can
// add signatures to a keyring, so that two are the same if their texts are.
func (k *Keyring) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nversion %d\nexpires %s\n", firstLine, k.Version, k.Expires.UTC().Format(time.RFC3339))
	for _, r := range k.Roots {
		fmt.Fprintf(&b, "root %s %s\n", r.ID(), r)
	}
	for _, s := range k.Signing {
		fmt.Fprintf(&b, "signing %s %s\n", s.ID(), s)
	}
	for _, id := range k.Revoked {
		fmt.Fprintf(&b, "revoked %s\n", id)
	}
	return b.Bytes()
}

// Encode returns the keyring with its signatures.
func (k *Keyring) Encode() []byte {
	b := k.Text()
	for _, s := range k.signatures {
		b = fmt.Appendf(b, "signature %s %s\n", s.root, s.value)
	}
	return b
}

// Sign returns the keyring, its keys in order, signed by these root keys.
func (k Keyring) Sign(ctx context.Context, roots ...signing.Signer) (*Keyring, error) {
	byID := func(a, b signing.PublicKey) int { return strings.Compare(a.ID(), b.ID()) }
	k.Roots, k.Signing, k.Revoked = slices.Clone(k.Roots), slices.Clone(k.Signing), slices.Clone(k.Revoked)
	slices.SortFunc(k.Roots, byID)
	slices.SortFunc(k.Signing, byID)
	slices.Sort(k.Revoked)
	k.signatures = nil
	for _, r := range roots {
		value, err := signing.Sign(ctx, r, k.Text())
		if err != nil {
			return nil, err
		}
		k.signatures = append(k.signatures, signature{r.Public().ID(), value})
	}
	slices.SortFunc(k.signatures, func(a, b signature) int { return strings.Compare(a.root, b.root) })
	return Parse(k.Encode()) // what cannot be read is not to be published
}

// Parse reads what Encode wrote, and nothing else: every keyring has one encoding. It fails with ErrFormat.
// It verifies no signature.
func Parse(data []byte) (*Keyring, error) {
	k, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return k, nil
}

func parse(data []byte) (*Keyring, error) {
	var k Keyring
	err := signing.ReadLines(data, MaxBytes, firstLine, func(word, rest string) (err error) {
		id, value, _ := strings.Cut(rest, " ")
		switch word {
		case "version":
			k.Version, err = strconv.ParseUint(rest, 10, 64)
		case "expires":
			k.Expires, err = time.Parse(time.RFC3339, rest)
		case "root":
			k.Roots, err = appendKey(k.Roots, value)
		case "signing":
			k.Signing, err = appendKey(k.Signing, value)
		case "revoked":
			k.Revoked = append(k.Revoked, rest)
		case "signature":
			k.signatures = append(k.signatures, signature{id, value})
		default:
			err = errors.New("unknown")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := k.check(); err != nil {
		return nil, err
	}
	// Encoding it again verifies whatever was read leniently, such as the IDs beside the keys.
	if !bytes.Equal(k.Encode(), data) {
		return nil, errors.New("it is not in its only form")
	}
	return &k, nil
}

func appendKey(keys []signing.PublicKey, text string) ([]signing.PublicKey, error) {
	key, err := signing.ParsePublicKey(text)
	return append(keys, key), err
}

func (k *Keyring) check() error {
	if k.Version == 0 || len(k.Roots) == 0 {
		return errors.New("it has no version or no root key")
	}
	// Four digits of year, so that times of one length compare as texts do.
	if y := k.Expires.UTC().Year(); y < 2000 || y > 9999 {
		return errors.New("its expiry is out of range")
	}
	var ids []string
	groups := [][]string{identities(k.Roots), identities(k.Signing), k.Revoked}
	for _, g := range groups {
		if len(g) > MaxKeys || !slices.IsSorted(g) {
			return errors.New("its keys are too many or not in order")
		}
		ids = append(ids, g...)
	}
	slices.Sort(ids)
	if len(slices.Compact(slices.Clone(ids))) != len(ids) {
		return errors.New("it has one key twice")
	}
	for _, id := range ids {
		if !signing.IsID(id) {
			return errors.New("a revoked key has no ID")
		}
	}
	signers := make([]string, len(k.signatures))
	for i, s := range k.signatures {
		signers[i] = s.root
		if !signing.IsID(s.root) || !signing.IsSignature(s.value) {
			return errors.New("a signature has no key's ID, or is none")
		}
	}
	if len(signers) > 2*MaxKeys || !slices.IsSorted(signers) || len(slices.Compact(signers)) != len(k.signatures) {
		return errors.New("its signatures are too many or not in order")
	}
	return nil
}

func identities(keys []signing.PublicKey) []string {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID()
	}
	return ids
}

// SignedBy tells whether one of these root keys has signed the keyring.
func (k *Keyring) SignedBy(roots []signing.PublicKey) bool {
	text := k.Text()
	for _, r := range roots {
		for _, s := range k.signatures {
			if s.root == r.ID() && signing.Verify(r, text, s.value) == nil {
				return true
			}
		}
	}
	return false
}

// TrustedBy fails with ErrUntrusted unless the keyring is signed by one of the roots given, and by one of its
// own: rotating the root takes the new one, too.
func (k *Keyring) TrustedBy(roots []signing.PublicKey) error {
	if !k.SignedBy(roots) || !k.SignedBy(k.Roots) {
		return ErrUntrusted
	}
	return nil
}

// Follows fails unless the keyring is the next version after another one, with ErrUntrusted if that one's
// roots have not signed it. Expiry is the last version's matter, not of those on the way to it.
func (k *Keyring) Follows(before *Keyring) error {
	if k.Version != before.Version+1 {
		return fmt.Errorf("keyring has version %d, not %d", k.Version, before.Version+1)
	}
	return k.TrustedBy(before.Roots)
}

// Expired fails with ErrExpired if now is not before the expiry.
func (k *Keyring) Expired(now time.Time) error {
	if !now.Before(k.Expires) {
		return fmt.Errorf("%w: at %s", ErrExpired, k.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// SigningKey returns the signing key with this ID, or fails with ErrRevoked or ErrUnknownKey.
func (k *Keyring) SigningKey(id string) (signing.PublicKey, error) {
	if slices.Contains(k.Revoked, id) {
		return signing.PublicKey{}, fmt.Errorf("%w: %s", ErrRevoked, id)
	}
	for _, key := range k.Signing {
		if key.ID() == id {
			return key, nil
		}
	}
	return signing.PublicKey{}, fmt.Errorf("%w: %s", ErrUnknownKey, id)
}

// Renewal is how long before its expiry a keyring that is published should have been renewed.
const Renewal = 14 * 24 * time.Hour

// ErrExpiring: a keyring is still good, but not for long.
var ErrExpiring = errors.New("keyring expires soon (precast keys renew, precast keys publish)")

// Serves fails if devices that have the keyring do not believe what the key with this ID signs, or soon will not.
func (k *Keyring) Serves(id string, now time.Time) error {
	if _, err := k.SigningKey(id); err != nil {
		return err
	}
	if err := k.Expired(now); err != nil {
		return err
	}
	if k.Expired(now.Add(Renewal)) != nil {
		return fmt.Errorf("%w: at %s", ErrExpiring, k.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}
