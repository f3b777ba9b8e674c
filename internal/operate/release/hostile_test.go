//go:build unix

package release_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/operate/release"
)

// maxMemory is more than any archive may make the program allocate: a window, and what surrounds it.
const maxMemory = 300 << 20

// refused fails unless name is refused for want, within maxMemory and with nothing left behind.
func refused(t *testing.T, im *release.Importer, name, want string) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, done, err := im.Load(t.Context(), name)
	runtime.ReadMemStats(&after)
	if err == nil {
		done()
		t.Fatal("it is loaded")
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > maxMemory {
		t.Errorf("%d MiB are allocated, more than %d", n>>20, maxMemory>>20)
	}
}

// xzClaiming is the beginning of an xz stream whose dictionary has the size that bits encodes
// (https://tukaani.org/xz/xz-file-format.txt, 5.3.1): 40 is 4 GiB - 1, 30 is 128 MiB, 32 is 256 MiB.
func xzClaiming(bits byte) []byte {
	header := []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 1}
	header = binary.LittleEndian.AppendUint32(header, crc32.ChecksumIEEE(header[6:8]))
	block := []byte{2, 0, 0x21, 1, bits, 0, 0, 0}
	block = binary.LittleEndian.AppendUint32(block, crc32.ChecksumIEEE(block))
	return append(append(header, block...), 1, 0, 1, 'x', 'y')
}

// zip64End claims records in a directory of length bytes at offset.
func zip64End(at int64, records, length, offset uint64) []byte {
	end := binary.LittleEndian.AppendUint64([]byte("PK\x06\x06"), 44)
	end = append(end, 45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	for _, n := range []uint64{records, records, length, offset} {
		end = binary.LittleEndian.AppendUint64(end, n)
	}
	end = append(end, "PK\x06\x07\x00\x00\x00\x00"...)
	end = binary.LittleEndian.AppendUint64(end, uint64(at))
	end = append(end, 1, 0, 0, 0)
	end = append(end, "PK\x05\x06\x00\x00\x00\x00\xff\xff\xff\xff"...)
	return append(end, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0)
}

func rawTar(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Flush() // what has been claimed is not there
	return b.Bytes()
}

// What an archive claims of its own size costs no memory and no time.
func TestS7Claims(t *testing.T) {
	repeated := func(n int, data []byte) io.Reader {
		parts := make([]io.Reader, n)
		for i := range parts {
			parts[i] = bytes.NewReader(data)
		}
		return io.MultiReader(parts...)
	}
	gzipOf := func(r io.Reader) []byte {
		var b bytes.Buffer
		w, _ := toGzip(&b)
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	long := rawTar(t, tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"comment": strings.Repeat("x", 1000)}})
	sized := func(kind byte, size int64) []byte { // a special header that claims size bytes
		data := rawTar(t, tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: size, Format: tar.FormatGNU})
		data[156] = kind
		copy(data[148:156], "        ")
		sum := 0
		for _, c := range data[:512] {
			sum += int(c)
		}
		copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return append(data, make([]byte, 4096)...)
	}
	var many bytes.Buffer
	z := zip.NewWriter(&many)
	for i := range 70_000 {
		if _, err := z.CreateHeader(&zip.FileHeader{Name: fmt.Sprint(i, strings.Repeat("x", 300))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	folders := make([]tar.Header, 20_000)
	for i := range folders {
		folders[i] = tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprint(i, "/")}
	}
	lied := slices.Clone(many.Bytes()) // 70,000 members, and an end that tells of 4464 of them
	binary.LittleEndian.PutUint16(lied[len(lied)-22+10:], 70_000%65536)
	binary.LittleEndian.PutUint32(lied[len(lied)-22+16:], uint32(bytes.Index(lied, []byte("PK\x01\x02"))))
	binary.LittleEndian.PutUint32(lied[len(lied)-22+12:], uint32(bytes.Index(lied, []byte("PK\x06\x06"))-bytes.Index(lied, []byte("PK\x01\x02"))))
	lied = slices.Delete(lied, bytes.Index(lied, []byte("PK\x06\x06")), len(lied)-22)

	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"xz dictionary of 4 GiB":       {xzClaiming(40), "dictionary size exceeds max"},
		"xz dictionary of 256 MiB":     {xzClaiming(32), "dictionary size exceeds max"},
		"zstd window of 3.75 TiB":      {[]byte("\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00"), "window size exceeded"},
		"zstd window of 256 MiB":       {[]byte("\x28\xb5\x2f\xfd\x00\x90\x01\x00\x00"), "window size exceeded"},
		"zstd single segment of 1 TiB": {[]byte("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x00\x01\x00\x00\x01\x00\x00"), "decompressed size exceeds"},
		"gzip of zeros without an end": {gzipOf(io.MultiReader(bytes.NewReader(tarOf(t, sampleEntries)), repeated(200, make([]byte, 1<<20)))), "it unpacks to more bytes"},
		"headers and nothing else":     {gzipOf(repeated(60_000, long)), "it holds too many files"},
		"long names and nothing else":  {gzipOf(repeated(200_000, append(sized('L', 1)[:512], append([]byte("x"), make([]byte, 511)...)...))), "it unpacks to more bytes"},
		"PAX header of 8 GiB":          {sized('x', 8<<30-1), "it is in no format"},
		"long name of 8 GiB":           {sized('L', 8<<30-1), "it is in no format"},
		"global header of 8 GiB":       {sized('g', 8<<30-1), "it is in no format"},
		"20,000 folders":               {rawTar(t, folders...), "it holds too many files"},
		"zip with 70,000 members":      {many.Bytes(), "it holds too many files"},
		"zip that tells of a few":      {lied, "it holds too many files"},
		"zip that claims 2^60 members": {append([]byte("PK\x03\x04"), zip64End(4, 1<<60, 46, 0)...), "it holds too many files"},
		"zip whose end is before it":   {append([]byte("PK\x03\x04"), zip64End(1<<62, 1, 46, 0)...), "zip: not a valid zip file"},
		"sparse file":                  {sized('S', 1<<30), "is stored as a sparse file"},
	} {
		t.Run(name, func(t *testing.T) {
			limits := release.Limits{Files: 10_000, Bytes: 100 << 20}
			refused(t, &release.Importer{Limits: limits}, write(t, "r", c.data), c.want)
		})
	}
	// A file of 1 EiB with nothing in it has room for as many members as are claimed.
	name := write(t, "r.zip", append([]byte("PK\x03\x04"), make([]byte, 100)...))
	const size = 1 << 43
	end := zip64End(size-98, size/40, 100, 4)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(end, size-int64(len(end))); err != nil {
		t.Skip("no file of this size is possible here: ", err)
	}
	refused(t, &release.Importer{}, name, "it holds too many files")
}

