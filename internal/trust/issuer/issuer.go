// Package issuer signs statements when they are asked for, and keeps them for whoever asks next. Who only verifies
// statements, as clients do, needs package statement alone.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// Schedule says how long statements are good for. Time is cut into epochs, so that whoever signs makes the same
// bytes all day, and caches agree.
type Schedule struct {
	Period   time.Duration // of an epoch
	Validity time.Duration // from the beginning of the epoch
}

// DefaultSchedule: every statement of the current epoch is good for six days at least, seven at most; one of the epoch
// before or after, which Issue signs too, for five and eight. An attacker who holds a device off can do so for that
// long before the device notices.
func DefaultSchedule() Schedule {
	return Schedule{Period: 24 * time.Hour, Validity: 7 * 24 * time.Hour}
}

// Check refuses schedules by which a statement could be born expired, or epochs that are not whole seconds.
func (s Schedule) Check() error {
	if s.Period < time.Second || s.Period%time.Second != 0 || s.Validity%time.Second != 0 || s.Validity < 2*s.Period {
		return fmt.Errorf("statements signed anew every %v and good for %v: both must be whole seconds, and the latter at least twice the former", s.Period, s.Validity)
	}
	return nil
}

// Epoch is the number of the epoch of a time.
func (s Schedule) Epoch(now time.Time) uint64 {
	return uint64(max(now.Unix(), 0) / int64(s.Period/time.Second))
}

// expires is when statements of an epoch expire.
func (s Schedule) expires(epoch uint64) time.Time {
	return time.Unix(int64(epoch)*int64(s.Period/time.Second), 0).Add(s.Validity).UTC()
}

// Issuer signs statements when they are asked for. It is safe for concurrent use.
type Issuer struct {
	signer   signing.Signer
	schedule Schedule
	now      func() time.Time

	// What was made, and is being made, by path: a signer may be remote, slow and paid by the signature. What is
	// asked for again stays; the rest goes half by half, so that a flood of selections that nobody else has
	// does not push out those of the fleet.
	mu           sync.Mutex
	recent, past map[string]*making
}

// maxMade bounds what is kept: about 1 KB each.
const maxMade = 4096

// making is a statement that is being signed, for everybody who asks for it meanwhile.
type making struct {
	done chan struct{} // closed once the rest is there
	data []byte
	err  error
}

// signTime bounds a signature that is made for several.
const signTime = 30 * time.Second

// New makes an Issuer.
func New(signer signing.Signer, schedule Schedule, now func() time.Time) (*Issuer, error) {
	if err := schedule.Check(); err != nil {
		return nil, err
	}
	return &Issuer{signer: signer, schedule: schedule, now: now, recent: make(map[string]*making)}, nil
}

// Key is the ID of the key that signs.
func (m *Issuer) Key() string { return m.signer.Public().ID() }

// Epoch is the number of the current epoch.
func (m *Issuer) Epoch() uint64 { return m.schedule.Epoch(m.now()) }

// ErrEpoch: a statement of this epoch is not due, or not any more.
var ErrEpoch = errors.New("not the epoch of this time")

// ETag is the entity tag, without quotes, of the statement with this path: another key makes another one.
func (m *Issuer) ETag(path string) string {
	return layout.ETag(path) + "-" + m.signer.Public().ID()[:16]
}

// Issue returns the statement of a decision about a selection of statements. Its epoch may be off by one: clocks
// differ. It fails with ErrEpoch for any other: nobody gets a statement from the future, which would be good for
// longer than the schedule says.
func (m *Issuer) Issue(ctx context.Context, d edge.Decision) ([]byte, error) {
	if now := m.Epoch(); d.Epoch+1 < now || d.Epoch > now+1 {
		return nil, fmt.Errorf("sign statement of epoch %d at %d: %w", d.Epoch, now, ErrEpoch)
	}
	_, path := d.Object()
	one, mine := m.find(path)
	if mine {
		// Whoever asked first may go; the others still wait.
		signCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signTime)
		defer cancel()
		s := statement.Of(d)
		s.Expires = m.schedule.expires(d.Epoch)
		one.data, one.err = statement.Sign(signCtx, s, m.signer)
		m.finish(path, one)
	}
	select {
	case <-one.done:
		return one.data, one.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// find returns the statement of a path; mine: it is the caller's to make and to finish.
func (m *Issuer) find(path string) (one *making, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one, ok := m.recent[path]; ok {
		return one, false
	}
	one, ok := m.past[path]
	if !ok {
		one = &making{done: make(chan struct{})}
	}
	if len(m.recent) >= maxMade/2 {
		m.recent, m.past = make(map[string]*making), m.recent
	}
	m.recent[path] = one
	return one, !ok
}

// finish tells everybody who waits. What has failed is not kept.
func (m *Issuer) finish(path string, one *making) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one.err != nil {
		for _, made := range []map[string]*making{m.recent, m.past} {
			if made[path] == one {
				delete(made, path)
			}
		}
	}
	close(one.done)
}
