// Package issuer signs statements when they are asked for, and keeps them for the next caller. Who only verifies
// statements, as clients do, needs package statement alone.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// Schedule says how long statements are good for. Time is cut into epochs, so that every signer makes the same
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

	// A signer may be remote, slow and paid by the signature: callers that ask for the same statement at the same
	// time wait for one signature, and what was signed is kept, by path. Anybody can make up selections; the statements
	// that the fleet asks for are used again and again, so a flood of others does not push them out.
	signing singleflight.Group
	signed  *lru.Cache[string, []byte]
}

// maxSigned bounds how many statements are kept, of about 1 KB each.
const maxSigned = 4096

// signTime bounds a signature that is made for several.
const signTime = 30 * time.Second

// New makes an Issuer.
func New(signer signing.Signer, schedule Schedule, now func() time.Time) (*Issuer, error) {
	if err := schedule.Check(); err != nil {
		return nil, err
	}
	signed, err := lru.New[string, []byte](maxSigned)
	if err != nil {
		return nil, err
	}
	return &Issuer{signer: signer, schedule: schedule, now: now, signed: signed}, nil
}

// Key is the ID of the key that signs.
func (i *Issuer) Key() string { return i.signer.Public().ID() }

// Epoch is the number of the current epoch.
func (i *Issuer) Epoch() uint64 { return i.schedule.Epoch(i.now()) }

// ErrEpoch: a statement of this epoch is not due, or not any more.
var ErrEpoch = errors.New("not the epoch of this time")

// ETag is the entity tag, without quotes, of the statement with this path: another key makes another one.
func (i *Issuer) ETag(path string) string {
	return layout.ETag(path) + "-" + i.signer.Public().ID()[:16]
}

// Issue returns the statement of a decision about a selection of statements. Its epoch may be off by one: clocks
// differ. It fails with ErrEpoch for any other: nobody gets a statement from the future, which would be good for
// longer than the schedule says.
func (i *Issuer) Issue(ctx context.Context, d edge.Decision) ([]byte, error) {
	if now := i.Epoch(); d.Epoch+1 < now || d.Epoch > now+1 {
		return nil, fmt.Errorf("sign statement of epoch %d at %d: %w", d.Epoch, now, ErrEpoch)
	}
	_, path := d.Object()
	if data, ok := i.signed.Get(path); ok {
		return data, nil
	}
	result := i.signing.DoChan(path, func() (any, error) {
		if data, ok := i.signed.Get(path); ok { // it was signed since
			return data, nil
		}
		// The first caller may go; the others still wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signTime)
		defer cancel()
		s := statement.Of(d)
		s.Expires = i.schedule.expires(d.Epoch)
		data, err := statement.Sign(ctx, s, i.signer)
		if err == nil {
			i.signed.Add(path, data)
		}
		return data, err
	})
	select {
	case r := <-result:
		data, _ := r.Val.([]byte)
		return data, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
