package builder

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/precast-ota/precast/internal/format/bundle"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

// metaMD5 is kept with a piece beside bundle's own metadata: an item is checked against a piece that
// exists without reading its binary again.
const metaMD5 = "raw-md5"

// A mismatch is a binary that is not what the catalog says.
type mismatch string

func (e mismatch) Error() string { return string(e) }

func (b *Builder) handlePiece(ctx context.Context, j job, receives int, detach func() bool) error {
	if j.Item == nil {
		return errors.New("the job names no item")
	}
	beside := j.Entry == "" // no plan waits for it
	if beside {
		stop, ok := b.startReading(*j.Item)
		if !ok {
			return nil
		}
		defer stop()
	} else if superseded, err := b.isSuperseded(ctx, j.Sequence); superseded || err != nil {
		return err
	}
	if err := b.room(ctx, j.Item.Size); err != nil {
		return err
	}
	aside, err := b.fetch(ctx, j, detach)
	beside = beside || aside
	if err != nil {
		return b.failed(ctx, j, err, receives, beside || receives >= b.opt.Attempts)
	}
	return b.fetched(ctx, j, beside)
}

// fetched continues after a piece is stored. No plan waits for one that was fetched beside it: another plan takes it up.
func (b *Builder) fetched(ctx context.Context, j job, beside bool) error {
	if beside {
		return b.replan(ctx, j)
	}
	if j.Retry {
		// Another item may have been rejected meanwhile: the plan that was made then has left this one out, too.
		_, noted, _, err := b.find(ctx, RejectKey(*j.Item))
		if err != nil {
			return err
		}
		if noted {
			if err := b.replan(ctx, j); err != nil {
				return err
			}
		}
	}
	left, err := b.done(ctx, j)
	if err != nil || left > 0 {
		return err
	}
	target, err := b.target(ctx, j.Sequence)
	if err != nil {
		return err
	}
	now, err := b.current(ctx)
	if err != nil {
		return err
	}
	return b.stageBundles(ctx, target, now, j.origin())
}

// failed decides what becomes of a piece job that has failed: last says that it is not to be delivered again.
func (b *Builder) failed(ctx context.Context, j job, err error, receives int, last bool) error {
	var wrong mismatch
	switch {
	case errors.As(err, &wrong):
		return b.reject(ctx, j, Rejection{Key: j.Item.Key(), Version: j.Item.Version, Reason: err.Error()})
	case ctx.Err() == nil && last && !b.outage(ctx, err):
		// What cannot be read after all attempts must not hold up every other change.
		b.opt.Log.ErrorContext(ctx, "binary cannot be read", "item", j.Item.Key().String(), "attempts", receives, "error", err)
		return b.postpone(ctx, j, err)
	}
	return err
}

// reject writes down why an item cannot be published, and asks for a plan without it, unless the plans are without it
// already.
func (b *Builder) reject(ctx context.Context, j job, note Rejection) error {
	if err := b.writeNote(ctx, *j.Item, note); err != nil || j.Entry == "" {
		return err
	}
	return b.replan(ctx, j)
}

// replan asks for another plan in the place of the one that a job was for.
func (b *Builder) replan(ctx context.Context, j job) error {
	_, err := RequestPlan(ctx, b.Ledger, b.Queue, Request{PlanOptions: PlanOptions{AcceptRemovals: j.AcceptRemovals}, Since: j.since()})
	return err
}

// disagrees says how an item's digests differ from what its piece was made of, or nothing.
func disagrees(it catalog.Item, piece bundle.Piece, meta map[string]string) string {
	if piece.Raw != it.Size {
		return fmt.Sprintf("size: the catalog says %d bytes, the binary has %d", it.Size, piece.Raw)
	}
	if sum := meta[metaMD5]; sum != it.MD5 {
		return fmt.Sprintf("md5: the catalog says %s, the binary has %s", it.MD5, sum)
	}
	return ""
}

