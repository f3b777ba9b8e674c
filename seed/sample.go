// Package seed has the sample: nine items and their generated binaries, to try Precast with.
package seed

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
)

// SampleItems are the sample's items, without what follows from their binaries.
func SampleItems() []catalog.Item {
	item := func(app, track, version string, attrs ...string) catalog.Item {
		return catalog.Item{App: app, Track: track, Version: version, Ident: app + "-" + track, DeviceAttr: release.Attributes(attrs...)}
	}
	items := []catalog.Item{
		item("os_armv8", "beta", "2.0.0"),
		item("os_armv8", "prod", "1.1.0"),
		item("os_armv7", "beta", "2.0.0"),
		item("os_armv7", "prod", "1.0.0"),
		item("scoreboard", "beta", "2.0.0", "gamer"),
		item("scoreboard", "prod", "1.0.0", "gamer"),
		item("videoStreamer", "beta", "0.1.2", "camera"),
		item("videoStreamer", "prod", "0.0.1", "camera", "gamer"),
		item("modemFW", "prod", "1.0", "cellular"),
	}
	for i := range items[:4] {
		items[i].CPUArch = items[i].App[len("os_"):]
	}
	return items
}

// Content returns the binary of a sample item: size bytes that look random and follow from the
// number seed, the app and the version alone.
func Content(seed uint64, it catalog.Item, size int64) io.ReadSeeker {
	h := sha256.New()
	_ = binary.Write(h, binary.LittleEndian, seed)
	fmt.Fprintf(h, "%s\x00%s", it.App, it.Version)
	c := &content{size: size}
	h.Sum(c.key[:0])
	return c
}

// content is a pseudo-random stream that can seek: every block has a generator of its own.
type content struct {
	key  [32]byte
	size int64
	pos  int64

	block int64 // number of the block in data, when data is not nil
	data  []byte
}

const contentBlock = 64 << 10

func (c *content) Read(p []byte) (int, error) {
	if c.pos >= c.size {
		return 0, io.EOF
	}
	if n := c.pos / contentBlock; c.data == nil || c.block != n {
		c.fill(n)
	}
	off := c.pos % contentBlock
	n := copy(p[:min(int64(len(p)), c.size-c.pos)], c.data[off:])
	c.pos += int64(n)
	return n, nil
}

func (c *content) fill(n int64) {
	key := c.key
	binary.LittleEndian.PutUint64(key[:8], binary.LittleEndian.Uint64(key[:8])^uint64(n))
	c.data, c.block = make([]byte, contentBlock), n
	_, _ = rand.NewChaCha8(key).Read(c.data) // never fails
}

func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += c.pos
	case io.SeekEnd:
		offset += c.size
	default:
		return 0, fmt.Errorf("seek to %d: unknown whence %d", offset, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d: before the beginning", offset)
	}
	c.pos = offset
	return offset, nil
}

// Releases are the sample's items with binaries of size bytes, which follow from the number seed.
func Releases(size int64, seed uint64) []release.Release {
	var all []release.Release
	for _, it := range SampleItems() {
		all = append(all, release.Release{Item: it, Open: func() (io.ReadSeekCloser, error) {
			return nopCloser{Content(seed, it, size)}, nil
		}})
	}
	return all
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }
