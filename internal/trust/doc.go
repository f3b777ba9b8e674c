// Package trust is the room of signing and checking: keys, keyrings, statements.
// Where private keys are kept is left to keydir (a folder) and kmskey (AWS KMS).
// It may import: builder, edge, internal/files, internal/format.
package trust
