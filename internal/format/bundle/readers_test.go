package bundle_test

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	stdgzip "compress/gzip"

	"github.com/klauspost/compress/gzip"

	"github.com/precast-ota/precast/internal/format/layout"
)

// reader is a program or library that devices, or people, may open a bundle with.
type reader struct {
	name string
	// needs is a command that must succeed for the reader to be there at all; nil: always there.
	needs []string
	// script is run by sh in an empty directory. $BUNDLE is the bundle. It extracts into the directory
	// or, if it gunzips alone, writes the tar archive to standard output.
	script  string
	gunzips bool
	// inGo is a reader that is a Go library, instead of a script. It extracts into dir.
	inGo func(file, dir string) error
	// ustar: it knows nothing of PAX, so it sees the name in the USTAR header, which ends after 100 bytes.
	ustar bool
}

var readers = []reader{
	{name: "GNU tar", needs: []string{"sh", "-c", "tar --version | grep GNU"}, script: `tar -xzf "$BUNDLE"`},
	{name: "GNU tar from a pipe", needs: []string{"sh", "-c", "tar --version | grep GNU"}, script: `cat "$BUNDLE" | tar -xzf -`},
	{name: "bsdtar", needs: []string{"bsdtar", "--version"}, script: `LC_ALL=C.UTF-8 bsdtar -xf "$BUNDLE"`},
	{name: "busybox tar", needs: []string{"busybox", "tar", "--help"}, script: `busybox tar -xzf "$BUNDLE"`},
	{name: "busybox gunzip", needs: []string{"busybox", "gunzip", "--help"}, script: `busybox gunzip -c "$BUNDLE"`, gunzips: true},
	{name: "gzip", needs: []string{"gzip", "--version"}, script: `gzip -t "$BUNDLE" && gzip -dc <"$BUNDLE"`, gunzips: true},
	{name: "Python tarfile r:gz", needs: []string{"python3", "-c", "import tarfile, zlib"}, script: `python3 -c "
import os, tarfile
tarfile.open(os.environ['BUNDLE'], 'r:gz').extractall()"`},
	{name: "Python tarfile r|gz", needs: []string{"python3", "-c", "import tarfile, zlib"}, script: `python3 -c "
import os, tarfile
tarfile.open(os.environ['BUNDLE'], 'r|gz').extractall()"`},
	{name: "Python zlib.decompressobj", needs: []string{"python3", "-c", "import zlib"}, script: `python3 -c "
import os, sys, zlib
z = zlib.decompressobj(31)
sys.stdout.buffer.write(z.decompress(open(os.environ['BUNDLE'], 'rb').read()))
assert z.eof and not z.unused_data"`, gunzips: true},
	{name: "Node zlib", needs: []string{"node", "--version"}, script: `node -e "
process.stdout.write(require('zlib').gunzipSync(require('fs').readFileSync(process.env.BUNDLE)))"`, gunzips: true},
	{name: "Node zlib stream", needs: []string{"node", "--version"}, script: `node -e "
require('fs').createReadStream(process.env.BUNDLE).pipe(require('zlib').createGunzip()).pipe(process.stdout)"`, gunzips: true},
	{name: "Node DecompressionStream", needs: []string{"node", "-e", "new DecompressionStream('gzip')"}, script: `node -e "
const blob = new Blob([require('fs').readFileSync(process.env.BUNDLE)]);
new Response(blob.stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer()
	.then(b => process.stdout.write(Buffer.from(b)))"`, gunzips: true},
	{name: "Perl IO::Uncompress::Gunzip", needs: []string{"perl", "-MIO::Uncompress::Gunzip", "-e", "1"}, script: `perl -MIO::Uncompress::Gunzip=:all -e '
my $z = IO::Uncompress::Gunzip->new($ENV{BUNDLE}, MultiStream => 0) or die $GunzipError;
binmode STDOUT;
while ((my $n = $z->read(my $b)) > 0) { print $b }
die $GunzipError if $z->error();
die "bytes after the member" if length $z->trailingData();'`, gunzips: true},
	{name: "Perl Archive::Tar", needs: []string{"perl", "-MArchive::Tar", "-e", "1"}, script: `perl -MArchive::Tar -e '
my $t = Archive::Tar->new; $t->read($ENV{BUNDLE}) or die $t->error; $t->extract() or die $t->error'`, ustar: true},
	{name: "Go standard library", inGo: func(file, dir string) error {
		return extractInGo(file, dir, func(r io.Reader) (io.Reader, error) { return stdgzip.NewReader(r) })
	}},
	{name: "klauspost gzip", inGo: func(file, dir string) error {
		return extractInGo(file, dir, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })
	}},
}

