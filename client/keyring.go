package client

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// parseRoots reads one or more PEM blocks.
func parseRoots(text []byte) ([]signing.PublicKey, error) {
	var roots []signing.PublicKey
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		key, err := signing.ParsePublicPEM(pem.EncodeToMemory(block))
		if err != nil {
			return nil, err
		}
		roots, text = append(roots, key), rest
	}
	if len(roots) == 0 {
		return nil, errors.New("there is no root key in PEM")
	}
	return roots, nil
}

// updateKeyring fetches the newest keyring. It is saved as soon as it has been verified, even if the rest of the
// update fails a check.
func (c *Client) updateKeyring(ctx context.Context, st *state) error {
	newest, err := c.fetchKeyring(ctx, layout.KeyringKey)
	if err != nil {
		return err
	}
	if st.keyring == nil {
		err = c.firstKeyring(ctx, st, newest)
	} else {
		err = c.nextKeyrings(ctx, st, newest)
	}
	if st.keyring == nil {
		return err
	}
	// Forget a generation that a revoked key has signed: a thief may have chosen a very high one.
	if slices.Contains(st.keyring.Revoked, st.SignedBy) {
		st.Generation, st.SignedBy, st.Contents, st.Unless = 0, "", "", nil
	}
	if err := errors.Join(err, c.save(st)); err != nil {
		return err
	}
	return c.check(ExpiredKeyring, st.keyring.Expired(c.opt.Clock.Now()))
}

// firstKeyring follows the keyrings back, from the newest to one that a root key of this device has signed.
func (c *Client) firstKeyring(ctx context.Context, st *state, newest *keyring.Keyring) error {
	k := newest
	for range c.opt.Limits.MaxVersions {
		if k.TrustedBy(c.roots) == nil || k.Version == 1 {
			break
		}
		before, err := c.fetchKeyring(ctx, layout.KeyringVersionKey(k.Version-1))
		if err != nil {
			return err
		}
		if err := c.check(UntrustedKeyring, k.Follows(before)); err != nil {
			return err
		}
		k = before
	}
	if err := c.check(UntrustedKeyring, k.TrustedBy(c.roots)); err != nil {
		return err
	}
	st.keyring = newest
	return nil
}

// nextKeyrings follows the keyrings from the one that is known to the newest one.
func (c *Client) nextKeyrings(ctx context.Context, st *state, newest *keyring.Keyring) error {
	known := st.keyring
	switch {
	case newest.Version < known.Version:
		return c.check(OldKeyring, fmt.Errorf("keyring has version %d, after version %d", newest.Version, known.Version))
	case newest.Version == known.Version:
		if !bytes.Equal(newest.Text(), known.Text()) {
			return c.check(UntrustedKeyring, fmt.Errorf("there are two keyrings of version %d", known.Version))
		}
		return nil
	}
	last := known.Version + min(newest.Version-known.Version, c.opt.Limits.MaxVersions)
	for known.Version < last {
		next := newest
		if known.Version+1 < newest.Version {
			var err error
			if next, err = c.fetchKeyring(ctx, layout.KeyringVersionKey(known.Version+1)); err != nil {
				return err
			}
		}
		if err := c.check(UntrustedKeyring, next.Follows(known)); err != nil {
			return err
		}
		if next.Version <= known.Version { // only if a test skips the check
			break
		}
		known, st.keyring = next, next
	}
	if known.Version < newest.Version {
		return fmt.Errorf("keyring is at version %d of %d: the next update resumes from there", known.Version, newest.Version)
	}
	return nil
}

func (c *Client) fetchKeyring(ctx context.Context, key string) (*keyring.Keyring, error) {
	data, err := c.get(ctx, "/"+key, "", keyring.MaxBytes, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	k, err := keyring.Parse(data)
	if err != nil {
		return nil, refuse(Malformed, fmt.Errorf("get %s: %w", key, err))
	}
	return k, nil
}
