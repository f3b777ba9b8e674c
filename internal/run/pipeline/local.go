package pipeline

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/builder/trigger"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/store/source"
)

// Local returns the drivers of an open data folder.
func Local(store *local.Store) Drivers {
	return Drivers{
		Ports: builder.Ports{
			Objects: store.Objects(),
			Catalog: store.Catalog(),
			Queue:   store.Queue(),
			Ledger:  store.Ledger(),
			Sources: LocalSources(store.Objects()),
		},
		Writer:      store.Catalog(),
		DeadLetters: store.Queue(),
		Disk:        store.Objects(),
		Numbers:     store.Ledger(),
		NewTrigger: func(window time.Duration, log *slog.Logger) (Trigger, error) {
			return &trigger.Watcher{
				Log: changeLog{store.Catalog()}, Ledger: store.Ledger(), Queue: store.Queue(), Window: window, Logger: log,
			}, nil
		},
	}
}

// LocalSources are where the binaries of a data folder's catalog may be.
func LocalSources(objects builder.Objects) builder.Sources {
	return &source.Sources{Objects: objects, HTTP: &http.Client{Timeout: time.Hour}, Files: true}
}

// changeLog makes a trigger.ChangeLog of the embedded catalog's.
type changeLog struct{ catalog *local.Catalog }

const cursor = "plans"

func (c changeLog) Wait(ctx context.Context, after uint64, wait time.Duration) (uint64, error) {
	if _, err := c.catalog.Changes(ctx, after, 1, wait); err != nil {
		return after, err
	}
	last, err := c.catalog.LastChange(ctx)
	return max(after, last), err
}

func (c changeLog) Cursor(ctx context.Context) (uint64, error) { return c.catalog.Cursor(ctx, cursor) }

func (c changeLog) Advance(ctx context.Context, seq uint64) error {
	if err := c.catalog.SetCursor(ctx, cursor, seq); err != nil {
		return err
	}
	return c.catalog.TrimChanges(ctx, seq)
}
