// Package signing signs and verifies texts by Ed25519 keys (RFC 8032). Keys are named by the digest of
// their standard encoding (SubjectPublicKeyInfo, RFC 8410), which openssl and AWS KMS speak too.
package signing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// Signer has a private key, or somebody who has.
type Signer interface {
	// Public returns the key that verifies what Sign signs; always the same one.
	Public() PublicKey
	// Sign returns the Ed25519 signature, 64 bytes, of a message of at most 4,096 bytes. The same message
	// always gets the same signature (RFC 8032, section 5.1.6). It is safe for concurrent use.
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// PublicKey is an Ed25519 public key.
type PublicKey [ed25519.PublicKeySize]byte

// spki is what precedes the key in its SubjectPublicKeyInfo: SEQUENCE { SEQUENCE { OID 1.3.101.112 },
// BIT STRING } (RFC 8410, sections 3 and 4).
var spki = [12]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}

// DER returns the SubjectPublicKeyInfo.
func (k PublicKey) DER() []byte { return append(spki[:], k[:]...) }

// String is the DER in base64: what a PEM file has between its first and last line.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k.DER()) }

// ID names the key: the SHA-256 of its DER, in hex.
func (k PublicKey) ID() string {
	sum := sha256.Sum256(k.DER())
	return hex.EncodeToString(sum[:])
}

// errNotKey: another algorithm, or no key at all.
var errNotKey = errors.New("not an Ed25519 public key")

// ParseDER reads a SubjectPublicKeyInfo.
func ParseDER(der []byte) (PublicKey, error) {
	rest, ok := bytes.CutPrefix(der, spki[:])
	if !ok || len(rest) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("parse public key: %w", errNotKey)
	}
	return PublicKey(rest), nil
}

// ParsePublicKey is the inverse of String.
func ParsePublicKey(text string) (PublicKey, error) {
	der, err := decode(text)
	if err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	return ParseDER(der)
}

// decode reads base64 in its only form. (Package base64 passes over line breaks.)
func decode(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != text {
		return nil, errors.New("not base64 in its only form")
	}
	return raw, nil
}

// IsID tells whether text has the form of a key's ID.
func IsID(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == sha256.Size && hex.EncodeToString(raw) == text
}

// IsSignature tells whether text has the form of a signature, as Sign returns it.
func IsSignature(text string) bool {
	raw, err := decode(text)
	return err == nil && len(raw) == ed25519.SignatureSize
}

// Message is what is signed in place of a text: its SHA-256 in a line of its own. AWS KMS signs messages
// of up to 4,096 bytes (https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html), which a
// text of 40 items exceeds; and openssl before 3.2 has no prehashed Ed25519. A text says in its first line what it is,
// so that one kind can never pass for another.
func Message(text []byte) []byte {
	sum := sha256.Sum256(text)
	return []byte("precast signature 1 " + hex.EncodeToString(sum[:]) + "\n")
}

// Sign returns the signature of a text, in base64.
func Sign(ctx context.Context, s Signer, text []byte) (string, error) {
	message := Message(text)
	raw, err := s.Sign(ctx, message)
	if err != nil {
		return "", fmt.Errorf("sign by key %s: %w", s.Public().ID(), err)
	}
	// A signer that answers anything else must not reach a device.
	key := s.Public()
	if !ed25519.Verify(key[:], message, raw) {
		return "", fmt.Errorf("sign by key %s: the signature does not verify", key.ID())
	}
	return base64.StdEncoding.EncodeToString(raw), nil
}

// ErrSignature: the signature is not one of this key over this text.
var ErrSignature = errors.New("signature is wrong")

// Verify fails with ErrSignature unless signature is the key's, in base64, of the text.
func Verify(key PublicKey, text []byte, signature string) error {
	raw, err := decode(signature)
	if err != nil || len(raw) != ed25519.SignatureSize || !ed25519.Verify(key[:], Message(text), raw) {
		return ErrSignature
	}
	return nil
}
