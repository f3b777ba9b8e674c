package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	begin, err := dec.Token()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read catalog: want a JSON array of items: %w", err)
	case begin == nil: // an import of nothing could remove everything
		return nil, errors.New("read catalog: want a JSON array of items: it is null")
	case begin != json.Delim('['):
		return nil, fmt.Errorf("read catalog: want a JSON array of items: it begins with %v", begin)
	}
	entries := []Entry{}
	for dec.More() {
		var data json.RawMessage
		if err := dec.Decode(&data); err != nil {
			return nil, fmt.Errorf("read catalog: want a JSON array of items: %w", err)
		}
		if len(entries) == maxEntries {
			return nil, fmt.Errorf("read catalog: there are more than %d items", maxEntries)
		}
		entry, err := decodeEntry(data)
		if err != nil {
			var key Key
			if len(data) <= maxItem {
				_ = json.Unmarshal(data, &key) // only for the message
			}
			return nil, fmt.Errorf("read catalog: item %d (%s): %w", len(entries)+1, key, err)
		}
		entries = append(entries, entry)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("read catalog: want a JSON array of items: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read catalog: something follows the array of items")
	}
	return entries, nil
}

// What a catalog file may hold: a small file, out of an archive, could unpack to hundreds of megabytes of items without
// content, which take many times as much memory.
const (
	maxEntries = 1 << 18
	maxItem    = 4 << 20 // bytes
)

func decodeEntry(data json.RawMessage) (entry Entry, err error) {
	if len(data) > maxItem {
		return entry, fmt.Errorf("it has %d bytes, more than %d", len(data), maxItem)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err = dec.Decode(&entry)
	return entry, err
}

// written is an item with what is empty as well: an import of an item that does not say its attributes and floors keeps
// those that there are.
type written struct {
	Item
	DeviceAttr map[string]bool `json:"deviceAttr"`
	Floors     []Item          `json:"floors"`
}

func whole(it Item) written {
	w := written{it, map[string]bool{}, []Item{}}
	maps.Copy(w.DeviceAttr, it.DeviceAttr)
	w.Floors = append(w.Floors, it.Floors...)
	return w
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
		line, err := json.Marshal(whole(it))
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
