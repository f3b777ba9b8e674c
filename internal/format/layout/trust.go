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
	if !matches(kinds[Statement].pattern, key) {
		return 0, 0, "", refuse(key, "not the path of a statement")
	}
	parts := strings.Split(key, "/")
	generation, _ = strconv.ParseUint(parts[1], 10, 64) // the pattern has numbers here
	epoch, _ = strconv.ParseUint(parts[2], 10, 64)
	return generation, epoch, parts[3], nil
}

// KeyringVersionKey is the key of a version of the keyring.
func KeyringVersionKey(version uint64) string { return KeyringHistoryPrefix + padded(version) }
