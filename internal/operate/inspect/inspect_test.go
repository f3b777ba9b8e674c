package inspect_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/operate/inspect"
)

// file is one file of an archive.
type file struct {
	name    string
	content []byte
}

// release is what the tests' bundles are made of: app a is held, b and c are brought.
func release(t testing.TB) (m manifest.Manifest, files []file) {
	t.Helper()
	var ix index.Index
	r := rand.New(rand.NewPCG(1, 2))
	for _, app := range []string{"a", "b", "c"} {
		content := make([]byte, 500)
		for i := range content {
			content[i] = byte(r.Uint32())
		}
		ix.Items = append(ix.Items, index.Item{App: app, Track: "prod", Version: "1", Size: int64(len(content)),
			MD5: md5.Sum(content), SHA256: sha256.Sum256(content)})
		files = append(files, file{app + "_1", content})
	}
	set := edge.Set{Index: index.New(ix), Positions: []int32{0, 1, 2}}
	return manifest.New(set, edge.Mask{}.With(0)), files[1:]
}

// compose makes a bundle with the writer of bundles.
func compose(t testing.TB, m manifest.Manifest, files []file) []byte {
	t.Helper()
	details, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var parts []bundle.File
	var pieces [][]byte
	for _, f := range files {
		var z bytes.Buffer
		piece, err := bundle.Compress(t.Context(), &z, bytes.NewReader(f.content))
		if err != nil {
			t.Fatal(err)
		}
		parts, pieces = append(parts, bundle.File{Name: f.name, Piece: piece}), append(pieces, z.Bytes())
	}
	b, err := bundle.Compose(details, parts)
	if err != nil {
		t.Fatal(err)
	}
	r := b.Open(t.Context(), func(_ context.Context, i int, off int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(pieces[i][off:])), nil
	})
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// archive makes a tar.gz of anything with the standard library.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		content := h.PAXRecords["TEST.content"]
		h.PAXRecords = nil
		h.Size, h.Mode = int64(len(content)), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// regular is the header of a file, and carries its content to archive.
func regular(name string, content []byte) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, PAXRecords: map[string]string{"TEST.content": string(content)}}
}

func details(t testing.TB, m manifest.Manifest) tar.Header {
	t.Helper()
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return regular(layout.ManifestName, data)
}

func TestSoundBundle(t *testing.T) {
	m, files := release(t)
	data := compose(t, m, files)
	rep, err := inspect.Bundle(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Problems) != 0 || rep.Problems == nil {
		t.Errorf("problems %q", rep.Problems)
	}
	if rep.Size != int64(len(data)) || !slices.Equal(rep.Held, []string{"a_1"}) || len(rep.Manifest) != 3 {
		t.Errorf("size %d, held %q, manifest %v", rep.Size, rep.Held, rep.Manifest)
	}
	if len(rep.Files) != 2 {
		t.Fatalf("files %v", rep.Files)
	}
	for i, f := range rep.Files {
		sum := sha256.Sum256(files[i].content)
		if f.Name != files[i].name || f.Size != int64(len(files[i].content)) || !f.Agrees || f.SHA256 != edge.Hex(sum[:]) || f.MD5 != m[f.Name[:1]].MD5 {
			t.Errorf("file %d: %+v", i, f)
		}
	}
	// Another writer's archive of the same is as sound.
	rep, err = inspect.Bundle(t.Context(), bytes.NewReader(archive(t, details(t, m), regular("b_1", files[0].content), regular("c_1", files[1].content))))
	if err != nil || len(rep.Problems) != 0 {
		t.Errorf("made by the standard library: error %v, problems %q", err, rep.Problems)
	}
	// A bundle for a device that holds everything brings nothing.
	if rep, err = inspect.Bundle(t.Context(), bytes.NewReader(compose(t, manifest.Manifest{}, nil))); err != nil || len(rep.Problems) != 0 {
		t.Errorf("empty: error %v, report %+v", err, rep)
	}
}

