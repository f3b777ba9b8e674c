package edge

import (
	"slices"
	"strconv"

	"github.com/precast-ota/precast/internal/format/index"
)

// MaxSet is how many items one selection may get.
const MaxSet = 256

// Set is a resolved set: the items of an index that a selection gets, in the index's order.
type Set struct {
	Index     *index.Index
	Positions []int32 // ascending
}

// Device is all of a device that decides what it gets.
type Device struct {
	Selection
	Cohort Cohort
	Held   Tags // tell how far it has come, where there are floors
}

// Resolve returns what the device gets from the index: the operating system of its architecture
// at its track, every item with one of its attributes at that attribute's track, and every item it
// names at the track it names. Tracks never fall back to one another. What the catalog does not
// have is passed over. The set may be empty. Its error is a BadRequest.
//
// Of an item that is being rolled out, it gets the first release whose rollout it is in, or that has none. If that
// one has floors, and the device holds neither it, nor a newer one, nor the newest floor or what came after that,
// it gets the first floor that it has not passed.
func Resolve(ix *index.Index, d Device) (Set, error) {
	set := Set{Index: ix}
	each(ix, d, func(_, step int32) { set.Positions = append(set.Positions, step) })
	slices.Sort(set.Positions)
	set.Positions = slices.Compact(set.Positions)
	set.Positions = distinct(ix, set.Positions)
	if len(set.Positions) > MaxSet {
		return Set{}, BadRequest("Selection matches " + strconv.Itoa(len(set.Positions)) + " packages, more than " + strconv.Itoa(MaxSet))
	}
	return set, nil
}

// each calls yield with the release that the device gets of every item that its selection meets, and with the
// floor that it gets first, or else the same release again. An item may come more than once.
func each(ix *index.Index, d Device, yield func(release, step int32)) {
	variants := ix.HasVariants()
	candidates(ix, d.Selection, func(i int32, byName bool) {
		if !variants {
			yield(i, i)
			return
		}
		// Attributes are those of the release that the device is to get, not of any other.
		if release := admitted(ix, ix.Head(i), d.Cohort); release == i || byName && release >= 0 {
			yield(release, next(ix, release, d.Held))
		}
	})
}

// candidates calls yield with every release that a selection meets: the current ones of the items that it names, and
// those, current or not, that have an attribute that it names. An item may come more than once.
func candidates(ix *index.Index, s Selection, yield func(release int32, byName bool)) {
	add := func(releases []int32, track string, byName bool) {
		for _, i := range releases {
			if index.Fold(ix.Items[i].Track) == track {
				yield(i, byName)
			}
		}
	}
	add(ix.Apps(OSPrefix+s.Arch), s.OS, true)
	for _, a := range s.Attrs {
		add(ix.WithAttr(a.Name), a.Track, false)
	}
	for _, a := range s.Apps {
		add(ix.Apps(a.Name), a.Track, true)
	}
}

// isFloor tells whether there is a floor at a position, which may be past the last release.
func isFloor(ix *index.Index, position int32) bool {
	return int(position) < len(ix.Items) && ix.Items[position].Role == index.Floor
}

// admitted returns the newest release of an item that a cohort gets, -1 for none.
func admitted(ix *index.Index, head int32, c Cohort) int32 {
	for i := head; i < ix.Next(head); i++ {
		it := &ix.Items[i]
		if it.Role != index.Floor && (it.Salt == "" || c.In(it.Salt, it.Share)) {
			return i
		}
	}
	return -1
}

// next returns what comes next on the way to a release: itself, or a floor.
func next(ix *index.Index, release int32, held Tags) int32 {
	if !isFloor(ix, release+1) {
		return release
	}
	for i := ix.Head(release); i <= release; i++ {
		if it := &ix.Items[i]; it.Role != index.Floor && held.holds(it.MD5, it.SHA256) {
			return release // it has come further already
		}
	}
	step := release
	for i := release + 1; isFloor(ix, i); i++ {
		it := &ix.Items[i]
		passed := held.holds(it.MD5, it.SHA256)
		for _, p := range it.Passed {
			passed = passed || held.holds(p.MD5, p.SHA256)
		}
		if passed {
			break
		}
		step = i
	}
	return step
}

