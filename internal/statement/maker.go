package statement

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"precast/edge"
	"precast/internal/layout"
	"precast/internal/signing"
)

// Schedule says how long statements are good for. Time is cut into epochs, so that whoever signs makes the same
// bytes all day, and caches agree.
type Schedule struct {
	Period   time.Duration // of an epoch
	Validity time.Duration // from the beginning of the epoch
}

// DefaultSchedule: every statement is good for six days at least, seven at most. An attacker who holds a device
// off can do so for that long before the device notices.
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

// Maker signs statements when they are asked for. It is safe for concurrent use.
type Maker struct {
	signer   signing.Signer
	schedule Schedule
	now      func() time.Time

	mu   sync.Mutex
	made map[string][]byte // by path: a signer may be remote, and slow
}

// maxMade bounds what is kept: about 1 KB each.
const maxMade = 4096

// NewMaker makes a Maker.
func NewMaker(signer signing.Signer, schedule Schedule, now func() time.Time) (*Maker, error) {
	if err := schedule.Check(); err != nil {
		return nil, err
	}
	return &Maker{signer: signer, schedule: schedule, now: now, made: make(map[string][]byte)}, nil
}

// Epoch is the number of the current epoch.
func (m *Maker) Epoch() uint64 { return m.schedule.Epoch(m.now()) }

// ErrEpoch: a statement of this epoch is not due, or not any more.
var ErrEpoch = errors.New("not the epoch of this time")

// ETag is the entity tag, without quotes, of the statement with this path: another key makes another one.
func (m *Maker) ETag(path string) string {
	return layout.ETag(path) + "-" + m.signer.Public().ID()[:16]
}

// Make returns the statement of a decision about a selection of statements. Its epoch may be off by one: clocks
// differ. It fails with ErrEpoch for any other: nobody gets a statement from the future, which would be good for
// longer than the schedule says.
func (m *Maker) Make(ctx context.Context, d edge.Decision) ([]byte, error) {
	if now := m.Epoch(); d.Epoch+1 < now || d.Epoch > now+1 {
		return nil, fmt.Errorf("sign statement of epoch %d at %d: %w", d.Epoch, now, ErrEpoch)
	}
	_, path := d.Object()
	m.mu.Lock()
	data, ok := m.made[path]
	m.mu.Unlock()
	if ok {
		return data, nil
	}
	s := Of(d.Set, d.Selection.Bare().String())
	s.Expires = m.schedule.expires(d.Epoch)
	data, err := Sign(ctx, s, m.signer)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.made) >= maxMade {
		clear(m.made)
	}
	m.made[path] = data
	return data, nil
}