func TestDamage(t *testing.T) {
	m, files := release(t)
	b, c := files[0], files[1]
	sound := compose(t, m, files)
	second := compose(t, m, nil)
	entry := func(change func(*manifest.Entry)) manifest.Manifest {
		other := maps.Clone(m)
		e := other["b"]
		change(&e)
		other["b"] = e
		return other
	}
	// b's content is stored as it is, being random: this byte of the bundle is one of it.
	inPiece := bytes.Index(sound, b.content[100:200]) + 50
	if inPiece < 50 {
		t.Fatal("the piece is not in the bundle as it is")
	}
	flipped := slices.Clone(sound)
	flipped[inPiece] ^= 1
	trailer := slices.Clone(sound)
	trailer[len(trailer)-8] ^= 1

	for _, d := range []struct {
		name string
		data []byte
		want []string
	}{
		{"changed byte in a piece", flipped, []string{"b_1: md5, sha256 not as the manifest says", "its gzip is damaged: gzip: invalid checksum"}},
		{"changed checksum", trailer, []string{"its gzip is damaged: gzip: invalid checksum"}},
		{"cut off in the last file", sound[:len(sound)-1400], []string{
			"c_1 is in the manifest but not there",
			"it cannot be unpacked to its end: c_1: unexpected EOF",
			"its gzip is damaged: unexpected EOF"}},
		{"cut off in the trailer", sound[:len(sound)-1], []string{"its gzip is damaged: unexpected EOF"}},
		{"missing file", compose(t, m, files[:1]), []string{"c_1 is in the manifest but not there"}},
		{"extra file", compose(t, m, append(slices.Clone(files), file{"d_1", nil})), []string{"d_1 is not in the manifest"}},
		{"file under another name", compose(t, m, []file{b, {"c_2", c.content}}), []string{"c_1 is in the manifest but not there", "c_2 is not in the manifest"}},
		{"another file's content", compose(t, m, []file{{"b_1", c.content}, c}), []string{"b_1: md5, sha256 not as the manifest says"}},
		{"shorter file", compose(t, m, []file{{"b_1", b.content[1:]}, c}), []string{"b_1: size, md5, sha256 not as the manifest says"}},
		{"wrong size in the manifest", compose(t, entry(func(e *manifest.Entry) { e.Size++ }), files), []string{"b_1: size not as the manifest says"}},
		{"wrong MD5 in the manifest", compose(t, entry(func(e *manifest.Entry) { e.MD5 = m["c"].MD5 }), files), []string{"b_1: md5 not as the manifest says"}},
		{"wrong SHA-256 in the manifest", compose(t, entry(func(e *manifest.Entry) { e.SHA256 = strings.ToUpper(e.SHA256) }), files), []string{"b_1: sha256 not as the manifest says"}},
		{"wrong version in the manifest", compose(t, entry(func(e *manifest.Entry) { e.LatestVersion = "2" }), files), []string{"b_1 is not in the manifest", "b_2 is in the manifest but not there"}},
		{"held but present", compose(t, entry(func(e *manifest.Entry) { e.StatusCode = manifest.StatusHeld }), files), []string{"b_1 is there although the manifest says that the device holds it"}},
		{"trailing byte", append(slices.Clone(sound), 'x'), []string{
			"1 bytes follow the first gzip member"}},
		{"trailing zeros", append(slices.Clone(sound), make([]byte, 512)...), []string{"512 bytes follow the first gzip member"}},
		{"second gzip member", slices.Concat(sound, second), []string{strconv.Itoa(len(second)) + " bytes follow the first gzip member"}},
		{"file twice", archive(t, details(t, m), regular(b.name, b.content), regular(c.name, c.content), regular(b.name, b.content)), []string{"b_1 is there twice"}},
		{"manifest twice", archive(t, details(t, m), regular(b.name, b.content), regular(c.name, c.content), details(t, m)), []string{"there are two package_details.json"}},
		{"link", archive(t, details(t, m), regular(b.name, b.content), tar.Header{Typeflag: tar.TypeSymlink, Name: "c_1", Linkname: "/etc/passwd"}), []string{"c_1 is in the manifest but not there", "c_1 is not a regular file"}},
		{"hard link", archive(t, details(t, m), regular(b.name, b.content), tar.Header{Typeflag: tar.TypeLink, Name: "c_1", Linkname: "b_1"}), []string{"c_1 is in the manifest but not there", "c_1 is not a regular file"}},
		{"folder", archive(t, details(t, m), tar.Header{Typeflag: tar.TypeDir, Name: "x/"}, regular(b.name, b.content), regular(c.name, c.content)), []string{"x/ is not a regular file"}},
		{"path", archive(t, details(t, m), regular("../b_1", b.content), regular(c.name, c.content)), []string{"../b_1 is not in the manifest", "b_1 is in the manifest but not there"}},
	} {
		t.Run(d.name, func(t *testing.T) {
			rep, err := inspect.Bundle(t.Context(), bytes.NewReader(d.data))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(rep.Problems, d.want) {
				t.Errorf("problems\n  %s\nwant\n  %s", strings.Join(rep.Problems, "\n  "), strings.Join(d.want, "\n  "))
			}
		})
	}
}

// No byte of a bundle can change what is unpacked without a word. (Some bits mean nothing: the time
// in the gzip header, the padding of stored blocks.)
func TestEveryChangedByteIsReported(t *testing.T) {
	m, files := release(t)
	m = manifest.Manifest{"b": m["b"]}
	sound := compose(t, m, files[:1])
	want := unzip(sound)
	for i := range sound {
		damaged := slices.Clone(sound)
		damaged[i] ^= 0x10
		rep, err := inspect.Bundle(t.Context(), bytes.NewReader(damaged))
		if err == nil && len(rep.Problems) == 0 && !bytes.Equal(unzip(damaged), want) {
			t.Errorf("byte %d of %d is changed, and the bundle is called sound", i, len(sound))
		}
	}
}

