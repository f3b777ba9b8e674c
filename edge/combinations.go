package edge

import (
	"slices"
	"strings"

	"github.com/precast-ota/precast/internal/format/index"
)

// Dimensions are all that devices can vary in, as far as an index can tell them apart: the
// architectures that have an operating system (and one that has none), the operating system's
// tracks, and each attribute's tracks.
type Dimensions struct {
	Archs    []string // sorted; the last one has no operating system
	OSTracks []string // the default track first
	Attrs    []Attribute

	table Table
	known map[string][]cohortSlot // by the shares that a selection meets
}

// Attribute is one attribute and the tracks at which some item has it.
type Attribute struct {
	Name   string
	Tracks []string // the default track first
}

// DimensionsOf returns the dimensions of an index. Apps asked for by name are not among them: the
// answers to those are composed on request.
func DimensionsOf(ix *index.Index) Dimensions {
	d := Dimensions{table: TableOf(ix), known: make(map[string][]cohortSlot)}
	osTracks := map[string]bool{DefaultTrack: true}
	for _, app := range ix.AppNames() {
		arch, ok := strings.CutPrefix(app, OSPrefix)
		if !ok || arch == "" {
			continue
		}
		d.Archs = append(d.Archs, arch)
		for _, i := range ix.Apps(app) {
			osTracks[index.Fold(ix.Items[i].Track)] = true
		}
	}
	other := "other"
	for slices.Contains(d.Archs, other) {
		other += "-"
	}
	d.Archs = append(d.Archs, other)
	d.OSTracks = defaultFirst(osTracks)
	for _, name := range ix.AttrNames() {
		tracks := make(map[string]bool)
		for _, i := range ix.WithAttr(name) {
			tracks[index.Fold(ix.Items[i].Track)] = true
		}
		d.Attrs = append(d.Attrs, Attribute{name, defaultFirst(tracks)})
	}
	return d
}

func defaultFirst(tracks map[string]bool) []string {
	names := make([]string, 0, len(tracks))
	for t := range tracks {
		names = append(names, t)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == DefaultTrack) != (b == DefaultTrack) {
			if a == DefaultTrack {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}

// Count is the number of combinations; it is a float because it can be astronomical.
func (d Dimensions) Count() float64 {
	n := float64(len(d.Archs) * len(d.OSTracks))
	for _, a := range d.Attrs {
		n *= float64(1 + len(a.Tracks))
	}
	return n
}

// Each calls yield for every combination until it returns false: first those that name nothing,
// then those that name one attribute or another track of the operating system than the default,
// then two, and so on. It needs memory for one combination only. The selection's slices are valid
// during the call.
func (d Dimensions) Each(yield func(named int, s Selection) bool) {
	most := len(d.Attrs) + 1
	for named := 0; named <= most; named++ {
		for i, track := range d.OSTracks {
			attrs := named
			if i > 0 { // the operating system's track is named
				attrs--
			}
			if attrs < 0 || attrs > len(d.Attrs) {
				continue
			}
			s := Selection{OS: track, Attrs: make([]Param, 0, attrs)}
			if !d.choose(0, attrs, s, func(s Selection) bool {
				for _, arch := range d.Archs {
					s.Arch = arch
					if !yield(named, s) {
						return false
					}
				}
				return true
			}) {
				return
			}
		}
	}
}

// choose extends s by every choice of n attributes from position from on, at every track.
func (d Dimensions) choose(from, n int, s Selection, yield func(Selection) bool) bool {
	if n == 0 {
		return yield(s)
	}
	for i := from; i+n <= len(d.Attrs); i++ {
		for _, track := range d.Attrs[i].Tracks {
			next := s
			next.Attrs = append(s.Attrs, Param{d.Attrs[i].Name, track})
			if !d.choose(i+1, n-1, next, yield) {
				return false
			}
		}
	}
	return true
}
