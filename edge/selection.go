// Package edge decides what a device gets: it reads the device's query and the digests it holds,
// resolves them against the published index and names the object that answers. The builder, the
// server and the edge all resolve here, so they cannot disagree.
//
// It is compiled to WebAssembly for Lambda@Edge: it imports nothing but strings, slices, strconv
// and hash-sized packages (fmt, net/url, encoding/json and time cost 200 to 700 KB each there).
package edge

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/precast-ota/precast/internal/format/index"
)

// Limits of one request. Beyond them the answer is 400. CloudFront takes URLs, and the paths with queries that
// its functions return, of less than 8,192 bytes
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html).
const (
	MaxQuery  = 8000 // bytes of the raw query, and of its canonical form
	MaxParams = 128  // parameters with a value, repeated ones included
	MaxParam  = 255  // bytes of a decoded key or value
)

// DefaultTrack is the track of the operating system when the device names none.
const DefaultTrack = "prod"

// OSPrefix and a CPU architecture make the name of an operating system's app.
const OSPrefix = "os_"

// Names of the query parameters that are not apps, folded.
const (
	keyArch    = "cpuarch"
	keyOS      = "os"
	keyPayload = "payloadtype"
	keySlot    = "slot"
	attrPrefix = "attr"
)

// Payload is what a device wants of its selection.
type Payload uint8

const (
	FullPayload  Payload = iota // a bundle
	MetadataOnly                // a manifest
	Statement                   // what the signing key says of both
)

// payloads are the folded values of payloadType.
var payloads = [...]string{FullPayload: "fullpayload", MetadataOnly: "metadataonly", Statement: "statement"}

// ReservedApp tells whether an app of this name could never be selected by name, because the
// query parameter means something else.
func ReservedApp(app string) bool {
	switch folded := index.Fold(app); folded {
	case keyArch, keyOS, keyPayload, keySlot:
		return true
	default:
		return strings.HasPrefix(folded, attrPrefix)
	}
}

// A BadRequest is a request that no index could answer; its text is meant for the device's maker.
type BadRequest string

func (e BadRequest) Error() string { return string(e) }

// Texts that the sample's clients may compare.
const (
	ErrMissingArch BadRequest = "Missing cpuArch query param"
	ErrPayloadType BadRequest = "Invalid payloadType param"
)

// ErrSlot is the text of the 400 to a device with a slot that none has.
const ErrSlot BadRequest = "slot is not a number from 0 to 9999"

var errLongQuery = BadRequest("Query is longer than " + strconv.Itoa(MaxQuery) + " bytes")

// Param asks for an attribute or app at a track; both are folded.
type Param struct{ Name, Track string }

// Selection is what a device says it is, in canonical form: names and tracks folded, sorted,
// each at most once.
type Selection struct {
	Arch    string
	OS      string  // track of the operating system
	Attrs   []Param // attr<Name>=<Track>
	Apps    []Param // <Name>=<Track>
	Payload Payload
}

// Bare returns the selection without its payload type: what it gets, in whatever form.
func (s Selection) Bare() Selection {
	s.Payload = FullPayload
	return s
}

// ParseSelection reads the selection in the raw query of a request. Its error is a BadRequest.
func ParseSelection(query string) (Selection, error) {
	s, _, err := ParseQuery(query)
	return s, err
}

// ParseQuery reads the raw query of a request: the selection, and the device's slot or NoSlot. A slot is no part
// of the selection, since what it decides is whether the device is in a rollout. Its error is a BadRequest.
func ParseQuery(query string) (Selection, int, error) {
	slot := NoSlot
	params, err := parseQuery(query)
	if err != nil {
		return Selection{}, slot, err
	}
	s := Selection{OS: DefaultTrack}
	payload := payloads[FullPayload]
	var bad error // of a slot: other mistakes are told first
	for _, p := range params {
		switch {
		case p.Name == keyArch:
			s.Arch = p.Track
		case p.Name == keyOS:
			s.OS = p.Track
		case p.Name == keyPayload:
			payload = p.Track
		case p.Name == keySlot:
			if slot, err = parseSlot(p.Track); err != nil {
				bad = err
			}
		case strings.HasPrefix(p.Name, attrPrefix):
			if name := p.Name[len(attrPrefix):]; name != "" {
				s.Attrs = append(s.Attrs, Param{name, p.Track})
			}
		default:
			s.Apps = append(s.Apps, p)
		}
	}
	if s.Arch == "" {
		return Selection{}, slot, ErrMissingArch
	}
	known := slices.Index(payloads[:], payload)
	if known < 0 {
		return Selection{}, slot, ErrPayloadType
	}
	if bad != nil {
		return Selection{}, slot, bad
	}
	s.Payload = Payload(known)
	// The canonical form is a query as well, and escapes can make it up to three times as long.
	if len(query) > MaxQuery/3 && len(s.String()) > MaxQuery {
		return Selection{}, slot, errLongQuery
	}
	return s, slot, nil
}

