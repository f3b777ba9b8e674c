package builder

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// DefaultParams are the limits of a plan unless the operator sets others.
func DefaultParams() index.Params {
	return index.Params{
		MaxBundles:      10_000,
		MaxBytes:        16 << 30,
		MaxCombinations: 100_000,
		SubsetItems:     4,
		Retain:          3,
	}
}

// Coverage is what is prebuilt for an index: a pure function of the index, its limits and the
// retained earlier indexes.
type Coverage struct {
	Sets []CoveredSet // in order of preference

	Combinations float64 // all there are; can be astronomical
	Considered   int     // of them, looked at
	Variants     int     // looked at beside those: devices of one combination in other rollouts, or before other floors
	Matching     int     // of all these, the ones that get at least one item
	Bundles      int     // as many manifests
	Bytes        int64   // of the binaries in the bundles: the bundles are smaller
	LeftOut      LeftOut
}

// LeftOut counts what is beyond the limits, as far as it was looked at. It is composed on request.
type LeftOut struct {
	Combinations float64 `json:"combinations"` // never looked at
	Mixed        int     `json:"mixed"`        // looked at, and not in every mixture of rollouts and floors
	Sets         int     `json:"sets"`         // without any bundle
	Bundles      int     `json:"bundles"`      // of sets and of subsets
	Bytes        int64   `json:"bytes"`        // of the binaries in them
	TooLarge     int     `json:"tooLarge"`     // combinations of more than edge.MaxSet items: refused when asked for
}

// CoveredSet is a resolved set and the held masks that it is prebuilt for.
type CoveredSet struct {
	Set   edge.Set
	ID    string
	Named int         // attributes named by the combination that reached it first
	Masks []edge.Mask // the full bundle first; without copies: none
}

// Bytes is the length of the binaries that a bundle of the set brings, before compression.
func bundleBytes(set edge.Set, held edge.Mask) int64 {
	var n int64
	for i := range set.Len() {
		if !held.Has(i) {
			n += set.Item(i).Size
		}
	}
	return n
}

// Cover enumerates the combinations of an index, those that name the fewest attributes first, each in the mixtures of
// rollouts and floors that devices of it can be in. It spends the limits of its Params on: the full bundle of every
// distinct set; then, for every set, the upgrade paths from the retained earlier indexes (the items that a device of
// the same combination already held then); then every other subset of the small sets. What does not fit is passed over
// and smaller ones after it may still fit. Time and memory are bounded by the limits, not by the number of
// combinations. Without copies every set is covered by its pieces: it has no masks, and nothing is left out of it.
func Cover(ix *index.Index, earlier []*index.Index) Coverage {
	c := &coverer{params: ix.Params, byPositions: make(map[string]int)}
	if ix.Params.Copies() {
		for _, old := range earlier {
			c.earlier = append(c.earlier, edge.DimensionsOf(old))
		}
	}
	walk := edge.NewWalk(ix, ix.Params.MaxCombinations)
	var before []edge.Set
	for v := range walk.Visits {
		if v.First {
			before = c.before(v.Selection)
		}
		c.device(v, before)
	}
	c.out.Combinations, c.out.Considered, c.out.Variants = walk.Count(), walk.Considered, walk.Variants
	c.out.LeftOut.Combinations, c.out.LeftOut.Mixed = walk.Rest(), walk.Mixed
	c.spend(func(*candidate) []edge.Mask { return []edge.Mask{{}} })
	c.spend(func(s *candidate) []edge.Mask { return s.upgrades })
	c.spend(func(s *candidate) []edge.Mask { return s.subsets(ix.Params.SubsetItems) })
	for _, s := range c.sets {
		if len(s.Masks) > 0 || !ix.Params.Copies() {
			c.out.Sets = append(c.out.Sets, s.CoveredSet)
		} else {
			c.out.LeftOut.Sets++
		}
	}
	return c.out
}

type coverer struct {
	params      index.Params
	earlier     []edge.Dimensions
	byPositions map[string]int // positions of a set -> its place in sets
	sets        []candidate
	out         Coverage
}

type candidate struct {
	CoveredSet
	upgrades []edge.Mask
}

// before returns what devices of a selection got from the earlier indexes. While something was rolled out, they had this
// or that.
func (c *coverer) before(s edge.Selection) []edge.Set {
	var sets []edge.Set
	for _, old := range c.earlier {
		devices, _ := old.Devices(s)
		for _, device := range devices {
			if set, err := edge.Resolve(old.Index(), device); err == nil {
				sets = append(sets, set)
			}
		}
	}
	return sets
}

