package fsck

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Repairer rewrites what a check found missing or damaged, as far as it can be made again: a piece from
// its binary, a binary from its piece or from where the catalog says it came from, bundles and manifests
// from pieces and the index.
type Repairer struct {
	Objects  builder.Objects
	Sources  builder.Sources                  // nil: there are none
	URL      func(sha256 string) (url string) // of a binary, from the catalog; nil, or empty: unknown
	SpoolDir string                           // default os.TempDir()
}

// Repair rewrites what it can, and notes with every problem of the report whether it did. Its error says
// that it could not go on.
func (r *Repairer) Repair(ctx context.Context, rep *Report) error {
	order := make([]*Problem, len(rep.Problems))
	for i := range rep.Problems {
		order[i] = &rep.Problems[i]
	}
	// What others are made from goes first: binaries, pieces, then the rest.
	slices.SortStableFunc(order, func(a, b *Problem) int { return cmp.Compare(rank(a.Key), rank(b.Key)) })
	composer := builder.NewComposer(r.Objects)
	done := make(map[string]bool) // one object may have two problems
	for _, p := range order {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		if !done[p.Key] {
			if err := r.repair(ctx, composer, p); err != nil {
				if ctx.Err() != nil {
					return fmt.Errorf("repair: %w", ctx.Err())
				}
				p.Unrepaired = err.Error()
				continue
			}
		}
		done[p.Key], p.Repaired = true, true
		rep.Repaired++
	}
	return nil
}

func rank(key string) int {
	switch kind, _ := layout.KindOf(key); kind { // an unknown kind is the rest
	case layout.Binary:
		return 0
	case layout.Piece:
		return 1
	}
	return 2
}

func (r *Repairer) repair(ctx context.Context, composer *builder.Composer, p *Problem) error {
	kind, err := layout.KindOf(p.Key)
	if err != nil {
		return err
	}
	switch kind {
	case layout.Binary:
		return r.binary(ctx, p.Key, p.of.item)
	case layout.Piece:
		return builder.PieceMaker{Objects: r.Objects, SpoolDir: r.SpoolDir}.Mend(ctx, p.of.item)
	case layout.Bundle, layout.Manifest:
		answer, err := composer.Compose(ctx, kind, p.of.set, p.of.held)
		if err != nil {
			return err
		}
		defer answer.Close()
		return r.put(ctx, p.Key, answer.Body(), nil)
	case layout.Reject:
		return errors.New("precast build tries its item again")
	case layout.Index:
		return errors.New("precast build --verify publishes what the catalog says, once the damaged index is out of the way; " + noPin)
	}
	return errors.New("nothing else tells what was in it")
}

// put replaces an object, whatever is there.
func (r *Repairer) put(ctx context.Context, key string, body builder.Body, meta map[string]string) error {
	if _, err := r.Objects.Put(ctx, key, body, builder.PutOptions{Meta: meta}); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// binary makes a binary again, from its piece or its source.
func (r *Repairer) binary(ctx context.Context, key string, it *index.Item) error {
	f, discard, err := r.spool()
	if err != nil {
		return err
	}
	defer discard()
	pieceErr := r.inflated(ctx, f, it)
	if pieceErr == nil {
		return r.put(ctx, key, builder.Body{Reader: f, Size: it.Size}, nil)
	}
	url := ""
	if r.Sources != nil && r.URL != nil {
		url = r.URL(edge.Hex(it.SHA256[:]))
	}
	if url == "" {
		return fmt.Errorf("its piece does not give it (%w), and no source is known: import it again", pieceErr)
	}
	source, err := r.Sources.Open(ctx, url)
	if err != nil {
		return fmt.Errorf("its piece does not give it (%w), nor does its source: %w", pieceErr, err)
	}
	defer source.Close()
	if err := fill(ctx, f, source, it); err != nil {
		return fmt.Errorf("its piece does not give it (%w), nor does its source %s: %w", pieceErr, url, err)
	}
	return r.put(ctx, key, builder.Body{Reader: f, Size: it.Size}, nil)
}

// inflated writes the binary of an item's piece to f.
func (r *Repairer) inflated(ctx context.Context, f *os.File, it *index.Item) error {
	body, _, err := r.Objects.Get(ctx, builder.PieceKey(it), 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	return fill(ctx, f, inflate(body), it)
}

// fill replaces f's content by what it reads, which must be the item's binary.
func fill(ctx context.Context, f *os.File, from io.Reader, it *index.Item) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	return verified(ctx, f, from, it)
}

// verified copies a binary, and fails unless it is the item's.
func verified(ctx context.Context, to io.Writer, from io.Reader, it *index.Item) error {
	sha, md := sha256.New(), md5.New()
	n, err := copyAll(ctx, io.MultiWriter(to, sha, md), io.LimitReader(from, it.Size+1))
	switch {
	case err != nil:
		return err
	case n != it.Size:
		return fmt.Errorf("it has %d bytes, not %d", n, it.Size)
	case hex.EncodeToString(sha.Sum(nil)) != edge.Hex(it.SHA256[:]) || hex.EncodeToString(md.Sum(nil)) != edge.Hex(it.MD5[:]):
		return errors.New("it has other digests")
	}
	return nil
}

// spool makes a temporary file, and the function that removes it.
func (r *Repairer) spool() (*os.File, func(), error) {
	f, err := os.CreateTemp(r.SpoolDir, "precast-fsck-*")
	if err != nil {
		return nil, nil, fmt.Errorf("make spool file: %w", err)
	}
	return f, func() {
		f.Close()
		os.Remove(f.Name()) // what is left is a temporary file
	}, nil
}
