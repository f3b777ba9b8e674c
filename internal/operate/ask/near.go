package ask

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

// Unmet is a parameter of a query that brings nothing.
type Unmet struct {
	Param string `json:"param"`
	Why   string `json:"why"`
}

// Near is an item that a device does not get.
type Near struct {
	App     string `json:"app"`
	Track   string `json:"track"`
	Version string `json:"version"` // that a device like this one would get, or the newest one
	// Needs are the parameters that would bring it, Has what the query says instead of them. Needs is empty if the query asks
	// for the item.
	Needs string `json:"needs,omitempty"`
	Has   string `json:"has,omitempty"`
	// Why: even a device that asks for it gets nothing, as it is out of all rollouts of the item, say.
	Why string `json:"why,omitempty"`

	head     int32
	distance int
	by       edge.Selection // that would bring it
}

// How far an item is from a query.
const (
	isMet      = iota // the query asks for it
	otherValue        // a parameter has another value
	noAttr            // an attribute is missing
	noName            // the item is not named
)

// maxNear bounds how many items are called near.
const maxNear = 5

// near returns the items that the device does not get: those that the query meets; with all, others that are near, too.
func (r *reasons) near(all bool) (nearest []Near, more int) {
	nearest = []Near{}
	for head := int32(0); int(head) < len(r.ix.Items); head = r.ix.Next(head) {
		if n := r.nearest(head); !r.gets(head) && (all || n.distance == isMet) {
			nearest = append(nearest, n)
		}
	}
	slices.SortStableFunc(nearest, func(a, b Near) int { return cmp.Compare(a.distance, b.distance) })
	if more = len(nearest) - maxNear; more > 0 {
		nearest = nearest[:maxNear]
	}
	for i := range nearest {
		r.explain(&nearest[i])
	}
	return nearest, max(more, 0)
}

// gets tells whether the device gets a release of an item.
func (r *reasons) gets(head int32) bool {
	for i := head; i < r.ix.Next(head); i++ {
		if r.got[i] {
			return true
		}
	}
	return false
}

// nearest finds the parameter that lacks least to bring an item.
func (r *reasons) nearest(head int32) Near {
	at := &r.ix.Items[head]
	n := Near{App: at.App, Track: at.Track, Version: at.Version, head: head, distance: noName + 1}
	app, track := index.Fold(at.App), index.Fold(at.Track)
	try := func(distance int, needs, has string, by edge.Selection) {
		if distance < n.distance {
			n.distance, n.Needs, n.Has, n.by = distance, needs, has, by
		}
	}
	param := func(params []edge.Param, prefix string, p edge.Param, missing int, by edge.Selection) {
		needs := prefix + paramText(p)
		i := slices.IndexFunc(params, func(q edge.Param) bool { return q.Name == p.Name })
		switch {
		case i < 0:
			try(missing, needs, "", by)
		case params[i].Track == p.Track:
			try(isMet, "", "", by)
		default:
			try(otherValue, needs, prefix+paramText(params[i]), by)
		}
	}
	s := r.selection
	if arch, ok := strings.CutPrefix(app, edge.OSPrefix); ok && arch != "" {
		by := edge.Selection{Arch: arch, OS: track}
		archs, tracks := [2]string{"cpuarch=" + edge.Escape(arch), "cpuarch=" + edge.Escape(s.Arch)}, [2]string{"os=" + edge.Escape(track), "os=" + edge.Escape(s.OS)}
		switch {
		case s.Arch == arch && s.OS == track:
			try(isMet, "", "", by)
		case s.Arch == arch:
			try(otherValue, tracks[0], tracks[1], by)
		case s.OS == track:
			try(otherValue, archs[0], archs[1], by)
		default:
			try(noName, archs[0]+"&"+tracks[0], archs[1]+"&"+tracks[1], by)
		}
	}
	for i := head; i < r.ix.Next(head); i++ {
		for _, attr := range r.ix.Items[i].Attrs {
			p := edge.Param{Name: index.Fold(attr), Track: track}
			param(s.Attrs, "attr", p, noAttr, edge.Selection{Attrs: []edge.Param{p}})
		}
	}
	if !edge.ReservedApp(app) {
		p := edge.Param{Name: app, Track: track}
		param(s.Apps, "", p, noName, edge.Selection{Apps: []edge.Param{p}})
	}
	return n
}

