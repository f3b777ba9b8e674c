package fsck

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// What follows for devices.
const (
	composed   = "it is composed when asked for, more slowly"
	broken     = "they get a broken answer"
	uncomposed = "they get 503 where a bundle with it is not prebuilt"
	noBinary   = "those that fetch binaries one by one get 404"
	badBinary  = "those that fetch binaries one by one get another one than the manifest says"
	unrolled   = "none; precast rollback cannot go back to it, and upgrade paths from it are not known"
	nobody     = "none"
)

// records checks what is not sent to devices: generations, plans, notes.
func (c *checker) records(ctx context.Context, current *index.Index) error {
	var last uint64
	err := c.objects.List(ctx, layout.HistoryPrefix, func(o builder.ObjectInfo) error {
		p := Problem{Key: o.Key, Devices: unrolled}
		g, err := layout.HistoryGeneration(o.Key)
		if err != nil {
			return err
		}
		ix, err := builder.ReadGeneration(ctx, c.objects, g)
		switch {
		case err != nil:
			err = c.unread(ctx, err, p)
		case ix.Generation != g:
			p.Kind, p.Detail = Unexpected, fmt.Sprintf("it is generation %d", ix.Generation)
			c.problem(p)
		case g > current.Generation:
			p.Kind, p.Detail = Unexpected, fmt.Sprintf("it is newer than what is published, generation %d", current.Generation)
			c.problem(p)
		case ix.Sequence < last:
			p.Kind, p.Detail = Unexpected, fmt.Sprintf("it is of plan %d, the generation before it of plan %d", ix.Sequence, last)
			c.problem(p)
		default:
			last = ix.Sequence
		}
		return c.looked(ctx, err)
	})
	if err != nil {
		return err
	}
	err = c.objects.List(ctx, layout.PlanPrefix, func(o builder.ObjectInfo) error {
		p := Problem{Key: o.Key, Devices: nobody + ", unless its build is under way: that fails"}
		data, err := c.whole(ctx, o.Key, index.MaxEncoded)
		if err != nil {
			return c.looked(ctx, c.unread(ctx, err, p))
		}
		if ix, err := index.Parse(data); err != nil {
			p.Kind, p.Detail = Unreadable, err.Error()
			c.problem(p)
		} else if layout.PlanKey(ix.Sequence) != o.Key {
			p.Kind, p.Detail = Unexpected, fmt.Sprintf("it is plan %d", ix.Sequence)
			c.problem(p)
		}
		return c.looked(ctx, nil)
	})
	if err != nil {
		return err
	}
	return c.objects.List(ctx, layout.RejectPrefix, func(o builder.ObjectInfo) error {
		p := Problem{Key: o.Key, Devices: nobody + ", but its item cannot be planned"}
		data, err := c.whole(ctx, o.Key, 1<<20)
		if err != nil {
			return c.looked(ctx, c.unread(ctx, err, p))
		}
		var r builder.Rejection
		if err := json.Unmarshal(data, &r); err != nil {
			p.Kind, p.Detail = Unreadable, err.Error()
			c.problem(p)
		}
		return c.looked(ctx, nil)
	})
}

// unread makes of a record's error a problem, unless it has been removed since it was listed: sweeps give up
// generations, plans and notes that nothing needs any more (package gc).
func (c *checker) unread(ctx context.Context, err error, p Problem) error {
	if errors.Is(err, builder.ErrNotExist) {
		if _, err := c.objects.Stat(ctx, p.Key); errors.Is(err, builder.ErrNotExist) {
			return nil
		}
	}
	return c.failed(ctx, err, p)
}

// whole reads a small object.
func (c *checker) whole(ctx context.Context, key string, most int64) ([]byte, error) {
	data, _, err := builder.ReadAll(ctx, c.objects, key, most)
	c.read(int64(len(data)))
	return data, err
}