// Whoever opens a bundle finds the files that it was made of. Readers that are not installed are
// named in the log.
func TestReaders(t *testing.T) {
	t.Parallel()
	manifest := []byte(strings.Repeat(`{"app":"scoreboard","version":"1.0.0"}`+"\n", 3000)) // > 64 KiB
	binaries := []binary{
		{"scoreboard_1.0.0", program(1, 400_000)},
		{"empty_1.0.0", nil},
		{"block_1.0.0", noise(2, 512*200)},
		{strings.Repeat("l", 90) + "_" + strings.Repeat("1.0", 40), []byte("a name of more than 100 bytes")},
		{"größe-日本語_1.0.0", program(3, 70_001)},
		{"last_1.0.0", []byte("x")},
	}
	whole := pack(t, manifest, binaries...).bytes(t)
	file := filepath.Join(t.TempDir(), "ota-package.tar.gz")
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	z, err := stdgzip.NewReader(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]binary{{layout.ManifestName, manifest}}, binaries...)
	var ran, absent []string
	for _, r := range readers {
		if len(r.needs) > 0 && exec.Command(r.needs[0], r.needs[1:]...).Run() != nil {
			absent = append(absent, r.name)
			continue
		}
		ran = append(ran, r.name)
		t.Run(r.name, func(t *testing.T) {
			dir := t.TempDir()
			switch {
			case r.inGo != nil:
				if err := r.inGo(file, dir); err != nil {
					t.Fatal(err)
				}
				wantFiles(t, dir, want, r.ustar)
			case r.gunzips:
				if got := runScript(t, r.script, file, dir); !bytes.Equal(got, archive) {
					t.Errorf("it unpacks %d bytes that differ from the %d bytes of the archive", len(got), len(archive))
				}
			default:
				runScript(t, r.script, file, dir)
				wantFiles(t, dir, want, r.ustar)
			}
		})
	}
	t.Logf("read by %d: %s", len(ran), strings.Join(ran, "; "))
	t.Logf("not installed %d: %s", len(absent), strings.Join(absent, "; "))
}

func runScript(t *testing.T, script, file, dir string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "BUNDLE="+file)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("it fails: %v\n%s", err, &stderr)
	}
	return out
}

// wantFiles fails unless dir holds the files and nothing else.
func wantFiles(t *testing.T, dir string, want []binary, ustar bool) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("it extracts %d files, want %d: %v", len(entries), len(want), entries)
	}
	for i, w := range want {
		name := w.name
		if ustar {
			name = name[:min(len(name), 100)]
		}
		path := filepath.Join(dir, name)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, w.content) {
			t.Errorf("%q has %d bytes that differ from the %d it was made of", name, len(got), len(w.content))
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if executable := info.Mode().Perm()&0o100 != 0; executable != (i > 0) {
			t.Errorf("%q has mode %v", name, info.Mode())
		}
	}
}

func extractInGo(file, dir string, gunzip func(io.Reader) (io.Reader, error)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gunzip(f)
	if err != nil {
		return err
	}
	archive := tar.NewReader(z)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := writeFile(dir, h.Name, h.FileInfo().Mode(), archive); err != nil {
			return err
		}
	}
}

func writeFile(dir, name string, mode fs.FileMode, content io.Reader) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode.Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