// GNU tar, asked to, leaves holes out: one block of archive stands for any number of zeros.
func TestS7Sparse(t *testing.T) {
	for _, format := range []string{"gnu", "posix"} {
		dir := folder(t, sampleEntries)
		if err := os.Truncate(filepath.Join(dir, "bin/scoreboard"), 1<<40); err != nil {
			t.Skip("no file of this size is possible here: ", err)
		}
		name := write(t, "r.tar", nil)
		tool(t, dir, "tar", "--format="+format, "--sparse", "-cf", name, ".")
		refused(t, &release.Importer{}, name, "bin/scoreboard\" is stored as a sparse file: pack it without --sparse")
	}
}

// What is damaged after its last file is refused: nothing that came before can be trusted either.
func TestS7DamagedEnd(t *testing.T) {
	data := compressed(t, toGzip, tarOf(t, sampleEntries))
	data[len(data)-6] ^= 1 // in the checksum
	refused(t, &release.Importer{}, write(t, "r.tgz", data), "gzip: invalid checksum")
}

// tool runs a program in dir; without it the test is skipped.
func tool(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(name, " is not installed")
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// The same folder, with two equal files that are one on the disk and with links that stay inside, is read alike from
// the folder and from what real programs pack it into.
func TestC18LinksInside(t *testing.T) {
	const two = `[{"app":"a","env":"prod","version":"1","file":"bin/a"},{"app":"b","env":"prod","version":"1","file":"bin/b"},` +
		`{"app":"c","env":"prod","version":"1","file":"current/c"},{"app":"d","env":"prod","version":"1","file":"bin/d"}]`
	dir := folder(t, []entry{{name: "r/catalog.json", content: two}, {name: "r/bin/a", content: "the same content"},
		{name: "r/v1/c", content: "by a folder"}, {name: "r/current", link: "v1"}, {name: "r/bin/d", link: "../../shared/d"}, {name: "shared/d", content: "from the side"}})
	if err := os.Link(filepath.Join(dir, "r/bin/a"), filepath.Join(dir, "r/bin/b")); err != nil {
		t.Fatal(err)
	}
	python := "import os, sys, zipfile\nz = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED)\n" +
		"for top, dirs, files in os.walk('.'):\n  for n in dirs + files:\n    p = os.path.join(top, n)\n    if os.path.islink(p):\n" +
		"      i = zipfile.ZipInfo(p); i.create_system = 3; i.external_attr = 0o120777 << 16; z.writestr(i, os.readlink(p))\n    else: z.write(p)\nz.close()\n"
	for name, pack := range map[string]func(t *testing.T, to string){
		"GNU tar":        func(t *testing.T, to string) { tool(t, dir, "tar", "-czf", to, ".") },
		"GNU tar, names": func(t *testing.T, to string) { tool(t, dir, "tar", "--format=posix", "-cf", to, "r", "shared") },
		"GNU tar, twice": func(t *testing.T, to string) { tool(t, dir, "tar", "-cf", to, "r", "shared", "r/bin/a") },
		"xz":             func(t *testing.T, to string) { tool(t, dir, "tar", "-cJf", to, "r", "shared") },
		"zstd":           func(t *testing.T, to string) { tool(t, dir, "tar", "--zstd", "-cf", to, "r", "shared") },
		"busybox tar":    func(t *testing.T, to string) { tool(t, dir, "busybox", "tar", "-czf", to, "r", "shared") },
		"zip":            func(t *testing.T, to string) { tool(t, dir, "zip", "-qry", to, "r", "shared") },
		"Python zipfile": func(t *testing.T, to string) { tool(t, dir, "python3", "-c", python, to) },
	} {
		t.Run(name, func(t *testing.T) {
			to := filepath.Join(filepath.Dir(write(t, "x", nil)), "release.zip")
			pack(t, to)
			wantContents(t, to, "the same content", "the same content", "by a folder", "from the side")
		})
	}
	t.Run("folder", func(t *testing.T) {
		if err := os.Rename(filepath.Join(dir, "shared/d"), filepath.Join(dir, "r/d")); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "r/bin/d")
		if err := errors.Join(os.Remove(link), os.Symlink("../d", link)); err != nil {
			t.Fatal(err)
		}
		wantContents(t, filepath.Join(dir, "r"), "the same content", "the same content", "by a folder", "from the side")
	})
}

