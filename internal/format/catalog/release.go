package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/precast-ota/precast/internal/format/index"
)

// Limits of one item. A device's request looks at all of an item's releases.
const (
	MaxReleases = 4  // rolled out one over another, the current one included
	MaxFloors   = 16 // of one release
	MaxPassed   = 64 // of one floor
)

// Rollout says that a release is for a part of the fleet. The others get the item's Previous.
type Rollout struct {
	// Percent of the devices with a slot, from 0 to 100, with two digits after the point at most. Devices without
	// one get the release when there is no rollout any more, or this is 100.
	Percent float64 `json:"percent"`
	// Salt decides which devices: [a-z0-9_-], 32 bytes at most. The same salt in several items is the same
	// devices. Empty: one that follows from app and version.
	Salt string `json:"salt,omitempty"`
}

// Places is how many of index.Slots places the rollout has; all of them when it has ended.
func (r Rollout) Places() int { return int(math.Round(r.Percent * index.Slots / 100)) }

// Salt returns the salt of the item's rollout.
func (it Item) Salt() string {
	if it.Rollout != nil && it.Rollout.Salt != "" {
		return it.Rollout.Salt
	}
	sum := sha256.Sum256([]byte(it.App + "\x00" + it.Version))
	return hex.EncodeToString(sum[:8])
}

// Partial tells whether the release is for a part of the fleet only.
func (it Item) Partial() bool { return it.Rollout != nil && it.Rollout.Places() < index.Slots }

// Step is one release of an item, with the app and track of the item.
type Step struct {
	Item
	Role index.Role
}

// Steps returns the releases that devices may get of an item, as an index has them: the current one, its floors
// from the newest to the oldest, the one that it is rolled out over, and so on. Releases that nobody can get are
// not among them.
func (it Item) Steps() []Step {
	var steps []Step
	role := index.Current
	for release := &it; release != nil; role = index.Previous {
		r := *release
		r.App, r.Track = it.App, it.Track
		steps = append(steps, Step{r, role})
		for _, f := range slices.Backward(r.Floors) {
			f.App, f.Track = it.App, it.Track
			steps = append(steps, Step{f, index.Floor})
		}
		if release = r.Previous; !r.Partial() {
			break
		}
	}
	return steps
}

// Bare is the release alone: what it takes to build it.
func (it Item) Bare() Item {
	it.Rollout, it.Previous, it.Floors, it.Passed = nil, nil, nil, nil
	return it
}

// release is the item as another one's Previous or Floor.
func (it Item) release() Item {
	it.App, it.Track, it.Changed = "", "", Item{}.Changed
	return it
}

// sameFile tells whether two releases are the same content under the same name.
func sameFile(a, b Item) bool {
	return a.Version == b.Version && a.SHA256 == b.SHA256 && a.MD5 == b.MD5 && a.Size == b.Size
}

// Complete returns the item with all of its attributes and floors said, so that it inherits none.
func (it Item) Complete() Item {
	if it.DeviceAttr == nil {
		it.DeviceAttr = map[string]bool{}
	}
	if it.Floors == nil {
		it.Floors = []Item{}
	}
	return it
}

// Succeed completes an item that is to replace another one of its app and track, nil if there is none: what
// has been left out of it, the other one's releases tell.
//
//   - A rollout without a previous release is over the release that is replaced, which may be in a rollout itself.
//   - A floor with nothing but a version is that release of the other item, after the floors of that release.
//   - Without floors, the other item's floors stay, unless Floors is empty and not nil.
//   - Without attributes, the other item's attributes stay, unless DeviceAttr is empty and not nil.
//   - A release that is replaced after a floor has passed that floor.
func Succeed(it Item, old *Item) (Item, error) {
	it = it.Clone()
	if err := it.complete(old); err != nil {
		return it, err
	}
	if old == nil {
		return it, nil
	}
	if it.Floors == nil {
		it.Floors = old.Clone().Floors
	}
	if it.DeviceAttr == nil {
		it.DeviceAttr = maps.Clone(old.DeviceAttr)
	}
	it.keepPassed(*old)
	if sameFile(it, *old) { // only its conditions change
		if it.Partial() && it.Previous == nil && old.Previous != nil {
			previous := old.Previous.Clone()
			it.Previous = &previous
		}
		return it, nil
	}
	it.pass(*old)
	if it.Partial() && it.Previous == nil {
		previous := old.Clone().release()
		if !previous.Partial() {
			previous.Rollout, previous.Previous = nil, nil
		}
		it.Previous = &previous
		it.Previous.trim(MaxReleases - 1)
	}
	return it, nil
}

