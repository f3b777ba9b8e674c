package layout

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Headers are stored with an object and sent with it.
type Headers struct {
	ContentType        string
	CacheControl       string
	ContentDisposition string // empty: none
}

const (
	immutable = "public, max-age=31536000, immutable"

	octets = "application/octet-stream"
	json   = "application/json"
	text   = "text/plain; charset=utf-8"

	// A bundle has no Content-Encoding: clients would unpack the gzip on the way.
	bundleDisposition = `attachment; filename="ota-package.tar.gz"`
)

// kinds says of each kind which keys it has and which headers. A part of a pattern may begin with a field in braces;
// fieldHas says what a field stands for.
var kinds = [...]struct {
	pattern string
	headers Headers
}{
	Unknown:        {"", Headers{octets, immutable, ""}},
	Piece:          {PiecePrefix + "{sha256}/{name}", Headers{octets, immutable, ""}},
	Bundle:         {BundlePrefix + "{sha256}/{mask}.tar.gz", Headers{"application/gzip", PackageCacheControl, bundleDisposition}},
	Manifest:       {ManifestPrefix + "{sha256}/{mask}.json", Headers{json, PackageCacheControl, ""}},
	Binary:         {BinaryPrefix + "{sha256}/{name}", Headers{octets, immutable, ""}},
	Index:          {IndexKey, Headers{octets, "public, max-age=5", ""}},
	IndexHistory:   {HistoryPrefix + "{padded}", Headers{octets, immutable, ""}},
	Plan:           {PlanPrefix + "{padded}", Headers{octets, immutable, ""}},
	Reject:         {RejectPrefix + "{sha256}.json", Headers{json, "no-cache", ""}},
	Sweep:          {SweepKey, Headers{json, "no-cache", ""}},
	Statement:      {StatementPrefix + "{padded}/{number}/{sha256}", Headers{text, PackageCacheControl, ""}},
	Keyring:        {KeyringKey, Headers{text, "public, max-age=60", ""}},
	KeyringHistory: {KeyringHistoryPrefix + "{padded}", Headers{text, immutable, ""}},
}

// HeadersOf returns the headers of a kind.
func HeadersOf(k Kind) Headers { return kinds[k].headers }

// PrefixOf returns what the keys of a kind begin with, up to and with a slash. A kind of one key has its key.
func PrefixOf(k Kind) string {
	prefix, _, _ := strings.Cut(kinds[k].pattern, "{")
	return prefix
}

// Kinds returns all kinds but Unknown.
func Kinds() []Kind {
	all := make([]Kind, 0, len(kinds)-1)
	for k := Unknown + 1; int(k) < len(kinds); k++ {
		all = append(all, k)
	}
	return all
}

// KindOf returns the kind of a key, or an error for a key that no function of this package makes:
// drivers refuse those, so that no name from outside can leave its place.
func KindOf(key string) (Kind, error) {
	if err := checkPath(key); err != nil {
		return Unknown, err
	}
	for k := Unknown + 1; int(k) < len(kinds); k++ { // Kinds would allocate
		if matches(kinds[k].pattern, key) {
			return k, nil
		}
	}
	return Unknown, refuse(key, "not a key of this layout")
}

// matches tells whether a key, part by part, is what a pattern says.
func matches(pattern, key string) bool {
	for {
		want, patternRest, patternMore := strings.Cut(pattern, "/")
		part, keyRest, keyMore := strings.Cut(key, "/")
		if patternMore != keyMore || !partMatches(want, part) {
			return false
		}
		if !keyMore {
			return true
		}
		pattern, key = patternRest, keyRest
	}
}

func partMatches(want, part string) bool {
	field, suffix, ok := strings.Cut(want, "}")
	if !ok {
		return part == want
	}
	value, ok := strings.CutSuffix(part, suffix)
	return ok && fieldHas(field[len("{"):], value)
}

// fieldHas tells whether a field of a pattern can have a value.
func fieldHas(field, value string) bool {
	switch field {
	case "sha256":
		return isHex(value, 64)
	case "mask": // lower-case hex without leading zeros, for at most 256 items
		return len(value) >= 1 && len(value) <= 64 && isHex(value, len(value)) && (value == "0" || value[0] != '0')
	case "padded": // a number of 20 digits, so that keys sort by number
		return isPadded(value)
	case "number":
		n, err := strconv.ParseUint(value, 10, 64)
		return err == nil && strconv.FormatUint(n, 10) == value
	}
	return field == "name" // any: checkPath has seen it
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

func isPadded(s string) bool {
	if len(s) != 20 {
		return false
	}
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil && s[0] != '+'
}
