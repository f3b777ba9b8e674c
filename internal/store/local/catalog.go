package local

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

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
	if len(edit.Changes) == 0 {
		return nil
	}
	err := update(ctx, c.db, func(tx *bbolt.Tx) error {
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
	if change.Key.App == "" {
		return errors.New("it has no app")
	}
	if change.Item != nil && change.Item.Key() != change.Key {
		return fmt.Errorf("the item is of another key, %s", change.Item.Key())
	}
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
	log := tx.Bucket(bucketChanges)
	seq, err := log.NextSequence()
	if err != nil {
		return err
	}
	// The log grows at its end only: full pages waste nothing.
	log.FillPercent = 1
	return log.Put(u64(seq), v)
}

// itemKey tells app and track apart whatever characters they hold.
func itemKey(k catalog.Key) []byte {
	b := binary.AppendUvarint(nil, uint64(len(k.App)))
	return append(append(b, k.App...), k.Track...)
}
