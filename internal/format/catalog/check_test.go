package catalog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/format/catalog"
)

var (
	someMD5    = strings.Repeat("a1", 16)
	someSHA256 = strings.Repeat("b2", 32)
)

const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// sound returns an item without a problem, changed.
func sound(change func(*catalog.Item)) catalog.Item {
	it := catalog.Item{App: "app", Track: "prod", Version: "1.0", URL: "https://example.com/app", MD5: someMD5,
		SHA256: someSHA256, Size: 10, DeviceAttr: map[string]bool{"gamer": true, "off": false}}
	if change != nil {
		change(&it)
	}
	return it
}

// Every rule for an item alone, in the words that the release manager reads.
func TestItemProblems(t *testing.T) {
	long := strings.Repeat("x", 129)
	for _, c := range []struct {
		name   string
		change func(*catalog.Item)
		want   string // empty: no problem
	}{
		{"sound", nil, ""},
		{"longest names", func(it *catalog.Item) { it.App, it.Version = long[:128], long[:126] }, ""},
		{"unusual names", func(it *catalog.Item) { it.App, it.Track, it.Version = "a b+c?#%", "größe", "1~2:3" }, ""},
		{"os item", func(it *catalog.Item) { it.App, it.CPUArch = "os_armv8", "armv8" }, ""},
		{"empty binary", func(it *catalog.Item) { it.Size, it.SHA256 = 0, emptySHA256 }, ""},
		{"no attributes", func(it *catalog.Item) { it.DeviceAttr = nil }, ""},
		{"attribute that is off", func(it *catalog.Item) { it.DeviceAttr = map[string]bool{"": false, "x": true, "X": false} }, ""},

		{"no app", func(it *catalog.Item) { it.App = "" }, `item /prod: app: is empty`},
		{"no track", func(it *catalog.Item) { it.Track = "" }, `item app/: env: is empty`},
		{"no version", func(it *catalog.Item) { it.Version = "" }, `item app/prod: version: is empty`},
		{"long app", func(it *catalog.Item) { it.App = long }, `item ` + long + `/prod: app: "` + long + `" is longer than 128 bytes`},
		{"long track", func(it *catalog.Item) { it.Track = long }, `item app/` + long + `: env: "` + long + `" is longer than 128 bytes`},
		{"long file name", func(it *catalog.Item) { it.App, it.Version = long[:128], long[:127] },
			`item ` + long[:128] + `/prod: version: the file name "` + long[:128] + "_" + long[:127] + `" is longer than 255 bytes`},
		{"app not UTF-8", func(it *catalog.Item) { it.App = "a\xff" }, "item \"a\\xff/prod\": app: \"a\\xff\" is not UTF-8"},
		{"path", func(it *catalog.Item) { it.App = "../x" }, `item ../x/prod: app: "../x" has a path separator`},
		{"absolute path", func(it *catalog.Item) { it.App = "/etc/x" }, `item /etc/x/prod: app: "/etc/x" has a path separator`},
		{"backslash", func(it *catalog.Item) { it.Version = `..\x` }, `item app/prod: version: "..\\x" has a path separator`},
		{"slash in the track", func(it *catalog.Item) { it.Track = "a/b" }, `item app/a/b: env: "a/b" has a path separator`},
		{"hidden", func(it *catalog.Item) { it.App = ".x" }, `item .x/prod: app: ".x" begins with "."`},
		{"option", func(it *catalog.Item) { it.App = "-rf" }, `item -rf/prod: app: "-rf" begins with "-"`},
		{"dots", func(it *catalog.Item) { it.Version = ".." }, `item app/prod: version: ".." begins with "."`},
		{"space at the end", func(it *catalog.Item) { it.App = "x " }, `item x /prod: app: "x " begins or ends with white space`},
		{"space at the start", func(it *catalog.Item) { it.Version = "\u00a01" }, "item app/prod: version: \"\\u00a01\" begins or ends with white space"},
		{"new line", func(it *catalog.Item) { it.App = "a\nb" }, "item \"a\\nb/prod\": app: \"a\\nb\" has the unprintable character U+000A"},
		{"NUL", func(it *catalog.Item) { it.Version = "1\x000" }, `item app/prod: version: "1\x000" has the unprintable character U+0000`},
		{"text direction", func(it *catalog.Item) { it.App = "a\u202eb" }, "item \"a\\u202eb/prod\": app: \"a\\u202eb\" has the unprintable character U+202E"},
		{"architecture", func(it *catalog.Item) { it.CPUArch = "a/b" }, `item app/prod: cpuArch: "a/b" has a path separator`},
		{"app named os", func(it *catalog.Item) { it.App = "os" }, `item os/prod: app: "os" is the name of a query parameter, so no device could ask for it`},
		{"app named cpuArch", func(it *catalog.Item) { it.App = "CPUARCH" }, `item CPUARCH/prod: app: "CPUARCH" is the name of a query parameter, so no device could ask for it`},
		{"app named slot", func(it *catalog.Item) { it.App = "Slot" }, `item Slot/prod: app: "Slot" is the name of a query parameter, so no device could ask for it`},
		{"app named payloadType", func(it *catalog.Item) { it.App = "payloadType" }, `item payloadType/prod: app: "payloadType" is the name of a query parameter, so no device could ask for it`},
		{"app named like an attribute", func(it *catalog.Item) { it.App = "attrGamer" }, `item attrGamer/prod: app: "attrGamer" is the name of a query parameter, so no device could ask for it`},
		{"the manifest's name", func(it *catalog.Item) { it.App, it.Version = "package", "details.json" }, `item package/prod: version: the file name "package_details.json" is that of the manifest`},
		{"attribute without a name", func(it *catalog.Item) { it.DeviceAttr = map[string]bool{"": true} }, `item app/prod: deviceAttr.: is empty`},
		{"attribute", func(it *catalog.Item) { it.DeviceAttr = map[string]bool{"a\tb": true} }, "item app/prod: deviceAttr.a\tb: \"a\\tb\" has the unprintable character U+0009"},
		{"attributes in two cases", func(it *catalog.Item) { it.DeviceAttr = map[string]bool{"Gamer": true, "gamer": true} }, `item app/prod: deviceAttr.gamer: differs from "Gamer" only in upper and lower case`},
		{"no MD5", func(it *catalog.Item) { it.MD5 = "" }, `item app/prod: md5: is missing: give 32 hex digits, or a file to compute them from`},
		{"no SHA-256", func(it *catalog.Item) { it.SHA256 = "" }, `item app/prod: sha256: is missing: give 64 hex digits, or a file to compute them from`},
		{"short MD5", func(it *catalog.Item) { it.MD5 = someMD5[1:] }, `item app/prod: md5: "` + someMD5[1:] + `" is not 32 lower-case hex digits`},
		{"MD5 in upper case", func(it *catalog.Item) { it.MD5 = strings.ToUpper(someMD5) }, `item app/prod: md5: "` + strings.ToUpper(someMD5) + `" is not 32 lower-case hex digits`},
		{"SHA-256 not hex", func(it *catalog.Item) { it.SHA256 = "g" + someSHA256[1:] }, `item app/prod: sha256: "g` + someSHA256[1:] + `" is not 64 lower-case hex digits`},
		{"SHA-256 not hex inside", func(it *catalog.Item) { it.SHA256 = someSHA256[:10] + "/" + someSHA256[11:] }, `item app/prod: sha256: "` + someSHA256[:10] + "/" + someSHA256[11:] + `" is not 64 lower-case hex digits`},
		{"negative size", func(it *catalog.Item) { it.Size = -1 }, `item app/prod: size: -1 is negative`},
		{"no size", func(it *catalog.Item) { it.Size = 0 }, `item app/prod: size: is missing (0 bytes would have SHA-256 ` + emptySHA256 + `)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := catalog.Validate([]catalog.Item{sound(c.change)})
			if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestURLs(t *testing.T) {
	store := catalog.StoreURL(someSHA256, "app", "1.0")
	for url, want := range map[string]string{
		"s3://bucket/app_1.0":       "",
		"s3://bucket/a/b c%20d":     "",
		"https://example.com/x?y=z": "",
		"http://[::1]:8080/x":       "",
		"file:///var/lib/app":       "",
		store:                       "",
		catalog.StoreURL(someSHA256, "50%", "1#%zz ?x"): "", // a key is not escaped

		"":                          `is missing: give where the binary can be read, or a file`,
		"/var/lib/app":              `"/var/lib/app" has no scheme: s3://bucket/key, https://host/path, file:///path or store:<object key>`,
		"bucket/key":                `"bucket/key" has no scheme: s3://bucket/key, https://host/path, file:///path or store:<object key>`,
		"s3:///key":                 `"s3:///key" names no host or bucket`,
		"https:x":                   `"https:x" names no host or bucket`,
		"s3://bucket":               `"s3://bucket" names no key`,
		"s3://bucket//":             `"s3://bucket//" names no key`,
		"file:app":                  `"file:app" is not an absolute path`,
		"file://etc/app":            `"file://etc/app" names the host "etc": write file:///path`,
		"ftp://example.com/x":       `"ftp://example.com/x" has the scheme "ftp": use s3, https, http, file or store`,
		"https://example.com/%zz":   `"https://example.com/%zz" is not a URL: invalid URL escape "%zz"`,
		"store:":                    `"store:" does not name a binary in the object store`,
		"store:index":               `"store:index" does not name a binary in the object store`,
		"store:binaries/x/app_1.0":  `"store:binaries/x/app_1.0" does not name a binary in the object store`,
		store + "/../x":             `"` + store + `/../x" does not name a binary in the object store`,
		"store:../../etc/passwd":    `"store:../../etc/passwd" does not name a binary in the object store`,
		"store://binaries/x/app_10": `"store://binaries/x/app_10" does not name a binary in the object store`,
	} {
		err := catalog.Validate([]catalog.Item{sound(func(it *catalog.Item) { it.URL = url })})
		switch {
		case want == "" && err != nil:
			t.Errorf("%q is refused: %v", url, err)
		case want != "" && fmt.Sprint(err) != "item app/prod: url: "+want:
			t.Errorf("%q: got  %v\nwant item app/prod: url: %s", url, err, want)
		}
	}
}

// All that is wrong with an item is told at once.
func TestAllProblemsOfAnItem(t *testing.T) {
	got := catalog.Check([]catalog.Item{{App: "os", Size: -1, CPUArch: " "}})
	var fields []string
	for _, p := range got {
		fields = append(fields, p.Field)
	}
	if want := []string{"env", "app", "version", "md5", "sha256", "size", "cpuArch", "url"}; !slices.Equal(fields, want) {
		t.Errorf("problems of %q, want %q", fields, want)
	}
}

// Rules for items together: the later one, by app and track, is at fault.
func TestCollisions(t *testing.T) {
	other := strings.Repeat("c3", 32)
	release := func(app, track, version, sha256 string) catalog.Item {
		return sound(func(it *catalog.Item) { it.App, it.Track, it.Version, it.SHA256 = app, track, version, sha256 })
	}
	for _, c := range []struct {
		name  string
		items []catalog.Item
		want  string
	}{
		{"one release on two tracks", []catalog.Item{release("a", "prod", "1", someSHA256), release("a", "beta", "1", someSHA256)}, ""},
		{"two releases", []catalog.Item{release("a", "prod", "1", someSHA256), release("a", "beta", "2", other)}, ""},
		{"two apps of one content", []catalog.Item{release("a", "prod", "1", someSHA256), release("b", "prod", "1", someSHA256)}, ""},
		{"one file name", []catalog.Item{release("a_b", "prod", "1", someSHA256), release("a", "prod", "b_1", other)},
			`item a_b/prod: version: its file name "a_b_1" is also that of item a/prod`},
		{"one file name and content", []catalog.Item{release("a_b", "prod", "1", someSHA256), release("a", "prod", "b_1", someSHA256)},
			`item a_b/prod: version: its file name "a_b_1" is also that of item a/prod`},
		{"one version with two contents", []catalog.Item{release("a", "prod", "1", someSHA256), release("a", "beta", "1", other)},
			`item a/prod: version: version "1" has other content in item a/beta: give the new content a new version`},
		{"one version with two MD5s", []catalog.Item{release("a", "prod", "1", someSHA256), sound(func(it *catalog.Item) { it.App, it.Track, it.Version, it.MD5 = "a", "beta", "1", other[:32] })},
			`item a/prod: version: version "1" has other content in item a/beta: give the new content a new version`},
		{"one version with two sizes", []catalog.Item{release("a", "prod", "1", someSHA256), sound(func(it *catalog.Item) { it.App, it.Track, it.Version, it.Size = "a", "beta", "1", 11 })},
			`item a/prod: version: version "1" has other content in item a/beta: give the new content a new version`},
		{"one key", []catalog.Item{release("a", "prod", "1", someSHA256), release("a", "prod", "2", other)},
			`item a/prod: app: there are two items of this app and track (upper and lower case are the same to devices)`},
		{"tracks in two cases", []catalog.Item{release("a", "prod", "1", someSHA256), release("a", "Prod", "2", other)},
			`item a/prod: app: there are two items of this app and track (upper and lower case are the same to devices)`},
		{"apps in two cases", []catalog.Item{release("App", "prod", "1", someSHA256), release("app", "beta", "2", other)},
			`item app/beta: app: differs from the app "App" only in upper and lower case`},
		{"a faulty item takes no file name", []catalog.Item{sound(func(it *catalog.Item) { it.App, it.Version, it.URL = "a", "b_1", "" }), release("a_b", "prod", "1", other)},
			`item a/prod: url: is missing: give where the binary can be read, or a file`},
	} {
		t.Run(c.name, func(t *testing.T) {
			slices.Reverse(c.items)
			for range 2 { // the order of the input does not matter
				slices.Reverse(c.items)
				if err := catalog.Validate(c.items); c.want == "" && err != nil || c.want != "" && fmt.Sprint(err) != c.want {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
			}
		})
	}
}

func TestApply(t *testing.T) {
	a, b := sound(nil), sound(func(it *catalog.Item) { it.App = "b" })
	a2 := sound(func(it *catalog.Item) { it.Version = "2" })
	before := []catalog.Item{b, a}
	after := catalog.Apply(before, []catalog.Change{catalog.Put(a2), catalog.Remove(b.Key()), catalog.Remove(catalog.Key{App: "none", Track: "x"})})
	if len(after) != 1 || after[0].Version != "2" {
		t.Errorf("after: %v", after)
	}
	if before[0].App != "b" || before[1].Version != "1.0" {
		t.Errorf("the items before are changed: %v", before)
	}
	if sorted := catalog.Apply(before, nil); sorted[0].App != "app" || sorted[1].App != "b" {
		t.Errorf("not sorted: %v", sorted)
	}
	clone := a.Clone()
	clone.DeviceAttr["gamer"] = false
	if !a.DeviceAttr["gamer"] {
		t.Error("a clone shares its attributes")
	}
	if got := a.Attrs(); !slices.Equal(got, []string{"gamer"}) {
		t.Errorf("attributes %q", got)
	}
}
