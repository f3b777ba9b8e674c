package bundle_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minio/crc64nvme"
	"pgregory.net/rapid"

	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/layout"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// genContent draws the content of a file: any length up to a few deflate blocks, of every kind that
// an encoder treats differently.
func genContent() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		n := rapid.OneOf(
			rapid.IntRange(0, 2000),
			rapid.SampledFrom([]int{0, 1, 511, 512, 513, 1024, 65534, 65535, 65536, 131070, 131071}),
			rapid.IntRange(0, 200_000),
		).Draw(t, "length")
		seed := rapid.Uint64().Draw(t, "seed")
		switch rapid.SampledFrom([]string{"program", "noise", "zeros"}).Draw(t, "kind") {
		case "program":
			return program(seed, n)
		case "noise":
			return noise(seed, n)
		default:
			return make([]byte, n)
		}
	})
}

func genBinaries(most int) *rapid.Generator[[]binary] {
	name := rapid.OneOf(
		rapid.StringMatching(`[a-z]{1,12}_[0-9]\.[0-9]{1,2}`),
		rapid.StringMatching(`[A-Za-z0-9_.+-]{95,120}x`),
		rapid.StringMatching(`[äßжツ🚀 =_0-9]{1,40}x`),
	)
	return rapid.Custom(func(t *rapid.T) []binary {
		names := rapid.SliceOfNDistinct(name, 0, most, rapid.ID).Draw(t, "names")
		binaries := make([]binary, len(names))
		for i, n := range names {
			binaries[i] = binary{n, genContent().Draw(t, "content")}
		}
		return binaries
	})
}

func TestBundleHoldsWhatItWasMadeOf(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		manifest := genContent().Draw(t, "manifest")
		binaries := genBinaries(5).Draw(t, "binaries")
		p := pack(t, manifest, binaries...)
		whole := p.bytes(t)
		if int64(len(whole)) != p.Size() {
			t.Fatalf("Size is %d, but %d bytes were read", p.Size(), len(whole))
		}
		if sum := crc64nvme.Checksum(whole); sum != p.CRC64NVME() {
			t.Fatalf("CRC64NVME is %016x, but the bytes have %016x", p.CRC64NVME(), sum)
		}
		wantContents(t, whole, manifest, binaries)
	})
}

func TestHeaderTellsNothingOfItsMaker(t *testing.T) {
	t.Parallel()
	whole := pack(t, []byte("[]")).bytes(t)
	// ID, deflate, no flags, no time, no extra flags, unknown system: RFC 1952, 2.3.
	want := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	if !bytes.Equal(whole[:10], want) {
		t.Errorf("the gzip header is % x, want % x", whole[:10], want)
	}
}

// A bundle whose bytes change must not keep its key: change FormatID together with this hash.
func TestGoldenBundle(t *testing.T) {
	t.Parallel()
	p := pack(t, []byte(`[{"app":"scoreboard","version":"1.0.0"}]`+"\n"),
		binary{"scoreboard_1.0.0", program(1, 300_000)},
		binary{"empty_1.0.0", nil},
		binary{"gamer_2.1.0", noise(2, 70_000)},
		binary{strings.Repeat("long", 30) + "_1.0.0", []byte("PAX by length")},
		binary{"größe_1.0.0", []byte("PAX by alphabet")},
	)
	sum := sha256.Sum256(p.bytes(t))
	got := bundle.FormatID + " " + hex.EncodeToString(sum[:]) + "\n"
	golden := filepath.Join("testdata", "golden.sha256")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the bundle is\n%swant\n%sIf that is meant, change FormatID and run the test with -update.", got, want)
	}
}

