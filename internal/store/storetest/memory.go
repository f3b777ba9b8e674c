package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Memory is a set of drivers in memory that keep the contract: for tests of what uses drivers, and
// for faults_test.go to break.
type Memory struct {
	Objects interface {
		builder.Objects
		Delete(ctx context.Context, keys ...string) error
	}
	Catalog CatalogStore
	Queue   DeadQueue
	Ledger  LedgerStore
}

// NewMemory makes drivers that take the time from now, and dead letters of what was received so often.
func NewMemory(now func() time.Time, maxReceives int) Memory {
	objects := newMemObjects()
	objects.now = now
	return Memory{objects, newMemCatalog(now), newMemQueue(now, maxReceives), newMemLedger()}
}

type memObjects struct {
	now     func() time.Time
	mu      sync.Mutex
	objects map[string]memObject
}

type memObject struct {
	info builder.ObjectInfo
	data []byte
}

func newMemObjects() *memObjects {
	return &memObjects{now: time.Now, objects: make(map[string]memObject)}
}

func (m *memObjects) lookup(ctx context.Context, key string) (memObject, error) {
	if _, err := layout.KindOf(key); err != nil {
		return memObject{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[key]
	if !ok {
		return memObject{}, builder.ErrNotExist
	}
	obj.info.Meta = maps.Clone(obj.info.Meta)
	return obj, ctx.Err()
}

func (m *memObjects) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	obj, err := m.lookup(ctx, key)
	return obj.info, err
}

func (m *memObjects) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	obj, err := m.lookup(ctx, key)
	if err != nil {
		return nil, obj.info, err
	}
	data := obj.data[min(off, obj.info.Size):]
	if n >= 0 && n < int64(len(data)) {
		data = data[:n]
	}
	return io.NopCloser(bytes.NewReader(data)), obj.info, nil
}

func (m *memObjects) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	var none builder.ObjectInfo
	if _, err := layout.KindOf(key); err != nil {
		return none, err
	}
	if err := opt.Check(); err != nil {
		return none, err
	}
	if _, err := body.Reader.Seek(0, io.SeekStart); err != nil {
		return none, err
	}
	data, err := io.ReadAll(body.Reader)
	if err != nil {
		return none, err
	}
	sum := crc64nvme.Checksum(data)
	if int64(len(data)) != body.Size || body.Checked && sum != body.CRC64NVME {
		return none, errors.New("bad body")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return none, err
	}
	old, exists := m.objects[key]
	if opt.IfAbsent && exists || opt.IfMatch != "" && (!exists || old.info.ETag != opt.IfMatch) {
		return none, builder.ErrPrecondition
	}
	kind, _ := layout.KindOf(key)
	info := builder.ObjectInfo{
		Key: key, Size: body.Size, ETag: fmt.Sprintf("%x-%x", sum, body.Size), Meta: maps.Clone(opt.Meta),
		Modified: m.now(), Headers: layout.HeadersOf(kind),
	}
	m.objects[key] = memObject{info, data}
	info.Meta = maps.Clone(opt.Meta)
	return info, nil
}

func (m *memObjects) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	m.mu.Lock()
	keys := slices.Sorted(maps.Keys(m.objects))
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		obj, err := m.lookup(ctx, key)
		if errors.Is(err, builder.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		obj.info.Meta, obj.info.Headers = nil, layout.Headers{}
		if err := yield(obj.info); err != nil {
			return err
		}
	}
	return nil
}

func (m *memObjects) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if _, err := layout.KindOf(key); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, key := range keys {
		delete(m.objects, key)
	}
	return nil
}

type memQueue struct {
	mu          sync.Mutex
	now         func() time.Time
	maxReceives int
	sent        int
	live, dead  []*memMessage
	changed     chan struct{}
}

type memMessage struct {
	builder.Message
	visible time.Time
}

