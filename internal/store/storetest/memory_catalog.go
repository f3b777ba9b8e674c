package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

type memCatalog struct {
	now   func() time.Time
	mu    sync.Mutex
	items []catalog.Item
	log   []catalog.LogEntry
}

func newMemCatalog(now func() time.Time) *memCatalog { return &memCatalog{now: now} }

func (m *memCatalog) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := slices.Clone(m.items)
	for i := range items {
		items[i] = items[i].Clone()
	}
	return items, ctx.Err()
}

func (m *memCatalog) Apply(ctx context.Context, edit catalog.Edit) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(ctx.Err(), edit.Check()); err != nil || len(edit.Changes) == 0 && edit.Act == nil {
		return err
	}
	entry, err := edit.Entry(m.head(), func(k catalog.Key) *catalog.Item {
		if i := slices.IndexFunc(m.items, func(it catalog.Item) bool { return it.Key() == k }); i >= 0 {
			return &m.items[i]
		}
		return nil
	}, m.now())
	if err != nil {
		return fmt.Errorf("%w: %w", builder.ErrPrecondition, err)
	}
	m.items, m.log = catalog.Apply(m.items, edit.Changes), append(m.log, entry)
	return nil
}

func (m *memCatalog) head() catalog.Head {
	if len(m.log) == 0 {
		return catalog.NewHead()
	}
	return m.log[len(m.log)-1].Head()
}

func (m *memCatalog) Head(ctx context.Context) (catalog.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.head(), ctx.Err()
}

func (m *memCatalog) Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
	m.mu.Lock()
	log := m.log[min(after, uint64(len(m.log))):]
	m.mu.Unlock()
	for _, e := range log {
		if err := yield(e); err != nil {
			return err
		}
	}
	return ctx.Err()
}