// Whoever knows nothing of PAX finds names of up to 100 bytes in the USTAR header, and the start of
// longer ones.
func TestNamesWithoutPAX(t *testing.T) {
	t.Parallel()
	names := []string{
		"app_1.0.0",
		"größe_1.0.0",
		strings.Repeat("x", 100),
		strings.Repeat("x", 101),
		strings.Repeat("ä", 50),       // 100 bytes
		strings.Repeat("ö", 51),       // 102 bytes
		"a" + strings.Repeat("日", 40), // the 100th byte is the first of a character
	}
	want := []string{layout.ManifestName}
	var binaries []binary
	for _, name := range names {
		want = append(want, strings.ToValidUTF8(name[:min(len(name), 100)], ""))
		binaries = append(binaries, binary{name, nil})
	}
	z, err := gzip.NewReader(bytes.NewReader(pack(t, nil, binaries...).bytes(t)))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for header := range slices.Chunk(archive, 512) {
		// No file has content, so every block is a header, except the PAX records after a header of
		// type x. https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
		if kind, magic := header[156], string(header[257:262]); kind == '0' && magic == "ustar" {
			name, _, _ := strings.Cut(string(header[:100]), "\x00")
			got = append(got, name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the names are\n%q, want\n%q", got, want)
	}
}

func TestIDsFitInKeys(t *testing.T) {
	t.Parallel()
	for _, id := range []string{bundle.EncoderID, bundle.FormatID} {
		if !regexp.MustCompile(`^[a-z0-9.-]+$`).MatchString(id) {
			t.Errorf("%q has other characters than a-z, 0-9, dot and dash", id)
		}
	}
	if !strings.Contains(bundle.FormatID, bundle.EncoderID) {
		t.Errorf("FormatID %q does not change with EncoderID %q", bundle.FormatID, bundle.EncoderID)
	}
}

// Set IDs and piece keys name the version of the library that makes the bytes.
func TestEncoderIDNamesThePinnedVersion(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile(filepath.Join("..", "..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^(?:require)?\s*github\.com/klauspost/compress (v\S+)`).FindSubmatch(mod)
	if found == nil {
		t.Fatal("go.mod does not require github.com/klauspost/compress")
	}
	if want := "klauspost6-" + string(found[1]); bundle.EncoderID != want {
		t.Errorf("EncoderID is %q, but go.mod pins %q", bundle.EncoderID, want)
	}
	if bytes.Contains(mod, []byte("github.com/klauspost/compress =>")) {
		t.Error("go.mod replaces github.com/klauspost/compress: EncoderID no longer names its version")
	}
}

func TestComposeRefusesNames(t *testing.T) {
	t.Parallel()
	piece, _ := compress(t, []byte("content"))
	for _, name := range []string{
		"", ".", "..", "/", "/etc/passwd", "a/b", "../a", `a\b`, "a\x00b", "a\nb", "a\x7fb", "a\u0085b",
		"a\xffb", strings.Repeat("x", 256), strings.Repeat("ä", 128), layout.ManifestName,
	} {
		if _, err := bundle.Compose(nil, []bundle.File{{Name: name, Piece: piece}}); err == nil {
			t.Errorf("Compose accepts the name %q", name)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("the error does not name %q: %v", name, err)
		}
	}
	twice := []bundle.File{{Name: "a", Piece: piece}, {Name: "b", Piece: piece}, {Name: "a", Piece: piece}}
	if _, err := bundle.Compose(nil, twice); err == nil {
		t.Error("Compose accepts two files of one name")
	}
	for _, name := range []string{"a", "...", "..a", "-rf", "a b", "~", strings.Repeat("x", 255), "größe"} {
		if _, err := bundle.Compose(nil, []bundle.File{{Name: name, Piece: piece}}); err != nil {
			t.Errorf("Compose refuses the name %q: %v", name, err)
		}
	}
}

func TestComposeRefusesImpossiblePieces(t *testing.T) {
	t.Parallel()
	good, _ := compress(t, program(1, 10_000))
	compose := func(p bundle.Piece) error {
		_, err := bundle.Compose(nil, []bundle.File{{Name: "a", Piece: p}})
		return err
	}
	if err := compose(good); err != nil {
		t.Fatalf("Compose refuses a good piece: %v", err)
	}
	for what, change := range map[string]func(*bundle.Piece){
		"zero value":              func(p *bundle.Piece) { *p = bundle.Piece{} },
		"negative binary":         func(p *bundle.Piece) { p.Raw = -1 },
		"huge binary":             func(p *bundle.Piece) { p.Raw, p.Len = 1<<62, 1<<61 },
		"negative piece":          func(p *bundle.Piece) { p.Len = -1 },
		"empty piece":             func(p *bundle.Piece) { p.Len = 0 },
		"too short":               func(p *bundle.Piece) { p.Len = 5 },
		"lengths mixed up":        func(p *bundle.Piece) { p.Raw, p.Len = p.Len, p.Raw },
		"checksum of no content":  func(p *bundle.Piece) { p.Raw, p.Len = 0, 5 },
		"shorter than sync flush": func(p *bundle.Piece) { p.Raw, p.CRC32, p.Len = 0, 0, 4 },
	} {
		p := good
		change(&p)
		if err := compose(p); err == nil {
			t.Errorf("%s: Compose accepts %+v", what, p)
		}
	}
}

// The plan is a value of its own: the caller may use its slices for something else.
func TestComposeKeepsNothingOfItsArguments(t *testing.T) {
	t.Parallel()
	manifest := []byte("[1,2,3]")
	piece, z := compress(t, []byte("content"))
	files := []bundle.File{{Name: "a", Piece: piece}}
	b, err := bundle.Compose(manifest, files)
	if err != nil {
		t.Fatal(err)
	}
	clear(manifest)
	clear(files)
	p := packed{b, [][]byte{z}}
	wantContents(t, p.bytes(t), []byte("[1,2,3]"), []binary{{"a", []byte("content")}})
}