// stat describes an object, having reported what its description says of it. absent is what follows for
// devices if it is not there; size -1 is unknown.
func (c *checker) stat(ctx context.Context, p Problem, absent string, size int64) (info builder.ObjectInfo, sound bool, err error) {
	info, err = c.objects.Stat(ctx, p.Key)
	if errors.Is(err, builder.ErrNotExist) {
		p.Devices = absent
	}
	if err != nil {
		return info, false, c.failed(ctx, err, p)
	}
	if size >= 0 && info.Size != size {
		p.Kind, p.Detail = WrongLength, fmt.Sprintf("it has %d bytes, not %d", info.Size, size)
		c.problem(p)
		return info, false, nil
	}
	kind, err := layout.KindOf(p.Key)
	if err != nil {
		return info, false, err
	}
	if want := layout.HeadersOf(kind); info.Headers != want {
		p.Devices = "those that get it straight from the store, or through a CDN, get other headers"
		p.Kind, p.Detail = Unexpected, fmt.Sprintf("it is kept with %+v, not %+v", info.Headers, want)
		c.problem(p)
		return info, false, nil
	}
	return info, true, nil
}

// sums reads all of an object into hashes; its length is what was read.
func (c *checker) sums(ctx context.Context, key string, hashes ...hash.Hash) (int64, error) {
	body, _, err := c.objects.Get(ctx, key, 0, -1)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	sinks := make([]io.Writer, len(hashes))
	for i, h := range hashes {
		sinks[i] = h
	}
	n, err := copyAll(ctx, io.MultiWriter(sinks...), body)
	c.read(n)
	return n, err
}