func (c *coverer) device(v edge.Visit, before []edge.Set) {
	set, err := v.Resolve()
	if err != nil {
		c.out.LeftOut.TooLarge++
		return
	}
	if set.Len() == 0 {
		return
	}
	c.out.Matching++
	key := positionsKey(set.Positions)
	at, ok := c.byPositions[key]
	if !ok {
		at = len(c.sets)
		c.byPositions[key] = at
		c.sets = append(c.sets, candidate{CoveredSet: CoveredSet{Set: set, ID: set.ID(), Named: v.Named}})
	}
	cand := &c.sets[at]
	for _, old := range before {
		m := Unchanged(set, old)
		if !m.Empty() && !m.Full(set.Len()) && !slices.Contains(cand.upgrades, m) {
			cand.upgrades = append(cand.upgrades, m)
		}
	}
}

// Unchanged is the held mask of a device that took everything of before and now asks for now.
func Unchanged(now, before edge.Set) edge.Mask {
	var m edge.Mask
	for i := range now.Len() {
		for j := range before.Len() {
			if now.Item(i).SHA256 == before.Item(j).SHA256 {
				m = m.With(i)
				break
			}
		}
	}
	return m
}

func positionsKey(positions []int32) string {
	b := make([]byte, 0, 4*len(positions))
	for _, p := range positions {
		b = binary.LittleEndian.AppendUint32(b, uint32(p))
	}
	return string(b)
}

// subsets returns every mask of a small set that leaves something to bring, fewest held first.
func (s *candidate) subsets(most uint64) []edge.Mask {
	n := s.Set.Len()
	if uint64(n) > most || n > 16 { // 65,536 subsets of a set are past any budget
		return nil
	}
	masks := make([]edge.Mask, 0, 1<<n)
	for v := uint64(1); v < 1<<n-1; v++ {
		masks = append(masks, edge.Mask{v})
	}
	slices.SortStableFunc(masks, func(a, b edge.Mask) int {
		return cmp.Compare(bits.OnesCount64(a[0]), bits.OnesCount64(b[0]))
	})
	return masks
}

// spend adds the masks that the limits still allow to each set. A set whose full bundle did not fit
// gets none.
func (c *coverer) spend(masks func(*candidate) []edge.Mask) {
	if !c.params.Copies() {
		return
	}
	for i := range c.sets {
		s := &c.sets[i]
		for _, m := range masks(s) {
			if slices.Contains(s.Masks, m) {
				continue
			}
			size := bundleBytes(s.Set, m)
			fits := uint64(c.out.Bundles) < c.params.MaxBundles && uint64(c.out.Bytes+size) <= c.params.MaxBytes &&
				(m.Empty() || len(s.Masks) > 0)
			if !fits {
				c.out.LeftOut.Bundles++
				c.out.LeftOut.Bytes += size
				continue
			}
			s.Masks = append(s.Masks, m)
			c.out.Bundles++
			c.out.Bytes += size
		}
	}
}

// answer names one bundle and its manifest.
type answer struct {
	set  string
	held edge.Mask
}

// answers returns all that is covered.
func (c Coverage) answers() map[answer]bool {
	all := make(map[answer]bool, c.Bundles)
	for _, s := range c.Sets {
		for _, m := range s.Masks {
			all[answer{s.ID, m}] = true
		}
	}
	return all
}

// Keys returns the keys of all bundles and manifests covered, sorted.
func (c Coverage) Keys() []string {
	keys := make([]string, 0, 2*c.Bundles)
	for t := range c.answers() {
		keys = append(keys, layout.BundleKey(t.set, t.held.String()), layout.ManifestKey(t.set, t.held.String()))
	}
	slices.Sort(keys)
	return keys
}

// without returns the covered sets with only those masks that other does not cover.
func (c Coverage) without(other Coverage) []CoveredSet {
	covered := other.answers()
	var left []CoveredSet
	for _, s := range c.Sets {
		masks := slices.DeleteFunc(slices.Clone(s.Masks), func(m edge.Mask) bool { return covered[answer{s.ID, m}] })
		if len(masks) > 0 {
			s.Masks = masks
			left = append(left, s)
		}
	}
	return left
}
