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
	// Items are sorted by app, then track, bytewise.
	Items []Item

	byApp  map[string][]int32 // folded app -> items
	byAttr map[string][]int32 // folded attribute -> items
}

// Params are the limits of a plan: what was prebuilt follows from them and the items alone.
type Params struct {
	MaxBundles      uint64 // bundles, at most
	MaxBytes        uint64 // bytes of binaries in all bundles before compression, at most
	MaxCombinations uint64 // combinations looked at, at most
	SubsetItems     uint64 // sets of up to this many items get all their subsets
	Retain          uint64 // earlier generations whose upgrade paths are prebuilt
}

// MaxRetain is the greatest useful Params.Retain.
const MaxRetain = 16

// Item is one catalog item, reduced to what resolving and manifests need.
type Item struct {
	App, Track, Version string
	Size                int64 // bytes
	MD5                 [16]byte
	SHA256              [32]byte
	Attrs               []string // names of the true attributes, sorted
}

// New makes an index of items, which it sorts in place.
func New(ix Index) *Index {
	slices.SortFunc(ix.Items, func(a, b Item) int {
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
	ix.byApp = make(map[string][]int32, len(ix.Items))
	ix.byAttr = make(map[string][]int32)
	for i := range ix.Items {
		it := &ix.Items[i]
		app := Fold(it.App)
		ix.byApp[app] = append(ix.byApp[app], int32(i))
		for _, a := range it.Attrs {
			a = Fold(a)
			ix.byAttr[a] = append(ix.byAttr[a], int32(i))
		}
	}
}

// Apps returns the positions of the items of an app, given folded.
func (ix *Index) Apps(folded string) []int32 { return ix.byApp[folded] }

// WithAttr returns the positions of the items that have an attribute, given folded.
func (ix *Index) WithAttr(folded string) []int32 { return ix.byAttr[folded] }

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
