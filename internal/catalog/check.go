package catalog

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"precast/edge"
	"precast/internal/index"
	"precast/internal/layout"
)

// Longest names, in bytes. App and version together are a file name, which most filesystems limit to
// 255 bytes.
const (
	maxName     = 128
	maxFileName = 255
)

// A Problem is what is wrong with one field of one item.
type Problem struct {
	Key    Key    `json:"key"`
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

func (p Problem) Error() string {
	return fmt.Sprintf("item %s: %s: %s", p.Key, p.Field, p.Reason)
}

// Validate joins all problems of a catalog into one error, nil if there are none.
func Validate(items []Item) error {
	var errs []error
	for _, p := range Check(items) {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// Check returns what is wrong with each item alone, and with the items together: an item whose
// names collide with an earlier one's (by app, then track) is the one at fault. Problems are in the
// order of the items sorted.
func Check(items []Item) []Problem {
	var problems []Problem
	sorted := slices.SortedStableFunc(slices.Values(items), Compare)
	keys := make(map[Key]bool)
	spelling := make(map[string]string) // folded app -> app
	files := make(map[string]Item)      // file name in a bundle -> item
	for _, it := range sorted {
		own := checkItem(it)
		problems = append(problems, own...)
		report := func(field, reason string, args ...any) {
			problems = append(problems, Problem{it.Key(), field, fmt.Sprintf(reason, args...)})
		}
		folded := Key{index.Fold(it.App), index.Fold(it.Track)}
		if keys[folded] {
			report("app", "there are two items of this app and track (upper and lower case are the same to devices)")
		}
		keys[folded] = true
		if other, ok := spelling[folded.App]; ok && other != it.App {
			report("app", "differs from the app %q only in upper and lower case", other)
		} else {
			spelling[folded.App] = it.App
		}
		if len(own) > 0 {
			continue
		}
		name := layout.FileName(it.App, it.Version)
		other, ok := files[name]
		switch {
		case !ok:
			files[name] = it
		case other.App != it.App:
			report("version", "its file name %q is also that of item %s", name, other.Key())
		case other.SHA256 != it.SHA256 || other.MD5 != it.MD5 || other.Size != it.Size:
			report("version", "version %q has other content in item %s: give the new content a new version", it.Version, other.Key())
		}
	}
	return problems
}

func checkItem(it Item) []Problem {
	var problems []Problem
	report := func(field, reason string, args ...any) {
		problems = append(problems, Problem{it.Key(), field, fmt.Sprintf(reason, args...)})
	}
	name := func(field, value string) {
		if err := checkName(value); err != nil {
			report(field, "%v", err)
		}
	}
	name("app", it.App)
	name("env", it.Track)
	name("version", it.Version)
	if it.CPUArch != "" {
		name("cpuArch", it.CPUArch)
	}
	if edge.ReservedApp(it.App) {
		report("app", "%q is the name of a query parameter, so no device could ask for it", it.App)
	}
	if file := layout.FileName(it.App, it.Version); len(file) > maxFileName {
		report("version", "the file name %q is longer than %d bytes", file, maxFileName)
	} else if file == layout.ManifestName {
		report("version", "the file name %q is that of the manifest", file)
	}
	folded := make(map[string]string)
	for _, attr := range it.Attrs() {
		if err := checkName(attr); err != nil {
			report("deviceAttr."+attr, "%v", err)
		}
		if other, ok := folded[index.Fold(attr)]; ok {
			report("deviceAttr."+attr, "differs from %q only in upper and lower case", other)
		}
		folded[index.Fold(attr)] = attr
	}
	digest := func(field, value string, digits int) {
		switch {
		case value == "":
			report(field, "is missing: give %d hex digits, or a file to compute them from", digits)
		case len(value) != digits || strings.Trim(value, "0123456789abcdef") != "":
			report(field, "%q is not %d lower-case hex digits", value, digits)
		}
	}
	digest("md5", it.MD5, 32)
	digest("sha256", it.SHA256, 64)
	if it.Size < 0 {
		report("size", "%d is negative", it.Size)
	}
	if it.Size == 0 && it.SHA256 != emptySHA256 {
		report("size", "is missing (0 bytes would have SHA-256 %s)", emptySHA256)
	}
	if err := checkURL(it.URL); err != nil {
		report("url", "%v", err)
	}
	return problems
}

const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// checkName refuses what could leave its place in an object key, a tar archive or a device's shell.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > maxName:
		return fmt.Errorf("%q is longer than %d bytes", s, maxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%q is not UTF-8", s)
	case strings.ContainsAny(s, `/\`):
		return fmt.Errorf("%q has a path separator", s)
	case s[0] == '.' || s[0] == '-':
		return fmt.Errorf("%q begins with %q", s, s[:1])
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("%q begins or ends with white space", s)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%q has the unprintable character %U", s, r)
		}
	}
	return nil
}

func checkURL(s string) error {
	if s == "" {
		return errors.New("is missing: give where the binary can be read, or a file")
	}
	// Not a URL to url.Parse: the key is not escaped, and may hold % and #.
	if key, ok := strings.CutPrefix(s, StorePrefix); ok {
		if kind, err := layout.KindOf(key); err != nil || kind != layout.Binary {
			return fmt.Errorf("%q does not name a binary in the object store", s)
		}
		return nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("%q is not a URL: %w", s, errors.Unwrap(err))
	}
	switch u.Scheme {
	case "":
		return fmt.Errorf("%q has no scheme: s3://bucket/key, https://host/path, file:///path or %s<object key>", s, StorePrefix)
	case "s3", "http", "https":
		if u.Host == "" {
			return fmt.Errorf("%q names no host or bucket", s)
		}
		if u.Scheme == "s3" && strings.Trim(u.Path, "/") == "" {
			return fmt.Errorf("%q names no key", s)
		}
	case "file":
		if u.Host != "" { // file://etc/x would be read as /x
			return fmt.Errorf("%q names the host %q: write file:///path", s, u.Host)
		}
		if !strings.HasPrefix(u.Path, "/") {
			return fmt.Errorf("%q is not an absolute path", s)
		}
	default:
		return fmt.Errorf("%q has the scheme %q: use s3, https, http, file or store", s, u.Scheme)
	}
	return nil
}

// StorePrefix begins the URL of a binary that lies in Precast's own object store.
const StorePrefix = "store:"

// StoreURL is the URL of the binary with this digest, app and version in the object store.
func StoreURL(sha256, app, version string) string {
	return StorePrefix + layout.BinaryKey(sha256, app, version)
}
