package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/builder"
)

var (
	bucketEntries = []byte("ledger.entries") // "e" and id -> entry
	bucketOpened  = []byte("ledger.opened")  // time of Open, entry's key -> nothing
)

const (
	// The port promises 24 hours; the rest is for a system clock that is set meanwhile.
	entryAge = 48 * time.Hour
	// Each Open forgets a few old entries at most, so that none takes long.
	sweepAtOnce = 16

	maxParts = 1 << 20
)

// Ledger is the embedded ledger.
type Ledger struct {
	db  *bbolt.DB
	now func() time.Time
}

// Next implements builder.Ledger.
func (l *Ledger) Next(ctx context.Context) (uint64, error) {
	var n uint64
	err := update(ctx, l.db, func(tx *bbolt.Tx) (err error) {
		n, err = tx.Bucket(bucketEntries).NextSequence()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("take next number: %w", err)
	}
	return n, nil
}

// Advance makes every number that Next returns from now on greater than n.
func (l *Ledger) Advance(ctx context.Context, n uint64) error {
	err := update(ctx, l.db, func(tx *bbolt.Tx) error {
		entries := tx.Bucket(bucketEntries)
		return entries.SetSequence(max(n, entries.Sequence()))
	})
	if err != nil {
		return fmt.Errorf("advance numbers to %d: %w", n, err)
	}
	return nil
}

// Open implements builder.Ledger.
func (l *Ledger) Open(ctx context.Context, id string, parts int) error {
	if parts < 1 || parts > maxParts {
		return fmt.Errorf("open ledger entry %q: %d parts, not from 1 to %d", id, parts, maxParts)
	}
	err := update(ctx, l.db, func(tx *bbolt.Tx) error {
		now := l.now()
		if err := sweep(tx, now); err != nil {
			return err
		}
		entries, key := tx.Bucket(bucketEntries), entryKey(id)
		if entries.Get(key) != nil {
			return nil
		}
		e := newEntry(now, parts)
		if err := tx.Bucket(bucketOpened).Put(openedKey(e.opened(), key), nil); err != nil {
			return err
		}
		return entries.Put(key, e)
	})
	if err != nil {
		return fmt.Errorf("open ledger entry %q: %w", id, err)
	}
	return nil
}

// Done implements builder.Ledger.
func (l *Ledger) Done(ctx context.Context, id string, part int) (left int, err error) {
	err = update(ctx, l.db, func(tx *bbolt.Tx) error {
		entries, key := tx.Bucket(bucketEntries), entryKey(id)
		e := entry(slices.Clone(entries.Get(key)))
		if e == nil {
			return builder.ErrNotExist
		}
		if part < 0 || part >= e.parts() {
			return fmt.Errorf("part %d is not one of %d", part, e.parts())
		}
		e.mark(part)
		left = e.left()
		return entries.Put(key, e)
	})
	if err != nil {
		return 0, fmt.Errorf("mark part %d of ledger entry %q: %w", part, id, err)
	}
	return left, nil
}

// Close implements builder.Ledger.
func (l *Ledger) Close(ctx context.Context, id string) error {
	err := update(ctx, l.db, func(tx *bbolt.Tx) error { return forget(tx, entryKey(id)) })
	if err != nil {
		return fmt.Errorf("close ledger entry %q: %w", id, err)
	}
	return nil
}

func forget(tx *bbolt.Tx, key []byte) error {
	entries := tx.Bucket(bucketEntries)
	e := entry(entries.Get(key))
	if e == nil {
		return nil
	}
	if err := tx.Bucket(bucketOpened).Delete(openedKey(e.opened(), key)); err != nil {
		return err
	}
	return entries.Delete(key)
}

// sweep forgets entries that nobody has closed.
func sweep(tx *bbolt.Tx, now time.Time) error {
	before := uint64(max(0, now.Add(-entryAge).UnixNano()))
	for range sweepAtOnce {
		k, _ := tx.Bucket(bucketOpened).Cursor().First()
		if k == nil || binary.BigEndian.Uint64(k) >= before {
			return nil
		}
		if err := forget(tx, slices.Clone(k[8:])); err != nil {
			return err
		}
	}
	return nil
}

// The prefix makes room for an empty id.
func entryKey(id string) []byte { return []byte("e" + id) }

func openedKey(opened uint64, key []byte) []byte { return append(u64(opened), key...) }

// entry is the time of Open, the number of parts, and a bit for each that is done.
type entry []byte

const entryHeader = 8 + 4

func newEntry(now time.Time, parts int) entry {
	e := make(entry, entryHeader+(parts+7)/8)
	binary.BigEndian.PutUint64(e, uint64(max(0, now.UnixNano())))
	binary.BigEndian.PutUint32(e[8:], uint32(parts))
	return e
}

func (e entry) opened() uint64 { return binary.BigEndian.Uint64(e) }
func (e entry) parts() int     { return int(binary.BigEndian.Uint32(e[8:])) }
func (e entry) mark(part int)  { e[entryHeader+part/8] |= 1 << (part % 8) }

func (e entry) left() int {
	n := e.parts()
	for _, b := range e[entryHeader:] {
		n -= bits.OnesCount8(b)
	}
	return n
}
