package release_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
)

const sampleCatalog = `[{"app":"scoreboard","env":"prod","version":"1.0.0","deviceAttr":{"gamer":true},"file":"bin/scoreboard"}]`

// entry is one entry of an archive; link makes it a symbolic link.
type entry struct{ name, content, link string }

var sampleEntries = []entry{{name: "catalog.json", content: sampleCatalog}, {name: "bin/scoreboard", content: "scoreboard 1.0.0"}}

// within puts entries into a folder.
func within(dir string, entries []entry) []entry {
	var out []entry
	for _, e := range entries {
		out = append(out, entry{dir + e.name, e.content, e.link})
	}
	return out
}

func tarOf(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.content)), Mode: 0o644}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(0o644)
		content := e.content
		if strings.HasSuffix(e.name, "/") {
			h.SetMode(fs.ModeDir | 0o755)
		}
		if e.link != "" {
			h.SetMode(fs.ModeSymlink | 0o777)
			content = e.link
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func toGzip(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }

func toZstd(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }

func compressed(t testing.TB, to func(io.Writer) (io.WriteCloser, error), data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := to(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// write makes a file, and temporary files from now on go into a folder that must be empty in the end.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Cleanup(func() {
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, error %v", left, err)
		}
	})
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantSample fails unless name holds the sample release.
func wantSample(t *testing.T, im *release.Importer, name string) {
	t.Helper()
	releases, done, err := im.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if len(releases) != 1 || releases[0].Key() != (catalog.Key{App: "scoreboard", Track: "prod"}) || !releases[0].DeviceAttr["gamer"] || releases[0].Open == nil {
		t.Fatalf("releases %+v", releases)
	}
	for range 2 { // to be described, and to be stored
		f, err := releases[0].Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil || string(data) != "scoreboard 1.0.0" {
			t.Fatalf("content %q, error %v", data, err)
		}
	}
}

func TestLoadArchives(t *testing.T) {
	plain := tarOf(t, sampleEntries)
	xz, err := os.ReadFile(filepath.Join("testdata", "release.tar.xz")) // nothing here writes xz
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"r.tar":     plain,
		"r.tar.gz":  compressed(t, toGzip, plain),
		"r.tgz":     compressed(t, toGzip, plain),
		"r.tar.zst": compressed(t, toZstd, plain),
		"r.tar.xz":  xz,
		"r.zip":     zipOf(t, sampleEntries),
		"release":   compressed(t, toGzip, plain), // told by its content

		"folders.tar":      tarOf(t, append([]entry{{name: "bin/"}}, sampleEntries...)),
		"dots.tar":         tarOf(t, append([]entry{{name: "./"}}, within("./", sampleEntries)...)),
		"nested.tar.gz":    compressed(t, toGzip, tarOf(t, append([]entry{{name: "release-1/"}}, within("release-1/", sampleEntries)...))),
		"nested.zip":       zipOf(t, append([]entry{{name: "release-1/"}}, within("release-1/", sampleEntries)...)),
		"deep.zip":         zipOf(t, within("a/b/c/", sampleEntries)),
		"two-depths.zip":   zipOf(t, append(within("r/", sampleEntries), entry{name: "r/old/catalog.json", content: "[]"})),
		"other-files.zip":  zipOf(t, append([]entry{{name: "README.md", content: "x"}}, sampleEntries...)),
		"no-entry-dir.zip": zipOf(t, sampleEntries),
	} {
		t.Run(name, func(t *testing.T) {
			wantSample(t, &release.Importer{}, write(t, name, data))
		})
	}
}

