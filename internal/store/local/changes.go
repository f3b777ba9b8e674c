package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// Change is an entry of the change log.
type Change struct {
	Seq uint64 `json:"seq"` // greater than that of every earlier change; the first is 1
	catalog.Change
}

// Changes returns up to max changes after sequence number after, in order. With none there it waits
// up to wait for one, then returns an empty slice. Changes that were trimmed are skipped.
func (c *Catalog) Changes(ctx context.Context, after uint64, max int, wait time.Duration) ([]Change, error) {
	if max < 1 {
		return nil, fmt.Errorf("read change log: max is %d", max)
	}
	var timeout <-chan time.Time
	for {
		changed := c.changed.next()
		changes, err := c.changesAfter(ctx, after, max)
		if err != nil {
			return nil, fmt.Errorf("read change log: %w", err)
		}
		if len(changes) > 0 || wait <= 0 {
			return changes, nil
		}
		if timeout == nil {
			t := time.NewTimer(wait)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("read change log: %w", ctx.Err())
		case <-c.closed:
			return nil, fmt.Errorf("read change log: %w", errClosed)
		}
	}
}

func (c *Catalog) changesAfter(ctx context.Context, after uint64, max int) ([]Change, error) {
	var changes []Change
	err := view(ctx, c.db, func(tx *bbolt.Tx) error {
		cur := tx.Bucket(bucketChanges).Cursor()
		k, v := cur.Seek(u64(after))
		if bytes.Equal(k, u64(after)) {
			k, v = cur.Next()
		}
		for ; k != nil && len(changes) < max; k, v = cur.Next() {
			ch := Change{Seq: binary.BigEndian.Uint64(k)}
			if err := json.Unmarshal(v, &ch.Change); err != nil {
				return fmt.Errorf("parse change %d: %w", ch.Seq, err)
			}
			changes = append(changes, ch)
		}
		return nil
	})
	return changes, err
}

// LastChange returns the sequence number of the latest change, trimmed or not; 0 if there was none.
func (c *Catalog) LastChange(ctx context.Context) (uint64, error) {
	var seq uint64
	err := view(ctx, c.db, func(tx *bbolt.Tx) error {
		seq = tx.Bucket(bucketChanges).Sequence()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read change log: %w", err)
	}
	return seq, nil
}

// TrimChanges forgets the changes up to and including sequence number upTo.
func (c *Catalog) TrimChanges(ctx context.Context, upTo uint64) error {
	err := update(ctx, c.db, func(tx *bbolt.Tx) error {
		cur := tx.Bucket(bucketChanges).Cursor()
		for k, _ := cur.First(); k != nil && binary.BigEndian.Uint64(k) <= upTo; k, _ = cur.First() {
			if err := cur.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("trim change log: %w", err)
	}
	return nil
}

// Cursor returns what SetCursor last stored under name, 0 if nothing.
func (c *Catalog) Cursor(ctx context.Context, name string) (uint64, error) {
	var seq uint64
	err := view(ctx, c.db, func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketCursors).Get(cursorKey(name)); v != nil {
			seq = binary.BigEndian.Uint64(v)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read cursor %q: %w", name, err)
	}
	return seq, nil
}

// SetCursor stores how far the reader called name has come in the change log.
func (c *Catalog) SetCursor(ctx context.Context, name string, seq uint64) error {
	err := update(ctx, c.db, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketCursors).Put(cursorKey(name), u64(seq))
	})
	if err != nil {
		return fmt.Errorf("write cursor %q: %w", name, err)
	}
	return nil
}

func cursorKey(name string) []byte { return []byte("c" + name) }
