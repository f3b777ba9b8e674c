package edge

import (
	"slices"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/internal/format/index"
)

// Limits of If-None-Match. The header budget of a whole request at CloudFront is 20,480 bytes
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html).
const (
	MaxTagHeader = 20480 // bytes
	MaxTags      = 64    // different digests
	MaxTagList   = 256   // entries, whatever they are: the viewer function has no time for more
)

// Tags are the digests of the binaries that a device holds: MD5 or SHA-256 in lower-case hex,
// sorted, each once.
type Tags []string

// ParseTags reads an If-None-Match header (several header lines joined by commas). Tags may be
// quoted or not, weak or not, in any case; what is not a digest is passed over, and so is "*": a
// device that claims to hold anything holds nothing in particular. Its error is a BadRequest.
func ParseTags(header string) (Tags, error) {
	if len(header) > MaxTagHeader {
		return nil, BadRequest("If-None-Match is longer than " + strconv.Itoa(MaxTagHeader) + " bytes")
	}
	if strings.Count(header, ",") >= MaxTagList {
		return nil, BadRequest("If-None-Match is a list of more than " + strconv.Itoa(MaxTagList))
	}
	var tags Tags
	for header != "" {
		var tag string
		tag, header, _ = strings.Cut(header, ",")
		if tag = opaque(tag); isDigest(tag) {
			tags = append(tags, index.Fold(tag))
		}
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if len(tags) > MaxTags {
		return nil, BadRequest("If-None-Match has more than " + strconv.Itoa(MaxTags) + " digests")
	}
	return tags, nil
}

// SingleTag returns the only tag of an If-None-Match header, without W/ and quotes. That one may be
// the ETag of a whole answer that the device, or a cache on its way, has kept.
func SingleTag(header string) (tag string, ok bool) {
	for header != "" {
		var t string
		t, header, _ = strings.Cut(header, ",")
		if t = opaque(t); t == "" {
			continue
		}
		if ok {
			return "", false
		}
		tag, ok = t, true
	}
	return tag, ok
}

// opaque strips white space, the weakness prefix and quotes.
func opaque(tag string) string {
	tag = strings.Trim(tag, " \t")
	if len(tag) >= 2 && (tag[0] == 'W' || tag[0] == 'w') && tag[1] == '/' {
		tag = tag[2:]
	}
	tag = strings.TrimPrefix(tag, `"`)
	return strings.TrimSuffix(tag, `"`)
}

func isDigest(s string) bool {
	if len(s) != 32 && len(s) != 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if unhex(s[i]) < 0 {
			return false
		}
	}
	return true
}

// String is the canonical header: the digests joined by commas.
func (t Tags) String() string { return strings.Join(t, ",") }

// holds tells whether a binary with these digests is among them.
func (t Tags) holds(md5 [16]byte, sha256 [32]byte) bool {
	for _, tag := range t {
		if len(tag) == 32 && equalHex(tag, md5[:]) || len(tag) == 64 && equalHex(tag, sha256[:]) {
			return true
		}
	}
	return false
}

func equalHex(lower string, raw []byte) bool {
	for i, b := range raw {
		if unhex(lower[2*i])<<4|unhex(lower[2*i+1]) != int(b) {
			return false
		}
	}
	return true
}