// explain looks up what a device would get that asked for an item.
func (r *reasons) explain(n *Near) {
	if got := r.resolve(n.by); n.distance != isMet && r.meet(got, n.head) >= 0 {
		n.Version = r.ix.Items[r.meet(got, n.head)].Version
		return
	}
	app := edge.Param{Name: index.Fold(n.App), Track: index.Fold(n.Track)}
	p := r.meet(r.resolve(edge.Selection{Apps: []edge.Param{app}}), n.head)
	if p < 0 {
		var out []string
		for _, o := range r.rollouts(r.ix.Next(n.head) - 1) {
			out = append(out, fmt.Sprintf("%s for %g %% (salt %s)", o.Version, o.Percent, o.Salt))
		}
		n.Why = "it is not in the rollout of " + strings.Join(out, ", nor of ") + ", and there is no release for the others"
		return
	}
	for r.ix.Items[p].Role == index.Floor {
		p--
	}
	n.Version = r.ix.Items[p].Version
	n.Why = fmt.Sprintf("the rollout gives this device %s, which has no attribute %s", n.Version, n.by.Attrs[0].Name) // by name it is there
}

// meet returns which of the positions is of an item, or -1.
func (r *reasons) meet(positions []int32, head int32) int32 {
	i := slices.IndexFunc(positions, func(p int32) bool { return r.ix.Head(p) == head })
	if i < 0 {
		return -1
	}
	return positions[i]
}

// unmet explains the parameters that bring nothing.
func (r *reasons) unmet() []Unmet {
	all := []Unmet{}
	for _, a := range r.asked {
		if len(a.got) == 0 {
			all = append(all, Unmet{a.text, r.why(a.Selection)})
		}
	}
	return all
}

// why says why a selection of one parameter brings nothing.
func (r *reasons) why(s edge.Selection) string {
	var there []int32
	var track, nobody, has string
	var names []string
	switch {
	case s.Arch != "":
		there, track = r.ix.Apps(edge.OSPrefix+s.Arch), s.OS
		nobody, has = "there is no operating system "+edge.OSPrefix+s.Arch, edge.OSPrefix+s.Arch+" is"
		for _, app := range r.ix.AppNames() {
			if strings.HasPrefix(app, edge.OSPrefix) {
				names = append(names, app)
			}
		}
	case len(s.Attrs) > 0:
		there, track = r.ix.WithAttr(s.Attrs[0].Name), s.Attrs[0].Track
		nobody, has = "no item has the attribute "+s.Attrs[0].Name, "items with the attribute "+s.Attrs[0].Name+" are"
		names = r.ix.AttrNames()
	default:
		there, track = r.ix.Apps(s.Apps[0].Name), s.Apps[0].Track
		nobody, has = "there is no app "+s.Apps[0].Name, s.Apps[0].Name+" is"
	}
	if len(there) == 0 {
		return nobody + those(names)
	}
	var tracks []string
	for _, i := range there {
		tracks = append(tracks, r.ix.Items[i].Track)
	}
	slices.Sort(tracks)
	tracks = slices.Compact(tracks)
	if slices.ContainsFunc(tracks, func(t string) bool { return index.Fold(t) == track }) {
		return "what it asks for is rolled out to other devices"
	}
	return has + " on " + strings.Join(tracks, ", ") + ", not on " + track
}

// those names a few of what there is.
func those(names []string) string {
	const most = 8
	if len(names) == 0 {
		return ""
	}
	rest := ""
	if n := len(names) - most; n > 0 {
		names, rest = names[:most], fmt.Sprintf(" and %d more", n)
	}
	return "; there are " + strings.Join(names, ", ") + rest
}
