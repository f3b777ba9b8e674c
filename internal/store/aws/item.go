package aws

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// Names of the attributes in the table.
const (
	attrApp     = "app" // partition key
	attrTrack   = "env" // sort key
	attrVersion = "version"
	attrIdent   = "ident"
	attrURL     = "url"
	attrMD5     = "md5"
	attrSHA256  = "sha256"
	attrSize    = "size"
	attrCPUArch = "cpuArch"
	attrDevice  = "deviceAttr"
	attrChanged = "changed" // milliseconds since 1970

	attrRollout  = "rollout" // a map of the next two
	attrPercent  = "percent"
	attrSalt     = "salt"
	attrPrevious = "previous" // a map of the same attributes, without app and track
	attrFloors   = "floors"   // a list of such maps
	attrPassed   = "passed"   // likewise
)

// itemAttributes are those that decodeItem looks at, without the key.
func itemAttributes() []string {
	return []string{attrVersion, attrIdent, attrURL, attrMD5, attrSHA256, attrSize, attrCPUArch, attrDevice, attrChanged,
		attrRollout, attrPrevious, attrFloors, attrPassed}
}

type attributes = map[string]types.AttributeValue

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func number[N int | int64](n N) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(int64(n), 10)}
}

func encodeKey(k catalog.Key) attributes {
	return attributes{attrApp: text(k.App), attrTrack: text(k.Track)}
}

// encodeItem leaves out what is empty.
func encodeItem(it catalog.Item) attributes {
	av := make(attributes)
	for name, value := range map[string]string{
		attrApp: it.App, attrTrack: it.Track,
		attrVersion: it.Version, attrIdent: it.Ident, attrURL: it.URL,
		attrMD5: it.MD5, attrSHA256: it.SHA256, attrCPUArch: it.CPUArch,
	} {
		if value != "" {
			av[name] = text(value)
		}
	}
	av[attrSize] = number(it.Size)
	if !it.Changed.IsZero() {
		av[attrChanged] = number(it.Changed.UnixMilli())
	}
	if len(it.DeviceAttr) > 0 {
		on := make(attributes, len(it.DeviceAttr))
		for name, value := range it.DeviceAttr {
			on[name] = &types.AttributeValueMemberBOOL{Value: value}
		}
		av[attrDevice] = &types.AttributeValueMemberM{Value: on}
	}
	if it.Rollout != nil {
		rollout := attributes{attrPercent: &types.AttributeValueMemberN{Value: strconv.FormatFloat(it.Rollout.Percent, 'f', -1, 64)}}
		if it.Rollout.Salt != "" {
			rollout[attrSalt] = text(it.Rollout.Salt)
		}
		av[attrRollout] = &types.AttributeValueMemberM{Value: rollout}
	}
	if it.Previous != nil {
		av[attrPrevious] = &types.AttributeValueMemberM{Value: encodeItem(*it.Previous)}
	}
	for name, releases := range map[string][]catalog.Item{attrFloors: it.Floors, attrPassed: it.Passed} {
		if len(releases) == 0 {
			continue
		}
		list := make([]types.AttributeValue, len(releases))
		for i, release := range releases {
			list[i] = &types.AttributeValueMemberM{Value: encodeItem(release)}
		}
		av[name] = &types.AttributeValueMemberL{Value: list}
	}
	return av
}

// decodeItem reads an item that anybody may have written, by hand too. An attribute of a wrong type
// becomes a value that says so and that catalog.Check refuses, naming item and field: the item is
// then rejected, and the rest of the catalog is published. Attributes of other names are not looked at.
func decodeItem(av attributes) catalog.Item { return decodeRelease(av, 0) }

// deepest is how far releases in releases are read: beyond what catalog.Check accepts.
const deepest = catalog.MaxReleases + 2

func decodeRelease(av attributes, depth int) catalog.Item {
	if depth > deepest {
		return catalog.Item{Version: "/is a release within too many others/"}
	}
	return catalog.Item{
		App:        decodeText(av[attrApp]),
		Track:      decodeText(av[attrTrack]),
		Version:    decodeText(av[attrVersion]),
		Ident:      decodeText(av[attrIdent]),
		URL:        decodeText(av[attrURL]),
		MD5:        decodeText(av[attrMD5]),
		SHA256:     decodeText(av[attrSHA256]),
		Size:       decodeSize(av[attrSize]),
		CPUArch:    decodeText(av[attrCPUArch]),
		DeviceAttr: decodeAttrs(av[attrDevice]),
		Changed:    decodeTime(av[attrChanged]),
		Rollout:    decodeRollout(av[attrRollout]),
		Previous:   decodePrevious(av[attrPrevious], depth+1),
		Floors:     decodeReleases(av[attrFloors], depth+1),
		Passed:     decodeReleases(av[attrPassed], depth+1),
	}
}

