// Package catalog holds the release manager's records: which version of an application a track
// carries, for which devices, and what its binary must look like.
package catalog

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// Item is one record: application App on track Track. The JSON names are the sample's.
type Item struct {
	App     string `json:"app,omitempty"`
	Track   string `json:"env,omitempty"`
	Version string `json:"version"`
	Ident   string `json:"ident,omitempty"` // the release manager's own reference; not interpreted
	// URL is where the builder reads the binary: store:<object key>, s3://bucket/key, https://...,
	// http://... or file:///path.
	URL    string `json:"url,omitempty"`
	MD5    string `json:"md5,omitempty"`    // 32 lower-case hex digits
	SHA256 string `json:"sha256,omitempty"` // 64 lower-case hex digits
	Size   int64  `json:"size"`             // bytes
	// CPUArch is informative: the OS item of architecture A is the app named os_A.
	CPUArch    string          `json:"cpuArch,omitempty"`
	DeviceAttr map[string]bool `json:"deviceAttr,omitempty"`
	// Rollout: the release is for a part of the fleet; the rest get Previous, a release without app and track,
	// which may be rolled out over another one. Without Previous they get nothing.
	Rollout  *Rollout `json:"rollout,omitempty"`
	Previous *Item    `json:"previous,omitempty"`
	// Floors are releases, without app and track, that a device must have had before this one, the oldest first.
	Floors []Item `json:"floors,omitempty"`
	// Passed are releases after a floor, and before the next one: version, digests and size. Who holds one of
	// them need not go back to the floor. Only floors have them.
	Passed []Item `json:"passed,omitempty"`
	// Changed is when Precast last wrote the item, to the millisecond, in UTC; zero if others did. Nothing
	// that devices get depends on it.
	Changed time.Time `json:"changed,omitzero"`
}

// Key names an item.
type Key struct {
	App   string `json:"app"`
	Track string `json:"env"`
}

// Same tells whether two items are equal but for when they were written.
func (it Item) Same(other Item) bool {
	it.Changed, other.Changed = time.Time{}, time.Time{}
	return reflect.DeepEqual(it, other)
}

// Key returns the item's key.
func (it Item) Key() Key { return Key{it.App, it.Track} }

// String is for people. A name that does not print is quoted: it cannot make a line of its own.
func (k Key) String() string {
	s := k.App + "/" + k.Track
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return strconv.Quote(s)
		}
	}
	return s
}

// Attrs returns the names of the attributes that are true, sorted.
func (it Item) Attrs() []string {
	var names []string
	for name, on := range it.DeviceAttr {
		if on {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Change replaces the item of a key, or removes it when Item is nil.
type Change struct {
	Key  Key   `json:"key"`
	Item *Item `json:"item,omitempty"`
	// Was is the item that the change was worked out from, nil if there was none. Only edits with a base have it.
	Was *Item `json:"was,omitempty"`
}

// Put is the change that writes an item.
func Put(it Item) Change { return Change{Key: it.Key(), Item: &it} }

// Remove is the change that removes an item.
func Remove(k Key) Change { return Change{Key: k} }

// Compare orders items by app, then track, bytewise.
func Compare(a, b Item) int {
	return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Track, b.Track))
}

// Clone returns a copy that shares nothing with it.
func (it Item) Clone() Item {
	it.DeviceAttr = maps.Clone(it.DeviceAttr)
	if it.Rollout != nil {
		r := *it.Rollout
		it.Rollout = &r
	}
	if it.Previous != nil {
		p := it.Previous.Clone()
		it.Previous = &p
	}
	it.Floors, it.Passed = cloneAll(it.Floors), cloneAll(it.Passed)
	return it
}

// cloneAll keeps nil and empty apart.
func cloneAll(items []Item) []Item {
	items = slices.Clone(items)
	for i := range items {
		items[i] = items[i].Clone()
	}
	return items
}

// Apply returns items after changes, sorted; items is not modified.
func Apply(items []Item, changes []Change) []Item {
	byKey := make(map[Key]Item, len(items)+len(changes))
	for _, it := range items {
		byKey[it.Key()] = it
	}
	for _, c := range changes {
		if c.Item == nil {
			delete(byKey, c.Key)
		} else {
			byKey[c.Key] = *c.Item
		}
	}
	return slices.SortedFunc(maps.Values(byKey), Compare)
}
