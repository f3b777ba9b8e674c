package edge

import "github.com/precast-ota/precast/internal/format/index"

// Walk goes through the devices that an index tells apart, combination by combination in the order of Each, up to a
// limit. What is prebuilt, what a sweep keeps and what a check asks for all come from the same walk, so that they
// agree on where it ends.
type Walk struct {
	Dimensions
	most uint64

	// Counts so far.
	Considered int // combinations
	Variants   int // devices beside the first of each combination: in other rollouts, or before other floors
	Mixed      int // combinations that were not looked at in every mixture of rollouts and floors
}

// NewWalk starts a walk that visits most devices at most.
func NewWalk(ix *index.Index, most uint64) *Walk {
	return &Walk{Dimensions: DimensionsOf(ix), most: most}
}

// Visit is one device on a walk.
type Visit struct {
	Device
	Named int  // as in Each
	First bool // of its combination

	index *index.Index
}

// Resolve returns what the device gets from the walk's index.
func (v Visit) Resolve() (Set, error) { return Resolve(v.index, v.Device) }

// Visits calls yield for each device in turn until it returns false or the limit is reached. The device's slices are
// valid during the call. A walk is done once.
func (w *Walk) Visits(yield func(Visit) bool) {
	w.Each(func(named int, s Selection) bool {
		devices, all := w.Devices(s)
		for i, d := range devices {
			if uint64(w.Considered+w.Variants) >= w.most {
				if i > 0 {
					w.Mixed++
				}
				return false
			}
			if i == 0 {
				w.Considered++
			} else {
				w.Variants++
			}
			if !yield(Visit{d, named, i == 0, w.Index()}) {
				return false
			}
		}
		if !all {
			w.Mixed++
		}
		return true
	})
}

// Rest counts the combinations that were not visited. It is a float because it can be astronomical.
func (w *Walk) Rest() float64 { return max(0, w.Count()-float64(w.Considered)) }