func wantContents(t *testing.T, name string, want ...string) {
	t.Helper()
	releases, done, err := (&release.Importer{}).Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	for i, r := range releases {
		f, err := r.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil || string(data) != want[i] {
			t.Errorf("item %s: %q, error %v, want %q", r.Key(), data, err, want[i])
		}
	}
	if len(releases) != len(want) {
		t.Errorf("%d items, want %d", len(releases), len(want))
	}
}

// A link that leaves is refused in both; so are one that leads nowhere and one that leads to itself.
func TestC18LinksOutside(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, links := range map[string][]entry{
		"absolute":            {{name: "bin/scoreboard", link: outside}},
		"above":               {{name: "bin/scoreboard", link: "../../../../../../../../../../.." + outside}},
		"by a folder":         {{name: "bin", link: filepath.Dir(outside)}},
		"by a link to a link": {{name: "bin/scoreboard", link: "../up/secret"}, {name: "up", link: "deep/.."}, {name: "deep", link: "../x"}},
		"nowhere":             {{name: "bin/scoreboard", link: "missing"}},
		"itself":              {{name: "bin/scoreboard", link: "scoreboard"}},
		"catalog":             {{name: "bin/scoreboard", content: "x"}, {name: "catalog.json", link: outside}},
	} {
		entries := slices.Clone(links)
		if name != "catalog" {
			entries = append(entries, sampleEntries[0])
		}
		refused(t, &release.Importer{}, folder(t, entries), "")
		refused(t, &release.Importer{}, write(t, "r.tar", tarOf(t, entries)), "")
		refused(t, &release.Importer{}, write(t, "r.zip", zipOf(t, entries)), "")
	}
	for target, want := range map[string]string{
		"../" + outside: "which leads out of the archive", outside: "which leads out of the archive",
		"later": "which is not before it in the archive", "bin": "",
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		b.Write(tarOf(t, sampleEntries)[:2048]) // without an end
		if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: "evil", Linkname: target}), w.Close()); err != nil {
			t.Fatal(err)
		}
		refused(t, &release.Importer{}, write(t, "r.tar", b.Bytes()), want)
	}
}

// What an import that was killed has left is removed by the next one; what one that lives has is not.
func TestS9AbandonedFolders(t *testing.T) {
	temp := t.TempDir()
	dead := filepath.Join(temp, release.TempPrefix+"dead")
	if err := os.MkdirAll(filepath.Join(dead, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	others := filepath.Join(temp, "others")
	link := filepath.Join(temp, release.TempPrefix+"link")
	pipe := filepath.Join(temp, release.TempPrefix+"pipe")
	if err := errors.Join(os.Mkdir(others, 0o700), os.Symlink(others, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	living, err := files.MakeFolder(temp, release.TempPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("the dead one is still there")
	}
	wantSample(t, &release.Importer{Temp: temp}, write(t, "r.tar", tarOf(t, sampleEntries)))
	for _, name := range []string{living.Path(), others, link, pipe} {
		if _, err := os.Lstat(name); err != nil {
			t.Error(err)
		}
	}
	if err := living.Remove(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 3 {
		t.Errorf("left are %v, error %v", left, err)
	}
}

// Whatever bytes an archive has, it is read or refused: within the limits, and with nothing left behind.
func FuzzUnpack(f *testing.F) {
	for _, data := range [][]byte{tarOf(f, sampleEntries), zipOf(f, sampleEntries), compressed(f, toGzip, tarOf(f, sampleEntries)),
		compressed(f, toZstd, tarOf(f, sampleEntries)), xzClaiming(20), zipOf(f, []entry{{name: "a", link: "b"}}), tarOf(f, []entry{{name: "a", link: "b"}})} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		temp, dir := t.TempDir(), t.TempDir()
		name := filepath.Join(dir, "r")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		im := &release.Importer{Temp: temp, Limits: release.Limits{Files: 10, Bytes: 1 << 20}}
		if _, done, err := im.Load(t.Context(), name); err == nil {
			done()
		}
		for _, at := range []string{temp, dir} {
			if left, err := os.ReadDir(at); err != nil || at == temp && len(left) > 0 || at == dir && len(left) != 1 {
				t.Errorf("%s: left are %v, error %v", at, left, err)
			}
		}
	})
}
