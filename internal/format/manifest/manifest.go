// Package manifest writes and reads package_details.json: what a device should hold, and which of
// it the bundle brings.
//
// It is the sample's JSON object, app -> {latestVersion, url, status_code}, with size, md5 and
// sha256 added. Where a selection gets one app at two versions (the sample kept only the last of
// them) the app's entry is that of the item last in the set's order, as in the sample, and
// "alternatives" in it lists the others in the same form: readers that know nothing of it see the
// sample's answer.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Status codes of an entry.
const (
	StatusIncluded = 200 // in the bundle
	StatusHeld     = 304 // the device holds it already
)

// Entry is what the manifest says of one binary.
type Entry struct {
	LatestVersion string `json:"latestVersion"`
	// URL is where the binary alone can be fetched: a path on the host that served the manifest,
	// unless the catalog was published with a base URL.
	URL          string  `json:"url"`
	StatusCode   int     `json:"status_code"`
	Size         int64   `json:"size"` // bytes
	MD5          string  `json:"md5"`
	SHA256       string  `json:"sha256"`
	Alternatives []Entry `json:"alternatives,omitempty"`
}

// Manifest maps apps to entries.
type Manifest map[string]Entry

// New describes a set for a device that holds the items in held.
func New(set edge.Set, held edge.Mask) Manifest {
	m := make(Manifest, set.Len())
	for i := range set.Len() {
		it := set.Item(i)
		e := newEntry(set.Index.BaseURL, it, held.Has(i))
		if earlier, ok := m[it.App]; ok {
			e.Alternatives = append(earlier.Alternatives, earlier)
			e.Alternatives[len(e.Alternatives)-1].Alternatives = nil
		}
		m[it.App] = e
	}
	return m
}

func newEntry(base string, it *index.Item, held bool) Entry {
	e := Entry{
		LatestVersion: it.Version,
		StatusCode:    StatusIncluded,
		Size:          it.Size,
		MD5:           edge.Hex(it.MD5[:]),
		SHA256:        edge.Hex(it.SHA256[:]),
	}
	// PathEscape leaves the key's two slashes to us; names may hold spaces, '%' or '?'. It leaves '+'
	// as it is, which S3 takes for a space: versions such as 1.0+build5 would not be found.
	name := strings.ReplaceAll(url.PathEscape(layout.FileName(it.App, it.Version)), "+", "%2B")
	e.URL = strings.TrimSuffix(base, "/") + "/" + layout.BinaryPrefix + e.SHA256 + "/" + name
	if held {
		e.StatusCode = StatusHeld
	}
	return e
}

// Encode returns the manifest as bytes: apps sorted, indented, one final newline.
func (m Manifest) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b.Bytes(), nil
}

// Decode reads a manifest. Fields it does not know are passed over: they are a newer version's.
func Decode(r io.Reader) (Manifest, error) {
	dec := json.NewDecoder(r)
	var m Manifest
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode manifest: something follows the object")
	}
	return m, nil
}

// Files returns the entries of all binaries by the file names they have in a bundle.
func (m Manifest) Files() map[string]Entry {
	files := make(map[string]Entry, len(m))
	for app, e := range m {
		for _, one := range append(slices.Clone(e.Alternatives), e) {
			files[layout.FileName(app, one.LatestVersion)] = one
		}
	}
	return files
}
