package release

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// The public program whose contract Precast keeps has items of its own: without size and SHA-256, in a DynamoDB
// table with the names of catalog.Item.

// ReadSample reads such items from a file: a JSON array of them, or what aws dynamodb scan prints.
func ReadSample(name string) ([]map[string]any, error) {
	data, err := files.Read(name, maxCatalog)
	if err != nil {
		return nil, fmt.Errorf("read the sample's items: %w", err)
	}
	var scan struct{ Items []map[string]any }
	var into any = &scan
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("[")) {
		into = &scan.Items
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // a version of 1.10 is not 1.1
	if err := dec.Decode(into); err != nil {
		return nil, fmt.Errorf("read the sample's items from %s: want a JSON array of items, or what aws dynamodb scan prints: %w", name, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the sample's items from %s: something follows them", name)
	}
	for _, row := range scan.Items {
		if typed, ok := row["app"].(map[string]any); ok && len(typed) == 1 {
			for field, value := range row {
				row[field] = untyped(value)
			}
		}
	}
	return scan.Items, nil
}

// untyped is a value without its DynamoDB type, as {"S": "text"} has it
// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html).
func untyped(value any) any {
	typed, ok := value.(map[string]any)
	if !ok || len(typed) != 1 {
		return value
	}
	for kind, v := range typed {
		switch inner := v.(type) {
		case map[string]any:
			if kind == "M" {
				for name := range inner {
					inner[name] = untyped(inner[name])
				}
			}
			return inner
		case string:
			if kind == "N" {
				return json.Number(inner)
			}
			return inner
		case bool:
			if kind == "NULL" {
				return nil
			}
			return inner
		default:
			return v
		}
	}
	return value
}

// LoadSample fetches the binaries of the sample's items and checks their MD5. Everything that is wrong with any of
// them is reported at once. The releases can be opened until close is called.
func (im *Importer) LoadSample(ctx context.Context, rows []map[string]any, sources builder.Sources) (releases []Release, close func(), err error) {
	if len(rows) == 0 {
		return nil, nil, errors.New("load the sample's items: there are none")
	}
	parent := im.Temp
	if parent == "" {
		parent = os.TempDir()
	}
	temp, err := files.MakeFolder(parent, TempPrefix)
	if err != nil {
		return nil, nil, fmt.Errorf("load the sample's items: %w", err)
	}
	close = func() { _ = temp.Remove() } // what is left the next command sweeps
	left := im.Limits.Bytes
	if left == 0 {
		left = DefaultLimits().Bytes
	}
	f := fetcher{dir: temp.Path(), sources: sources, left: left, fetched: make(map[string]fetched)}
	var errs []error
	for i, row := range rows {
		it, err := sampleItem(row)
		if err != nil {
			errs = append(errs, fmt.Errorf("item %d (%s): %w", i+1, it.Key(), err))
			continue
		}
		got := f.fetch(ctx, it.URL)
		if ctx.Err() != nil {
			close()
			return nil, nil, ctx.Err()
		}
		if err := got.err; err == nil && got.md5 != it.MD5 {
			got.err = fmt.Errorf("md5: the item says %s, %s has %s", it.MD5, it.URL, got.md5)
		}
		if got.err != nil {
			errs = append(errs, fmt.Errorf("item %d (%s): %w", i+1, it.Key(), got.err))
			continue
		}
		it.URL = ""
		releases = append(releases, Release{Item: it, Open: func() (io.ReadSeekCloser, error) { return files.Open(got.file) }})
	}
	if err := errors.Join(errs...); err != nil {
		close()
		return nil, nil, fmt.Errorf("load the sample's items, nothing is changed: %w", err)
	}
	return releases, close, nil
}

// fetcher downloads what urls name, each once.
type fetcher struct {
	dir     string
	sources builder.Sources
	left    int64 // bytes
	fetched map[string]fetched
}

type fetched struct {
	file, md5 string
	err       error
}

func (f *fetcher) fetch(ctx context.Context, url string) fetched {
	if got, ok := f.fetched[url]; ok {
		return got
	}
	got := fetched{file: filepath.Join(f.dir, strconv.Itoa(len(f.fetched)))}
	got.md5, got.err = f.download(ctx, url, got.file)
	f.fetched[url] = got
	return got
}

func (f *fetcher) download(ctx context.Context, url, file string) (sum string, err error) {
	body, err := f.sources.Open(ctx, url)
	if err != nil {
		return "", fmt.Errorf("url: %w", err)
	}
	defer body.Close()
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	digest := md5.New()
	n, err := io.Copy(io.MultiWriter(out, digest), io.LimitReader(contextReader{ctx, body}, f.left+1))
	if err != nil {
		return "", fmt.Errorf("url: read %s: %w", url, err)
	}
	if f.left -= n; f.left < 0 {
		return "", fmt.Errorf("url: read %s: there are more bytes than are allowed (--bytes)", url)
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// sampleItem reads an item as the sample did: what it did not look at is not looked at.
func sampleItem(row map[string]any) (catalog.Item, error) {
	var it catalog.Item
	var errs []error
	for _, field := range []struct {
		name string
		to   *string
		must bool
	}{
		{"app", &it.App, true}, {"env", &it.Track, true}, {"version", &it.Version, true}, {"url", &it.URL, true}, {"md5", &it.MD5, true},
		{"ident", &it.Ident, false}, {"cpuArch", &it.CPUArch, false}, {"sha256", &it.SHA256, false},
	} {
		switch v := row[field.name].(type) {
		case string:
			*field.to = v
		case json.Number: // a version such as 1.0, which the sample made text of as well
			*field.to = v.String()
		case nil:
		default:
			errs = append(errs, fmt.Errorf("%s: is %s, not a string", field.name, kindOf(v)))
			continue
		}
		if field.must && *field.to == "" {
			errs = append(errs, fmt.Errorf("%s: is missing", field.name))
		}
	}
	it.MD5 = strings.ToLower(it.MD5)
	attrs, err := sampleAttrs(row["deviceAttr"])
	it.DeviceAttr = attrs
	return it, errors.Join(append(errs, err)...)
}

// sampleAttrs reads deviceAttr. The sample asked for deviceAttr.NAME = true: nothing but true in a map ever matched.
func sampleAttrs(value any) (map[string]bool, error) {
	attrs, ok := value.(map[string]any)
	if value == nil {
		return nil, nil
	}
	if !ok {
		return nil, fmt.Errorf("deviceAttr: is %s, not a map such as {\"gamer\": true}: the sample gave such an item to nobody by an attribute", kindOf(value))
	}
	var errs []error
	on := make(map[string]bool, len(attrs))
	for name, v := range attrs {
		b, ok := v.(bool)
		if !ok {
			errs = append(errs, fmt.Errorf("deviceAttr: %q is %s, not true or false: the sample gave such an item to nobody by this attribute", name, kindOf(v)))
		}
		on[name] = b
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return on, errors.Join(errs...)
}

func kindOf(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("the string %q", v)
	case json.Number:
		return "the number " + v.String()
	case bool:
		return fmt.Sprint(v)
	case nil:
		return "null"
	case map[string]any:
		return "a map"
	}
	return "a list"
}
