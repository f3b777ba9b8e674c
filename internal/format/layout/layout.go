// Package layout is the one place that knows object keys and their HTTP headers. The edge imports it,
// so it imports next to nothing.
//
//	pieces/<sha256>/<encoder>              deflate piece of one binary
//	bundles/<setID>/<mask>.tar.gz          bundle
//	manifests/<setID>/<mask>.json          manifest
//	binaries/<sha256>/<app>_<version>      one binary
//	index                                  current index; mutable
//	index.d/<generation>                   published indexes, for rollback and upgrade paths
//	plans/<sequence>                       an index on its way to being published
//	rejects/<item digest>.json             why an item cannot be published; mutable
//	statements/<generation>/<epoch>/<sha256 of the selection>   what a selection gets, signed on request
//	keyring                                the keys that sign; mutable
//	keyring.d/<version>                    every keyring
//	sweep                                  whether objects are being removed right now; mutable
//
// What is not mutable is written once, under a name that its content decides. The table in kinds.go holds each kind's
// pattern and headers.
package layout

import (
	"errors"
	"strconv"
	"strings"
)

// Kind is a kind of object; every object's headers follow from it.
type Kind int

const (
	Unknown Kind = iota
	Piece
	Bundle
	Manifest
	Binary
	Index
	IndexHistory
	Plan
	Reject
	Sweep
	Statement
	Keyring
	KeyringHistory
)

// Cache-Control of answers to /package. They change when the index does, so the objects behind them say this too,
// although they themselves never change.
const (
	PackageCacheControl = "public, max-age=30, stale-while-revalidate=30"
	ErrorCacheControl   = "public, max-age=10"
	// UnavailableCacheControl goes with a 503: it may be asked again at once elsewhere.
	UnavailableCacheControl = "no-store"
)

// IndexKey is the key of the current index.
const IndexKey = "index"

// SweepKey is the key of the fence that holds builds back while objects are being removed.
const SweepKey = "sweep"

// Prefixes of all objects of a kind.
const (
	PiecePrefix    = "pieces/"
	BundlePrefix   = "bundles/"
	ManifestPrefix = "manifests/"
	BinaryPrefix   = "binaries/"
	HistoryPrefix  = "index.d/"
	PlanPrefix     = "plans/"
	RejectPrefix   = "rejects/"
)

// PieceKey is the key of the piece of the binary with this SHA-256 (64 lower-case hex digits), as
// made by the named encoder.
func PieceKey(sha256, encoder string) string { return PiecePrefix + sha256 + "/" + encoder }

// BundleKey is the key of a bundle; mask is in the form of edge.Mask.String.
func BundleKey(setID, mask string) string { return BundlePrefix + setID + "/" + mask + ".tar.gz" }

// ManifestKey is the key of a manifest that is served alone.
func ManifestKey(setID, mask string) string { return ManifestPrefix + setID + "/" + mask + ".json" }

// BinaryKey is the key of one binary.
func BinaryKey(sha256, app, version string) string {
	return BinaryPrefix + sha256 + "/" + FileName(app, version)
}

// FileName is the name of a binary in a bundle.
func FileName(app, version string) string { return app + "_" + version }

// ETag is the entity tag, without quotes, of an answer whose bytes are those of a bundle or manifest: its key
// says which bytes these are, prebuilt or composed.
func ETag(key string) string { return strings.ReplaceAll(key, "/", "-") }

// ManifestName is the name of the manifest in a bundle.
const ManifestName = "package_details.json"

// HistoryKey is the key of the index of a generation, current or superseded. Zero-padded, so that listing is in order.
func HistoryKey(generation uint64) string { return HistoryPrefix + padded(generation) }

// PlanSequence is the inverse of PlanKey.
func PlanSequence(key string) (uint64, error) {
	if !matches(kinds[Plan].pattern, key) {
		return 0, refuse(key, "not the key of a plan")
	}
	return strconv.ParseUint(key[len(PlanPrefix):], 10, 64)
}

// PlanKey is the key of a planned index.
func PlanKey(sequence uint64) string { return PlanPrefix + padded(sequence) }

func padded(n uint64) string {
	s := strconv.FormatUint(n, 10)
	return "00000000000000000000"[len(s):] + s
}

// RejectKey is the key of the note that says why an item cannot be published.
func RejectKey(itemDigest string) string { return RejectPrefix + itemDigest + ".json" }

// HistoryGeneration is the inverse of HistoryKey.
func HistoryGeneration(key string) (uint64, error) {
	if !matches(kinds[IndexHistory].pattern, key) {
		return 0, refuse(key, "not the key of a generation")
	}
	return strconv.ParseUint(key[len(HistoryPrefix):], 10, 64)
}

func refuse(key, why string) error {
	return errors.New("parse object key " + strconv.Quote(key) + ": " + why)
}
