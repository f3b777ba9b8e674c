package builder

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

func (b *Builder) handlePiece(ctx context.Context, j job, receives int) error {
	if j.Item == nil {
		return errors.New("the job names no item")
	}
	superseded, err := b.superseding(ctx, j.Sequence)
	if superseded || err != nil {
		return err
	}
	if err := b.storePiece(ctx, *j.Item); err != nil {
		var wrong mismatch
		switch {
		case errors.As(err, &wrong):
		case ctx.Err() == nil && receives >= b.opt.Attempts && !b.outage(ctx, err):
			// What cannot be read after all attempts must not hold up every other change.
			b.opt.Log.ErrorContext(ctx, "binary cannot be read", "item", j.Item.Key().String(), "attempts", receives, "error", err)
		default:
			return err
		}
		return b.reject(ctx, j, err)
	}
	left, err := b.done(ctx, j)
	if err != nil || left > 0 {
		return err
	}
	return b.stageBundles(ctx, j.Sequence, j.origin())
}

// superseding tells whether something newer than a sequence, or itself, is published.
func (b *Builder) superseding(ctx context.Context, sequence uint64) (bool, error) {
	published, _, err := ReadIndex(ctx, b.Objects)
	if err != nil {
		return false, err
	}
	return published != nil && published.Sequence >= sequence, nil
}

// reject writes down why an item cannot be published, and asks for a plan without it.
func (b *Builder) reject(ctx context.Context, j job, cause error) error {
	it := *j.Item
	note, err := json.Marshal(Rejection{it.Key(), it.Version, cause.Error()})
	if err != nil {
		return fmt.Errorf("encode rejection of %s: %w", it.Key(), err)
	}
	if _, err := b.Objects.Put(ctx, layout.RejectKey(rejectDigest(it)), bytesBody(note), PutOptions{}); err != nil {
		return fmt.Errorf("write rejection of %s: %w", it.Key(), err)
	}
	_, err = RequestPlan(ctx, b.Ledger, b.Queue, Request{Since: j.since()})
	return err
}

// disagrees says how an item's digests differ from what its piece was made of, or nothing.
func disagrees(it catalog.Item, meta map[string]string) string {
	piece, err := bundle.ParseMeta(meta)
	if err != nil {
		return err.Error()
	}
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
	pieceKey := layout.PieceKey(it.SHA256, bundle.EncoderID)
	binaryKey := layout.BinaryKey(it.SHA256, it.App, it.Version)
	info, err := b.Objects.Stat(ctx, pieceKey)
	pieceExists := err == nil
	if err != nil && !errors.Is(err, ErrNotExist) {
		return fmt.Errorf("find %s: %w", pieceKey, err)
	}
	if pieceExists {
		if reason := disagrees(it, info.Meta); reason != "" {
			return mismatch(reason)
		}
	}
	binary, err := b.Objects.Stat(ctx, binaryKey)
	binaryExists := err == nil && binary.Size == it.Size
	if err != nil && !errors.Is(err, ErrNotExist) {
		return fmt.Errorf("find %s: %w", binaryKey, err)
	}
	if pieceExists && binaryExists {
		b.opt.Observer.Stored(ctx, Stored{Key: pieceKey, Size: info.Size, Existed: true})
		return nil
	}

	source, err := b.Sources.Open(ctx, it.URL)
	if err != nil {
		return fmt.Errorf("open the binary of %s: %w", it.Key(), ofSource(it, err))
	}
	source = sourceBody{source, it}
	defer source.Close()
	pieceFile, discardPiece, err := b.spool()
	if err != nil {
		return err
	}
	defer discardPiece()
	sha, md := sha256.New(), md5.New()
	sinks := []io.Writer{sha, md}
	var binaryFile *os.File
	if !binaryExists {
		var discard func()
		if binaryFile, discard, err = b.spool(); err != nil {
			return err
		}
		defer discard()
		sinks = append(sinks, binaryFile)
	}
	// One byte more than the catalog says is enough to know that it is wrong: an endless source is
	// not read to its end.
	raw := io.TeeReader(io.LimitReader(source, it.Size+1), io.MultiWriter(sinks...))
	piece, err := bundle.Compress(ctx, pieceFile, raw)
	if err != nil {
		return fmt.Errorf("compress the binary of %s: %w", it.Key(), err)
	}
	if piece.Raw != it.Size {
		found := fmt.Sprint(piece.Raw)
		if piece.Raw > it.Size {
			found = "more"
		}
		return mismatch(fmt.Sprintf("size: the catalog says %d bytes, the binary has %s", it.Size, found))
	}
	if sum := hex.EncodeToString(sha.Sum(nil)); sum != it.SHA256 {
		return mismatch(fmt.Sprintf("sha256: the catalog says %s, the binary has %s", it.SHA256, sum))
	}
	if sum := hex.EncodeToString(md.Sum(nil)); sum != it.MD5 {
		return mismatch(fmt.Sprintf("md5: the catalog says %s, the binary has %s", it.MD5, sum))
	}
	if !binaryExists {
		if err := b.put(ctx, binaryKey, Body{Reader: binaryFile, Size: it.Size}, nil); err != nil {
			return err
		}
	}
	return b.put(ctx, pieceKey, Body{Reader: pieceFile, Size: piece.Len, CRC64NVME: piece.CRC64NVME, Checked: true}, PieceMeta(piece, it.MD5))
}

// ofSource makes an error one of an item's source, unless that is this pipeline's own store.
func ofSource(it catalog.Item, err error) error {
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
		err = ofSource(s.item, err)
	}
	return n, err
}

// PieceMeta is the metadata of a piece's object; md5 is that of its binary, in hex.
func PieceMeta(piece bundle.Piece, md5 string) map[string]string {
	meta := piece.Meta()
	meta[metaMD5] = md5
	return meta
}

// put writes an immutable object; that it exists is as good.
func (b *Builder) put(ctx context.Context, key string, body Body, meta map[string]string) error {
	_, err := b.Objects.Put(ctx, key, body, PutOptions{IfAbsent: true, Meta: meta})
	existed := errors.Is(err, ErrPrecondition)
	if err != nil && !existed {
		return fmt.Errorf("write %s: %w", key, err)
	}
	b.opt.Observer.Stored(ctx, Stored{Key: key, Size: body.Size, Existed: existed})
	return nil
}

// spool makes a temporary file, and the function that removes it.
func (b *Builder) spool() (*os.File, func(), error) {
	f, err := os.CreateTemp(b.opt.SpoolDir, "precast-spool-*")
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