func parseSlot(s string) (int, error) {
	for len(s) > 1 && s[0] == '0' {
		s = s[1:]
	}
	if slot := parseNumber(s); slot >= 0 {
		return slot, nil
	}
	return NoSlot, ErrSlot
}

// parseQuery splits a query into folded parameters, sorted by name, the first of each name only.
// Parameters without a value do not count, as in the sample.
func parseQuery(query string) ([]Param, error) {
	if len(query) > MaxQuery {
		return nil, errLongQuery
	}
	var params []Param
	for query != "" {
		var part string
		part, query, _ = strings.Cut(query, "&")
		rawKey, rawValue, _ := strings.Cut(part, "=")
		if rawKey == "" || rawValue == "" {
			continue
		}
		if len(params) == MaxParams {
			return nil, BadRequest("Query has more than " + strconv.Itoa(MaxParams) + " parameters")
		}
		key, err := decode(rawKey)
		if err != nil {
			return nil, err
		}
		value, err := decode(rawValue)
		if err != nil {
			return nil, err
		}
		params = append(params, Param{key, value})
	}
	slices.SortStableFunc(params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(params, func(a, b Param) bool { return a.Name == b.Name }), nil
}

// decode undoes form encoding and folds. Text that cannot be a name in any catalog (control
// characters, broken UTF-8) is refused here, so that nothing downstream has to think of it.
func decode(s string) (string, error) {
	if strings.IndexByte(s, '%') >= 0 || strings.IndexByte(s, '+') >= 0 {
		b := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			switch c := s[i]; c {
			case '+':
				b = append(b, ' ')
			case '%':
				if i+2 >= len(s) {
					return "", BadRequest("Query has a broken percent escape")
				}
				hi, lo := unhex(s[i+1]), unhex(s[i+2])
				if hi < 0 || lo < 0 {
					return "", BadRequest("Query has a broken percent escape")
				}
				b = append(b, byte(hi<<4|lo))
				i += 2
			default:
				b = append(b, c)
			}
		}
		s = string(b)
	}
	if len(s) > MaxParam {
		return "", BadRequest("Query has a key or value longer than " + strconv.Itoa(MaxParam) + " bytes")
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return "", BadRequest("Query has a control character")
		}
	}
	if !utf8.ValidString(s) {
		return "", BadRequest("Query is not UTF-8")
	}
	return index.Fold(s), nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// String is the canonical query: every spelling of one selection gives the same string, and
// parsing it gives the same selection. Parameters are sorted by name; defaults are left out.
func (s Selection) String() string {
	params := make([]Param, 0, 3+len(s.Attrs)+len(s.Apps))
	params = append(params, Param{keyArch, s.Arch})
	if s.OS != DefaultTrack {
		params = append(params, Param{keyOS, s.OS})
	}
	if s.Payload != FullPayload {
		params = append(params, Param{keyPayload, payloads[s.Payload]})
	}
	for _, a := range s.Attrs {
		params = append(params, Param{attrPrefix + a.Name, a.Track})
	}
	params = append(params, s.Apps...)
	slices.SortFunc(params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return join(params)
}

// join writes parameters as they stand in canonical queries.
func join(params []Param) string {
	var b strings.Builder
	for i, p := range params {
		if i > 0 {
			b.WriteByte('&')
		}
		encode(&b, p.Name)
		b.WriteByte('=')
		encode(&b, p.Track)
	}
	return b.String()
}

// Escape percent-encodes a name as it stands in canonical queries.
func Escape(s string) string {
	var b strings.Builder
	encode(&b, s)
	return b.String()
}

// encode leaves RFC 3986's unreserved characters alone.
func encode(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
}
