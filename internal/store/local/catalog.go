package local

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/internal/format/catalog"
)

var (
	bucketItems   = []byte("catalog.items")   // item key -> item
	bucketChanges = []byte("catalog.changes") // sequence number -> change
	bucketCursors = []byte("catalog.cursors") // "c" and name -> sequence number
)

// Catalog is the embedded catalog with its change log.
type Catalog struct {
	db      *bbolt.DB
	now     func() time.Time
	changed *signal
	closed  <-chan struct{}
}

// Snapshot implements builder.Catalog; it is one instant.
func (c *Catalog) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	var items []catalog.Item
	err := view(ctx, c.db, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketItems).ForEach(func(_, v []byte) error {
			var it catalog.Item
			if err := json.Unmarshal(v, &it); err != nil {
				return fmt.Errorf("parse item: %w", err)
			}
			items = append(items, it)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	return items, nil
}

// Apply implements builder.CatalogWriter.
func (c *Catalog) Apply(ctx context.Context, edit catalog.Edit) error {
	if len(edit.Changes) == 0 && edit.Act == nil {
		return nil
	}
	if err := edit.Check(); err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	err := update(ctx, c.db, func(tx *bbolt.Tx) error {
		if err := c.record(tx, edit); err != nil {
			return err
		}
		for _, change := range edit.Changes {
			if err := apply(tx, change); err != nil {
				return fmt.Errorf("change item %s: %w", change.Key, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	c.changed.wake()
	return nil
}

func apply(tx *bbolt.Tx, change catalog.Change) error {
	change.Was = nil
	key, items := itemKey(change.Key), tx.Bucket(bucketItems)
	if change.Item == nil {
		if err := items.Delete(key); err != nil {
			return err
		}
	} else {
		v, err := json.Marshal(change.Item)
		if err != nil {
			return err
		}
		if err := items.Put(key, v); err != nil {
			return err
		}
	}
	v, err := json.Marshal(change)
	if err != nil {
		return err
	}
	return grow(tx.Bucket(bucketChanges), v)
}

// grow puts a value behind the last of a bucket that grows at its end only.
func grow(b *bbolt.Bucket, v []byte) error {
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	b.FillPercent = 1 // full pages waste nothing
	return b.Put(u64(n), v)
}

// itemKey tells app and track apart whatever characters they hold.
func itemKey(k catalog.Key) []byte {
	b := binary.AppendUvarint(nil, uint64(len(k.App)))
	return append(append(b, k.App...), k.Track...)
}
