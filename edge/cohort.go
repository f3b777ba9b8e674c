package edge

import (
	"slices"
	"strconv"
	"strings"

	"precast/internal/index"
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

// Claims say for which of the devices of a selection an answer is.
type Claims struct {
	Rollouts []Claim // sorted; for devices that these are true of
	// Unless are SHA-256 digests, in hex and sorted: for devices that hold none of these.
	Unless []string
}

// ClaimsOf returns for which devices of its selection a device's answer is.
func ClaimsOf(ix *index.Index, d Device) Claims {
	var c Claims
	if !ix.Staged() {
		return c
	}
	met(ix, d.Selection, func(head int32) {
		for i := head; i < ix.Next(head); i++ {
			if it := &ix.Items[i]; it.Salt != "" {
				c.Rollouts = append(c.Rollouts, Claim{Share{it.Salt, it.Share}, d.Cohort.In(it.Salt, it.Share)})
			}
		}
	})
	slices.SortFunc(c.Rollouts, func(a, b Claim) int { return compareShares(a.Share, b.Share) })
	c.Rollouts = slices.Compact(c.Rollouts)
	each(ix, d, func(release, step int32) {
		if step == release {
			return
		}
		// Whoever holds the release itself, or a newer one, or has passed this floor, is to get something else.
		add := func(sum [32]byte) { c.Unless = append(c.Unless, Hex(sum[:])) }
		for i := ix.Head(release); i <= step; i++ {
			it := &ix.Items[i]
			if i != step && (i > release || it.Role != index.Floor) {
				add(it.SHA256)
			}
			if i > release {
				for _, p := range it.Passed {
					add(p.SHA256)
				}
			}
		}
	})
	slices.Sort(c.Unless)
	c.Unless = slices.Compact(c.Unless)
	return c
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
	return b.String()
}