// copyAll copies in large steps, and looks at the context between them.
func copyAll(ctx context.Context, w io.Writer, r io.Reader) (n int64, err error) {
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		k, err := r.Read(buf)
		n += int64(k)
		if _, err := w.Write(buf[:k]); err != nil {
			return n, err
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (c *checker) binary(ctx context.Context, key string, it *index.Item) error {
	p := Problem{Key: key, Devices: badBinary, of: what{item: it}}
	_, sound, err := c.stat(ctx, p, noBinary, it.Size)
	if err != nil || !sound || !c.opt.Deep {
		return err
	}
	sha, md := sha256.New(), md5.New()
	if _, err := c.sums(ctx, key, sha, md); err != nil {
		return c.failed(ctx, err, p)
	}
	if c.compare(p, "sha256", hex.EncodeToString(sha.Sum(nil)), edge.Hex(it.SHA256[:])) {
		c.compare(p, "md5", hex.EncodeToString(md.Sum(nil)), edge.Hex(it.MD5[:])) // what is left: the catalog is wrong
	}
	return nil
}

func (c *checker) compare(p Problem, field, got, want string) bool {
	if got != want {
		p.Kind, p.Detail = WrongBytes, fmt.Sprintf("its %s is %s, not %s", field, got, want)
		c.problem(p)
	}
	return got == want
}

func (c *checker) piece(ctx context.Context, key string, it *index.Item) error {
	p := Problem{Key: key, Devices: uncomposed, of: what{item: it}}
	info, sound, err := c.stat(ctx, p, uncomposed, -1)
	if err != nil || !sound {
		return err
	}
	piece, err := bundle.ParseMeta(info.Meta)
	switch {
	case err != nil:
		p.Kind, p.Detail = Unreadable, err.Error()
	case piece.Len != info.Size:
		p.Kind, p.Detail = WrongLength, fmt.Sprintf("it has %d bytes, its metadata says %d", info.Size, piece.Len)
	case piece.Raw != it.Size:
		p.Kind, p.Detail = WrongLength, fmt.Sprintf("it is of a binary of %d bytes, not %d", piece.Raw, it.Size)
	}
	if p.Kind != "" {
		c.problem(p)
		return nil
	}
	if !c.opt.Deep {
		return nil
	}
	p.Devices = "bundles composed from it are broken"
	body, _, err := c.objects.Get(ctx, key, 0, -1)
	if err != nil {
		return c.failed(ctx, err, p)
	}
	defer body.Close()
	crc, sha := crc64nvme.New(), sha256.New()
	in := &tally{r: io.TeeReader(body, crc)}
	n, err := copyAll(ctx, sha, inflate(in))
	c.read(in.n)
	switch {
	case in.err != nil: // the store's fault, not the piece's
		return c.failed(ctx, in.err, p)
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		p.Kind, p.Detail = WrongBytes, "it cannot be inflated: "+err.Error()
		c.problem(p)
		return nil
	case crc.Sum64() != piece.CRC64NVME:
		p.Kind, p.Detail = WrongBytes, fmt.Sprintf("its CRC-64/NVME is %016x, not %016x", crc.Sum64(), piece.CRC64NVME)
		c.problem(p)
		return nil
	}
	if n != it.Size {
		p.Kind, p.Detail = WrongBytes, fmt.Sprintf("it inflates to %d bytes, not %d", n, it.Size)
		c.problem(p)
		return nil
	}
	c.compare(p, "binary's sha256", hex.EncodeToString(sha.Sum(nil)), edge.Hex(it.SHA256[:]))
	return nil
}

// inflate reads the binary of a piece, which is a run of blocks without a final one.
func inflate(piece io.Reader) io.Reader {
	final := []byte{1, 0, 0, 0xff, 0xff} // an empty stored block
	return flate.NewReader(io.MultiReader(piece, bytes.NewReader(final)))
}

// tally counts what is read, and keeps the error that ended it.
type tally struct {
	r   io.Reader
	n   int64
	err error
}

func (t *tally) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	t.n += int64(n)
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

func (c *checker) manifest(ctx context.Context, s builder.CoveredSet, held edge.Mask) error {
	want, err := c.composer.Manifest(s.Set, held)
	if err != nil {
		return err
	}
	p := Problem{Key: layout.ManifestKey(s.ID, held.String()), Devices: broken, of: what{set: s.Set, held: held}}
	_, sound, err := c.stat(ctx, p, composed, int64(len(want)))
	if err != nil || !sound || !c.opt.Deep {
		return err
	}
	got, err := c.whole(ctx, p.Key, int64(len(want)))
	if err != nil {
		return c.failed(ctx, err, p)
	}
	if !bytes.Equal(got, want) {
		p.Kind, p.Detail = WrongBytes, "it is not what the index says"
		c.problem(p)
	}
	return nil
}

func (c *checker) bundle(ctx context.Context, s builder.CoveredSet, held edge.Mask) error {
	p := Problem{Key: layout.BundleKey(s.ID, held.String()), Devices: broken, of: what{set: s.Set, held: held}}
	want, err := c.composer.Bundle(ctx, s.Set, held)
	size, absent := int64(-1), "they get 503" // a piece is missing or damaged, which is reported of the piece
	switch {
	case err == nil:
		size, absent = want.Size(), composed
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		want = nil
		if _, probe := c.objects.Stat(ctx, layout.IndexKey); probe != nil {
			return probe
		}
	}
	_, sound, err := c.stat(ctx, p, absent, size)
	if err != nil || !sound || !c.opt.Deep {
		return err
	}
	if want != nil {
		// The checksum of what would be composed is combined from those of the pieces, each of which is
		// verified against its binary's SHA-256.
		crc := crc64nvme.New()
		if _, err := c.sums(ctx, p.Key, crc); err != nil {
			return c.failed(ctx, err, p)
		}
		c.compare(p, "CRC-64/NVME", fmt.Sprintf("%016x", crc.Sum64()), fmt.Sprintf("%016x", want.CRC64NVME()))
		return nil
	}
	body, _, err := c.objects.Get(ctx, p.Key, 0, -1)
	if err != nil {
		return c.failed(ctx, err, p)
	}
	defer body.Close()
	in := &tally{r: body}
	err = readBundle(ctx, in, s.Set, held)
	c.read(in.n)
	var wrong disagreement
	switch {
	case in.err != nil:
		return c.failed(ctx, in.err, p)
	case errors.As(err, &wrong):
		p.Kind, p.Detail = WrongBytes, err.Error()
		c.problem(p)
		return nil
	}
	return err
}
