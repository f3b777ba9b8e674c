package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/builder"
)

// A message is spread over buckets, so that its body is written once however often it is received.
var (
	bucketBodies  = []byte("queue.bodies")  // id -> body
	bucketStates  = []byte("queue.states")  // id -> state
	bucketVisible = []byte("queue.visible") // instant from which it is visible, id -> nothing; not the dead
	bucketDead    = []byte("queue.dead")    // number in order of death -> id
	bucketTokens  = []byte("queue.tokens")  // only its sequence is used
)

// errGone: the message was deleted.
var errGone = errors.New("no such message")

// messageState is what changes of a message.
type messageState struct {
	visible  uint64 // instant; see Queue.now
	token    uint64 // of the latest delivery, 0 if there was none
	dead     uint64 // number in order of death, 0 for a message that is alive
	receives uint32
}

func (s messageState) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, s.visible)
	b = binary.BigEndian.AppendUint64(b, s.token)
	b = binary.BigEndian.AppendUint64(b, s.dead)
	return binary.BigEndian.AppendUint32(b, s.receives)
}

func decodeState(b []byte) (messageState, error) {
	if len(b) != 28 {
		return messageState{}, fmt.Errorf("parse message state: %d bytes, not 28", len(b))
	}
	return messageState{
		visible:  binary.BigEndian.Uint64(b),
		token:    binary.BigEndian.Uint64(b[8:]),
		dead:     binary.BigEndian.Uint64(b[16:]),
		receives: binary.BigEndian.Uint32(b[24:]),
	}, nil
}

// messages is the queue in one transaction.
type messages struct{ tx *bbolt.Tx }

func (m messages) state(id uint64) (messageState, error) {
	v := m.tx.Bucket(bucketStates).Get(u64(id))
	if v == nil {
		return messageState{}, errGone
	}
	return decodeState(v)
}

func (m messages) message(id uint64, s messageState) builder.Message {
	msg := builder.Message{
		ID:       fmt.Sprintf("%016x", id),
		Body:     slices.Clone(m.tx.Bucket(bucketBodies).Get(u64(id))),
		Receives: int(s.receives),
	}
	if s.dead == 0 {
		msg.Receipt = receipt{id, s.token}.String()
	}
	return msg
}

// add puts a new message.
func (m messages) add(body []byte, now uint64) error {
	bodies := m.tx.Bucket(bucketBodies)
	id, err := bodies.NextSequence()
	if err != nil {
		return err
	}
	if err := bodies.Put(u64(id), body); err != nil {
		return err
	}
	return m.index(id, messageState{visible: now})
}

// move replaces the state of a message.
func (m messages) move(id uint64, from, to messageState) error {
	if err := m.unindex(id, from); err != nil {
		return err
	}
	return m.index(id, to)
}

// remove forgets a message.
func (m messages) remove(id uint64, s messageState) error {
	if err := m.unindex(id, s); err != nil {
		return err
	}
	if err := m.tx.Bucket(bucketStates).Delete(u64(id)); err != nil {
		return err
	}
	return m.tx.Bucket(bucketBodies).Delete(u64(id))
}

func (m messages) index(id uint64, s messageState) error {
	if err := m.tx.Bucket(bucketStates).Put(u64(id), s.encode()); err != nil {
		return err
	}
	if s.dead != 0 {
		return m.tx.Bucket(bucketDead).Put(u64(s.dead), u64(id))
	}
	return m.tx.Bucket(bucketVisible).Put(visibleKey(s.visible, id), nil)
}

func (m messages) unindex(id uint64, s messageState) error {
	if s.dead != 0 {
		return m.tx.Bucket(bucketDead).Delete(u64(s.dead))
	}
	return m.tx.Bucket(bucketVisible).Delete(visibleKey(s.visible, id))
}

// first returns the message that is visible first, if there is one.
func (m messages) first() (visible, id uint64, ok bool) {
	k, _ := m.tx.Bucket(bucketVisible).Cursor().First()
	if k == nil {
		return 0, 0, false
	}
	visible, id = splitVisibleKey(k)
	return visible, id, true
}

func visibleKey(visible, id uint64) []byte { return binary.BigEndian.AppendUint64(u64(visible), id) }

func splitVisibleKey(k []byte) (visible, id uint64) {
	return binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(k[8:])
}

// receipt names one delivery of one message.
type receipt struct{ id, token uint64 }

func (r receipt) String() string { return fmt.Sprintf("%016x-%016x", r.id, r.token) }

func parseReceipt(s string) (receipt, error) {
	var r receipt
	_, err := fmt.Sscanf(s, "%016x-%016x", &r.id, &r.token)
	if err != nil || r.String() != s || r.token == 0 { // 0 is the token of what was never delivered
		return receipt{}, errors.New("not a receipt of this queue")
	}
	return r, nil
}
