// Package store is the room of the drivers of builder's ports, and of storetest, the contract they all pass.
// A driver keeps bytes and records; it decides nothing about them.
// It may import: builder, internal/files, internal/format.
package store
