// Package reference is the contract of /package with the sample's defects mended, in the plainest words: no
// index, no folding tables, no canonical form. Tests hold the real thing against it.
package reference

import (
	"maps"
	"slices"
	"strings"

	"precast/internal/catalog"
)

// Answer returns the status and the names of the files that are brought. params are the query's, decoded, in
// their order; held are digests in lower case.
func Answer(items []catalog.Item, params [][2]string, held map[string]bool) (int, []string) {
	first := make(map[string]string)
	for _, p := range params {
		k := strings.ToLower(p[0])
		if _, ok := first[k]; !ok && p[1] != "" && k != "" {
			first[k] = strings.ToLower(p[1])
		}
	}
	arch, ok := first["cpuarch"]
	if !ok {
		return 400, nil
	}
	if p, ok := first["payloadtype"]; ok && p != "fullpayload" && p != "metadataonly" {
		return 400, nil
	}
	matches := func(it catalog.Item) bool {
		app, track := strings.ToLower(it.App), strings.ToLower(it.Track)
		os, ok := first["os"]
		if !ok {
			os = "prod"
		}
		if app == "os_"+arch && track == os {
			return true
		}
		for k, v := range first {
			if v != track || k == "cpuarch" || k == "os" || k == "payloadtype" {
				continue
			}
			if attr, ok := strings.CutPrefix(k, "attr"); ok {
				for name, on := range it.DeviceAttr {
					if on && strings.ToLower(name) == attr {
						return true
					}
				}
			} else if k == app {
				return true
			}
		}
		return false
	}
	found := false
	brought := make(map[string]bool)
	for _, it := range items {
		if matches(it) {
			found = true
			if !held[it.MD5] && !held[it.SHA256] {
				brought[it.App+"_"+it.Version] = true
			}
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