func unzip(data []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	content, _ := io.ReadAll(z) // as far as it goes
	return content
}

func TestNotBundle(t *testing.T) {
	m, files := release(t)
	sound := compose(t, m, files)
	var text bytes.Buffer
	z := gzip.NewWriter(&text)
	_, _ = io.WriteString(z, strings.Repeat("hello\n", 500))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":                  nil,
		"text":                   []byte("hello"),
		"gzip magic":             {0x1f, 0x8b},
		"gzip of text":           text.Bytes(),
		"tar.gz of nothing":      archive(t),
		"no manifest":            archive(t, regular("b_1", files[0].content)),
		"manifest in a folder":   archive(t, regular("x/"+layout.ManifestName, []byte("{}"))),
		"manifest is not JSON":   archive(t, regular(layout.ManifestName, []byte("hello"))),
		"manifest is null":       archive(t, regular(layout.ManifestName, []byte("null"))),
		"manifest is a link":     archive(t, tar.Header{Typeflag: tar.TypeSymlink, Name: layout.ManifestName, Linkname: "x"}),
		"cut off in the gzip":    sound[:5],
		"cut off in the header":  sound[:200],
		"second manifest broken": archive(t, details(t, m), regular(layout.ManifestName, []byte("["))),
	} {
		if rep, err := inspect.Bundle(t.Context(), bytes.NewReader(data)); !errors.Is(err, inspect.ErrNotBundle) || rep != nil {
			t.Errorf("%s: report %+v, error %v", name, rep, err)
		}
	}
}

// A disk that cannot be read, or a user who has seen enough, says nothing about the bundle.
func TestReadErrors(t *testing.T) {
	m, files := release(t)
	sound := compose(t, m, files)
	broken := errors.New("broken")
	for _, n := range []int{0, 100, 3000, len(sound) - 1} {
		for pass := range 2 {
			r := &faulty{ReadSeeker: bytes.NewReader(sound), after: n, pass: pass, err: broken}
			rep, err := inspect.Bundle(t.Context(), r)
			if r.failed && (rep != nil || !errors.Is(err, broken) || errors.Is(err, inspect.ErrNotBundle)) {
				t.Errorf("broken at byte %d of pass %d: report %+v, error %v", n, pass+1, rep, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if rep, err := inspect.Bundle(ctx, bytes.NewReader(sound)); rep != nil || !errors.Is(err, context.Canceled) || errors.Is(err, inspect.ErrNotBundle) {
		t.Errorf("cancelled: report %+v, error %v", rep, err)
	}
}

// faulty fails once it has read after bytes, when it is at the start for the pass-th time.
type faulty struct {
	io.ReadSeeker
	after, pass int
	err         error

	starts, read int
	failed       bool
}

func (f *faulty) Seek(off int64, whence int) (int64, error) {
	n, err := f.ReadSeeker.Seek(off, whence)
	if n == 0 {
		f.starts, f.read = f.starts+1, 0
	}
	return n, err
}

func (f *faulty) Read(p []byte) (int, error) {
	if f.starts != f.pass+1 {
		return f.ReadSeeker.Read(p)
	}
	if f.read >= f.after {
		f.failed = true
		return 0, f.err
	}
	n, err := f.ReadSeeker.Read(p[:min(len(p), f.after-f.read)])
	f.read += n
	return n, err
}

// Whatever the input is, inspecting it ends in a report or an error.
func FuzzBundle(f *testing.F) {
	m, files := release(f)
	f.Add(compose(f, m, []file{{files[0].name, files[0].content[:100]}}))
	f.Add(archive(f, details(f, m), regular("x", nil)))
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		rep, err := inspect.Bundle(t.Context(), bytes.NewReader(data))
		if (rep == nil) != (err != nil) {
			t.Fatalf("report %+v, error %v", rep, err)
		}
		if err != nil {
			if !errors.Is(err, inspect.ErrNotBundle) {
				t.Fatalf("error %v", err)
			}
			return
		}
		for _, file := range rep.Files {
			if !file.Agrees && len(rep.Problems) == 0 {
				t.Fatalf("%+v is no problem", file)
			}
		}
	})
}

// A million files without content compress to next to nothing: they are not all listed.
func TestS7EmptyFiles(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := range 10_001 {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := inspect.Bundle(t.Context(), bytes.NewReader(b.Bytes())); !errors.Is(err, inspect.ErrNotBundle) || !strings.Contains(err.Error(), "it holds more than 10000 files") {
		t.Errorf("error %v", err)
	}
}
