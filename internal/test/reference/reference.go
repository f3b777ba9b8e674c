// Package reference is the contract of /package with the sample's defects mended, in the plainest words: no
// index, no folding tables, no canonical form. Tests compare the real thing with it.
package reference

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// Answer returns the status and the names of the files that are brought. params are the query's, decoded, in
// their order; held are digests in lower case.
func Answer(items []catalog.Item, params [][2]string, held map[string]bool) (int, []string) {
	first := firstValues(params)
	arch, ok := first["cpuarch"]
	if !ok {
		return 400, nil
	}
	if p, ok := first["payloadtype"]; ok && p != "fullpayload" && p != "metadataonly" {
		return 400, nil
	}
	slot := -1
	if text, ok := first["slot"]; ok {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 9999 {
			return 400, nil
		}
		slot = n
	}
	os, ok := first["os"]
	if !ok {
		os = "prod"
	}
	found := false
	brought := make(map[string]bool)
	for _, it := range items {
		byName, byAttr := asksFor(first, strings.ToLower(it.App), strings.ToLower(it.Track))
		byName = byName || strings.ToLower(it.App) == "os_"+arch && strings.ToLower(it.Track) == os
		release := forSlot(it, slot)
		if release == nil || !byName && !has(release, byAttr) {
			continue
		}
		step := next(it, release, held)
		found = true
		if !held[step.MD5] && !held[step.SHA256] {
			brought[it.App+"_"+step.Version] = true
		}
	}
	switch {
	case !found:
		return 404, nil
	case len(brought) == 0:
		return 304, nil
	}
	return 200, slices.Sorted(maps.Keys(brought))
}

// firstValues returns the first value of each parameter that has one, all in lower case.
func firstValues(params [][2]string) map[string]string {
	first := make(map[string]string)
	for _, p := range params {
		k := strings.ToLower(p[0])
		if _, ok := first[k]; !ok && p[1] != "" && k != "" {
			first[k] = strings.ToLower(p[1])
		}
	}
	return first
}

// asksFor tells whether a query names an app on a track, and which attributes it has on that track.
func asksFor(first map[string]string, app, track string) (byName bool, attrs map[string]bool) {
	attrs = make(map[string]bool)
	for k, v := range first {
		if v != track || k == "cpuarch" || k == "os" || k == "payloadtype" || k == "slot" {
			continue
		}
		if attr, ok := strings.CutPrefix(k, "attr"); ok {
			attrs[attr] = true
		} else if k == app {
			byName = true
		}
	}
	return byName, attrs
}

// forSlot returns the release of an item that a slot gets, -1 being none; nil if it gets nothing.
func forSlot(it catalog.Item, slot int) *catalog.Item {
	for release := &it; release != nil; release = release.Previous {
		if release.Rollout == nil || release.Rollout.Percent >= 100 {
			return release
		}
		salt := release.Rollout.Salt
		if salt == "" {
			sum := sha256.Sum256([]byte(it.App + "\x00" + release.Version))
			salt = hex.EncodeToString(sum[:8])
		}
		if slot >= 0 && float64(place(salt, slot)) < release.Rollout.Percent*100-0.001 {
			return release
		}
	}
	return nil
}

// place is that of docs/rollouts.md.
func place(salt string, slot int) int {
	sum := sha256.Sum256([]byte("precast rollout 1 " + salt))
	a := int(binary.BigEndian.Uint32(sum[:]))%1000*10 + []int{1, 3, 7, 9}[sum[4]%4]
	b := int(binary.BigEndian.Uint32(sum[5:])) % 10000
	return (a*slot + b) % 10000
}

func has(release *catalog.Item, attrs map[string]bool) bool {
	for name, on := range release.DeviceAttr {
		if on && attrs[strings.ToLower(name)] {
			return true
		}
	}
	return false
}

// next returns what a device gets on its way to a release of an item: that, or a floor.
func next(it catalog.Item, to *catalog.Item, held map[string]bool) catalog.Item {
	holds := func(r catalog.Item) bool { return held[r.MD5] || held[r.SHA256] }
	for release := &it; ; release = release.Previous {
		if holds(*release) {
			return *to
		}
		if release.Version == to.Version {
			break
		}
	}
	passed := 0
	for i, floor := range to.Floors {
		if holds(floor) || slices.ContainsFunc(floor.Passed, holds) {
			passed = i + 1
		}
	}
	if passed < len(to.Floors) {
		return to.Floors[passed]
	}
	return *to
}
