package client

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// unpackFile unpacks a downloaded bundle. Its files move to filesDir only when the whole bundle has been verified.
func (c *Client) unpackFile(name string, said *statement.Signed, lacking []statement.Item) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	dir := filepath.Join(c.opt.Dir, "unpacked")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil { // a crash may have left it behind
		return err
	}
	defer os.RemoveAll(dir)
	u := &unpacker{said: said, lacking: lacking, check: c.check, keep: func(it statement.Item, r io.Reader, verify func() error) error {
		return write(filepath.Join(dir, it.SHA256), r, verify)
	}}
	if err := u.unpack(f); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(dir, e.Name()), c.filePath(e.Name())); err != nil {
			return err
		}
	}
	return syncDir(c.filesDir())
}

// write writes a file, and calls verify when r has been read to its end.
func write(name string, r io.Reader, verify func() error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = verify()
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// maxEnd limits what may follow the last file: tar pads archives, usually to a multiple of 10 KiB.
const maxEnd = 1 << 20

// unpacker compares a bundle with a statement.
type unpacker struct {
	said    *statement.Signed
	lacking []statement.Item // files that the bundle must have
	check   func(Check, error) error
	// keep receives every file that the statement lists, and returns an error of its own or that of verify.
	keep func(it statement.Item, r io.Reader, verify func() error) error

	seen map[string]bool // file names
}

func (u *unpacker) unpack(r io.Reader) error {
	u.seen = make(map[string]bool)
	in := bufio.NewReaderSize(r, 64<<10)
	z, err := gzip.NewReader(in)
	if err != nil {
		return refuse(Malformed, fmt.Errorf("unpack bundle: %w", err))
	}
	z.Multistream(false)
	archive := tar.NewReader(z)
	var manifests []byte
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return u.damaged(err)
		}
		if h.Typeflag != tar.TypeReg {
			return refuse(ExtraFile, fmt.Errorf("unpack bundle: %s is no regular file", h.Name))
		}
		if u.seen[h.Name] {
			return refuse(ExtraFile, fmt.Errorf("unpack bundle: %s is there twice", h.Name))
		}
		u.seen[h.Name] = true
		if h.Name == layout.ManifestName {
			if manifests, err = io.ReadAll(io.LimitReader(archive, maxDetails(u.said)+1)); err != nil {
				return u.damaged(err)
			}
			continue
		}
		if err := u.file(h, archive); err != nil {
			return err
		}
	}
	// The checksum is at the end of the gzip stream.
	if n, err := io.Copy(io.Discard, io.LimitReader(z, maxEnd)); err != nil || n == maxEnd {
		return u.damaged(errors.Join(errors.New("its end is not that of an archive"), err))
	}
	if _, err := in.ReadByte(); err != io.EOF {
		if err := u.check(ExtraFile, errors.New("unpack bundle: something follows its end")); err != nil {
			return err
		}
	}
	for _, it := range u.lacking {
		if !u.seen[it.FileName()] {
			if err := u.check(MissingFile, fmt.Errorf("unpack bundle: %s is not there", it.FileName())); err != nil {
				return err
			}
		}
	}
	return u.check(WrongDetails, u.compareDetails(manifests))
}

// damaged refuses an archive that ends early, or whose bytes have changed.
func (u *unpacker) damaged(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(MissingFile, fmt.Errorf("unpack bundle: it has been cut off: %w", err))
	}
	if refused := (*Refusal)(nil); errors.As(err, &refused) {
		return refused
	}
	return refuse(WrongFile, fmt.Errorf("unpack bundle: it is damaged: %w", err))
}

func (u *unpacker) file(h *tar.Header, r io.Reader) error {
	it, ok := item(u.said, h.Name)
	if !ok {
		if err := u.check(ExtraFile, fmt.Errorf("unpack bundle: %s is not in the statement", h.Name)); err != nil {
			return err
		}
		// Only if a test skips the check: keep the file as it is.
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		it = statement.Item{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data)), App: h.Name}
		return u.keep(it, bytes.NewReader(data), func() error { return nil })
	}
	if h.Size != it.Size {
		if err := u.check(WrongFile, fmt.Errorf("unpack bundle: %s has %d bytes, the statement says %d", h.Name, h.Size, it.Size)); err != nil {
			return err
		}
	}
	sum := sha256.New()
	err := u.keep(it, io.TeeReader(r, sum), func() error {
		if got := hex.EncodeToString(sum.Sum(nil)); got != it.SHA256 {
			return u.check(WrongFile, fmt.Errorf("unpack bundle: %s has the digest %s, the statement says %s", h.Name, got, it.SHA256))
		}
		return nil
	})
	// An error of reading is the bundle's fault, an error of writing is this device's.
	if err != nil && !errors.As(err, new(*os.PathError)) && !errors.As(err, new(*os.LinkError)) {
		return u.damaged(err)
	}
	return err
}

func item(said *statement.Signed, file string) (statement.Item, bool) {
	for _, it := range said.Items {
		if it.FileName() == file {
			return it, true
		}
	}
	return statement.Item{}, false
}

// compareDetails compares package_details.json with the statement and with the files in the bundle.
func (u *unpacker) compareDetails(data []byte) error {
	if data == nil {
		return fmt.Errorf("unpack bundle: there is no %s", layout.ManifestName)
	}
	files, err := compareManifest(u.said, data)
	if err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	for name, e := range files {
		if included := e.StatusCode == manifest.StatusIncluded; included != u.seen[name] {
			return fmt.Errorf("unpack bundle: %s says that %s is there: %t, and it is: %t", layout.ManifestName, name, included, u.seen[name])
		}
	}
	return nil
}

// compareManifest compares a manifest with the statement.
func compareManifest(said *statement.Signed, data []byte) (map[string]manifest.Entry, error) {
	if int64(len(data)) > maxDetails(said) {
		return nil, fmt.Errorf("%s is longer than %d bytes", layout.ManifestName, maxDetails(said))
	}
	m, err := manifest.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	files := m.Files()
	for name, e := range files {
		if it, ok := item(said, name); !ok || e.Size != it.Size || e.SHA256 != it.SHA256 {
			return nil, fmt.Errorf("%s says of %s what the statement does not", layout.ManifestName, name)
		}
	}
	if len(files) != len(said.Items) {
		return nil, fmt.Errorf("%s lists %d files, the statement %d", layout.ManifestName, len(files), len(said.Items))
	}
	return files, nil
}

// hashFile verifies a file on this device again. It removes one that has changed, so that it is downloaded again.
func (c *Client) hashFile(want File) error {
	f, err := os.Open(want.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if n == want.Size && hex.EncodeToString(sum.Sum(nil)) == want.SHA256 {
		return nil
	}
	if c.skip[WrongFile] {
		return nil
	}
	os.Remove(want.Path)
	return refuse(WrongFile, fmt.Errorf("%s has changed on this device", want.Name))
}