// decodeRollout makes a percentage that catalog.Check refuses of what is none, too.
func decodeRollout(av types.AttributeValue) *catalog.Rollout {
	switch v := av.(type) {
	case nil, *types.AttributeValueMemberNULL:
		return nil
	case *types.AttributeValueMemberM:
		r := &catalog.Rollout{Percent: -1, Salt: decodeText(v.Value[attrSalt])}
		switch n := v.Value[attrPercent].(type) {
		case *types.AttributeValueMemberN:
			r.Percent = decodePercent(n.Value)
		case *types.AttributeValueMemberS:
			r.Percent = decodePercent(n.Value)
		}
		return r
	}
	return &catalog.Rollout{Percent: -1, Salt: wrongType(av, "a map (M)")}
}

func decodePercent(digits string) float64 {
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) { // which JSON does not know
		return -1
	}
	return f
}

func decodePrevious(av types.AttributeValue, depth int) *catalog.Item {
	switch av.(type) {
	case nil, *types.AttributeValueMemberNULL:
		return nil
	}
	it := decodeMap(av, depth)
	return &it
}

// decodeMap makes an item whose version says so of what is no map.
func decodeMap(av types.AttributeValue, depth int) catalog.Item {
	if v, ok := av.(*types.AttributeValueMemberM); ok {
		return decodeRelease(v.Value, depth)
	}
	return catalog.Item{Version: wrongType(av, "a map (M)")}
}

func decodeReleases(av types.AttributeValue, depth int) []catalog.Item {
	switch v := av.(type) {
	case nil, *types.AttributeValueMemberNULL:
		return nil
	case *types.AttributeValueMemberL:
		var all []catalog.Item
		for _, one := range v.Value {
			all = append(all, decodeMap(one, depth))
		}
		return all
	}
	return []catalog.Item{{Version: wrongType(av, "a list (L)")}}
}

// decodeTime takes what is no time for none: it only informs.
func decodeTime(av types.AttributeValue) time.Time {
	n, ok := av.(*types.AttributeValueMemberN)
	if !ok {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func decodeText(av types.AttributeValue) string {
	switch v := av.(type) {
	case nil, *types.AttributeValueMemberNULL:
		return ""
	case *types.AttributeValueMemberS:
		return v.Value
	}
	return wrongType(av, "a string (S)")
}

// wrongType is neither a name (it has a slash) nor a digest nor a URL (it has no scheme).
func wrongType(av types.AttributeValue, want string) string {
	return fmt.Sprintf("/is %s, not %s/", typeName(av), want)
}

// decodeSize takes a string of digits, too: that is what the console makes of a number in a form
// field, and there is only one way to read it. Anything else is a negative size.
func decodeSize(av types.AttributeValue) int64 {
	var digits string
	switch v := av.(type) {
	case nil, *types.AttributeValueMemberNULL:
		return 0
	case *types.AttributeValueMemberN:
		digits = v.Value
	case *types.AttributeValueMemberS:
		digits = v.Value
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func decodeAttrs(av types.AttributeValue) map[string]bool {
	switch v := av.(type) {
	case nil, *types.AttributeValueMemberNULL:
		return nil
	case *types.AttributeValueMemberM:
		on := make(map[string]bool, len(v.Value))
		for name, value := range v.Value {
			if b, ok := value.(*types.AttributeValueMemberBOOL); ok {
				on[name] = b.Value
			} else {
				on[name+wrongType(value, "true or false (BOOL)")] = true
			}
		}
		return on
	}
	return map[string]bool{wrongType(av, "a map (M) of true or false (BOOL)"): true}
}

func typeName(av types.AttributeValue) string {
	switch av.(type) {
	case *types.AttributeValueMemberS:
		return "a string (S)"
	case *types.AttributeValueMemberN:
		return "a number (N)"
	case *types.AttributeValueMemberB:
		return "binary (B)"
	case *types.AttributeValueMemberBOOL:
		return "true or false (BOOL)"
	case *types.AttributeValueMemberNULL:
		return "null (NULL)"
	case *types.AttributeValueMemberM:
		return "a map (M)"
	case *types.AttributeValueMemberL:
		return "a list (L)"
	case *types.AttributeValueMemberSS, *types.AttributeValueMemberNS, *types.AttributeValueMemberBS:
		return "a set"
	}
	return "of an unknown type"
}
