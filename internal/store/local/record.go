package local

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
)

// errMismatch: an object's file is not what its sidecar describes, so something else wrote to it.
var errMismatch = fmt.Errorf("it %w: the file does not match its record", builder.ErrDamaged)

// record describes one content of an object.
type record struct {
	Size int64             `json:"size"`
	CRC  checksum          `json:"crc64nvme"`
	Meta map[string]string `json:"meta,omitempty"`
}

func (r record) info(key string) builder.ObjectInfo {
	return builder.ObjectInfo{Key: key, Size: r.Size, ETag: r.etag(), Meta: maps.Clone(r.Meta)}
}

func (r record) etag() string { return fmt.Sprintf("%016x-%x", uint64(r.CRC), r.Size) }

// sidecar is the file beside an object. It lists one record, except while the object is being
// replaced: then it lists the old and the new, and the checksum of the object's own bytes decides.
// An object exists when both its file and its sidecar do; since a sidecar is always written first and
// removed last, a crash can leave one without its object, but never the opposite.
type sidecar struct {
	Candidates []record `json:"candidates"`
}

// checksum is a CRC-64/NVME, written as 16 hex digits.
type checksum uint64

func (c checksum) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(c)), nil }

func (c *checksum) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	*c = checksum(n)
	return err
}

func readSidecar(f *os.File) (sidecar, error) {
	var sc sidecar
	b, err := io.ReadAll(f)
	if err != nil {
		return sc, fmt.Errorf("read sidecar: %w", err)
	}
	if err := json.Unmarshal(b, &sc); err != nil {
		return sc, fmt.Errorf("parse sidecar %s: it %w: %w", f.Name(), builder.ErrDamaged, err)
	}
	if len(sc.Candidates) == 0 {
		return sc, fmt.Errorf("parse sidecar %s: it %w: no record", f.Name(), builder.ErrDamaged)
	}
	return sc, nil
}

// choose returns the last of the records that f's content matches. With only one to choose from it
// compares sizes alone: a sidecar with one record is only written once the content is in place, or
// when there is none yet.
func choose(records []record, f *os.File, buf []byte) (record, error) {
	fi, err := f.Stat()
	if err != nil {
		return record{}, fmt.Errorf("inspect file: %w", err)
	}
	if len(records) == 1 {
		if records[0].Size != fi.Size() || !fi.Mode().IsRegular() {
			return record{}, errMismatch
		}
		return records[0], nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return record{}, fmt.Errorf("read file: %w", err)
	}
	sum := crc64nvme.New()
	if _, err := io.CopyBuffer(onlyWriter{sum}, onlyReader{f}, buf); err != nil {
		return record{}, fmt.Errorf("read file: %w", err)
	}
	for i := len(records) - 1; i >= 0; i-- {
		if r := records[i]; r.Size == fi.Size() && uint64(r.CRC) == sum.Sum64() {
			return r, nil
		}
	}
	return record{}, errMismatch
}

// onlyWriter and onlyReader hide the shortcuts that would make io.CopyBuffer ignore its buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
