package ask

import (
	"slices"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// Item is a release that a device is to have, and why.
type Item struct {
	App     string `json:"app"`
	Track   string `json:"track,omitempty"`
	Version string `json:"version"`
	Size    int64  `json:"size"`
	MD5     string `json:"md5"`
	SHA256  string `json:"sha256"`
	Held    bool   `json:"held"` // the device has it
	// By are the parameters that bring it.
	By []string `json:"by,omitempty"`
	// Also are other tracks on which the query meets the same release.
	Also []string `json:"also,omitempty"`
	// Rollouts are those of the item that matter to the device, the newest first: it is in the last one, or in none.
	Rollouts []Rollout `json:"rollouts,omitempty"`
	// Before: this is a floor, and these are the versions that come after it, the next one first.
	Before []string `json:"before,omitempty"`
	// Passed is a floor that the device has passed, as it holds Shown: a version, or the digest of a release that is not
	// in the index.
	Passed string `json:"passed,omitempty"`
	Shown  string `json:"shown,omitempty"`
}

// Rollout is a release for a part of the fleet, which a device is in or not.
type Rollout struct {
	Version string  `json:"version"`
	Salt    string  `json:"salt"`
	Percent float64 `json:"percent"`
	In      bool    `json:"in"`
}

// asked is one parameter of a query; cpuArch and os together are one.
type asked struct {
	text string
	edge.Selection
	got []int32 // what the device would get if it asked for nothing else
}

// reasons are what the edge says to each parameter of a query.
type reasons struct {
	device
	ix    *index.Index
	asked []asked
	got   map[int32]bool // by any of them
}

// device is one that asks.
type device struct {
	table     edge.Table
	selection edge.Selection
	slot      int
	held      edge.Tags
}

func reasonsOf(d device) *reasons {
	r := &reasons{device: d, ix: d.table.Index, got: make(map[int32]bool)}
	s := d.selection
	os := asked{text: "cpuarch=" + edge.Escape(s.Arch), Selection: edge.Selection{Arch: s.Arch, OS: s.OS}}
	if s.OS != edge.DefaultTrack {
		os.text += "&os=" + edge.Escape(s.OS)
	}
	r.asked = append(r.asked, os)
	for _, a := range s.Attrs {
		r.asked = append(r.asked, asked{text: "attr" + paramText(a), Selection: edge.Selection{Attrs: []edge.Param{a}}})
	}
	for _, a := range s.Apps {
		r.asked = append(r.asked, asked{text: paramText(a), Selection: edge.Selection{Apps: []edge.Param{a}}})
	}
	for i := range r.asked {
		r.asked[i].got = r.resolve(r.asked[i].Selection)
		for _, p := range r.asked[i].got {
			r.got[p] = true
		}
	}
	return r
}

func paramText(p edge.Param) string { return edge.Escape(p.Name) + "=" + edge.Escape(p.Track) }

// resolve returns what the device gets by another selection.
func (r *reasons) resolve(s edge.Selection) []int32 {
	set, err := edge.Resolve(r.ix, edge.Device{Selection: s, Cohort: r.table.Cohort(s, r.slot), Held: r.held})
	if err != nil { // a part gets no more than the whole, which was not refused
		return nil
	}
	return set.Positions
}

// items explains the set of a decision.
func (r *reasons) items(d edge.Decision) []Item {
	items := make([]Item, 0, d.Set.Len())
	for i, p := range d.Set.Positions {
		it := r.item(p)
		it.Held = d.Set.Held(d.Held).Has(i)
		for _, a := range r.asked {
			for _, other := range a.got {
				// One release on two tracks is one item of the set.
				if other != p && !sameRelease(&r.ix.Items[other], &r.ix.Items[p]) {
					continue
				}
				if !slices.Contains(it.By, a.text) {
					it.By = append(it.By, a.text)
				}
				if track := r.ix.Items[other].Track; other != p && !slices.Contains(it.Also, track) {
					it.Also = append(it.Also, track)
				}
			}
		}
		items = append(items, it)
	}
	return items
}

func sameRelease(a, b *index.Item) bool {
	return a.App == b.App && a.Version == b.Version && a.SHA256 == b.SHA256
}

// item describes the release at a position, which the device gets.
func (r *reasons) item(p int32) Item {
	at := &r.ix.Items[p]
	it := Item{App: at.App, Track: at.Track, Version: at.Version, Size: at.Size, MD5: edge.Hex(at.MD5[:]), SHA256: edge.Hex(at.SHA256[:])}
	release := p // a floor stands after the release that it is on the way to
	for r.ix.Items[release].Role == index.Floor {
		release--
		it.Before = append(it.Before, r.ix.Items[release].Version)
	}
	it.Rollouts = r.rollouts(release)
	if older := p + 1; int(older) < len(r.ix.Items) && r.ix.Items[older].Role == index.Floor {
		it.Passed, it.Shown = r.ix.Items[older].Version, r.shown(release, older)
	}
	return it
}

// rollouts returns those of the releases of an item up to one of them.
func (r *reasons) rollouts(release int32) []Rollout {
	var all []Rollout
	cohort := r.table.Cohort(r.selection, r.slot)
	for i := r.ix.Head(release); i <= release; i++ {
		if it := &r.ix.Items[i]; it.Salt != "" {
			all = append(all, Rollout{it.Version, it.Salt, Percent(int(it.Share)), cohort.In(it.Salt, it.Share)})
		}
	}
	return all
}

// shown returns what the device holds that has come after a floor, or is that floor.
func (r *reasons) shown(release, floor int32) string {
	holds := func(md5 [16]byte, sha256 [32]byte) string {
		for _, digest := range []string{edge.Hex(md5[:]), edge.Hex(sha256[:])} {
			if slices.Contains(r.held, digest) {
				return digest
			}
		}
		return ""
	}
	for i := r.ix.Head(release); i <= floor; i++ {
		it := &r.ix.Items[i]
		if it.Role == index.Floor && i < release { // of a newer release
			continue
		}
		if holds(it.MD5, it.SHA256) != "" {
			return it.Version
		}
		for _, passed := range it.Passed {
			if digest := holds(passed.MD5, passed.SHA256); digest != "" {
				return digest
			}
		}
	}
	return ""
}
