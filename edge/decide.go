package edge

import (
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
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
	// ErrNotSigned is the text of the 404 for a statement where there is no signing key.
	ErrNotSigned = "Statements are not signed here"
)

// Decision is the answer to a request for /package.
type Decision struct {
	Status int
	Error  string // for 400, 404 and 503
	// Device, Set and Held say what answers when Status is 200 or 304.
	Device
	Set  Set
	Mask Mask // held, of the set
	// Claims are those of a statement, if the selection asks for one.
	Claims Claims
	// Epoch is that of the statement. A caller with a clock and a schedule sets it, after Decide: the edge has
	// neither.
	Epoch uint64
}

// Decide answers a device: query is the raw query string and held the list of digests, as in
// If-None-Match. ix is the published index, nil before the first publish.
func Decide(ix *index.Index, query, held string) Decision {
	return TableOf(ix).Decide(query, held)
}

// DecideCohort answers a request in which the slot has become a cohort, as it does at the CDN: query is the
// canonical query, and cohort what is in CohortHeader.
func DecideCohort(ix *index.Index, query, cohort, held string) Decision {
	s, err := ParseSelection(query)
	if err != nil {
		return refuse(err)
	}
	return decide(ix, s, ParseCohort(cohort), held)
}

func decide(ix *index.Index, s Selection, c Cohort, held string) Decision {
	tags, err := ParseTags(held)
	if err != nil {
		return refuse(err)
	}
	if ix == nil {
		return Decision{Status: StatusUnavailable, Error: ErrNoIndex}
	}
	device := Device{Selection: s, Cohort: c, Held: tags}
	set, err := Resolve(ix, device)
	if err != nil {
		return refuse(err)
	}
	if set.Len() == 0 {
		return Decision{Status: StatusNotFound, Error: ErrNotFound}
	}
	d := Decision{Status: StatusOK, Device: device, Set: set}
	if s.Payload == Statement { // whatever the device holds
		d.Claims = ClaimsOf(ix, device)
		return d
	}
	d.Mask = set.Held(tags)
	if d.Mask.Full(set.Len()) {
		d.Status = StatusNotModified
	}
	return d
}

// Object returns the object that answers a decision whose Status is 200.
func (d Decision) Object() (kind layout.Kind, key string) {
	switch d.Selection.Payload {
	case MetadataOnly:
		return layout.Manifest, layout.ManifestKey(d.Set.ID(), d.Mask.String())
	case Statement:
		sum := digest([]byte(d.Selection.Bare().String() + "\n" + d.Set.ID() + "\n" + d.Claims.text()))
		return layout.Statement, layout.StatementKey(d.Set.Index.Generation, d.Epoch, Hex(sum[:]))
	default:
		return layout.Bundle, layout.BundleKey(d.Set.ID(), d.Mask.String())
	}
}

func refuse(err error) Decision { return Decision{Status: StatusBadRequest, Error: err.Error()} }
