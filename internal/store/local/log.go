package local

import (
	"context"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

var bucketLog = []byte("catalog.log") // number -> entry

// record appends what an edit does to the log.
func (c *Catalog) record(tx *bbolt.Tx, edit catalog.Edit) error {
	head, err := logHead(tx)
	if err != nil {
		return err
	}
	var broken error
	entry, err := edit.Entry(head, func(k catalog.Key) *catalog.Item {
		v := tx.Bucket(bucketItems).Get(itemKey(k))
		if v == nil {
			return nil
		}
		var it catalog.Item
		if err := json.Unmarshal(v, &it); err != nil {
			broken = fmt.Errorf("parse item %s: %w", k, err)
		}
		return &it
	}, c.now())
	if broken != nil {
		return broken
	}
	if err != nil {
		return fmt.Errorf("%w: %w", builder.ErrPrecondition, err)
	}
	v, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("write entry %d of the log: %w", entry.Number, err)
	}
	return grow(tx.Bucket(bucketLog), v)
}

func logHead(tx *bbolt.Tx) (catalog.Head, error) {
	log := tx.Bucket(bucketLog)
	if log == nil { // a folder of an earlier version, which is only read
		return catalog.NewHead(), nil
	}
	k, v := log.Cursor().Last()
	if k == nil {
		return catalog.NewHead(), nil
	}
	e, err := parseEntry(k, v)
	return e.Head(), err
}

func parseEntry(k, v []byte) (catalog.LogEntry, error) {
	var e catalog.LogEntry
	if err := json.Unmarshal(v, &e); err != nil {
		return e, fmt.Errorf("parse entry %x of the log: %w", k, err)
	}
	return e, nil
}

// Head implements builder.CatalogWriter.
func (c *Catalog) Head(ctx context.Context) (head catalog.Head, err error) {
	err = view(ctx, c.db, func(tx *bbolt.Tx) error {
		head, err = logHead(tx)
		return err
	})
	if err != nil {
		return head, fmt.Errorf("read the catalog's log: %w", err)
	}
	return head, nil
}

// logPage is how many entries Log reads at a time: nothing is written to the file while a transaction holds its pages.
const logPage = 256

// Log implements builder.CatalogWriter.
func (c *Catalog) Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
	for {
		var page []catalog.LogEntry
		err := view(ctx, c.db, func(tx *bbolt.Tx) error {
			log := tx.Bucket(bucketLog)
			if log == nil {
				return nil
			}
			cur := log.Cursor()
			for k, v := cur.Seek(u64(after + 1)); k != nil && len(page) < logPage; k, v = cur.Next() {
				e, err := parseEntry(k, v)
				if err != nil {
					return err
				}
				page = append(page, e)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the catalog's log: %w", err)
		}
		for _, e := range page {
			if err := yield(e); err != nil {
				return err
			}
			after = e.Number
		}
		if len(page) < logPage {
			return nil
		}
	}
}
