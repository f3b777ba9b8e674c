package index

import (
	"errors"
	"hash/crc32"
	"slices"
)

// The encoding, all integers unsigned LEB128 unless said otherwise:
//
//	"PCX" version(1 byte)
//	generation sequence format baseURL params(5 integers) pin
//	attribute count, attribute names (sorted, distinct)
//	item count, items: app track version size md5(16 bytes) sha256(32 bytes) attrs(count, positions)
//	                   role(1 byte), then by role:
//	                   current and previous: salt, share unless the salt is empty
//	                   floor: count of passed releases, of each md5(16 bytes) sha256(32 bytes)
//	CRC-32 (IEEE) of everything before, 4 bytes little-endian
//
// A string is its length in bytes, then its bytes. docs/formats.md repeats this.
const (
	magic   = "PCX"
	version = 3
	// oldest is the oldest version that is read: without roles.
	oldest = 2

	// MaxEncoded is the longest encoding that Parse accepts, in bytes: about 100,000 items.
	MaxEncoded = 16 << 20
)

var (
	// ErrCorrupt: truncated, damaged, or not an index at all.
	ErrCorrupt = errors.New("index is corrupt")
	// ErrVersion: made by a newer version of this program, or one too old.
	ErrVersion = errors.New("index has an unknown format version")
)

