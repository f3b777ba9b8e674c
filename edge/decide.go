package edge

import (
	"precast/internal/index"
	"precast/internal/layout"
)

// Status codes of a decision.
const (
	StatusOK          = 200
	StatusNotModified = 304
	StatusBadRequest  = 400
	StatusNotFound    = 404
	StatusUnavailable = 503
)

// ErrNoIndex and ErrNotFound are the texts of 503 and 404. The latter is the sample's.
const (
	ErrNoIndex  = "No catalog has been published yet"
	ErrNotFound = "No deployment package found"
)

// Decision is the answer to a request for /package.
type Decision struct {
	Status int
	Error  string // for 400, 404 and 503
	// Selection, Set and Held say what answers when Status is 200 or 304.
	Selection Selection
	Set       Set
	Held      Mask
}

// Decide answers a request: query is the raw query string and held the list of digests, as in
// If-None-Match. ix is the published index, nil before the first publish.
func Decide(ix *index.Index, query, held string) Decision {
	selection, err := ParseSelection(query)
	if err != nil {
		return refuse(err)
	}
	tags, err := ParseTags(held)
	if err != nil {
		return refuse(err)
	}
	if ix == nil {
		return Decision{Status: StatusUnavailable, Error: ErrNoIndex}
	}
	set, err := Resolve(ix, selection)
	if err != nil {
		return refuse(err)
	}
	if set.Len() == 0 {
		return Decision{Status: StatusNotFound, Error: ErrNotFound}
	}
	d := Decision{Status: StatusOK, Selection: selection, Set: set, Held: set.Held(tags)}
	if d.Held.Full(set.Len()) {
		d.Status = StatusNotModified
	}
	return d
}

// Object returns the object that answers a decision whose Status is 200.
func (d Decision) Object() (kind layout.Kind, key string) {
	if d.Selection.MetadataOnly {
		return layout.Manifest, layout.ManifestKey(d.Set.ID(), d.Held.String())
	}
	return layout.Bundle, layout.BundleKey(d.Set.ID(), d.Held.String())
}

func refuse(err error) Decision { return Decision{Status: StatusBadRequest, Error: err.Error()} }
