package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
)

// A Fence tells whether objects that nothing published needs are being removed right now (package gc).
// While it holds, nobody may begin to rely on an object because it exists: it may be gone in a moment.
// docs/gc.md has the whole argument.
type Fence struct {
	Epoch   uint64 `json:"epoch"` // counts sweeps
	Running bool   `json:"running"`
	// Until is when a running sweep's lease ends, by its own clock: it removes nothing after that, whether
	// it comes to say so or not.
	Until time.Time `json:"until,omitzero"`
	// By tells one sweep from another that took the same epoch.
	By string `json:"by,omitempty"`
}

// Holds tells whether the fence is up.
func (f Fence) Holds(now time.Time) bool { return f.Running && now.Before(f.Until) }

// Encode returns the fence as an object's bytes.
func (f Fence) Encode() ([]byte, error) {
	data, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode fence: %w", err)
	}
	return append(data, '\n'), nil
}

// ErrSweeping: a sweep was running for as long as one was ready to wait. It ends within its lease.
var ErrSweeping = errors.New("unused objects are being removed")

// maxFence bounds the fence's object, bytes.
const maxFence = 4096

// ReadFence returns the fence and its ETag; one that was never put up has neither.
func ReadFence(ctx context.Context, objects Getter) (Fence, string, error) {
	data, info, err := ReadAll(ctx, objects, layout.SweepKey, maxFence)
	if errors.Is(err, ErrNotExist) {
		return Fence{}, "", nil
	}
	if err != nil {
		return Fence{}, "", err
	}
	var f Fence
	if err := json.Unmarshal(data, &f); err != nil {
		return Fence{}, "", fmt.Errorf("read %s: %w", layout.SweepKey, err)
	}
	return f, info.ETag, nil
}

// Clock tells the time and lets it pass. Its zero value is the real one.
type Clock struct {
	Time func() time.Time
	// Pass waits, unless ctx ends first.
	Pass func(ctx context.Context, d time.Duration)
}

// Now tells the time.
func (c Clock) Now() time.Time {
	if c.Time == nil {
		return time.Now()
	}
	return c.Time()
}

// Wait lets time pass, unless ctx ends first: then it returns ctx's error.
func (c Clock) Wait(ctx context.Context, d time.Duration) error {
	if c.Pass == nil {
		return Pause(ctx, d)
	}
	c.Pass(ctx, d)
	return ctx.Err()
}

// Pause waits on the real clock, unless ctx ends first: then it returns ctx's error.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// fenceLook is how often a fence is looked at.
const fenceLook = time.Second

// AwaitFence returns once no sweep is running. It fails with ErrSweeping if one still is after most.
func AwaitFence(ctx context.Context, objects Getter, clock Clock, most time.Duration) error {
	for waited := time.Duration(0); ; waited += fenceLook {
		f, _, err := ReadFence(ctx, objects)
		if err != nil {
			return err
		}
		if !f.Holds(clock.Now()) {
			return nil
		}
		if waited >= most {
			return fmt.Errorf("%w: sweep %d may run until %s", ErrSweeping, f.Epoch, f.Until.UTC().Format(time.RFC3339))
		}
		if err := clock.Wait(ctx, fenceLook); err != nil {
			return err
		}
	}
}

// Announce writes a planned index down and returns once no sweep is running. Whatever the plan needs and
// finds in the store after that, stays there: a sweep that begins later sees the plan, and keeps what
// it needs until something at least as new is published.
func Announce(ctx context.Context, objects Objects, plan *index.Index, clock Clock, most time.Duration) error {
	_, err := objects.Put(ctx, layout.PlanKey(plan.Sequence), BytesBody(plan.Encode()), PutOptions{IfAbsent: true})
	if err != nil && !errors.Is(err, ErrPrecondition) {
		return fmt.Errorf("write plan %d: %w", plan.Sequence, err)
	}
	return AwaitFence(ctx, objects, clock, most)
}
