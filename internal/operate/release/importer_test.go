package release_test

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/store/local"
)

// newImporter makes an importer into an empty store.
func newImporter(t *testing.T) (*release.Importer, *local.Store) {
	t.Helper()
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &release.Importer{Objects: store.Objects(), Catalog: store.Catalog()}, store
}

// release is a release of a text.
func releaseOf(app, track, version, content string) release.Release {
	return release.Release{Item: catalog.Item{App: app, Track: track, Version: version}, Open: opener(content)}
}

func opener(content string) func() (io.ReadSeekCloser, error) {
	return func() (io.ReadSeekCloser, error) { return readSeekCloser{strings.NewReader(content)}, nil }
}

type readSeekCloser struct{ io.ReadSeeker }

func (readSeekCloser) Close() error { return nil }

// complete is the item that an import makes of a release.
func complete(app, track, version, content string) catalog.Item {
	md, sha := md5.Sum([]byte(content)), sha256.Sum256([]byte(content))
	it := catalog.Item{App: app, Track: track, Version: version, Size: int64(len(content)),
		MD5: hex.EncodeToString(md[:]), SHA256: hex.EncodeToString(sha[:])}
	it.URL = catalog.StoreURL(it.SHA256, app, version)
	return it
}

func snapshot(t *testing.T, c release.Catalog) []catalog.Item {
	t.Helper()
	items, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return catalog.Apply(items, nil)
}

