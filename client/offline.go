package client

import (
	"fmt"
	"io"
	"time"

	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// Offline verifies files that did not come by an Update, such as a bundle on a memory stick, with its statement and the
// keyring. It keeps no state, so it accepts an old statement until that expires.
type Offline struct {
	Keyring []byte
	// Roots are root keys in PEM, one of which must have signed the keyring. If nil, the keyring is trusted.
	Roots []byte
	Now   time.Time
}

// Statement verifies a statement. If a check fails, the error is a *Refusal.
func (o Offline) Statement(data []byte) (*Statement, error) {
	k, err := keyring.Parse(o.Keyring)
	if err != nil {
		return nil, refuse(Malformed, err)
	}
	if o.Roots != nil {
		roots, err := parseRoots(o.Roots)
		if err != nil {
			return nil, err
		}
		if err := k.TrustedBy(roots); err != nil {
			return nil, refuse(UntrustedKeyring, err)
		}
	}
	if err := k.Expired(o.Now); err != nil {
		return nil, refuse(ExpiredKeyring, err)
	}
	said, err := statement.Parse(data)
	if err != nil {
		return nil, refuse(Malformed, err)
	}
	if err := (&Client{}).signed(k, said); err != nil {
		return nil, err
	}
	if err := said.Expired(o.Now); err != nil {
		return nil, refuse(ExpiredStatement, err)
	}
	return &Statement{Set: setOf(&said.Statement), Selection: said.Selection, Key: said.Key, said: said}, nil
}

// Statement is a statement that has been verified.
type Statement struct {
	Set
	Selection string
	Key       string // ID of the key that has signed it
	said      *statement.Signed
}

// Bundle verifies that a bundle has only files of the statement, each with its length and digest, and returns their
// names. Files that the device already has may be missing.
func (s *Statement) Bundle(r io.Reader) ([]string, error) {
	var names []string
	u := &unpacker{
		said:  s.said,
		check: (&Client{}).check,
		keep: func(it statement.Item, r io.Reader, verify func() error) error {
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
			names = append(names, it.FileName())
			return verify()
		},
	}
	if err := u.unpack(r); err != nil {
		return nil, err
	}
	return names, nil
}

// Manifest verifies that a package_details.json lists the files of the statement and no others.
func (s *Statement) Manifest(data []byte) error {
	if _, err := compareManifest(s.said, data); err != nil {
		return refuse(WrongDetails, fmt.Errorf("verify manifest: %w", err))
	}
	return nil
}