func newMemQueue(now func() time.Time, maxReceives int) *memQueue {
	return &memQueue{now: now, maxReceives: maxReceives, changed: make(chan struct{})}
}

func (m *memQueue) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memQueue) Send(ctx context.Context, bodies ...[]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range bodies {
		if len(b) > 1<<20 {
			return errors.New("too long")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		m.sent++
		m.live = append(m.live, &memMessage{Message: builder.Message{ID: fmt.Sprint(m.sent), Body: slices.Clone(b)}})
	}
	m.wake()
	return nil
}

func (m *memQueue) Receive(ctx context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error) {
	timeout := time.After(wait)
	for {
		m.mu.Lock()
		msgs, changed := m.take(min(max, 10), visibility), m.changed
		m.mu.Unlock()
		if len(msgs) > 0 || wait == 0 {
			return msgs, ctx.Err()
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *memQueue) take(max int, visibility time.Duration) []builder.Message {
	var msgs []builder.Message
	for _, msg := range slices.Clone(m.live) {
		switch {
		case len(msgs) == max || msg.visible.After(m.now()):
		case msg.Receives >= m.maxReceives:
			m.live = slices.DeleteFunc(m.live, func(o *memMessage) bool { return o == msg })
			m.dead = append(m.dead, msg)
		default:
			msg.Receives++
			msg.Receipt = fmt.Sprintf("%s/%d", msg.ID, msg.Receives)
			msg.visible = m.now().Add(visibility)
			msgs = append(msgs, msg.Message)
		}
	}
	return msgs
}

func (m *memQueue) Extend(ctx context.Context, receipt string, visibility time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range m.live {
		if msg.Receipt == receipt && msg.visible.After(m.now()) {
			msg.visible = m.now().Add(visibility)
			m.wake()
			return ctx.Err()
		}
	}
	return builder.ErrNotExist
}

func (m *memQueue) Delete(ctx context.Context, receipt string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live = slices.DeleteFunc(m.live, func(msg *memMessage) bool { return msg.Receipt == receipt })
	return ctx.Err()
}

func (m *memQueue) Dead(ctx context.Context, max int) ([]builder.Message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var msgs []builder.Message
	for _, msg := range m.dead[:min(max, len(m.dead))] {
		msgs = append(msgs, msg.Message)
	}
	return msgs, ctx.Err()
}

func (m *memQueue) Redrive(ctx context.Context) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.dead)
	for _, msg := range m.dead {
		msg.Receives = 0
	}
	m.live, m.dead = append(m.live, m.dead...), nil
	m.wake()
	return n, ctx.Err()
}

func (m *memQueue) Depth(ctx context.Context) (waiting, inFlight, dead int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range m.live {
		if msg.visible.After(m.now()) {
			inFlight++
		} else {
			waiting++
		}
	}
	return waiting, inFlight, len(m.dead), ctx.Err()
}

type memLedger struct {
	mu      sync.Mutex
	last    uint64
	entries map[string][]bool
}

func newMemLedger() *memLedger { return &memLedger{entries: make(map[string][]bool)} }

func (m *memLedger) Advance(_ context.Context, n uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = max(m.last, n)
	return nil
}

func (m *memLedger) Next(ctx context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	return m.last, ctx.Err()
}

func (m *memLedger) Open(ctx context.Context, id string, parts int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if parts < 1 {
		return errors.New("no parts")
	}
	if m.entries[id] == nil {
		m.entries[id] = make([]bool, parts)
	}
	return ctx.Err()
}

func (m *memLedger) Done(ctx context.Context, id string, part int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	done := m.entries[id]
	if done == nil {
		return 0, builder.ErrNotExist
	}
	if part < 0 || part >= len(done) {
		return 0, errors.New("no such part")
	}
	done[part] = true
	left := 0
	for _, d := range done {
		if !d {
			left++
		}
	}
	return left, nil
}

func (m *memLedger) Close(ctx context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, id)
	return ctx.Err()
}
