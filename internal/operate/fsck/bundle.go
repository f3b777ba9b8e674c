package fsck

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
)

// disagreement is what is wrong with a bundle.
type disagreement string

func (d disagreement) Error() string { return string(d) }

func disagree(format string, args ...any) error { return disagreement(fmt.Sprintf(format, args...)) }

// readBundle reads a bundle to its end, as a device does, in constant memory. Its error is a disagreement
// unless ctx has ended; whether the source itself failed, the source knows.
func readBundle(ctx context.Context, r io.Reader, set edge.Set, held edge.Mask) error {
	in := bufio.NewReaderSize(r, 256<<10)
	z, err := gzip.NewReader(in)
	if err != nil {
		return disagree("it is no gzip: %v", err)
	}
	z.Multistream(false)
	if err := readTar(ctx, tar.NewReader(z), set, held); err != nil {
		return err
	}
	if _, err := copyAll(ctx, io.Discard, z); err != nil { // to the checksum
		return disagree("it cannot be unpacked to its end: %v", err)
	}
	if n, err := copyAll(ctx, io.Discard, in); err != nil || n > 0 {
		return disagree("%d bytes follow the gzip, %v", n, err)
	}
	return nil
}

func readTar(ctx context.Context, archive *tar.Reader, set edge.Set, held edge.Mask) error {
	want, err := manifest.New(set, held).Encode()
	if err != nil {
		return err
	}
	wanted := make(map[string]int)
	for i := range set.Len() {
		if it := set.Item(i); !held.Has(i) {
			wanted[layout.FileName(it.App, it.Version)] = i
		}
	}
	described := false
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return disagree("it cannot be unpacked: %v", err)
		}
		if h.Name == layout.ManifestName {
			got, err := io.ReadAll(io.LimitReader(archive, int64(len(want))+1))
			if err != nil {
				return disagree("its manifest cannot be read: %v", err)
			}
			if !bytes.Equal(got, want) {
				return disagree("its manifest is not what the index says")
			}
			described = true
			continue
		}
		i, ok := wanted[h.Name]
		if !ok {
			return disagree("%q does not belong in it, or is there twice", h.Name)
		}
		delete(wanted, h.Name)
		sha := sha256.New()
		if _, err := copyAll(ctx, sha, archive); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			return disagree("%q cannot be read: %v", h.Name, err)
		}
		if got, want := hex.EncodeToString(sha.Sum(nil)), edge.Hex(set.Item(i).SHA256[:]); got != want {
			return disagree("the sha256 of %q is %s, not %s", h.Name, got, want)
		}
	}
	if !described {
		return disagree("it has no %s", layout.ManifestName)
	}
	if len(wanted) > 0 {
		return disagree("%q is not in it", slices.Sorted(maps.Keys(wanted))[0])
	}
	return nil
}
