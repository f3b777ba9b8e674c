package edge

import "slices"

// DecideForCache is Decide for the request that a cache makes to its origin. held comes from HeldHeader,
// never from If-None-Match: a cache that revalidates puts the ETag of its own copy there.
//
// A 304 would then tell the cache that its copy is still right, whatever made the origin say so. A device
// that holds everything gets the answer that lacks nothing instead, a manifest and no binary.
func DecideForCache(latest *Latest, query, held, ifNoneMatch string) Decision {
	d := Decide(latest.Index(), query, held)
	if d.Status != StatusNotModified {
		return d
	}
	tag, single := SingleTag(ifNoneMatch)
	if tags, err := ParseTags(held); single && err == nil && !slices.Contains(tags, tag) {
		d.Status = StatusOK
	}
	return d
}
