package catalog

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
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
		for _, release := range it.Steps() {
			name := layout.FileName(release.App, release.Version)
			other, ok := files[name]
			switch {
			case !ok:
				files[name] = release.Item
			case other.App != it.App:
				report("version", "its file name %q is also that of item %s", name, other.Key())
			case !sameFile(other, release.Item):
				report("version", "version %q has other content in item %s: give the new content a new version", release.Version, other.Key())
			}
		}
	}
	return problems
}

func checkItem(it Item) []Problem {
	var problems []Problem
	report := func(field, reason string, args ...any) {
		problems = append(problems, Problem{it.Key(), field, fmt.Sprintf(reason, args...)})
	}
	if err := checkName(it.App); err != nil {
		report("app", "%v", err)
	}
	if err := checkName(it.Track); err != nil {
		report("env", "%v", err)
	}
	if edge.ReservedApp(it.App) {
		report("app", "%q is the name of a query parameter, so no device could ask for it", it.App)
	}
	if len(it.Passed) > 0 {
		report("passed", "is for floors only")
	}
	releases := 0
	for release, prefix := &it, ""; release != nil; release, prefix = release.Previous, prefix+"previous." {
		in := func(field, reason string, args ...any) { report(prefix+field, reason, args...) }
		if releases++; releases > MaxReleases {
			report(strings.TrimSuffix(prefix, "."), "is one more than the %d releases that an item may have: end the rollout of one", MaxReleases)
			break
		}
		checkRelease(it.App, *release, in)
		checkRollout(*release, in)
		checkFloors(it.App, *release, in)
		if releases > 1 && (release.App != "" || release.Track != "" || len(release.Passed) > 0) {
			in("app", "a previous release has the app and track of its item, and no passed releases")
		}
	}
	return problems
}

type reporter func(field, reason string, args ...any)

// checkRelease checks what every release must have, whatever part it plays.
func checkRelease(app string, it Item, report reporter) {
	checkContent(app, it, report)
	if it.CPUArch != "" {
		if err := checkName(it.CPUArch); err != nil {
			report("cpuArch", "%v", err)
		}
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
	if it.Size == 0 && it.SHA256 != emptySHA256 {
		report("size", "is missing (0 bytes would have SHA-256 %s)", emptySHA256)
	}
	if err := checkURL(it.URL); err != nil {
		report("url", "%v", err)
	}
}

// checkContent checks version, digests and size.
func checkContent(app string, it Item, report reporter) {
	if err := checkName(it.Version); err != nil {
		report("version", "%v", err)
	}
	if file := layout.FileName(app, it.Version); len(file) > maxFileName {
		report("version", "the file name %q is longer than %d bytes", file, maxFileName)
	} else if file == layout.ManifestName {
		report("version", "the file name %q is that of the manifest", file)
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
}

func checkRollout(it Item, report reporter) {
	if it.Rollout == nil {
		if it.Previous != nil {
			report("previous", "nobody would get it: there is no rollout")
		}
		return
	}
	hundredths := it.Rollout.Percent * index.Slots / 100
	if !(hundredths >= 0 && hundredths <= index.Slots) || math.Abs(hundredths-math.Round(hundredths)) > 1e-6 {
		report("rollout.percent", "%v is not a number from 0 to 100 with at most two digits after the point", it.Rollout.Percent)
	}
	if it.Rollout.Salt != "" && !index.IsSalt(it.Rollout.Salt) {
		report("rollout.salt", "%q is not 1 to 32 of the characters a-z, 0-9, - and _", it.Rollout.Salt)
	}
	if it.Previous != nil && it.Previous.SHA256 == it.SHA256 && it.Previous.Version == it.Version {
		report("previous", "is the same release")
	}
}

func checkFloors(app string, it Item, report reporter) {
	if len(it.Floors) > MaxFloors {
		report("floors", "are %d, more than %d", len(it.Floors), MaxFloors)
		return
	}
	contents := map[string]bool{it.SHA256: true}
	for i, floor := range it.Floors {
		in := func(field, reason string, args ...any) {
			report(fmt.Sprintf("floors[%d].%s", i, field), reason, args...)
		}
		checkRelease(app, floor, in)
		if floor.App != "" || floor.Track != "" || len(floor.DeviceAttr) > 0 || floor.Rollout != nil || floor.Previous != nil || len(floor.Floors) > 0 {
			in("app", "a floor applies to the devices of the release after it: it has no app, track, attributes, rollout, previous release or floors")
		}
		if contents[floor.SHA256] {
			in("sha256", "is that of the release itself, or of another floor")
		}
		contents[floor.SHA256] = true
		if len(floor.Passed) > MaxPassed {
			in("passed", "are %d, more than %d", len(floor.Passed), MaxPassed)
			continue
		}
		for j, passed := range floor.Passed {
			checkContent(app, passed, func(field, reason string, args ...any) { in(fmt.Sprintf("passed[%d].%s", j, field), reason, args...) })
		}
	}
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
