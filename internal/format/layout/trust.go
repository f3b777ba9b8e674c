package layout

import (
	"strconv"
	"strings"
)

// Names of the objects that devices trust. docs/trust.md says what is in them.

// KeyringKey is the key of the current keyring: mutable, written conditionally.
const KeyringKey = "keyring"

const (
	// StatementPrefix begins the paths of statements. They are made on request and not stored: the same
	// path gets other bytes once another key signs.
	StatementPrefix = "statements/"
	// KeyringHistoryPrefix begins the keys of all keyrings, the current one too: a device that has an old
	// root key walks from version to version.
	KeyringHistoryPrefix = "keyring.d/"
)

// StatementKey is the path of the statement of what a generation gives to a selection; epoch counts the
// periods in which statements are signed, selection is the SHA-256 of the canonical selection.
func StatementKey(generation, epoch uint64, selection string) string {
	return StatementPrefix + padded(generation) + "/" + strconv.FormatUint(epoch, 10) + "/" + selection
}

// ParseStatementKey is the inverse of StatementKey.
func ParseStatementKey(key string) (generation, epoch uint64, selection string, err error) {
	parts := strings.Split(key, "/")
	if len(parts) == 4 && parts[0]+"/" == StatementPrefix && isNumber(parts[1]) && isHex(parts[3], 64) {
		generation, _ = strconv.ParseUint(parts[1], 10, 64)
		epoch, err = strconv.ParseUint(parts[2], 10, 64)
		if err == nil && strconv.FormatUint(epoch, 10) == parts[2] {
			return generation, epoch, parts[3], nil
		}
	}
	return 0, 0, "", refuse(key, "not the path of a statement")
}

// KeyringVersionKey is the key of a version of the keyring.
func KeyringVersionKey(version uint64) string { return KeyringHistoryPrefix + padded(version) }

// trustKind returns the kind of a key of this file, or Unknown.
func trustKind(key string) Kind {
	if key == KeyringKey {
		return Keyring
	}
	if rest, ok := strings.CutPrefix(key, KeyringHistoryPrefix); ok && isNumber(rest) {
		return KeyringHistory
	}
	if _, _, _, err := ParseStatementKey(key); err == nil {
		return Statement
	}
	return Unknown
}
