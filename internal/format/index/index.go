// Package index is the published catalog in the form that resolving needs: compact, versioned,
// checksummed, parsed without reflection. It is compiled into the edge, so it imports next to nothing.
package index

import (
	"errors"
	"slices"
	"strings"
)

// Index is one published state of the catalog. It is immutable once made by New or Parse.
type Index struct {
	// Generation counts publishes; 0 means planned, not published.
	Generation uint64
	// Sequence is the number of the plan that made it. Of two indexes, the one with the greater
	// sequence saw the newer catalog.
	Sequence uint64
	// Format names everything besides the items that decides a bundle's bytes (layout version,
	// encoder). It is part of every set ID.
	Format string
	// BaseURL is put before /binaries/... in manifests; empty makes them relative references.
	BaseURL string
	// Params are the limits that the plan was made under.
	Params Params
	// Pin says why nothing is published over this index; empty if something may be.
	Pin string
	// Items are sorted by app, then track, bytewise. Those of one app and track stand together: the current
	// release, its floors from the newest to the oldest, the release that it is rolled out over, that
	// one's floors, and so on.
	Items []Item

	byApp    map[string][]int32 // folded app -> current releases
	byAttr   map[string][]int32 // folded attribute -> releases
	rollouts []int32            // releases that are being rolled out
	floors   int                // releases with floors
}

// Params are the limits of a plan: what was prebuilt follows from them and the items alone.
type Params struct {
	MaxBundles      uint64 // bundles, at most; 0: see Copies
	MaxBytes        uint64 // bytes of binaries in all bundles before compression, at most
	MaxCombinations uint64 // combinations looked at, at most
	SubsetItems     uint64 // sets of up to this many items get all their subsets
	Retain          uint64 // earlier generations whose upgrade paths are prebuilt
}

// Copies tells whether bundles and manifests are prebuilt. Without, pieces are, and every answer is composed of them while
// it is sent.
func (p Params) Copies() bool { return p.MaxBundles > 0 }

// MaxRetain is the greatest useful Params.Retain.
const MaxRetain = 16

// Item is one release of a catalog item, reduced to what resolving and manifests need.
type Item struct {
	App, Track, Version string
	Size                int64 // bytes
	MD5                 [16]byte
	SHA256              [32]byte
	Attrs               []string // names of the true attributes, sorted; a floor has none

	Role Role
	// Salt names the rollout that the release is in; empty: it is for everybody. Share is how many of the
	// Slots places of that salt have it. A floor has none.
	Salt  string
	Share uint16
	// Passed are releases that came after a floor, and before the next one: who holds one has passed it.
	Passed []Digests
}

// Digests are those of a binary.
type Digests struct {
	MD5    [16]byte
	SHA256 [32]byte
}

// Role is the part that a release plays among those of its app and track.
type Role uint8

const (
	Current  Role = iota // the newest release
	Previous             // what devices outside of the rollout of the release before it get
	Floor                // has to be passed through on the way to the release before it
	roles
)

// Slots is how many slots devices can have, and places a rollout has.
const Slots = 10_000

// IsSalt tells whether a text can be a salt. The viewer function reads it, and caches keep it in a header.
func IsSalt(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 32
}

// New makes an index of items, which it sorts in place by app and track: the releases of an item have to be in
// their order.
func New(ix Index) *Index {
	slices.SortStableFunc(ix.Items, func(a, b Item) int {
		if c := strings.Compare(a.App, b.App); c != 0 {
			return c
		}
		return strings.Compare(a.Track, b.Track)
	})
	ix.lookups()
	return &ix
}

// ErrOlder: of an earlier generation, or an earlier plan, than the index in use.
var ErrOlder = errors.New("index is older than the one in use")

// Replaces fails with ErrOlder unless the index may be used in place of another one, or of none.
func (ix *Index) Replaces(inUse *Index) error {
	if inUse != nil && (ix.Generation < inUse.Generation || ix.Generation == inUse.Generation && ix.Sequence < inUse.Sequence) {
		return ErrOlder
	}
	return nil
}

// With returns a copy under another generation number. The items are shared.
func (ix *Index) With(generation uint64) *Index {
	c := *ix
	c.Generation = generation
	return &c
}

func (ix *Index) lookups() {
	ix.rollouts, ix.floors = nil, 0
	ix.byApp = make(map[string][]int32, len(ix.Items))
	ix.byAttr = make(map[string][]int32)
	for i := range ix.Items {
		it := &ix.Items[i]
		if it.Role == Current {
			app := Fold(it.App)
			ix.byApp[app] = append(ix.byApp[app], int32(i))
		}
		if it.Salt != "" {
			ix.rollouts = append(ix.rollouts, int32(i))
		}
		if it.Role == Floor && ix.Items[i-1].Role != Floor {
			ix.floors++
		}
		for _, a := range it.Attrs {
			a = Fold(a)
			ix.byAttr[a] = append(ix.byAttr[a], int32(i))
		}
	}
}

// Apps returns the positions of the current releases of an app, given folded.
func (ix *Index) Apps(folded string) []int32 { return ix.byApp[folded] }

// WithAttr returns the positions of the releases that have an attribute, given folded, current or not.
func (ix *Index) WithAttr(folded string) []int32 { return ix.byAttr[folded] }

// Rollouts returns the positions of the releases that are being rolled out.
func (ix *Index) Rollouts() []int32 { return ix.rollouts }

// HasVariants tells whether devices of one selection may get different releases.
func (ix *Index) HasVariants() bool { return len(ix.rollouts) > 0 || ix.floors > 0 }

// Head returns the position of the current release of the item that a release is of.
func (ix *Index) Head(position int32) int32 {
	for ix.Items[position].Role != Current {
		position--
	}
	return position
}

// Next returns the position after the last release of an item, given one of them.
func (ix *Index) Next(position int32) int32 {
	for position++; int(position) < len(ix.Items) && ix.Items[position].Role != Current; position++ {
	}
	return position
}

// Len is the number of catalog items.
func (ix *Index) Len() int {
	n := 0
	for i := range ix.Items {
		if ix.Items[i].Role == Current {
			n++
		}
	}
	return n
}

// AppNames returns all app names, folded and sorted.
func (ix *Index) AppNames() []string { return sortedKeys(ix.byApp) }

// AttrNames returns all attribute names, folded and sorted.
func (ix *Index) AttrNames() []string { return sortedKeys(ix.byAttr) }

func sortedKeys(m map[string][]int32) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Fold maps ASCII upper case to lower case and leaves every other byte alone: names are compared
// folded. (Unicode folding would need tables at the edge, and the same ones in the viewer function.)
func Fold(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
