package builder_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// scripted are a catalog and an object store that do what a test says.
type scripted struct {
	builder.Catalog
	builder.Objects
	snapshot func(ctx context.Context) error
	stat     func(ctx context.Context) error
}

func (s scripted) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	if err := s.snapshot(ctx); err != nil {
		return nil, err
	}
	return s.Catalog.Snapshot(ctx)
}

func (s scripted) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if s.stat != nil {
		if err := s.stat(ctx); err != nil {
			return builder.ObjectInfo{}, err
		}
	}
	return s.Objects.Stat(ctx, key)
}

// What becomes of a job's message, by how the job ends and how often it has been received.
func TestDeliveryPolicy(t *testing.T) {
	const visibility, attempts = 30 * time.Second, 5
	own := func(context.Context) error { return errors.New("this job cannot be done") }
	throttled := func(context.Context) error { return fmt.Errorf("read catalog: %w", builder.ErrOutage) }
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	slow := func(ctx context.Context) error { return builder.Pause(ctx, 10*visibility) }
	well := func(context.Context) error { return nil }
	const never = -1
	for name, c := range map[string]struct {
		job, store       func(context.Context) error
		receives         int
		deadline         time.Duration // 0: none
		finished, outage bool
		again            time.Duration // after which it is there again
		as               int           // its receives then
	}{
		"done":                               {well, nil, 4, 0, true, false, never, 0},
		"done, takes long":                   {slow, nil, 1, 0, true, false, never, 0},
		"its own fault":                      {own, nil, 1, 0, false, false, time.Second, 2},
		"its own fault, again":               {own, nil, 4, 0, false, false, 8 * time.Second, 5},
		"its own fault, to the end":          {own, nil, 5, 0, false, false, never, 0},
		"an outage":                          {throttled, nil, 2, 0, false, true, 2 * time.Second, 3},
		"an outage, again":                   {throttled, nil, 3, 0, true, true, 0, 1},
		"an outage, outcomes were lost":      {throttled, nil, 5, 0, true, true, 0, 1},
		"an outage that the store knows":     {own, own, 3, 0, true, true, 0, 1},
		"time is up":                         {hang, nil, 2, time.Minute, false, false, 0, 3},
		"time is up, again":                  {hang, nil, 3, time.Minute, false, false, 0, 4},
		"time is up, the store hangs":        {hang, hang, 2, time.Minute, false, false, 0, 3},
		"time is up, the store hangs, again": {hang, hang, 3, time.Minute, true, true, 0, 1},
		"no time from the start":             {well, nil, 2, time.Second, false, false, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.NewMemory(time.Now, attempts)
				s := scripted{m.Catalog, m.Objects, c.job, c.store}
				policy := builder.DeliveryPolicy{Visibility: visibility, Margin: 10 * time.Second,
					Builder: builder.New(builder.Ports{Objects: s, Catalog: s, Queue: m.Queue, Ledger: m.Ledger}, builder.Options{Attempts: attempts})}
				ctx := t.Context()
				must(t, m.Queue.Send(ctx, []byte(`{"kind":"plan","after":1}`)))
				var delivered builder.Message
				for n := range c.receives {
					if n > 0 {
						must(t, m.Queue.Extend(ctx, delivered.Receipt, 0))
					}
					messages, err := m.Queue.Receive(ctx, 1, visibility, 0)
					must(t, err)
					delivered = messages[0]
				}
				doing := ctx
				if c.deadline > 0 {
					var cancel context.CancelFunc
					doing, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				others, stop := context.WithCancel(ctx)
				go func() { // another worker, which must not get the job before this one has ended
					for builder.Pause(others, visibility/4+time.Millisecond) == nil {
						if messages, err := m.Queue.Receive(ctx, 1, visibility, 0); err != nil || len(messages) > 0 {
							t.Errorf("another worker got %v, %v", messages, err)
						}
					}
				}()
				finished, outage := policy.Do(doing, delivered)
				if finished {
					must(t, m.Queue.Delete(ctx, delivered.Receipt))
				}
				late := doing.Err() != nil
				stop()
				synctest.Wait()
				if finished != c.finished || outage != c.outage || late {
					t.Errorf("finished %v, outage %v, beyond the deadline %v", finished, outage, late)
				}
				again, as := time.Duration(never), 0
				for waited := time.Duration(0); waited < time.Minute && again == never; waited += time.Second {
					messages, err := m.Queue.Receive(ctx, 1, visibility, 0)
					must(t, err)
					if len(messages) > 0 {
						again, as = waited, messages[0].Receives
					}
					must(t, builder.Pause(ctx, time.Second))
				}
				_, _, dead, err := m.Queue.Depth(ctx)
				must(t, err)
				if again != c.again || as != c.as || dead > 0 != (c.again == never && !c.finished) {
					t.Errorf("there again after %v, received for the %dth time, %d dead letters; want %v, %d", again, as, dead, c.again, c.as)
				}
			})
		})
	}
}
