package pipeline

import (
	"context"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/operate/history"
)

// RolledBack is what a rollback did.
type RolledBack struct {
	history.Result
	// Seconds until the index was written, and altogether.
	Seconds float64 `json:"seconds"`
	Checked float64 `json:"checkedSeconds"`
	// Problem is what went wrong after the index had been written: the rollback is done all the same.
	Problem string `json:"problem,omitempty"`
}

func (p *Pipeline) keeper() *history.Keeper {
	return &history.Keeper{Objects: p.Objects, Ledger: p.Ledger, Clock: p.cfg.Builder.Clock, Rebuild: p.Builder.StorePiece}
}

// Rollback publishes the content of an earlier generation again, pinned, then looks whether everything
// is there for devices that took what was rolled back, and asks for what is not.
func (p *Pipeline) Rollback(ctx context.Context, r history.Request) (RolledBack, error) {
	clock := p.cfg.Builder.Clock
	start := clock.Now()
	k := p.keeper()
	res, err := k.Rollback(ctx, r)
	out := RolledBack{Result: res}
	if err != nil {
		return out, err
	}
	out.Seconds = seconds(clock, start)
	p.events.Published(ctx, builder.Published{Generation: res.Generation, Sequence: res.Sequence, Changed: true})
	if err := p.afterRollback(ctx, k, &out); err != nil {
		out.Problem = err.Error()
	}
	out.Checked = seconds(clock, start)
	return out, nil
}

func (p *Pipeline) afterRollback(ctx context.Context, k *history.Keeper, out *RolledBack) error {
	missing, lacking, err := k.Check(ctx, out.Generation)
	if err != nil {
		return err
	}
	if missing != nil {
		out.Missing = missing
	}
	if out.Lacking = lacking; lacking == 0 {
		return nil
	}
	return builder.RequestMend(ctx, p.Queue, out.Generation)
}

func seconds(c builder.Clock, since time.Time) float64 { return c.Now().Sub(since).Seconds() }

// Pin keeps what is published from being replaced.
func (p *Pipeline) Pin(ctx context.Context, reason string) (history.Pinned, error) {
	return p.keeper().Pin(ctx, reason)
}

// Unpin lets what is published be replaced again. Nothing is published before somebody asks for a plan,
// as Build does.
func (p *Pipeline) Unpin(ctx context.Context) (history.Pinned, error) { return p.keeper().Unpin(ctx) }
