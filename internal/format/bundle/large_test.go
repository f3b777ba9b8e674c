package bundle_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/layout"
)

// A binary of more than 8 GiB does not fit in USTAR, and makes the length in the gzip trailer wrap.
func TestBinaryBeyond8GiB(t *testing.T) {
	t.Parallel()
	if testing.Short() || raceEnabled {
		t.Skip("8 GiB take minutes with the race detector; concurrency is no part of it")
	}
	const size = 8*gib + 5
	var z bytes.Buffer
	large, err := bundle.Compress(t.Context(), &z, &zeros{size})
	if err != nil {
		t.Fatal(err)
	}
	last, lastZ := compress(t, []byte("last"))
	b, err := bundle.Compose([]byte("[]"), []bundle.File{{Name: "large_1.0.0", Piece: large}, {Name: "last_1.0.0", Piece: last}})
	if err != nil {
		t.Fatal(err)
	}
	p := packed{b, [][]byte{z.Bytes(), lastZ}}
	want := []struct {
		name string
		size int64
	}{{layout.ManifestName, 2}, {"large_1.0.0", size}, {"last_1.0.0", 4}}

	gunzip, err := gzip.NewReader(p.Open(context.Background(), p.inMemory))
	if err != nil {
		t.Fatal(err)
	}
	gunzip.Multistream(false)
	// Inflating is what takes the time, so GNU tar gets the same archive through a pipe.
	list, stdin := startTarList(t)
	archive := tar.NewReader(io.TeeReader(gunzip, stdin))
	for _, w := range want {
		h, err := archive.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != w.name || h.Size != w.size {
			t.Errorf("found %q of %d bytes, want %q of %d", h.Name, h.Size, w.name, w.size)
		}
		if wantPAX := w.size >= 8*gib; (h.Format == tar.FormatPAX) != wantPAX {
			t.Errorf("%q is in format %v", h.Name, h.Format)
		}
		if n, err := io.Copy(io.Discard, archive); err != nil || n != w.size {
			t.Errorf("%q has %d bytes, error %v; want %d", h.Name, n, err, w.size)
		}
	}
	if _, err := archive.Next(); err != io.EOF {
		t.Errorf("after the last file: %v, want %v", err, io.EOF)
	}
	// Up to the end of the member gzip compares CRC-32 and length.
	if _, err := io.Copy(stdin, gunzip); err != nil {
		t.Error(err)
	}
	if list == nil {
		t.Log("GNU tar is not installed")
		return
	}
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	listing := list()
	for _, w := range want {
		if !strings.Contains(listing, fmt.Sprintf(" %d 1970-01-01 00:00 %s\n", w.size, w.name)) {
			t.Errorf("GNU tar does not list %q with %d bytes:\n%s", w.name, w.size, listing)
		}
	}
}

// startTarList starts GNU tar listing what is written to stdin; list waits for it. If there is no GNU
// tar, list is nil and stdin goes nowhere.
func startTarList(t *testing.T) (list func() string, stdin io.WriteCloser) {
	t.Helper()
	if out, err := exec.Command("tar", "--version").Output(); err != nil || !bytes.Contains(out, []byte("GNU")) {
		return nil, struct {
			io.Writer
			io.Closer
		}{io.Discard, io.NopCloser(nil)}
	}
	cmd := exec.CommandContext(t.Context(), "tar", "--utc", "-tvf", "-")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		if err := cmd.Wait(); err != nil {
			t.Errorf("GNU tar fails: %v\n%s", err, &stderr)
		}
		return stdout.String()
	}, stdin
}
