package edge

import (
	"slices"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/internal/format/index"
)

// Limits of a table. It is kept in a KeyValueStore, whose values are 1 KB at most, and is read at every request with a
// slot (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html). The viewer
// function has the same limits.
const (
	MaxRollouts = 24 // salts; a cohort that is in all of them is no longer than MaxCohort

	maxTableValues   = 8
	maxTableValue    = 1000  // bytes
	continuationMark = "+\n" // ends a value that another one follows
)

// Place is a slot's place in the rollout of a salt, from 0 to index.Slots-1. A slot is in the rollout when its place is
// below the share. Every slot has a place of its own, which differs from salt to salt.
func Place(salt string, slot int) int {
	a, b := factors(salt)
	return (a*slot + b) % index.Slots
}

// factors returns the factors of a permutation of the slots: a has no factor in common with their number. A device can
// compute them with sha256sum and shell arithmetic.
func factors(salt string) (a, b int) {
	d := digest([]byte("precast rollout 1 " + salt))
	number := func(at int) int {
		return int(d[at])<<24 | int(d[at+1])<<16 | int(d[at+2])<<8 | int(d[at+3])
	}
	return number(0)%(index.Slots/10)*10 + [...]int{1, 3, 7, 9}[d[4]%4], number(5) % index.Slots
}

// Table is the table of rollouts of an index: which selections can meet which share. The viewer function at the
// CDN and the server use it to turn slots into cohorts.
type Table struct {
	Index *index.Index // nil: nothing is published
	// Lines are sorted by salt, then share.
	Lines []Line
	// LeftOut are the positions of releases that the table has no room for: nobody is in their rollouts. A published
	// index has none: the builder sets their shares to 0.
	LeftOut []int32

	values []string
}

// Line says which selections can meet a share.
type Line struct {
	Share
	A, B      int // a slot's place is (A*slot + B) % index.Slots
	Selectors [][]Param
}

// TableOf makes the table of an index.
func TableOf(ix *index.Index) Table {
	t := Table{Index: ix}
	if ix == nil || len(ix.Rollouts()) == 0 {
		return t
	}
	// Nobody is in a share of 0.
	positions := slices.DeleteFunc(slices.Clone(ix.Rollouts()), func(p int32) bool { return ix.Items[p].Share == 0 })
	shareOf := func(p int32) Share { return Share{ix.Items[p].Salt, ix.Items[p].Share} }
	slices.SortStableFunc(positions, func(a, b int32) int { return compareShares(shareOf(a), shareOf(b)) })
	salts, last := 0, ""
	for len(positions) > 0 {
		share := shareOf(positions[0])
		n := 1
		for n < len(positions) && shareOf(positions[n]) == share {
			n++
		}
		if share.Salt != last {
			salts, last = salts+1, share.Salt
		}
		if salts > MaxRollouts || !t.add(share, positions[:n]) {
			t.LeftOut = append(t.LeftOut, positions...) // whatever has the same salt as well
			break
		}
		positions = positions[n:]
	}
	return t
}

// add adds the lines of a share. It returns false, and adds none, if there is no room for all of them.
func (t *Table) add(share Share, releases []int32) bool {
	selectors := make(map[string][]Param)
	for _, p := range releases {
		for _, s := range selectorsOf(t.Index, p) {
			selectors[join(s)] = s
		}
	}
	texts := make([]string, 0, len(selectors))
	for text := range selectors {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	a, b := factors(share.Salt)
	start := share.Salt + " " + strconv.Itoa(a) + " " + strconv.Itoa(b) + " " + strconv.Itoa(int(share.Places)) + " "
	var lines []Line
	values := slices.Clone(t.values)
	for len(texts) > 0 {
		line, text := Line{Share: share, A: a, B: b}, start
		for len(texts) > 0 && (len(line.Selectors) == 0 || len(text)+1+len(texts[0])+1+len(continuationMark) <= maxTableValue) {
			if len(line.Selectors) > 0 {
				text += ","
			}
			text += texts[0]
			line.Selectors = append(line.Selectors, selectors[texts[0]])
			texts = texts[1:]
		}
		text += "\n"
		if last := len(values) - 1; last >= 0 && len(values[last])+len(text)+len(continuationMark) <= maxTableValue {
			values[last] += text
		} else {
			values = append(values, text)
		}
		lines = append(lines, line)
	}
	if len(values) > maxTableValues {
		return false
	}
	t.values, t.Lines = values, append(t.Lines, lines...)
	return true
}

// Values returns the table as it is kept in a KeyValueStore: the values of its keys, in order.
func (t Table) Values() []string {
	values := slices.Clone(t.values)
	for i := range len(values) - 1 {
		values[i] += continuationMark
	}
	return values
}

// selectorsOf returns the selectors of an item: a selection that has all of one of them meets the item. They are its
// name, its attributes, and those of its earlier releases.
func selectorsOf(ix *index.Index, p int32) [][]Param {
	head := ix.Head(p)
	track := index.Fold(ix.Items[head].Track)
	app := index.Fold(ix.Items[head].App)
	all := [][]Param{{{app, track}}}
	if arch, ok := strings.CutPrefix(app, OSPrefix); ok && arch != "" {
		all = append(all, []Param{{keyArch, arch}, {keyOS, track}})
	}
	for i := head; i < ix.Next(head); i++ {
		for _, attr := range ix.Items[i].Attrs {
			all = append(all, []Param{{attrPrefix + index.Fold(attr), track}})
		}
	}
	return all
}

// meets tells whether a selection has all of a selector.
func (s Selection) meets(selector []Param) bool {
	for _, p := range selector {
		if !s.has(p) {
			return false
		}
	}
	return true
}

func (s Selection) has(p Param) bool {
	switch {
	case p.Name == keyArch:
		return s.Arch == p.Track
	case p.Name == keyOS:
		return s.OS == p.Track
	case strings.HasPrefix(p.Name, attrPrefix):
		return slices.Contains(s.Attrs, Param{p.Name[len(attrPrefix):], p.Track})
	default:
		return slices.Contains(s.Apps, p)
	}
}

// Cohort returns the rollouts that a slot is in, out of those that the selection can meet.
func (t Table) Cohort(s Selection, slot int) Cohort {
	if slot < 0 {
		return nil
	}
	var c Cohort
	for _, line := range t.Lines {
		known := len(c) > 0 && c[len(c)-1].Salt == line.Salt
		if !known && (line.A*slot+line.B)%index.Slots < int(line.Places) && slices.ContainsFunc(line.Selectors, s.meets) {
			c = append(c, line.Share)
		}
	}
	return c
}

// Decide does what the function Decide does. Making the table once serves many requests.
func (t Table) Decide(query, held string) Decision {
	s, slot, err := ParseQuery(query)
	if err != nil {
		return refuse(err)
	}
	return decide(t.Index, s, t.Cohort(s, slot), held)
}
