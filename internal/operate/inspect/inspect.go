// Package inspect looks into bundles the way a careful device would: it reads the archive with a
// reader that has nothing to do with the writer, and verifies every file against the manifest.
package inspect

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
)

// Report is what a bundle holds.
type Report struct {
	Size     int64             `json:"size"` // of the bundle, bytes
	Files    []File            `json:"files"`
	Held     []string          `json:"held"` // file names that the manifest says the device holds
	Manifest manifest.Manifest `json:"manifest"`
	// Problems are the ways in which the bundle does not agree with itself; none: it is sound.
	Problems []string `json:"problems"`
}

// File is one binary in a bundle.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	MD5    string `json:"md5"`
	SHA256 string `json:"sha256"`
	Agrees bool   `json:"agrees"` // with the manifest
}

// maxManifest bounds the manifest that is read into memory, bytes.
const maxManifest = 16 << 20

// maxFiles bounds the files that are listed: far more than devices get.
const maxFiles = 10_000

// ErrNotBundle: the input is no tar.gz with a manifest in it.
var ErrNotBundle = errors.New("not a bundle")

// Bundle reads a whole bundle.
func Bundle(ctx context.Context, r io.ReadSeeker) (*Report, error) {
	rep := &Report{Files: []File{}, Held: []string{}, Problems: []string{}}
	var err error
	if rep.Size, err = r.Seek(0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("inspect bundle: %w", err)
	}
	if err := rep.read(ctx, r, rep.members); err != nil {
		return nil, fmt.Errorf("inspect bundle: %w", err)
	}
	if err := rep.read(ctx, r, rep.unpack); err != nil {
		return nil, fmt.Errorf("inspect bundle: %w", err)
	}
	if rep.Manifest == nil {
		return nil, fmt.Errorf("inspect bundle: %w: it holds no %s", ErrNotBundle, layout.ManifestName)
	}
	rep.compare()
	return rep, nil
}

// read has f read all of r. What goes wrong with r itself is not the bundle's fault.
func (rep *Report) read(ctx context.Context, r io.ReadSeeker, f func(io.Reader) error) error {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in := &input{ctx: ctx, r: r}
	err := f(in)
	if in.err != nil {
		return in.err
	}
	return err
}

// input keeps the error that its reader ended with, and ends when the context does.
type input struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (in *input) Read(p []byte) (int, error) {
	if in.err = in.ctx.Err(); in.err != nil {
		return 0, in.err
	}
	n, err := in.r.Read(p)
	if err != io.EOF {
		in.err = err
	}
	return n, err
}

func (rep *Report) problem(format string, args ...any) {
	rep.Problems = append(rep.Problems, fmt.Sprintf(format, args...))
}

// members checks that the gzip has one member and nothing after it: many readers stop there.
func (rep *Report) members(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	z, err := gzip.NewReader(in)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotBundle, err)
	}
	z.Multistream(false)
	if _, err := io.Copy(io.Discard, z); err != nil {
		rep.problem("its gzip is damaged: %v", err)
		return nil
	}
	if n, err := io.Copy(io.Discard, in); err != nil {
		return err
	} else if n > 0 {
		rep.problem("%d bytes follow the first gzip member", n)
	}
	return nil
}

// unpack reads the files, as far as they can be read.
func (rep *Report) unpack(r io.Reader) error {
	err := rep.entries(r)
	if err != nil && rep.Manifest == nil {
		return fmt.Errorf("%w: %w", ErrNotBundle, err)
	}
	if err != nil {
		rep.problem("it cannot be unpacked to its end: %v", err)
	}
	return nil
}

func (rep *Report) entries(r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	in := tar.NewReader(z)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == maxFiles {
			return fmt.Errorf("it holds more than %d files", maxFiles)
		}
		if err := rep.entry(h, in); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func (rep *Report) entry(h *tar.Header, in io.Reader) error {
	name := h.Name
	if h.Typeflag != tar.TypeReg {
		rep.problem("%s is not a regular file", name)
		return nil
	}
	if name == layout.ManifestName {
		data, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
		if err != nil {
			return err
		}
		if len(data) > maxManifest {
			return fmt.Errorf("%s is longer than %d bytes", name, maxManifest)
		}
		if rep.Manifest != nil {
			rep.problem("there are two %s", name)
		}
		rep.Manifest, err = manifest.Decode(bytes.NewReader(data))
		return err
	}
	sha, md := sha256.New(), md5.New()
	n, err := io.Copy(io.MultiWriter(sha, md), in)
	if err != nil {
		return err
	}
	rep.Files = append(rep.Files, File{
		Name: name, Size: n,
		MD5: hex.EncodeToString(md.Sum(nil)), SHA256: hex.EncodeToString(sha.Sum(nil)),
	})
	return nil
}

// compare compares the files with the manifest.
func (rep *Report) compare() {
	listed := rep.Manifest.Files()
	seen := make(map[string]bool)
	for i := range rep.Files {
		f := &rep.Files[i]
		if seen[f.Name] {
			rep.problem("%s is there twice", f.Name)
		}
		seen[f.Name] = true
		e, ok := listed[f.Name]
		if !ok {
			rep.problem("%s is not in the manifest", f.Name)
			continue
		}
		var differs []string
		if e.Size != f.Size {
			differs = append(differs, "size")
		}
		if e.MD5 != f.MD5 {
			differs = append(differs, "md5")
		}
		if e.SHA256 != f.SHA256 {
			differs = append(differs, "sha256")
		}
		if e.StatusCode != manifest.StatusIncluded {
			rep.problem("%s is there although the manifest says that the device holds it", f.Name)
		}
		if f.Agrees = len(differs) == 0; !f.Agrees {
			rep.problem("%s: %s not as the manifest says", f.Name, strings.Join(differs, ", "))
		}
	}
	for name, e := range listed {
		switch {
		case e.StatusCode == manifest.StatusHeld:
			rep.Held = append(rep.Held, name)
		case !seen[name]:
			rep.problem("%s is in the manifest but not there", name)
		}
	}
	slices.Sort(rep.Held)
	slices.Sort(rep.Problems)
}
