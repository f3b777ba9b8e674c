package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Entry is an item as it stands in a catalog file. When File is set, the item's digests, size and
// URL follow from that file; digests and size given beside it must agree.
type Entry struct {
	Item
	File string `json:"file,omitempty"` // relative to the catalog file
}

// Decode reads a catalog file: a JSON array of entries. Unknown fields are errors, because a
// misspelt one would otherwise silently change who gets what.
func Decode(r io.Reader) ([]Entry, error) {
	dec := json.NewDecoder(r)
	var raw []json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("read catalog: want a JSON array of items: %w", err)
	}
	if raw == nil { // null decodes without an error; an import of nothing could remove everything
		return nil, errors.New("read catalog: want a JSON array of items: it is null")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read catalog: something follows the array of items")
	}
	entries := make([]Entry, len(raw))
	for i, data := range raw {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&entries[i]); err != nil {
			var key Key
			_ = json.Unmarshal(data, &key) // only for the message
			return nil, fmt.Errorf("read catalog: item %d (%s): %w", i+1, key, err)
		}
	}
	return entries, nil
}

// Encode writes items as a catalog file, sorted, one item a line.
func Encode(w io.Writer, items []Item) error {
	var b bytes.Buffer
	b.WriteString("[")
	for i, it := range slices.SortedStableFunc(slices.Values(items), Compare) {
		if i > 0 {
			b.WriteString(",")
		}
		it.Changed = time.Time{} // it is of this catalog, not of the release
		line, err := json.Marshal(it)
		if err != nil {
			return fmt.Errorf("write catalog: item %s: %w", it.Key(), err)
		}
		b.WriteString("\n  ")
		b.Write(line)
	}
	b.WriteString("\n]\n")
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	return nil
}
