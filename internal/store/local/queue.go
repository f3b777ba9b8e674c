package local

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/builder"
)

const (
	maxMessage = 1 << 20 // bytes; also the limit of SQS
	maxReceive = 10
	// Also the limit of SQS:
	// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html
	maxVisibility = 12 * time.Hour
)

// Queue is the embedded queue.
type Queue struct {
	db          *bbolt.DB
	maxReceives int
	changed     *signal // something may have become visible
	closed      <-chan struct{}

	clock  func() time.Time
	opened time.Time
	base   uint64
}

func newQueue(db *bbolt.DB, opt Options, closed <-chan struct{}) (*Queue, error) {
	q := &Queue{
		db: db, maxReceives: opt.MaxReceives, changed: newSignal(), closed: closed,
		clock: opt.Now, opened: opt.Now(),
	}
	err := db.View(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(bucketVisible).Cursor().Last(); k != nil {
			q.base, _ = splitVisibleKey(k)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	return q, nil
}

// now is an instant in the queue's own count of nanoseconds. It goes on from the last instant in the
// queue when the store was opened: all earlier receivers are dead, so every message is visible at
// once. And it follows the monotonic clock, so that setting the system's clock makes no message invisible.
func (q *Queue) now() uint64 { return q.base + uint64(max(0, q.clock().Sub(q.opened))) }

// Send implements builder.Queue; all messages are sent or none.
func (q *Queue) Send(ctx context.Context, bodies ...[]byte) error {
	for _, b := range bodies {
		if len(b) > maxMessage {
			return fmt.Errorf("send message: %d bytes, more than %d", len(b), maxMessage)
		}
	}
	if len(bodies) == 0 {
		return nil
	}
	err := update(ctx, q.db, func(tx *bbolt.Tx) error {
		now := q.now()
		for _, b := range bodies {
			if err := (messages{tx}).add(b, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	q.changed.wake()
	return nil
}

// Receive implements builder.Queue. Messages come in the order in which they became visible.
func (q *Queue) Receive(ctx context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error) {
	if max < 1 {
		return nil, fmt.Errorf("receive message: max is %d", max)
	}
	if err := checkVisibility(visibility); err != nil {
		return nil, fmt.Errorf("receive message: %w", err)
	}
	var timeout <-chan time.Time
	for {
		changed := q.changed.next()
		msgs, next, err := q.take(ctx, min(max, maxReceive), visibility)
		if err != nil {
			return nil, fmt.Errorf("receive message: %w", err)
		}
		if len(msgs) > 0 || wait <= 0 {
			return msgs, nil
		}
		if timeout == nil {
			t := time.NewTimer(wait)
			defer t.Stop()
			timeout = t.C
		}
		more, err := q.await(ctx, changed, timeout, next)
		if err != nil {
			return nil, fmt.Errorf("receive message: %w", err)
		}
		if !more {
			return nil, nil
		}
	}
}

// await returns true when it is worth looking again: on a change, or after the duration next unless
// that is negative. It returns false on timeout.
func (q *Queue) await(ctx context.Context, changed <-chan struct{}, timeout <-chan time.Time, next time.Duration) (bool, error) {
	var expiry <-chan time.Time
	if next >= 0 {
		t := time.NewTimer(next)
		defer t.Stop()
		expiry = t.C
	}
	select {
	case <-changed:
		return true, nil
	case <-expiry:
		return true, nil
	case <-timeout:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case <-q.closed:
		return false, errClosed
	}
}

// take delivers up to max visible messages, and buries those that were delivered too often. Without
// any, next is the time until one becomes visible, negative if none will.
func (q *Queue) take(ctx context.Context, max int, visibility time.Duration) (msgs []builder.Message, next time.Duration, err error) {
	// Polling an empty queue must not cost a write.
	idle := false
	err = view(ctx, q.db, func(tx *bbolt.Tx) error {
		idle, next = q.idle(messages{tx})
		return nil
	})
	if err != nil || idle {
		return nil, next, err
	}
	err = update(ctx, q.db, func(tx *bbolt.Tx) error {
		m, now := messages{tx}, q.now()
		ids, err := q.visible(m, now, max)
		if err != nil {
			return err
		}
		for _, id := range ids {
			msg, err := q.deliver(m, id, now+uint64(visibility))
			if err != nil {
				return err
			}
			msgs = append(msgs, msg)
		}
		_, next = q.idle(m)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return msgs, next, nil
}

// idle reports whether nothing is visible, and the time until something is, negative for never.
func (q *Queue) idle(m messages) (bool, time.Duration) {
	visible, _, ok := m.first()
	if !ok {
		return true, -1
	}
	now := q.now()
	if visible <= now {
		return false, 0
	}
	return true, time.Duration(visible - now)
}

// visible finds up to max messages to deliver.
func (q *Queue) visible(m messages, now uint64, max int) ([]uint64, error) {
	var ids, bury []uint64
	cur := m.tx.Bucket(bucketVisible).Cursor()
	for k, _ := cur.First(); k != nil && len(ids) < max; k, _ = cur.Next() {
		visible, id := splitVisibleKey(k)
		if visible > now {
			break
		}
		s, err := m.state(id)
		if err != nil {
			return nil, err
		}
		if s.receives >= uint32(q.maxReceives) {
			bury = append(bury, id)
		} else {
			ids = append(ids, id)
		}
	}
	// Not in the loop above: a cursor does not survive changes of its bucket.
	for _, id := range bury {
		if err := m.bury(id); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func (q *Queue) deliver(m messages, id, until uint64) (builder.Message, error) {
	from, err := m.state(id)
	if err != nil {
		return builder.Message{}, err
	}
	to := from
	to.visible = until
	to.receives++
	if to.token, err = m.tx.Bucket(bucketTokens).NextSequence(); err != nil {
		return builder.Message{}, err
	}
	if err := m.move(id, from, to); err != nil {
		return builder.Message{}, err
	}
	return m.message(id, to), nil
}

// Extend implements builder.Queue.
func (q *Queue) Extend(ctx context.Context, receipt string, visibility time.Duration) error {
	if err := checkVisibility(visibility); err != nil {
		return fmt.Errorf("extend message: %w", err)
	}
	r, err := parseReceipt(receipt)
	if err != nil {
		return fmt.Errorf("extend message: %w: %w", builder.ErrNotExist, err)
	}
	err = update(ctx, q.db, func(tx *bbolt.Tx) error {
		m, now := messages{tx}, q.now()
		from, err := m.state(r.id)
		if errors.Is(err, errGone) {
			return builder.ErrNotExist
		}
		if err != nil {
			return err
		}
		if from.token != r.token || from.dead != 0 || from.visible <= now {
			return builder.ErrNotExist
		}
		to := from
		to.visible = now + uint64(visibility)
		return m.move(r.id, from, to)
	})
	if err != nil {
		return fmt.Errorf("extend message: %w", err)
	}
	// Later or earlier, receivers wait for another instant now.
	q.changed.wake()
	return nil
}

// Delete implements builder.Queue. A message that was buried since is deleted too, its work is done;
// one that was received again since is left to its new receiver.
func (q *Queue) Delete(ctx context.Context, receipt string) error {
	r, err := parseReceipt(receipt)
	if err != nil {
		return fmt.Errorf("delete message: %w", err)
	}
	err = update(ctx, q.db, func(tx *bbolt.Tx) error {
		m := messages{tx}
		s, err := m.state(r.id)
		if errors.Is(err, errGone) {
			return nil
		}
		if err != nil {
			return err
		}
		if s.token != r.token {
			return nil
		}
		return m.remove(r.id, s)
	})
	if err != nil {
		return fmt.Errorf("delete message: %w", err)
	}
	return nil
}

func checkVisibility(visibility time.Duration) error {
	if visibility < 0 || visibility > maxVisibility {
		return fmt.Errorf("check visibility timeout: %v is not from 0 to %v", visibility, maxVisibility)
	}
	return nil
}
