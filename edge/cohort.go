package edge

import (
	"slices"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/internal/format/index"
)

// NoSlot is the slot of a device that sends none. Such devices get a release last: when its rollout has ended.
const NoSlot = -1

// MaxCohort is the longest cohort in canonical form, in bytes.
const MaxCohort = 1024

// Share is the first Places places of the rollout of a salt.
type Share struct {
	Salt   string
	Places uint16
}

// Cohort lists the rollouts that a device is in: for each salt, the smallest share that includes the device. It is
// sorted by salt. It stays true while a rollout grows.
type Cohort []Share

// In tells whether a device is in a share.
func (c Cohort) In(salt string, places uint16) bool {
	for _, s := range c {
		if s.Salt == salt {
			return s.Places <= places
		}
	}
	return false
}

// String is the canonical form, for CohortHeader.
func (c Cohort) String() string {
	var b strings.Builder
	for i, s := range c {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(s.Salt)
		b.WriteByte('~')
		b.WriteString(strconv.Itoa(int(s.Places)))
	}
	return b.String()
}

// ParseCohort reads what String wrote and ignores anything else: a device that is in no rollout gets the previous
// release.
func ParseCohort(s string) Cohort {
	if len(s) > MaxCohort {
		return nil
	}
	var c Cohort
	for s != "" {
		var part string
		part, s, _ = strings.Cut(s, ".")
		salt, number, _ := strings.Cut(part, "~")
		places := parseNumber(number)
		if places < 0 || !index.IsSalt(salt) || slices.ContainsFunc(c, func(s Share) bool { return s.Salt == salt }) {
			continue
		}
		c = append(c, Share{salt, uint16(places)})
	}
	return c
}

// parseNumber reads one to four digits, or returns -1.
func parseNumber(s string) int {
	if s == "" || len(s) > 4 {
		return -1
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		n = 10*n + int(s[i]-'0')
	}
	return n
}

// Claim says whether devices are in a share that their selection can meet.
type Claim struct {
	Share
	In bool
}

// Claims are the conditions under which a statement applies to a device of its selection. All of them must hold.
type Claims struct {
	Rollouts []Claim // sorted
	// Unless are SHA-256 digests, in hex and sorted. The device holds none of them: it has not passed the floors
	// that it gets.
	Unless []string
	// After are sorted lists of such digests. The device holds one of each list: it has passed the floors that it
	// does not get.
	After [][]string
}

// ClaimsOf returns the claims of a device's statement.
func ClaimsOf(ix *index.Index, d Device) Claims {
	var c Claims
	if !ix.HasVariants() {
		return c
	}
	candidates(ix, d.Selection, func(release int32, _ bool) {
		for i := ix.Head(release); i < ix.Next(release); i++ {
			if it := &ix.Items[i]; it.Salt != "" {
				c.add(Claim{Share{it.Salt, it.Share}, d.Cohort.In(it.Salt, it.Share)})
			}
		}
	})
	each(ix, d, func(release, step int32) {
		if step != release {
			c.Unless = append(c.Unless, past(ix, release, step)...)
		}
		if older := step + 1; isFloor(ix, older) {
			c.after(past(ix, release, older))
		}
	})
	slices.Sort(c.Unless)
	c.Unless = slices.Compact(c.Unless)
	return c
}

// add and after insert in order. Sorting afterwards would link two more sorting functions into the edge.
func (c *Claims) add(one Claim) {
	i := 0
	for i < len(c.Rollouts) && compareShares(c.Rollouts[i].Share, one.Share) < 0 {
		i++
	}
	if i == len(c.Rollouts) || c.Rollouts[i] != one {
		c.Rollouts = slices.Insert(c.Rollouts, i, one)
	}
}

func (c *Claims) after(sums []string) {
	i := 0
	for i < len(c.After) && slices.Compare(c.After[i], sums) < 0 {
		i++
	}
	if i == len(c.After) || slices.Compare(c.After[i], sums) > 0 {
		c.After = slices.Insert(c.After, i, sums)
	}
}

// past returns the sorted digests that prove that a device has passed a floor on the way to a release.
func past(ix *index.Index, release, floor int32) []string {
	var all []string
	for i := ix.Head(release); i <= floor; i++ {
		it := &ix.Items[i]
		if i <= release && it.Role == index.Floor { // of a newer release
			continue
		}
		all = append(all, Hex(it.SHA256[:]))
		for _, p := range it.Passed {
			all = append(all, Hex(p.SHA256[:]))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func compareShares(a, b Share) int {
	if c := strings.Compare(a.Salt, b.Salt); c != 0 {
		return c
	}
	return int(a.Places) - int(b.Places)
}

// text is the claims as digests cover them.
func (c Claims) text() string {
	var b strings.Builder
	for _, r := range c.Rollouts {
		b.WriteString(r.Salt + " " + strconv.Itoa(int(r.Places)) + " " + strconv.FormatBool(r.In) + "\n")
	}
	for _, sum := range c.Unless {
		b.WriteString(sum + "\n")
	}
	for _, sums := range c.After {
		b.WriteString(strings.Join(sums, " ") + "\n")
	}
	return b.String()
}
