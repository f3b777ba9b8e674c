package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/gc"
)

// Disk is the file system that the objects are on.
type Disk interface {
	// Free tells how many bytes can still be written, and how many there are in all.
	Free() (free, total int64, err error)
	// Usage sums up what is stored, by the first part of keys with its slash; what is no object is under no name.
	Usage(ctx context.Context) (map[string]int64, error)
	gc.Deleter
}

// DiskStatus tells what is on the disk, in bytes.
type DiskStatus struct {
	Binaries  int64 `json:"binaries"`
	Pieces    int64 `json:"pieces"`
	Bundles   int64 `json:"bundles"`
	Manifests int64 `json:"manifests"`
	Other     int64 `json:"other"` // generations, the database, checksums
	// Collectable is what precast gc --delete would remove; -1: that could not be found out, as precast gc says.
	Collectable int64 `json:"collectable"`
	Free        int64 `json:"free"`
	Total       int64 `json:"total"` // of the file system
	MinFree     int64 `json:"minFree"`
	// Paused says why builds are paused, empty if they are not.
	Paused string `json:"paused,omitempty"`
}

// Room fails with builder.ErrPaused if so many bytes more would leave less of the disk free than there has to be.
func (p *Pipeline) Room(bytes int64) error {
	if p.Disk == nil {
		return nil
	}
	free, total, err := p.Disk.Free()
	if err != nil {
		return err
	}
	if least := p.cfg.MinFree.Of(total); least > 0 && free-bytes < least {
		more := ""
		if bytes > 0 && free >= least {
			more = fmt.Sprintf(", %s more are to be written", humanize.IBytes(uint64(bytes)))
		}
		return fmt.Errorf("%w: the disk has %s free%s, and builds leave %s free (--min-free)", builder.ErrPaused, humanize.IBytes(uint64(free)), more, humanize.IBytes(uint64(least)))
	}
	return nil
}

// Paused fails with builder.ErrPaused while there is too little room for builds.
func (p *Pipeline) Paused() error {
	if p.Disk == nil {
		return nil
	}
	return cmp.Or(p.Builder.Paused(), p.Room(0))
}

// diskStatus looks at the disk. It is nil where there is none to look at.
func (p *Pipeline) diskStatus(ctx context.Context) (*DiskStatus, error) {
	if p.Disk == nil {
		return nil, nil
	}
	var st DiskStatus
	var err error
	if st.Free, st.Total, err = p.Disk.Free(); err != nil {
		return nil, err
	}
	st.MinFree = p.cfg.MinFree.Of(st.Total)
	if paused := p.Paused(); paused != nil {
		st.Paused = paused.Error()
	}
	usage, err := p.Disk.Usage(ctx)
	if err != nil {
		return nil, err
	}
	for name, bytes := range usage {
		switch name {
		case layout.BinaryPrefix:
			st.Binaries = bytes
		case layout.PiecePrefix:
			st.Pieces = bytes
		case layout.BundlePrefix:
			st.Bundles = bytes
		case layout.ManifestPrefix:
			st.Manifests = bytes
		default:
			st.Other += bytes
		}
	}
	rep, err := gc.New(p.Objects, p.Disk, p.Catalog, gc.Options{Clock: p.cfg.Builder.Clock}).Look(ctx)
	switch {
	case err == nil:
		st.Collectable = rep.Removed().Bytes
	case !errors.Is(err, gc.ErrNothing):
		st.Collectable = -1
	}
	return &st, ctx.Err()
}