// storePiece checks an item's binary and stores it and its piece. It holds neither in memory.
func (b *Builder) storePiece(ctx context.Context, it catalog.Item) error {
	pieceKey, binaryKey := layout.PieceKey(it.SHA256, bundle.EncoderID), layout.BinaryKey(it.SHA256, it.App, it.Version)
	info, pieceExists, pieceDamaged, err := b.find(ctx, pieceKey)
	if err != nil {
		return err
	}
	piece, damage := described(info)
	if pieceExists && damage != nil {
		pieceExists, pieceDamaged = false, true
	}
	if pieceExists {
		if reason := disagrees(it, piece, info.Meta); reason != "" {
			return mismatch(reason)
		}
	}
	binary, binaryExists, binaryDamaged, err := b.find(ctx, binaryKey)
	if err != nil {
		return err
	}
	if binaryExists && binary.Size != it.Size {
		binaryExists, binaryDamaged = false, true
	}
	if pieceExists && binaryExists {
		b.opt.Observer.Stored(ctx, Stored{Key: pieceKey, Size: info.Size, Existed: true})
		return nil
	}

	source, err := b.Sources.Open(ctx, it.URL)
	if err != nil {
		return fmt.Errorf("open the binary of %s: %w", it.Key(), asSourceError(it, err))
	}
	defer source.Close()
	pieceFile, discardPiece, err := spool(b.opt.SpoolDir)
	if err != nil {
		return err
	}
	defer discardPiece()
	var binaryFile *os.File
	sink := io.Discard
	if !binaryExists {
		var discard func()
		if binaryFile, discard, err = spool(b.opt.SpoolDir); err != nil {
			return err
		}
		defer discard()
		sink = binaryFile
	}
	piece, err = compress(ctx, it, pieceFile, io.TeeReader(sourceBody{source, it}, sink))
	if err != nil {
		return err
	}
	if !binaryExists {
		if err := b.put(ctx, binaryKey, Body{Reader: binaryFile, Size: it.Size}, PutOptions{IfAbsent: !binaryDamaged}); err != nil {
			return err
		}
	}
	body := Body{Reader: pieceFile, Size: piece.Len, CRC64NVME: piece.CRC64NVME, Checked: true}
	return b.put(ctx, pieceKey, body, PutOptions{IfAbsent: !pieceDamaged, Meta: PieceMeta(piece, it.MD5)})
}

// find describes an object, and tells whether it exists or is known to be damaged.
func (b *Builder) find(ctx context.Context, key string) (info ObjectInfo, exists, damaged bool, err error) {
	info, err = b.Objects.Stat(ctx, key)
	if damaged = errors.Is(err, ErrDamaged); err != nil && !damaged && !errors.Is(err, ErrNotExist) {
		return info, false, false, fmt.Errorf("find %s: %w", key, err)
	}
	return info, err == nil, damaged, nil
}

// compress writes the piece of a binary, which must be the item's.
func compress(ctx context.Context, it catalog.Item, to io.Writer, binary io.Reader) (bundle.Piece, error) {
	sha, md := sha256.New(), md5.New()
	// One byte more than the catalog says is enough to know that it is wrong: an endless source is
	// not read to its end.
	piece, err := bundle.Compress(ctx, to, io.TeeReader(io.LimitReader(binary, it.Size+1), io.MultiWriter(sha, md)))
	if err != nil {
		return piece, fmt.Errorf("compress the binary of %s: %w", it.Key(), err)
	}
	if piece.Raw != it.Size {
		found := fmt.Sprint(piece.Raw)
		if piece.Raw > it.Size {
			found = "more"
		}
		return piece, mismatch(fmt.Sprintf("size: the catalog says %d bytes, the binary has %s", it.Size, found))
	}
	if sum := hex.EncodeToString(sha.Sum(nil)); sum != it.SHA256 {
		return piece, mismatch(fmt.Sprintf("sha256: the catalog says %s, the binary has %s", it.SHA256, sum))
	}
	if sum := hex.EncodeToString(md.Sum(nil)); sum != it.MD5 {
		return piece, mismatch(fmt.Sprintf("md5: the catalog says %s, the binary has %s", it.MD5, sum))
	}
	return piece, nil
}

// asSourceError marks an error as one of an item's source, unless that is this pipeline's own store.
func asSourceError(it catalog.Item, err error) error {
	if strings.HasPrefix(it.URL, catalog.StorePrefix) {
		return err
	}
	return sourceError{err}
}

// sourceBody tells errors of a source from those of where it is copied to.
type sourceBody struct {
	io.ReadCloser
	item catalog.Item
}

func (s sourceBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = asSourceError(s.item, err)
	}
	return n, err
}

// PieceMeta is the metadata of a piece's object; md5 is that of its binary, in hex.
func PieceMeta(piece bundle.Piece, md5 string) map[string]string {
	meta := piece.Meta()
	meta[metaMD5] = md5
	return meta
}

// put writes an immutable object. That it exists is as good, with IfAbsent; otherwise what is there is damaged.
func (b *Builder) put(ctx context.Context, key string, body Body, opt PutOptions) error {
	_, err := b.Objects.Put(ctx, key, body, opt)
	existed := errors.Is(err, ErrPrecondition)
	if err != nil && !existed {
		return fmt.Errorf("write %s: %w", key, err)
	}
	b.opt.Observer.Stored(ctx, Stored{Key: key, Size: body.Size, Existed: existed})
	return nil
}