// Encode returns the index as bytes; the same index always gives the same bytes.
func (ix *Index) Encode() []byte {
	attrs, position := ix.attrTable()
	b := make([]byte, 0, 64+len(ix.Items)*96)
	b = append(b, magic...)
	b = append(b, version)
	b = appendUint(b, ix.Generation)
	b = appendUint(b, ix.Sequence)
	b = appendString(b, ix.Format)
	b = appendString(b, ix.BaseURL)
	for _, p := range []uint64{ix.Params.MaxBundles, ix.Params.MaxBytes, ix.Params.MaxCombinations, ix.Params.SubsetItems, ix.Params.Retain} {
		b = appendUint(b, p)
	}
	b = appendString(b, ix.Pin)
	b = appendUint(b, uint64(len(attrs)))
	for _, a := range attrs {
		b = appendString(b, a)
	}
	b = appendUint(b, uint64(len(ix.Items)))
	for i := range ix.Items {
		b = appendItem(b, &ix.Items[i], position)
	}
	sum := crc32.ChecksumIEEE(b)
	return append(b, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
}

// appendItem appends an item; position is that of each attribute's name.
func appendItem(b []byte, it *Item, position map[string]int) []byte {
	b = appendString(b, it.App)
	b = appendString(b, it.Track)
	b = appendString(b, it.Version)
	b = appendUint(b, uint64(it.Size))
	b = append(b, it.MD5[:]...)
	b = append(b, it.SHA256[:]...)
	b = appendUint(b, uint64(len(it.Attrs)))
	for _, a := range it.Attrs {
		b = appendUint(b, uint64(position[a]))
	}
	b = append(b, byte(it.Role))
	if it.Role == Floor {
		b = appendUint(b, uint64(len(it.Passed)))
		for _, p := range it.Passed {
			b = append(append(b, p.MD5[:]...), p.SHA256[:]...)
		}
		return b
	}
	b = appendString(b, it.Salt)
	if it.Salt != "" {
		b = appendUint(b, uint64(it.Share))
	}
	return b
}

func (ix *Index) attrTable() ([]string, map[string]int) {
	seen := make(map[string][]int32)
	for i := range ix.Items {
		for _, a := range ix.Items[i].Attrs {
			seen[a] = nil
		}
	}
	names := sortedKeys(seen)
	position := make(map[string]int, len(names))
	for i, n := range names {
		position[n] = i
	}
	return names, position
}

// Parse reads what Encode wrote. It fails with ErrCorrupt or ErrVersion.
func Parse(data []byte) (*Index, error) {
	if len(data) > MaxEncoded || len(data) < len(magic)+1+4 || string(data[:len(magic)]) != magic {
		return nil, ErrCorrupt
	}
	body, tail := data[:len(data)-4], data[len(data)-4:]
	// The checksum covers the version, so that a damaged version byte is called damage.
	sum := uint32(tail[0]) | uint32(tail[1])<<8 | uint32(tail[2])<<16 | uint32(tail[3])<<24
	if crc32.ChecksumIEEE(body) != sum {
		return nil, ErrCorrupt
	}
	made := body[len(magic)]
	if made < oldest || made > version {
		return nil, ErrVersion
	}
	// One copy of the whole; all names are slices of it.
	r := &reader{s: string(body[len(magic)+1:])}
	ix := &Index{Generation: r.uint(), Sequence: r.uint(), Format: r.string(), BaseURL: r.string()}
	ix.Params = Params{r.uint(), r.uint(), r.uint(), r.uint(), r.uint()}
	ix.Pin = r.string()
	attrs := r.attrNames()
	used := make([]bool, len(attrs))
	const smallestItem = 3 + 1 + 16 + 32 + 1
	ix.Items = make([]Item, r.count(smallestItem))
	for i := range ix.Items {
		it := &ix.Items[i]
		r.item(it, attrs, used)
		if made > oldest {
			r.role(it)
		}
		if r.bad || !follows(ix.Items[:i], it) {
			return nil, ErrCorrupt
		}
	}
	// A name that no item has would be another encoding of the same index.
	if r.bad || r.s != "" || slices.Contains(used, false) {
		return nil, ErrCorrupt
	}
	ix.lookups()
	return ix, nil
}

// attrNames reads the names of attributes.
func (r *reader) attrNames() []string {
	var names []string // grown, not made: a false count must not cost 16 bytes for each of its own
	for i := range r.count(1) {
		name := r.string()
		if r.bad || i > 0 && names[i-1] >= name {
			r.fail()
			return nil
		}
		names = append(names, name)
	}
	return names
}

// item reads an item up to its role, and marks the attributes that it has as used.
func (r *reader) item(it *Item, attrs []string, used []bool) {
	it.App, it.Track, it.Version = r.string(), r.string(), r.string()
	it.Size = int64(r.uint())
	copy(it.MD5[:], r.take(16))
	copy(it.SHA256[:], r.take(32))
	n := r.count(1)
	if n > len(attrs) || it.Size < 0 {
		r.fail()
		return
	}
	if n == 0 {
		return
	}
	it.Attrs = make([]string, n)
	last := -1
	for j := range it.Attrs {
		p := r.uint()
		if p >= uint64(len(attrs)) || int(p) <= last {
			r.fail()
			return
		}
		last = int(p)
		it.Attrs[j] = attrs[p]
		used[p] = true
	}
}

// role reads the part that an item plays.
func (r *reader) role(it *Item) {
	role := r.take(1)
	if r.bad || Role(role[0]) >= roles {
		r.fail()
		return
	}
	it.Role = Role(role[0])
	if it.Role != Floor {
		if it.Salt = r.string(); it.Salt != "" {
			share := r.uint()
			if !IsSalt(it.Salt) || share >= Slots {
				r.fail()
			}
			it.Share = uint16(share)
		}
		return
	}
	if len(it.Attrs) > 0 {
		r.fail()
	}
	for range r.count(16 + 32) {
		var p Digests
		copy(p.MD5[:], r.take(16))
		copy(p.SHA256[:], r.take(32))
		it.Passed = append(it.Passed, p)
	}
}

// follows tells whether an item may come after those before it: they are sorted, the first release of each
// item is the current one and the only one of that role, and only what is being rolled out has a previous one.
func follows(before []Item, it *Item) bool {
	if len(before) == 0 {
		return it.Role == Current
	}
	last := &before[len(before)-1]
	if it.Role == Current {
		return last.App < it.App || last.App == it.App && last.Track < it.Track
	}
	if last.App != it.App || last.Track != it.Track {
		return false
	}
	for i := len(before) - 1; it.Role == Previous; i-- {
		if before[i].Role != Floor {
			return before[i].Salt != ""
		}
	}
	return true
}

// A reader takes values off the front of s; after the first failure it only returns zeros.
type reader struct {
	s   string
	bad bool
}

func (r *reader) fail() { r.s, r.bad = "", true }

func (r *reader) take(n int) string {
	if n > len(r.s) {
		r.fail()
		return ""
	}
	v := r.s[:n]
	r.s = r.s[n:]
	return v
}

func (r *reader) uint() uint64 {
	var v uint64
	for i := 0; i < len(r.s) && i < 10; i++ {
		c := r.s[i]
		if i == 9 && c > 1 { // would not fit 64 bits
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if i > 0 && c == 0 { // not the shortest form: two encodings of one index
				break
			}
			r.s = r.s[i+1:]
			return v
		}
	}
	r.fail()
	return 0
}

// count reads a number of things of at least size bytes each, so that a damaged count cannot ask
// for more memory than the input is long.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.s)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) string() string { return r.take(r.count(1)) }

func appendUint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendString(b []byte, s string) []byte { return append(appendUint(b, uint64(len(s))), s...) }
