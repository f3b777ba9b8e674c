package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
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
	return &history.Keeper{Objects: p.Objects, Ledger: p.Ledger, Clock: p.cfg.Builder.Clock, Rebuild: p.Builder.Mend}
}

// Rollback publishes the content of an earlier generation again, pinned, then looks whether everything
// is there for devices that took what was rolled back, and asks for what is not.
func (p *Pipeline) Rollback(ctx context.Context, r history.Request) (RolledBack, error) {
	clock := p.cfg.Builder.Clock
	start := clock.Now()
	if err := r.By.Check(); err != nil {
		return RolledBack{}, fmt.Errorf("roll back: %w: %w", history.ErrRefused, err)
	}
	k := p.keeper()
	res, err := k.Rollback(ctx, r)
	out := RolledBack{Result: res}
	if err != nil {
		return out, err
	}
	out.Seconds = seconds(clock, start)
	logged := p.record(ctx, r.By, catalog.Act{What: "rollback", Generation: res.Generation, Of: res.Of})
	p.events.Published(ctx, builder.Published{Generation: res.Generation, Sequence: res.Sequence, Changed: true})
	if err := errors.Join(logged, p.afterRollback(ctx, k, &out)); err != nil {
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

// Pin keeps what is published from being replaced. The author's message is the reason that the pin names.
func (p *Pipeline) Pin(ctx context.Context, by catalog.Author) (history.Pinned, error) {
	if err := by.Check(); err != nil {
		return history.Pinned{}, fmt.Errorf("pin: %w: %w", history.ErrRefused, err)
	}
	pinned, err := p.keeper().Pin(ctx, by.Message)
	if err != nil {
		return pinned, err
	}
	return pinned, p.record(ctx, by, catalog.Act{What: "pin", Generation: pinned.Generation})
}

// Unpin lets what is published be replaced again. Nothing is published before somebody asks for a plan,
// as Build does.
func (p *Pipeline) Unpin(ctx context.Context, by catalog.Author) (history.Pinned, error) {
	if err := by.Check(); err != nil {
		return history.Pinned{}, fmt.Errorf("unpin: %w: %w", history.ErrRefused, err)
	}
	pinned, err := p.keeper().Unpin(ctx)
	if err != nil {
		return pinned, err
	}
	return pinned, p.record(ctx, by, catalog.Act{What: "unpin", Generation: pinned.Generation})
}

// record writes what was done to what is published into the catalog's log. It comes afterwards: what the log says was
// done, and a catalog that cannot be written keeps nobody from going back.
func (p *Pipeline) record(ctx context.Context, by catalog.Author, act catalog.Act) error {
	if err := p.write(ctx, catalog.Edit{By: by, Act: &act}); err != nil {
		return fmt.Errorf("it is done, and missing from the log: %w", err)
	}
	return nil
}
