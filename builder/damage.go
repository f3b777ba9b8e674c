package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
)

// Damage is the error of a stored piece that is not what it should be: it is missing, has another length or other bytes.
type Damage struct {
	Key string // of the piece

	item *index.Item
	err  error
}

func (d *Damage) Error() string {
	return fmt.Sprintf("piece %s of %s %s is missing or damaged: %v", d.Key, d.item.App, d.item.Version, d.err)
}

func (d *Damage) Unwrap() error { return d.err }

// ErrMendLater: a piece cannot be made again now, and trying that again at once is of no use.
var ErrMendLater = errors.New("it cannot be made again now")

// unsound tells whether an error is of an object that is missing or damaged, rather than of the store.
func unsound(err error) bool { return errors.Is(err, ErrNotExist) || errors.Is(err, ErrDamaged) }

// DamagedBinary is the error of a stored binary that is missing, or is not what its index item says. A piece cannot be
// made of it.
type DamagedBinary struct {
	Key string // of the binary
	err error
}

func (d *DamagedBinary) Error() string {
	return fmt.Sprintf("binary %s, which it is made from, is missing or damaged, too: %v; run precast fsck --deep --repair", d.Key, d.err)
}

func (d *DamagedBinary) Unwrap() []error { return []error{d.err, ErrMendLater} }

// A Mender has the piece of an item made again. It returns when that has been done, or fails: with ErrMendLater if it is
// to be left alone for a while.
type Mender interface {
	Mend(ctx context.Context, it *index.Item) error
}

// PieceMaker makes pieces again, from their stored binaries.
type PieceMaker struct {
	Objects  Objects
	SpoolDir string       // default os.TempDir()
	Log      *slog.Logger // is told of every piece, as Observer is; nil: neither is
	Observer Observer
}

// Mend implements Mender. It replaces whatever is stored as the piece.
func (m PieceMaker) Mend(ctx context.Context, it *index.Item) error {
	binary := BinaryKey(it)
	source, _, err := m.Objects.Get(ctx, binary, 0, -1)
	if unsound(err) {
		return &DamagedBinary{binary, err}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", binary, err)
	}
	defer source.Close()
	f, discard, err := spool(m.SpoolDir)
	if err != nil {
		return err
	}
	defer discard()
	of := storedItem(it)
	piece, err := compress(ctx, of, f, source)
	var wrong mismatch
	if errors.As(err, &wrong) {
		return &DamagedBinary{binary, err}
	}
	if err != nil {
		return err
	}
	s := Stored{Key: pieceKey(it), Size: piece.Len, Mended: true}
	body := Body{Reader: f, Size: piece.Len, CRC64NVME: piece.CRC64NVME, Checked: true}
	if _, err := m.Objects.Put(ctx, s.Key, body, PutOptions{Meta: PieceMeta(piece, of.MD5)}); err != nil {
		return fmt.Errorf("write %s: %w", s.Key, err)
	}
	if m.Log != nil {
		m.Log.WarnContext(ctx, "a missing or damaged piece was made again", "key", s.Key, "app", it.App, "version", it.Version)
		m.Observer.Stored(ctx, s)
	}
	return nil
}

// QueueMender asks builders to make pieces again.
type QueueMender struct{ Queue Queue }

// Mend implements Mender. It fails with ErrMendLater once a builder has been asked.
func (m QueueMender) Mend(ctx context.Context, it *index.Item) error {
	item := storedItem(it)
	if err := send(ctx, m.Queue, job{Kind: jobMend, Item: &item}); err != nil {
		return fmt.Errorf("ask for piece %s: %w", pieceKey(it), err)
	}
	return fmt.Errorf("%w: a builder has been asked to do it", ErrMendLater)
}

// storedItem is an index item whose binary is in the store.
func storedItem(it *index.Item) catalog.Item {
	return catalog.Item{
		App: it.App, Track: it.Track, Version: it.Version, URL: catalog.StorePrefix + BinaryKey(it),
		Size: it.Size, MD5: edge.Hex(it.MD5[:]), SHA256: edge.Hex(it.SHA256[:]),
	}
}

// handleMendPiece makes one piece again, if it is missing or damaged.
func (b *Builder) handleMendPiece(ctx context.Context, of catalog.Item) error {
	it, err := indexItem(catalog.Step{Item: of})
	if err != nil {
		return err
	}
	if err := b.room(ctx, it.Size); err != nil {
		return err
	}
	_, err = b.composer.mended(ctx, &Damage{Key: pieceKey(&it), item: &it})
	if errors.Is(err, ErrMendLater) { // another try would end in the same way; whoever needs the piece asks again
		b.opt.Log.ErrorContext(ctx, "piece cannot be made again", "error", err)
		return nil
	}
	return err
}