// stored returns the content of an item's binary.
func stored(t *testing.T, store *local.Store, it catalog.Item) string {
	t.Helper()
	body, _, err := store.Objects().Get(t.Context(), layout.BinaryKey(it.SHA256, it.App, it.Version), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func keys(t *testing.T, store *local.Store) []string {
	t.Helper()
	var all []string
	if err := store.Objects().List(t.Context(), "", func(o builder.ObjectInfo) error {
		all = append(all, o.Key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImport(t *testing.T) {
	im, store := newImporter(t)
	var reported []string
	im.Report = func(it catalog.Item, stored bool) {
		reported = append(reported, fmt.Sprint(it.Key(), " ", it.Version, " ", stored))
	}
	elsewhere := complete("c", "prod", "3", "content c")
	elsewhere.URL = "s3://bucket/c_3"
	res, err := im.Import(t.Context(), []release.Release{
		releaseOf("a", "prod", "1", "content 1"),
		releaseOf("a", "beta", "1", "content 1"), // promoted: the same file
		releaseOf("b", "prod", "2", ""),
		{Item: elsewhere},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []catalog.Item{complete("a", "beta", "1", "content 1"), complete("a", "prod", "1", "content 1"), complete("b", "prod", "2", ""), elsewhere}
	if got := snapshot(t, im.Catalog); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := catalog.Apply(res.Items, nil); !reflect.DeepEqual(got, want) || res.Removed != nil {
		t.Errorf("result %+v", res)
	}
	for i, content := range []string{"content 1", "content 1", ""} {
		if got := stored(t, store, want[i]); got != content {
			t.Errorf("%s: %q is stored, want %q", want[i].Key(), got, content)
		}
	}
	if want := []string{"a/prod 1 true", "a/beta 1 false", "b/prod 2 true", "c/prod 3 false"}; !slices.Equal(reported, want) {
		t.Errorf("reported %q, want %q", reported, want)
	}
	if len(keys(t, store)) != 2 {
		t.Errorf("objects %q", keys(t, store))
	}
}

// What is said of a file beside it must be so.
func TestImportChecksWhatIsSaid(t *testing.T) {
	content := "content"
	sum := complete("a", "prod", "1", content)
	im, _ := newImporter(t)
	r := releaseOf("a", "prod", "1", content)
	r.MD5, r.SHA256, r.Size, r.URL = sum.MD5, sum.SHA256, sum.Size, "https://elsewhere.example/x"
	if res, err := im.Import(t.Context(), []release.Release{r}, false); err != nil || res.Items[0].URL != sum.URL {
		t.Errorf("result %+v, error %v", res, err)
	}
	zeros := strings.Repeat("0", 64)
	for want, change := range map[string]func(*release.Release){
		"import: item a/prod: md5: the catalog says " + zeros[:32] + ", the file has " + sum.MD5:  func(r *release.Release) { r.MD5 = zeros[:32] },
		"import: item a/prod: sha256: the catalog says " + zeros + ", the file has " + sum.SHA256: func(r *release.Release) { r.SHA256 = zeros },
		"import: item a/prod: size: the catalog says 8, the file has 7 bytes":                     func(r *release.Release) { r.Size = 8 },
	} {
		im, store := newImporter(t)
		r := releaseOf("a", "prod", "1", content)
		change(&r)
		if _, err := im.Import(t.Context(), []release.Release{r}, false); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if len(snapshot(t, im.Catalog)) != 0 || len(keys(t, store)) != 0 {
			t.Errorf("something is brought in: %v, %q", snapshot(t, im.Catalog), keys(t, store))
		}
	}
}

// failing objects fail at the n-th write.
type failing struct {
	release.Objects
	after int
	err   error
}

func (f *failing) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if f.after--; f.after < 0 {
		return builder.ObjectInfo{}, f.err
	}
	return f.Objects.Put(ctx, key, body, opt)
}

type brokenCatalog struct {
	release.Catalog
	snapshot, apply error
}

func (c brokenCatalog) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	if c.snapshot != nil {
		return nil, c.snapshot
	}
	return c.Catalog.Snapshot(ctx)
}

func (c brokenCatalog) Apply(ctx context.Context, edit catalog.Edit) error {
	if c.apply != nil {
		return c.apply
	}
	return c.Catalog.Apply(ctx, edit)
}

// Whatever goes wrong with one item, the catalog stays as it was.
func TestImportIsAllOrNothing(t *testing.T) {
	broken := errors.New("broken")
	good := releaseOf("good", "prod", "1", "content")
	later := releaseOf("later", "prod", "1", "more")
	for _, c := range []struct {
		name string
		bad  release.Release
		is   error // what the error wraps
		has  string
	}{
		{"cannot be opened", release.Release{Item: catalog.Item{App: "bad", Track: "prod", Version: "1"}, Open: func() (io.ReadSeekCloser, error) { return nil, broken }}, broken, "import: item bad/prod: broken"},
		{"cannot be read", release.Release{Item: catalog.Item{App: "bad", Track: "prod", Version: "1"}, Open: func() (io.ReadSeekCloser, error) {
			return struct {
				io.Reader
				io.Seeker
				io.Closer
			}{Reader: iotest.ErrReader(broken), Closer: io.NopCloser(nil)}, nil
		}}, broken, "import: item bad/prod: read its file: broken"},
		{"bad name", releaseOf("../bad", "prod", "1", "x"), nil, "import: item ../bad/prod: app: "},
		{"no version", releaseOf("bad", "prod", "", "x"), nil, "import: item bad/prod: version: is empty"},
		{"there twice", releaseOf("good", "prod", "2", "x"), nil, "import: item good/prod: is there twice"},
		{"collides", releaseOf("Good", "beta", "2", "x"), nil, "only in upper and lower case"},
		{"collides with what is there", releaseOf("there", "beta", "1", "other content"), nil, "item there/prod: version: "},
		{"incomplete", release.Release{Item: catalog.Item{App: "bad", Track: "prod", Version: "1"}}, nil, "import: item bad/prod: md5: is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			im, store := newImporter(t)
			if _, err := im.Import(t.Context(), []release.Release{releaseOf("there", "prod", "1", "x")}, false); err != nil {
				t.Fatal(err)
			}
			before, objects := snapshot(t, im.Catalog), keys(t, store)
			for _, replace := range []bool{false, true} {
				if replace && strings.HasPrefix(c.name, "collides with") {
					continue // what is there would go
				}
				_, err := im.Import(t.Context(), []release.Release{good, c.bad, later}, replace)
				if err == nil || !strings.Contains(err.Error(), c.has) || c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("error %v, want %s", err, c.has)
				}
				if _, err := im.Changes(t.Context(), before, []release.Release{good, c.bad, later}, replace); err == nil {
					t.Error("the changes of such an import can be had")
				}
			}
			if got := snapshot(t, im.Catalog); !reflect.DeepEqual(got, before) {
				t.Errorf("the catalog is changed: %v", got)
			}
			if got := keys(t, store); !slices.Equal(got, objects) {
				t.Errorf("objects are written before all is checked: %q", got)
			}
		})
	}
	for n := range 3 {
		im, _ := newImporter(t)
		im.Objects = &failing{im.Objects, n, broken}
		_, err := im.Import(t.Context(), []release.Release{good, later, releaseOf("third", "prod", "1", "x")}, false)
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), ": store its binary: ") {
			t.Errorf("write %d fails: %v", n, err)
		}
		if items := snapshot(t, im.Catalog); len(items) != 0 {
			t.Errorf("write %d fails, and the catalog has %v", n, items)
		}
	}
	im, _ := newImporter(t)
	for _, c := range []brokenCatalog{{im.Catalog, broken, nil}, {im.Catalog, nil, broken}} {
		im := &release.Importer{Objects: im.Objects, Catalog: c}
		if _, err := im.Import(t.Context(), []release.Release{good}, false); !errors.Is(err, broken) {
			t.Errorf("the catalog is broken: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := im.Import(ctx, []release.Release{good}, false); !errors.Is(err, context.Canceled) || len(snapshot(t, im.Catalog)) != 0 {
		t.Errorf("cancelled: %v", err)
	}
}

// A file that changes while it is imported is not kept under the digest of what it was.
func TestFileChangesDuringImport(t *testing.T) {
	im, store := newImporter(t)
	r := releaseOf("a", "prod", "1", "content before")
	opened := 0
	r.Open = func() (io.ReadSeekCloser, error) {
		opened++
		return opener([]string{"content before", "CONTENT AFTER!"}[opened-1])()
	}
	if _, err := im.Import(t.Context(), []release.Release{r}, false); err == nil || !strings.Contains(err.Error(), "import: item a/prod: store its binary: ") {
		t.Errorf("error %v", err)
	}
	if got := keys(t, store); len(got) != 0 || len(snapshot(t, im.Catalog)) != 0 {
		t.Errorf("objects %q, items %v", got, snapshot(t, im.Catalog))
	}
	// The key is free for the right content.
	if _, err := im.Import(t.Context(), []release.Release{releaseOf("a", "prod", "1", "content before")}, false); err != nil {
		t.Error(err)
	}
	if got := stored(t, store, complete("a", "prod", "1", "content before")); got != "content before" {
		t.Errorf("stored %q", got)
	}
}

func TestReplace(t *testing.T) {
	im, _ := newImporter(t)
	for _, r := range []release.Release{releaseOf("a", "prod", "1", "x"), releaseOf("a", "beta", "2", "y"), releaseOf("b", "prod", "1", "z")} {
		if _, err := im.Import(t.Context(), []release.Release{r}, false); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, im.Catalog)
	releases := []release.Release{releaseOf("a", "prod", "3", "new"), releaseOf("c", "prod", "1", "w")}
	changes, err := im.Changes(t.Context(), before, releases, true)
	if err != nil || len(changes) != 4 {
		t.Errorf("changes %v, error %v", changes, err)
	}
	if got := snapshot(t, im.Catalog); !reflect.DeepEqual(got, before) {
		t.Errorf("to ask for the changes makes them: %v", got)
	}
	res, err := im.Import(t.Context(), releases, true)
	if err != nil {
		t.Fatal(err)
	}
	if want := []catalog.Key{{App: "a", Track: "beta"}, {App: "b", Track: "prod"}}; !slices.Equal(catalogKeys(res.Removed), want) {
		t.Errorf("removed %v, want %v", res.Removed, want)
	}
	want := []catalog.Item{complete("a", "prod", "3", "new"), complete("c", "prod", "1", "w")}
	if got := snapshot(t, im.Catalog); !reflect.DeepEqual(got, want) || !reflect.DeepEqual(catalog.Apply(before, changes), want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func catalogKeys(keys []catalog.Key) []catalog.Key {
	return slices.SortedFunc(slices.Values(keys), func(a, b catalog.Key) int { return strings.Compare(a.String(), b.String()) })
}

// Problems that a catalog had before do not keep others from being released; its own do.
func TestProblemsOfBefore(t *testing.T) {
	im, _ := newImporter(t)
	broken := catalog.Item{App: "broken", Track: "prod", Version: "1", URL: "s3://bucket/x"} // no digests
	odd := complete("ODD", "prod", "1", "x")
	odd.URL = "ftp://x"
	if err := im.Catalog.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(broken), catalog.Put(odd)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := im.Import(t.Context(), []release.Release{releaseOf("a", "prod", "1", "x")}, false); err != nil {
		t.Errorf("another app: %v", err)
	}
	if _, err := im.Import(t.Context(), []release.Release{{Item: broken}}, false); err == nil {
		t.Error("the broken item is imported again")
	}
	if _, err := im.Import(t.Context(), []release.Release{releaseOf("odd", "beta", "2", "x")}, false); err == nil {
		t.Error("a new collision is imported")
	}
	if _, err := im.Import(t.Context(), []release.Release{releaseOf("broken", "prod", "2", "x")}, false); err != nil {
		t.Errorf("what mends it: %v", err)
	}
	if got := catalog.Check(snapshot(t, im.Catalog)); len(got) != 1 || got[0].Key.App != "ODD" {
		t.Errorf("problems left: %v", got)
	}
}
