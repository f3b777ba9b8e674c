package awsstore

import (
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"precast/internal/catalog"
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
)

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
	av := encodeKey(it.Key())
	for name, value := range map[string]string{
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
	return av
}

// decodeItem reads an item that anybody may have written, by hand too. An attribute of a wrong type
// becomes a value that says so and that catalog.Check refuses, naming item and field: the item is
// then rejected, and the rest of the catalog goes on. Attributes of other names are not looked at.
func decodeItem(av attributes) catalog.Item {
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
	}
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