// spool makes a temporary file, and the function that removes it.
func spool(dir string) (*os.File, func(), error) {
	f, err := os.CreateTemp(dir, "precast-spool-*")
	if err != nil {
		return nil, nil, fmt.Errorf("make spool file: %w", err)
	}
	// Unlinked at once where the system allows it: nothing is left behind by a crash.
	name := f.Name()
	gone := os.Remove(name) == nil
	return f, func() {
		f.Close()
		if !gone {
			os.Remove(name)
		}
	}, nil
}

const (
	// mendTimeout bounds one mending, which goes on if whoever asked first does not wait for it.
	mendTimeout = 15 * time.Minute
	// mendAgain is how long a piece that could not be made again is left alone.
	mendAgain = time.Minute
)

// trouble is a piece that was found damaged.
type trouble struct {
	*Damage
	failed error     // why it cannot be made again for a while; nil: it can be tried
	at     time.Time // when it was tried
}

// noticed remembers a damaged piece until it has been made again, and returns its error.
func (c *Composer) noticed(key string, it *index.Item, why error) *Damage {
	d := &Damage{key, it, why}
	c.pieces.Remove(key)
	if c.mender == nil {
		return d
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.damaged[key]; !known {
		c.damaged[key] = trouble{Damage: d}
	}
	return d
}

// known returns what is remembered of a damaged piece, or nil.
func (c *Composer) known(key string) *Damage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.damaged[key].Damage
}

// mended returns the description of a damaged piece that has been made again. Whoever asks meanwhile waits for the
// same mending. What cannot be made again is not tried again at once.
func (c *Composer) mended(ctx context.Context, d *Damage) (bundle.Piece, error) {
	done := c.mending.DoChan(d.Key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mendTimeout)
		defer cancel()
		return c.mend(ctx, d)
	})
	select {
	case <-ctx.Done():
		return bundle.Piece{}, ctx.Err()
	case r := <-done:
		piece, _ := r.Val.(bundle.Piece)
		return piece, r.Err
	}
}

func (c *Composer) mend(ctx context.Context, d *Damage) (bundle.Piece, error) {
	piece, err := c.verify(ctx, d.Key, d.item) // somebody else may have made it again
	if errors.As(err, &d) {
		if d.Key != pieceKey(d.item) { // this program makes no pieces of another encoder
			return piece, d
		}
		c.mu.Lock()
		t := c.damaged[d.Key]
		c.mu.Unlock()
		if t.failed != nil && c.clock.Now().Sub(t.at) < mendAgain {
			return piece, t.failed
		}
		if err = c.mender.Mend(ctx, d.item); err == nil {
			piece, err = c.describe(ctx, d.Key, d.item)
		} else {
			err = fmt.Errorf("%w; make it again: %w", d, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.damaged, d.Key)
	} else if errors.Is(err, ErrMendLater) {
		c.damaged[d.Key] = trouble{d, err, c.clock.Now()}
	}
	return piece, err
}

// verify reads a whole piece. Its error is a Damage unless the store fails.
func (c *Composer) verify(ctx context.Context, key string, it *index.Item) (bundle.Piece, error) {
	piece, err := c.describe(ctx, key, it)
	if err != nil {
		return piece, err
	}
	var met atomic.Pointer[Damage]
	body, err := c.open(ctx, stored{key, it, piece}, 0, &met)
	if err != nil {
		return piece, err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return piece, err
}

// stored is a piece that a bundle needs.
type stored struct {
	key  string
	item *index.Item
	bundle.Piece
}

// open opens a piece at an offset. One that is read whole is verified: its last bytes are not handed out if any was
// another.
func (c *Composer) open(ctx context.Context, s stored, off int64, met *atomic.Pointer[Damage]) (io.ReadCloser, error) {
	damaged := func(why error) error {
		d := c.noticed(s.key, s.item, why)
		met.Store(d)
		return d
	}
	body, info, err := c.objects.Get(ctx, s.key, off, -1)
	if unsound(err) {
		return nil, damaged(err)
	}
	if err != nil {
		return nil, err
	}
	if info.Size != s.Len {
		body.Close()
		return nil, damaged(wrongLength(info, s.Piece))
	}
	if off > 0 {
		return body, nil
	}
	return &summed{ReadCloser: body, piece: s.Piece, damaged: damaged}, nil
}

func wrongLength(info ObjectInfo, piece bundle.Piece) error {
	return fmt.Errorf("it has %d bytes, its metadata says %d", info.Size, piece.Len)
}

// summed is a piece that is verified while it is read.
type summed struct {
	io.ReadCloser
	piece   bundle.Piece
	damaged func(why error) error
	n       int64
	crc     uint64
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.n += int64(n)
	s.crc = crc64nvme.Update(s.crc, p[:n])
	switch {
	case s.n >= s.piece.Len && s.crc != s.piece.CRC64NVME:
		return 0, s.damaged(fmt.Errorf("its CRC-64/NVME is %016x, its metadata says %016x", s.crc, s.piece.CRC64NVME))
	case s.n < s.piece.Len && err == io.EOF:
		return 0, s.damaged(io.ErrUnexpectedEOF)
	}
	return n, err
}