// distinct drops, in place, every item that is the same release as an earlier one: the same release
// on two tracks is one file for the device. (The catalog refuses the same app and version with two
// contents, so what is left has distinct file names.)
func distinct(ix *index.Index, positions []int32) []int32 {
	kept := positions[:0]
	for _, p := range positions {
		it := &ix.Items[p]
		same := false
		// An app's items lie side by side, but two tracks with one release may have a third between them.
		for i := len(kept) - 1; i >= 0 && !same && ix.Items[kept[i]].App == it.App; i-- {
			other := &ix.Items[kept[i]]
			same = other.Version == it.Version && other.SHA256 == it.SHA256
		}
		if !same {
			kept = append(kept, p)
		}
	}
	return kept
}

// Len is the number of items.
func (s Set) Len() int { return len(s.Positions) }

// Item returns item i of the set.
func (s Set) Item(i int) *index.Item { return &s.Index.Items[s.Positions[i]] }

// ID is the set ID: 64 hex digits that stand for the bytes of every bundle and manifest of the set.
// It covers the index's format and base URL and every item's name, version, size and digests, and
// nothing else: two selections with the same answer have the same ID, in every generation.
func (s Set) ID() string {
	b := make([]byte, 0, 64+128*len(s.Positions))
	b = appendField(b, "precast set 1")
	b = appendField(b, s.Index.Format)
	b = appendField(b, s.Index.BaseURL)
	for i := range s.Positions {
		it := s.Item(i)
		b = appendField(b, it.App)
		b = appendField(b, it.Version)
		for shift := 0; shift < 64; shift += 8 {
			b = append(b, byte(it.Size>>shift))
		}
		b = append(b, it.MD5[:]...)
		b = append(b, it.SHA256[:]...)
	}
	sum := digest(b)
	return Hex(sum[:])
}

// appendField appends the length in 4 bytes and the string, so that fields cannot run together.
func appendField(b []byte, s string) []byte {
	n := len(s)
	b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	return append(b, s...)
}

// Hex writes bytes as lower-case hex.
func Hex(raw []byte) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 2*len(raw))
	for _, c := range raw {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}

// Held returns which items of the set the device holds.
func (s Set) Held(t Tags) Mask {
	var m Mask
	if len(t) == 0 {
		return m
	}
	for i := range s.Positions {
		if it := s.Item(i); t.holds(it.MD5, it.SHA256) {
			m = m.With(i)
		}
	}
	return m
}

// Mask is a held mask: bit i set means that the device holds item i of the set.
type Mask [MaxSet / 64]uint64

// With returns the mask with bit i set.
func (m Mask) With(i int) Mask {
	m[i/64] |= 1 << (i % 64)
	return m
}

// Has tells whether bit i is set.
func (m Mask) Has(i int) bool { return m[i/64]>>(i%64)&1 == 1 }

// Empty tells whether no bit is set.
func (m Mask) Empty() bool { return m == Mask{} }

// Full tells whether the lowest n bits are set: the device holds all of a set of n.
func (m Mask) Full(n int) bool {
	for i := range n {
		if !m.Has(i) {
			return false
		}
	}
	return true
}

// String is the mask as a hex number without leading zeros, as it stands in object keys.
func (m Mask) String() string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, MaxSet/4)
	for i := MaxSet/4 - 1; i >= 0; i-- {
		d := m[i/16] >> (i % 16 * 4) & 15
		if d != 0 || len(b) > 0 || i == 0 {
			b = append(b, digits[d])
		}
	}
	return string(b)
}

// ParseMask is the inverse of String, or false.
func ParseMask(s string) (Mask, bool) {
	var m Mask
	if s == "" || len(s) > MaxSet/4 || len(s) > 1 && s[0] == '0' {
		return m, false
	}
	for i := range len(s) {
		c := s[len(s)-1-i]
		if 'A' <= c && c <= 'F' || unhex(c) < 0 {
			return m, false
		}
		m[i/16] |= uint64(unhex(c)) << (i % 16 * 4)
	}
	return m, true
}
