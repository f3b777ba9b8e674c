package release_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/operate/release"
)

// inMemory has the content of every URL.
type inMemory map[string]string

func (m inMemory) Open(_ context.Context, url string) (io.ReadCloser, error) {
	content, ok := m[url]
	if !ok {
		return nil, fmt.Errorf("open %s: there is none", url)
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

const (
	plainSample = `[{"app":"scoreboard","env":"prod","version":"1.0.0","ident":"sb","url":"s3://b/scoreboard_1.0.0","md5":"7E51A2B0C9F3E0D5","deviceAttr":{"gamer":true,"camera":false},"note":"x"},
 {"app":"os_armv8","env":"beta","version":1.10,"url":"s3://b/os","cpuArch":"armv8","md5":"OS"}]`
	scannedSample = `{"Items":[{"app":{"S":"scoreboard"},"env":{"S":"prod"},"version":{"S":"1.0.0"},"ident":{"S":"sb"},"url":{"S":"s3://b/scoreboard_1.0.0"},"md5":{"S":"7E51A2B0C9F3E0D5"},
 "deviceAttr":{"M":{"gamer":{"BOOL":true},"camera":{"BOOL":false}}},"note":{"SS":["x"]}},
 {"app":{"S":"os_armv8"},"env":{"S":"beta"},"version":{"N":"1.10"},"url":{"S":"s3://b/os"},"cpuArch":{"S":"armv8"},"md5":{"S":"OS"},"deviceAttr":{"NULL":true}}],"Count":2,"ScannedCount":2,"ConsumedCapacity":null}`
)

// The sample's own items, however they were written down, become complete ones.
func TestC17SampleItems(t *testing.T) {
	one, two := complete("scoreboard", "prod", "1.0.0", "the score"), complete("os_armv8", "beta", "1.10", "the system")
	one.Ident, one.DeviceAttr, two.CPUArch = "sb", map[string]bool{"gamer": true, "camera": false}, "armv8"
	sources := inMemory{"s3://b/scoreboard_1.0.0": "the score", "s3://b/os": "the system"}
	for name, text := range map[string]string{"plain": plainSample, "scan": scannedSample} {
		t.Run(name, func(t *testing.T) {
			im, store := newImporter(t)
			im.Temp = t.TempDir()
			text := strings.NewReplacer("7E51A2B0C9F3E0D5", strings.ToUpper(one.MD5), `"OS"`, `"`+two.MD5+`"`).Replace(text)
			file := filepath.Join(t.TempDir(), "sample.json")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			rows, err := release.ReadSample(file)
			if err != nil {
				t.Fatal(err)
			}
			releases, done, err := im.LoadSample(t.Context(), rows, sources)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := im.Import(t.Context(), releases, true); err != nil {
				t.Fatal(err)
			}
			done()
			for _, it := range snapshot(t, im.Catalog) {
				want := one
				if it.App == two.App {
					want = two
				}
				if !it.Same(want) {
					t.Errorf("got  %+v\nwant %+v", it, want)
				}
				if content := stored(t, store, it); content != "the score" && content != "the system" {
					t.Errorf("stored %q", content)
				}
			}
			if left, err := os.ReadDir(im.Temp); err != nil || len(left) > 0 {
				t.Errorf("left are %v, error %v", left, err)
			}
		})
	}
}

// All that is wrong is told at once, by item and field, and nothing is fetched for good or changed.
func TestC17WrongSampleItems(t *testing.T) {
	im, _ := newImporter(t)
	im.Temp = t.TempDir()
	good := complete("good", "prod", "1", "content").MD5
	text := `[{"app":"text","env":"prod","version":"1","url":"s3://b/x","md5":"` + good + `","deviceAttr":"gamer"},
	 {"app":"words","env":"prod","version":"1","url":"s3://b/x","md5":"` + good + `","deviceAttr":{"gamer":"true"}},
	 {"app":"gone","env":"prod","version":"1","url":"s3://b/missing","md5":"` + good + `"},
	 {"app":"other","env":"prod","version":"1","url":"s3://b/x","md5":"00000000000000000000000000000000"},
	 {"app":"good","env":"prod","version":"1","url":"s3://b/x","md5":"` + good + `"},
	 {"env":"prod","version":["1"],"url":"s3://b/x"}]`
	file := filepath.Join(t.TempDir(), "sample.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rows, err := release.ReadSample(file)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = im.LoadSample(t.Context(), rows, inMemory{"s3://b/x": "content"})
	for _, want := range []string{
		`item 1 (text/prod): deviceAttr: is the string "gamer", not a map such as {"gamer": true}: the sample gave such an item to nobody by an attribute`,
		`item 2 (words/prod): deviceAttr: "gamer" is the string "true", not true or false`,
		`item 3 (gone/prod): url: open s3://b/missing: there is none`,
		`item 4 (other/prod): md5: the item says 00000000000000000000000000000000, s3://b/x has ` + good,
		"item 6 (/prod): app: is missing\nversion: is a list, not a string\nmd5: is missing",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\ndoes not say %s", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "item 5") {
		t.Errorf("the good one is refused: %v", err)
	}
	if left, err := os.ReadDir(im.Temp); err != nil || len(left) > 0 {
		t.Errorf("left are %v, error %v", left, err)
	}
	im.Limits.Bytes = 6
	if _, _, err := im.LoadSample(t.Context(), rows[4:5], inMemory{"s3://b/x": "content"}); err == nil || !strings.Contains(err.Error(), "more bytes than are allowed (--bytes)") {
		t.Errorf("too long: %v", err)
	}
	for _, text := range []string{"", "null", "7", "[]", `{"Items":[]}`, `{"items":`, "[] []", `[7]`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		rows, err := release.ReadSample(file)
		if err == nil {
			_, _, err = im.LoadSample(t.Context(), rows, inMemory{})
		}
		if err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := im.LoadSample(ctx, []map[string]any{{"app": "a"}}, inMemory{}); err == nil || !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "env: is missing") {
		t.Errorf("cancelled: %v", err)
	}
}