// folder makes a folder of files.
func folder(t *testing.T, entries []entry) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		path := filepath.Join(dir, filepath.FromSlash(e.name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if e.link != "" {
			err = os.Symlink(e.link, path)
		} else {
			err = os.WriteFile(path, []byte(e.content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadFolders(t *testing.T) {
	dir := folder(t, append([]entry{{name: "other.JSON", content: sampleCatalog}}, sampleEntries...))
	wantSample(t, &release.Importer{}, dir)
	wantSample(t, &release.Importer{}, filepath.Join(dir, "catalog.json"))
	wantSample(t, &release.Importer{}, filepath.Join(dir, "other.JSON"))
	t.Chdir(dir)
	wantSample(t, &release.Importer{}, "catalog.json")
	wantSample(t, &release.Importer{}, ".")
}

func TestLoadErrors(t *testing.T) {
	entryOf := func(file string) string { return strings.Replace(sampleCatalog, "bin/scoreboard", file, 1) }
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"no catalog", []entry{{name: "x", content: "x"}}, "catalog.json: no such file"},
		{"no file", sampleEntries[:1], "item scoreboard/prod: file: "},
		{"file above", []entry{{name: "catalog.json", content: entryOf("../secret")}}, `item scoreboard/prod: file: "../secret" leads out of the folder of the catalog`},
		{"file elsewhere", []entry{{name: "catalog.json", content: entryOf(outside)}}, `leads out of the folder of the catalog`},
		{"file above by detour", []entry{{name: "catalog.json", content: entryOf("bin/../../secret")}}, `leads out of the folder of the catalog`},
		{"link that leaves", []entry{{name: "catalog.json", content: sampleCatalog}, {name: "bin/scoreboard", link: outside}}, "item scoreboard/prod: file: "},
		{"folder that leaves", []entry{{name: "catalog.json", content: entryOf("bin/secret")}, {name: "bin", link: filepath.Dir(outside)}}, "item scoreboard/prod: file: "},
		{"folder as a file", append([]entry{{name: "bin/x", content: "x"}}, entry{name: "catalog.json", content: entryOf("bin")}), `item scoreboard/prod: file: open bin: it is a folder, not a regular file`},
		{"catalog that leaves", []entry{{name: "catalog.json", link: outside}}, "catalog.json: "},
		{"broken catalog", []entry{{name: "catalog.json", content: `[{"nmae":"x"}]`}}, `read catalog: item 1 (/): json: unknown field "nmae"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, c.entries)
			releases, done, err := (&release.Importer{}).Load(t.Context(), dir)
			if err == nil {
				done()
				t.Fatalf("loaded %+v", releases)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "load releases from "+dir) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
	if _, _, err := (&release.Importer{}).Load(t.Context(), filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	// Too long to be read into memory: refused by its length.
	long := filepath.Join(t.TempDir(), "catalog.json")
	if err := os.WriteFile(long, []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(long, 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&release.Importer{}).Load(t.Context(), long); err == nil || !strings.Contains(err.Error(), "catalog.json has 1099511627776 bytes, more than 268435456") {
		t.Errorf("too long: %v", err)
	}
}

func TestHostileArchives(t *testing.T) {
	with := func(e ...entry) []entry { return append(e, sampleEntries...) }
	for _, c := range []struct {
		name    string
		entries []entry
		limits  release.Limits
		want    string
	}{
		{"name above", with(entry{name: "../evil", content: "x"}), release.Limits{}, `"../evil" leads out of the archive`},
		{"name far above", with(entry{name: "a/../../../evil", content: "x"}), release.Limits{}, `leads out of the archive`},
		{"name above after a dot", with(entry{name: "./../evil", content: "x"}), release.Limits{}, `leads out of the archive`},
		{"absolute name", with(entry{name: "/tmp/evil", content: "x"}), release.Limits{}, `"/tmp/evil" leads out of the archive`},
		{"empty part", with(entry{name: "a//evil", content: "x"}), release.Limits{}, `leads out of the archive`},
		{"backslashes", with(entry{name: `..\evil`, content: "x"}), release.Limits{}, `leads out of the archive`},
		{"symbolic link", with(entry{name: "evil", link: "/etc/passwd"}), release.Limits{}, `"evil" is a link to "/etc/passwd", which leads out of the archive`},
		{"link as a folder", with(entry{name: "bin", link: "/tmp"}), release.Limits{}, `"bin" is a link to "/tmp", which leads out of the archive`},
		{"name twice", with(sampleEntries[1]), release.Limits{}, `"bin/scoreboard" is in it twice`},
		{"name twice, spelt otherwise", with(entry{name: "./bin/scoreboard", content: "y"}), release.Limits{}, `"bin/scoreboard" is in it twice`},
		{"file and folder", with(entry{name: "bin", content: "x"}), release.Limits{}, `bin`},
		{"too deep", with(entry{name: strings.Repeat("a/", 1000) + "x", content: "x"}), release.Limits{}, `lies too deep`},
		{"too many files", with(entry{name: "x"}), release.Limits{Files: 2, Bytes: 1 << 20}, "it holds too many files"},
		{"bomb", with(entry{name: "bomb", content: strings.Repeat("\x00", 1<<20)}), release.Limits{Files: 10, Bytes: 1<<20 - 1}, "it unpacks to more bytes than are allowed"},
		{"bomb of small files", with(entry{name: "x", content: "0123456789"}), release.Limits{Files: 10, Bytes: int64(len(sampleCatalog)) + 10}, "it unpacks to more bytes than are allowed"},
		{"no catalog", sampleEntries[1:], release.Limits{}, "there is no catalog.json in it"},
		{"catalog as a folder", []entry{{name: "catalog.json/x", content: "x"}}, release.Limits{}, "there is no catalog.json in it"},
		{"nothing", nil, release.Limits{}, ""},
		{"two catalogs", append(within("a/", sampleEntries), within("b/", sampleEntries)...), release.Limits{}, "there are two catalogs in it: "},
		{"file of another folder", []entry{{name: "r/catalog.json", content: strings.Replace(sampleCatalog, "bin/", "../", 1)}, {name: "scoreboard", content: "x"}}, release.Limits{}, `"../scoreboard" leads out of the folder of the catalog`},
		{"file outside", []entry{{name: "catalog.json", content: strings.Replace(sampleCatalog, "bin/scoreboard", "/etc/passwd", 1)}}, release.Limits{}, `"/etc/passwd" leads out of the folder of the catalog`},
	} {
		for kind, data := range map[string][]byte{"tar.gz": compressed(t, toGzip, tarOf(t, c.entries)), "zip": zipOf(t, c.entries)} {
			t.Run(c.name+" in "+kind, func(t *testing.T) {
				name := write(t, "r."+kind, data)
				releases, done, err := (&release.Importer{Limits: c.limits}).Load(t.Context(), name)
				if err == nil {
					done()
					t.Fatalf("loaded %+v", releases)
				}
				if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "load releases from "+name+": ") {
					t.Errorf("error %v, want %s", err, c.want)
				}
			})
		}
	}
	// Exactly what is allowed.
	limits := release.Limits{Files: 2, Bytes: int64(len(sampleCatalog) + len(sampleEntries[1].content))}
	wantSample(t, &release.Importer{Limits: limits}, write(t, "r.zip", zipOf(t, sampleEntries)))
	wantSample(t, &release.Importer{Limits: release.Limits{Files: 2, Bytes: 1<<63 - 1}}, write(t, "r.tar", tarOf(t, sampleEntries)))
}

// Links and devices that only tar has.
func TestHostileTar(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"device": {Typeflag: tar.TypeChar, Name: "evil"},
		"pipe":   {Typeflag: tar.TypeFifo, Name: "evil"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(&h), w.Close()); err != nil {
			t.Fatal(err)
		}
		_, _, err := (&release.Importer{}).Load(t.Context(), write(t, "r.tar", b.Bytes()))
		if err == nil || !strings.Contains(err.Error(), `"evil" is not a regular file`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNotAnArchive(t *testing.T) {
	whole := compressed(t, toGzip, tarOf(t, append(sampleEntries, entry{name: "x", content: strings.Repeat("0123456789", 1000)})))
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"r.txt":     {[]byte("hello"), "it is in no format that can be read: those are zip, and tar, plain or compressed with gzip, zstd or xz (a catalog file ends in .json)"},
		"empty":     {nil, "there is no catalog.json in it"},
		"json.gz":   {compressed(t, toGzip, []byte(sampleCatalog)), "it is in no format that can be read"},
		"cut.zip":   {zipOf(t, sampleEntries)[:200], ""},
		"cut.tgz":   {whole[:len(whole)-20], ""},
		"wrong.zip": {[]byte("PK\x03\x04 and so on"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := (&release.Importer{}).Load(t.Context(), write(t, name, c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := (&release.Importer{}).Load(ctx, write(t, "r.zip", zipOf(t, sampleEntries))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// From an archive into the catalog, and out of it by mistake: nothing of a wrong archive is brought in.
func TestImportArchive(t *testing.T) {
	im, store := newImporter(t)
	load := func(entries []entry) error {
		releases, done, err := im.Load(t.Context(), write(t, "r.tar.zst", compressed(t, toZstd, tarOf(t, entries))))
		if err != nil {
			return err
		}
		defer done()
		_, err = im.Import(t.Context(), releases, true)
		return err
	}
	if err := load(within("release-1/", sampleEntries)); err != nil {
		t.Fatal(err)
	}
	want := complete("scoreboard", "prod", "1.0.0", "scoreboard 1.0.0")
	want.DeviceAttr = map[string]bool{"gamer": true}
	check := func() {
		t.Helper()
		if got := snapshot(t, im.Catalog); fmt.Sprint(got) != fmt.Sprint([]catalog.Item{want}) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if got := stored(t, store, want); got != "scoreboard 1.0.0" {
			t.Errorf("stored %q", got)
		}
	}
	check()
	wrong := strings.Replace(sampleCatalog, `"file"`, `"md5":"00000000000000000000000000000000","file"`, 1)
	if err := load([]entry{{name: "catalog.json", content: wrong}, sampleEntries[1]}); err == nil || !strings.Contains(err.Error(), "item scoreboard/prod: md5: the catalog says ") {
		t.Errorf("wrong digest: %v", err)
	}
	if err := load([]entry{{name: "catalog.json", content: "null"}}); err == nil {
		t.Error("a catalog of null replaces everything")
	}
	check()
}
