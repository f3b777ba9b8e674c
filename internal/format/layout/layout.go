// Package layout is the one place that knows object keys and their HTTP headers. The edge imports it,
// so it imports next to nothing.
//
//	pieces/<sha256>/<encoder>              deflate piece of one binary
//	bundles/<setID>/<mask>.tar.gz          bundle
//	manifests/<setID>/<mask>.json          manifest
//	binaries/<sha256>/<app>_<version>      one binary
//	index                                  current index, the only object that is served and changes
//	index.d/<generation>                   published indexes, for rollback and upgrade paths
//	plans/<sequence>                       an index on its way to being published
//	rejects/<item digest>.json             why an item cannot be published
//	statements/<generation>/<epoch>/<sha256 of the selection>   what a selection gets, signed on request
//	keyring, keyring.d/<version>           the keys that sign; the former is mutable
//	sweep                                  whether objects are being removed right now
//
// Everything but the index and the sweep's fence is immutable: written once, under a name that its
// content decides.
package layout

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
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

// Headers are stored with an object and sent with it.
type Headers struct {
	ContentType        string
	CacheControl       string
	ContentDisposition string // empty: none
}

const immutable = "public, max-age=31536000, immutable"

// A bundle has no Content-Encoding: clients would unpack the gzip on the way.
const bundleDisposition = `attachment; filename="ota-package.tar.gz"`

// HeadersOf returns the headers of a kind.
func HeadersOf(k Kind) Headers {
	switch k {
	case Bundle:
		return Headers{"application/gzip", PackageCacheControl, bundleDisposition}
	case Manifest:
		return Headers{"application/json", PackageCacheControl, ""}
	case Index:
		return Headers{"application/octet-stream", "public, max-age=5", ""}
	case Reject, Sweep:
		return Headers{"application/json", "no-cache", ""}
	case Statement:
		return Headers{"text/plain; charset=utf-8", PackageCacheControl, ""}
	case Keyring:
		return Headers{"text/plain; charset=utf-8", "public, max-age=60", ""}
	case KeyringHistory:
		return Headers{"text/plain; charset=utf-8", immutable, ""}
	default:
		return Headers{"application/octet-stream", immutable, ""}
	}
}

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
	rest, ok := strings.CutPrefix(key, PlanPrefix)
	if !ok || !isNumber(rest) {
		return 0, refuse(key, "not the key of a plan")
	}
	return strconv.ParseUint(rest, 10, 64)
}

// PlanKey is the key of a planned index.
func PlanKey(sequence uint64) string { return PlanPrefix + padded(sequence) }

func padded(n uint64) string {
	s := strconv.FormatUint(n, 10)
	return "00000000000000000000"[len(s):] + s
}

// RejectKey is the key of the note that says why an item cannot be published.
func RejectKey(itemDigest string) string { return RejectPrefix + itemDigest + ".json" }

// KindOf returns the kind of a key, or an error for a key that no function of this package makes:
// drivers refuse those, so that no name from outside can leave its place.
func KindOf(key string) (Kind, error) {
	switch key {
	case IndexKey:
		return Index, nil
	case SweepKey:
		return Sweep, nil
	}
	if err := checkPath(key); err != nil {
		return Unknown, err
	}
	prefix, rest, _ := strings.Cut(key, "/")
	first, second, two := strings.Cut(rest, "/")
	if strings.Contains(second, "/") {
		two = false
	}
	switch prefix + "/" {
	case PiecePrefix:
		if two && isHex(first, 64) {
			return Piece, nil
		}
	case BinaryPrefix:
		if two && isHex(first, 64) {
			return Binary, nil
		}
	case BundlePrefix:
		if m, ok := strings.CutSuffix(second, ".tar.gz"); ok && two && isHex(first, 64) && isMask(m) {
			return Bundle, nil
		}
	case ManifestPrefix:
		if m, ok := strings.CutSuffix(second, ".json"); ok && two && isHex(first, 64) && isMask(m) {
			return Manifest, nil
		}
	case HistoryPrefix:
		if isNumber(rest) {
			return IndexHistory, nil
		}
	case PlanPrefix:
		if isNumber(rest) {
			return Plan, nil
		}
	case RejectPrefix:
		if d, ok := strings.CutSuffix(rest, ".json"); ok && isHex(d, 64) {
			return Reject, nil
		}
	}
	if kind := trustKind(key); kind != Unknown {
		return kind, nil
	}
	return Unknown, refuse(key, "not a key of this layout")
}

// HistoryGeneration is the inverse of HistoryKey.
func HistoryGeneration(key string) (uint64, error) {
	rest, ok := strings.CutPrefix(key, HistoryPrefix)
	if !ok || !isNumber(rest) {
		return 0, refuse(key, "not the key of a generation")
	}
	return strconv.ParseUint(rest, 10, 64)
}

func refuse(key, why string) error {
	return errors.New("parse object key " + strconv.Quote(key) + ": " + why)
}

func checkPath(key string) error {
	if len(key) > 1024 { // S3's limit: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
		return refuse(key[:64]+"...", "longer than 1024 bytes")
	}
	if !utf8.ValidString(key) { // S3 refuses it
		return refuse(key, "is not UTF-8")
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." {
			return refuse(key, "has an empty, . or .. part")
		}
		for i := 0; i < len(part); i++ {
			if part[i] < 0x20 || part[i] == 0x7f || part[i] == '\\' {
				return refuse(key, "has a control character or backslash")
			}
		}
	}
	return nil
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// A mask is lower-case hex without leading zeros, at most 64 digits (256 items).
func isMask(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && isHex(s, len(s)) && (s == "0" || s[0] != '0')
}

func isNumber(s string) bool {
	if len(s) != 20 {
		return false
	}
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil && s[0] != '+'
}
