package edge_test

import (
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// An answer is what the reference says to a request.
type answer struct {
	status  int
	items   []index.Item // 200 and 304: what the device gets, by app, then track
	held    []bool       // beside items
	payload edge.Payload
}

// reference answers a request the slow and obvious way: it looks at every item and asks of it
// whether the query wants it. It shares nothing with the package but the type of an item.
func reference(items []index.Item, query, ifNoneMatch string) answer {
	params, ok := referenceParams(query)
	tags, few := referenceTags(ifNoneMatch)
	arch := params["cpuarch"]
	asked, given := params["payloadtype"]
	payload, known := map[string]edge.Payload{"fullpayload": edge.FullPayload, "metadataonly": edge.MetadataOnly, "statement": edge.Statement}[asked]
	if !ok || !few || arch == "" || given && !known {
		return answer{status: 400}
	}
	track, given := params["os"]
	if !given {
		track = "prod"
	}
	sorted := slices.Clone(items)
	slices.SortFunc(sorted, func(a, b index.Item) int {
		if c := strings.Compare(a.App, b.App); c != 0 {
			return c
		}
		return strings.Compare(a.Track, b.Track)
	})
	a := answer{status: 404, payload: payload}
	all := true
	for _, it := range sorted {
		itemTrack := lower(it.Track)
		wanted := lower(it.App) == "os_"+arch && itemTrack == track
		for key, value := range params {
			switch {
			case key == "cpuarch" || key == "os" || key == "payloadtype" || key == "slot" || itemTrack != value:
			case strings.HasPrefix(key, "attr"):
				for _, attr := range it.Attrs {
					wanted = wanted || key == "attr"+lower(attr)
				}
			default:
				wanted = wanted || key == lower(it.App)
			}
		}
		// One release on several of the tracks is one file.
		again := slices.ContainsFunc(a.items, func(other index.Item) bool {
			return other.App == it.App && other.Version == it.Version && other.SHA256 == it.SHA256
		})
		if !wanted || again {
			continue
		}
		held := payload != edge.Statement && (tags[hex.EncodeToString(it.MD5[:])] || tags[hex.EncodeToString(it.SHA256[:])])
		a.items, a.held = append(a.items, it), append(a.held, held)
		all = all && held
		a.status = 200
	}
	if a.status == 200 && all {
		a.status = 304
	}
	return a
}

// referenceParams returns the parameters of a query, or false if it is refused.
func referenceParams(query string) (map[string]string, bool) {
	if len(query) > 8000 {
		return nil, false
	}
	params := make(map[string]string)
	n, length := 0, 0
	for _, part := range strings.Split(query, "&") {
		rawKey, rawValue, _ := strings.Cut(part, "=")
		if rawKey == "" || rawValue == "" {
			continue
		}
		key, err1 := url.QueryUnescape(rawKey)
		value, err2 := url.QueryUnescape(rawValue)
		if n++; n > 128 || err1 != nil || err2 != nil || !plain(key) || !plain(value) {
			return nil, false
		}
		if _, again := params[lower(key)]; !again {
			params[lower(key)] = lower(value)
		}
	}
	// The canonical query has the same limit. What is left out of it:
	for key, value := range params {
		if key == "attr" || key == "slot" || key == "os" && value == "prod" || key == "payloadtype" && value == "fullpayload" {
			continue
		}
		length += 2 + escapedLen(key) + escapedLen(value) // with '=', and '&' before or after
	}
	slot, given := params["slot"]
	number, err := strconv.ParseUint(slot, 10, 64)
	if given && (err != nil || number > 9999) && strings.Trim(slot, "0") != "" {
		return nil, false
	}
	return params, length-1 <= 8000
}

func escapedLen(s string) int {
	return len(strings.ReplaceAll(url.QueryEscape(s), "+", "%20"))
}

func plain(s string) bool {
	return len(s) <= 255 && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// referenceTags returns the digests of an If-None-Match header, or false if it is refused.
func referenceTags(header string) (map[string]bool, bool) {
	tags, list := make(map[string]bool), strings.Split(header, ",")
	for _, tag := range list {
		tag = lower(strings.Trim(tag, " \t"))
		tag = strings.TrimPrefix(tag, "w/")
		tag = strings.TrimSuffix(strings.TrimPrefix(tag, `"`), `"`)
		if _, err := hex.DecodeString(tag); err == nil && (len(tag) == 32 || len(tag) == 64) {
			tags[tag] = true
		}
	}
	return tags, len(header) <= 20480 && len(list) <= 256 && len(tags) <= 64
}

// lower lowers ASCII letters only.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