// complete takes floors of which only the version is said from another item.
func (it *Item) complete(old *Item) error {
	said := it.Floors
	named := func(version string) bool {
		return slices.ContainsFunc(slices.Concat(it.Floors, said), func(f Item) bool { return f.Version == version })
	}
	if said != nil {
		it.Floors = []Item{}
	}
	for _, f := range said {
		if f.MD5 != "" || f.SHA256 != "" || f.URL != "" {
			it.Floors = append(it.Floors, f)
			continue
		}
		known := old.find(f.Version)
		if known == nil {
			return fmt.Errorf("item %s: floor %q: the catalog has no such release of it: give its url, md5, sha256 and size", it.Key(), f.Version)
		}
		// What nobody skips on the way to the floor, nobody skips on the way past it.
		for _, older := range known.Floors {
			if !named(older.Version) {
				it.Floors = append(it.Floors, older.Clone())
			}
		}
		floor := known.Bare().release()
		floor.Passed, floor.DeviceAttr, floor.CPUArch = cloneAll(slices.Concat(known.Passed, f.Passed)), nil, ""
		it.Floors = append(it.Floors, floor)
	}
	return nil
}

// pass notes how far those have come who hold a release that is replaced: past the newest floor that it had as well.
func (it *Item) pass(old Item) {
	has := func(floors []Item, f Item) bool {
		return slices.ContainsFunc(floors, func(g Item) bool { return g.SHA256 == f.SHA256 })
	}
	for release := &old; release != nil; release = release.Previous {
		if release.SHA256 == it.SHA256 || has(it.Floors, *release) {
			continue
		}
		for i := range slices.Backward(it.Floors) {
			floor := &it.Floors[i]
			if !has(release.Floors, *floor) {
				continue
			}
			if !has(floor.Passed, *release) {
				floor.Passed = append(floor.Passed, Item{Version: release.Version, MD5: release.MD5, SHA256: release.SHA256, Size: release.Size})
			}
			if n := len(floor.Passed); n > MaxPassed { // the oldest ones are the least likely to be held
				floor.Passed = slices.Clone(floor.Passed[n-MaxPassed:])
			}
			break
		}
	}
}

// keepPassed keeps, for floors that stay, which releases have passed them.
func (it *Item) keepPassed(old Item) {
	for i := range it.Floors {
		floor := &it.Floors[i]
		for _, was := range old.Floors {
			if was.SHA256 != floor.SHA256 {
				continue
			}
			for _, p := range slices.Backward(was.Passed) {
				if !slices.ContainsFunc(floor.Passed, func(f Item) bool { return f.SHA256 == p.SHA256 }) && len(floor.Passed) < MaxPassed {
					floor.Passed = slices.Insert(floor.Passed, 0, p.Clone())
				}
			}
		}
	}
}

// find returns the release of a version, nil if the item has none.
func (it *Item) find(version string) *Item {
	for release := it; release != nil; release = release.Previous {
		if release.Version == version {
			return release
		}
		for i := range release.Floors {
			if release.Floors[i].Version == version {
				return &release.Floors[i]
			}
		}
	}
	return nil
}

// trim leaves n releases, the newest: the last of them is for everybody.
func (it *Item) trim(n int) {
	for ; it != nil; it, n = it.Previous, n-1 {
		if n == 1 {
			it.Rollout, it.Previous = nil, nil
			return
		}
	}
}
