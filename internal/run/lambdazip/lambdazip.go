// Package lambdazip writes the deployment packages of Lambda functions: the same files give the same bytes.
package lambdazip

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// File is a file of a package, at its top.
type File struct {
	Name string
	Mode fs.FileMode
	Data []byte
}

// Encode returns the zip of files. It is compressed as well as deflate can: a package is loaded in each
// cold start.
func Encode(files ...File) ([]byte, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	for _, f := range files {
		header := &zip.FileHeader{Name: f.Name, Method: zip.Deflate}
		header.SetMode(f.Mode)
		header.Modified = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) // the earliest time that a zip can state
		w, err := z.CreateHeader(header)
		if err != nil {
			return nil, fmt.Errorf("add %s to zip: %w", f.Name, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("write %s to zip: %w", f.Name, err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("write zip: %w", err)
	}
	return out.Bytes(), nil
}
