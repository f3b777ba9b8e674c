package edge

import (
	"slices"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/internal/format/index"
)

// NoSlot is the slot of a device that sends none. Such devices are the last to get a release: when its rollout
// has ended.
const NoSlot = -1

// MaxCohort is the longest cohort in canonical form, in bytes.
const MaxCohort = 1024

// Share is so many places of a rollout, from the first.
type Share struct {
	Salt   string
	Places uint16
}

// Cohort are the rollouts that a device is in: of each salt the smallest share with its place. It is sorted by
// salt. It stays true while a rollout grows.
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

// ParseCohort reads what String wrote. What is something else is passed over: a device that is in no rollout
// gets the previous release.
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

// Claim says of a share that a selection can meet whether devices are in it.
type Claim struct {
	Share
	In bool
}

// Claims say for which of the devices of a selection an answer is: those of whom all of this is true.
type Claims struct {
	Rollouts []Claim // sorted
	// Unless are SHA-256 digests, in hex and sorted, of which the device holds none: it has not passed the floors
	// that it gets.
	Unless []string
	// After are such digests as well: of each of these lists, which are sorted, it holds one. It has passed the
	// floors that it does not get.
	After [][]string
}

// ClaimsOf returns for which devices of its selection a device's answer is.
func ClaimsOf(ix *index.Index, d Device) Claims {
	var c Claims
	if !ix.Staged() {
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

// add and after keep their short lists sorted: to sort them would bring two more sorting functions to the edge.
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

// past returns the digests, sorted, of all that tells of a device that it has passed a floor on the way to a release.
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

// text stands for the claims in digests.
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
