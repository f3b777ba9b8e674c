package local

import (
	"context"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/builder"
)

// bury makes a message a dead letter.
func (m messages) bury(id uint64) error {
	from, err := m.state(id)
	if err != nil {
		return err
	}
	to := from
	if to.dead, err = m.tx.Bucket(bucketDead).NextSequence(); err != nil {
		return err
	}
	return m.move(id, from, to)
}

// Dead implements builder.DeadLetters, oldest first. A message becomes a dead letter when Receive
// comes upon it, as with SQS.
func (q *Queue) Dead(ctx context.Context, max int) ([]builder.Message, error) {
	var dead []builder.Message
	err := view(ctx, q.db, func(tx *bbolt.Tx) error {
		m, cur := messages{tx}, tx.Bucket(bucketDead).Cursor()
		for k, v := cur.First(); k != nil && len(dead) < max; k, v = cur.Next() {
			id := binary.BigEndian.Uint64(v)
			s, err := m.state(id)
			if err != nil {
				return err
			}
			dead = append(dead, m.message(id, s))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return dead, nil
}

// Redrive implements builder.DeadLetters.
func (q *Queue) Redrive(ctx context.Context) (int, error) {
	n := 0
	err := update(ctx, q.db, func(tx *bbolt.Tx) error {
		m, now := messages{tx}, q.now()
		for {
			k, v := tx.Bucket(bucketDead).Cursor().First()
			if k == nil {
				return nil
			}
			id := binary.BigEndian.Uint64(v)
			from, err := m.state(id)
			if err != nil {
				return err
			}
			if err := m.move(id, from, messageState{visible: now}); err != nil {
				return err
			}
			n++
		}
	})
	if err != nil {
		return 0, fmt.Errorf("redrive dead letters: %w", err)
	}
	if n > 0 {
		q.changed.wake()
	}
	return n, nil
}

// Depth implements builder.DeadLetters; it is exact. It looks at every message, so it is for people
// and gauges.
func (q *Queue) Depth(ctx context.Context) (waiting, inFlight, dead int, err error) {
	err = view(ctx, q.db, func(tx *bbolt.Tx) error {
		now := q.now()
		cur := tx.Bucket(bucketVisible).Cursor()
		for k, _ := cur.First(); k != nil; k, _ = cur.Next() {
			if visible, _ := splitVisibleKey(k); visible <= now {
				waiting++
			} else {
				inFlight++
			}
		}
		cur = tx.Bucket(bucketDead).Cursor()
		for k, _ := cur.First(); k != nil; k, _ = cur.Next() {
			dead++
		}
		return nil
	})
	if err != nil {
		return 0, 0, 0, fmt.Errorf("count messages: %w", err)
	}
	return waiting, inFlight, dead, nil
}
