package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

// envFault names the fault that this process is to run its suite on.
const envFault = "STORETEST_FAULT"

// TestContract: drivers that keep the contract pass.
func TestContract(t *testing.T) {
	t.Run("Objects", func(t *testing.T) { Objects(t, func(*testing.T) builder.Objects { return newMemObjects() }) })
	t.Run("Deletes", func(t *testing.T) { Deletes(t, func(*testing.T) DeletingObjects { return newMemObjects() }) })
	t.Run("Catalog", func(t *testing.T) { Catalog(t, func(*testing.T) CatalogStore { return newMemCatalog(time.Now) }) })
	clock, opt := faultQueueOptions()
	t.Run("Queue", func(t *testing.T) {
		Queue(t, func(*testing.T) builder.Queue { return newMemQueue(clock.Now, opt.MaxReceives) }, opt)
	})
	t.Run("DeadLetters", func(t *testing.T) {
		DeadLetters(t, func(*testing.T) DeadQueue { return newMemQueue(clock.Now, opt.MaxReceives) }, opt)
	})
	t.Run("Ledger", func(t *testing.T) { Ledger(t, func(*testing.T) builder.Ledger { return newMemLedger() }) })
}

// TestFaults: a driver with one fault fails, in the test that is there to find it. Each fault runs in
// a process of its own, as failing is what it has to do.
func TestFaults(t *testing.T) {
	if os.Getenv(envFault) != "" {
		t.Skip("this is the process of one fault")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(exe, "-test.run=^TestOneFault$/^"+f.foundBy+"$", "-test.timeout=30s")
			cmd.Env = append(os.Environ(), envFault+"="+f.name)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
				t.Fatalf("the suite passed: %v\n%s", err, out)
			}
			if !strings.Contains(string(out), "--- FAIL: TestOneFault/"+f.foundBy+" (") || strings.Contains(string(out), "panic:") {
				t.Errorf("%s did not find it:\n%s", f.foundBy, out)
			}
		})
	}
}

func TestOneFault(t *testing.T) {
	name := os.Getenv(envFault)
	if name == "" {
		t.Skip("run by TestFaults")
	}
	for _, f := range faults() {
		if f.name == name {
			f.run(t)
			return
		}
	}
	t.Skipf("no fault %q", name) // TestFaults takes that for a pass
}

type fault struct {
	name, foundBy string
	run           func(*testing.T)
}

func faults() []fault {
	return slices.Concat(objectFaults(), deleteFaults(), catalogFaults(), queueFaults(), ledgerFaults())
}

// brokenObjects replaces single methods of a driver.
type brokenObjects struct {
	builder.Objects
	get  func(o builder.Objects, ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error)
	put  func(o builder.Objects, ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error)
	list func(o builder.Objects, ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error
	stat func(o builder.Objects, ctx context.Context, key string) (builder.ObjectInfo, error)
}

func (b brokenObjects) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if b.get != nil {
		return b.get(b.Objects, ctx, key, off, n)
	}
	return b.Objects.Get(ctx, key, off, n)
}

func (b brokenObjects) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if b.put != nil {
		return b.put(b.Objects, ctx, key, body, opt)
	}
	return b.Objects.Put(ctx, key, body, opt)
}

func (b brokenObjects) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	if b.list != nil {
		return b.list(b.Objects, ctx, prefix, yield)
	}
	return b.Objects.List(ctx, prefix, yield)
}

func (b brokenObjects) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if b.stat != nil {
		return b.stat(b.Objects, ctx, key)
	}
	return b.Objects.Stat(ctx, key)
}

func objectFaults() []fault {
	broken := func(name, foundBy string, b brokenObjects) fault {
		return fault{"Objects: " + name, foundBy, func(t *testing.T) {
			Objects(t, func(*testing.T) builder.Objects {
				b := b
				b.Objects = newMemObjects()
				return b
			})
		}}
	}
	type (
		opts  = builder.PutOptions
		infos = builder.ObjectInfo
	)
	put := func(change func(b *builder.Body, opt *opts)) brokenObjects {
		return brokenObjects{put: func(o builder.Objects, ctx context.Context, key string, body builder.Body, opt opts) (infos, error) {
			change(&body, &opt)
			return o.Put(ctx, key, body, opt)
		}}
	}
	checkThenPut := func(condition func(opts) bool) brokenObjects {
		return brokenObjects{put: func(o builder.Objects, ctx context.Context, key string, body builder.Body, opt opts) (infos, error) {
			info, err := o.Stat(ctx, key)
			if opt.IfAbsent && err == nil || opt.IfMatch != "" && info.ETag != opt.IfMatch {
				return infos{}, builder.ErrPrecondition
			}
			if condition(opt) {
				opt.IfAbsent, opt.IfMatch = false, ""
				runtime.Gosched()
			}
			return o.Put(ctx, key, body, opt)
		}}
	}
	list := func(change func(keys []infos, prefix string) []infos) brokenObjects {
		return brokenObjects{list: func(o builder.Objects, ctx context.Context, prefix string, yield func(infos) error) error {
			var all []infos
			err := o.List(ctx, "", func(i infos) error { all = append(all, i); return nil })
			if err != nil {
				return err
			}
			for _, i := range change(all, prefix) {
				if err := yield(i); err != nil {
					return err
				}
			}
			return nil
		}}
	}
	withPrefix := func(all []infos, prefix string) []infos {
		return slices.DeleteFunc(all, func(i infos) bool { return !strings.HasPrefix(i.Key, prefix) })
	}
	get := func(change func(off, n *int64)) brokenObjects {
		return brokenObjects{get: func(o builder.Objects, ctx context.Context, key string, off, n int64) (io.ReadCloser, infos, error) {
			change(&off, &n)
			return o.Get(ctx, key, off, n)
		}}
	}
	whole := func(b *builder.Body) []byte {
		b.Reader.Seek(0, io.SeekStart)
		all, _ := io.ReadAll(b.Reader)
		return all
	}
	var faults []fault
	for i, bad := range badMetas() {
		faults = append(faults, broken(fmt.Sprintf("bad metadata %d accepted: %.20q", i, bad), "BadMeta", put(func(_ *builder.Body, opt *opts) {
			if maps.Equal(opt.Meta, bad) {
				opt.Meta = nil
			}
		})))
	}
	return append(faults,
		broken("IfAbsent ignored", "IfAbsent", put(func(_ *builder.Body, opt *opts) { opt.IfAbsent = false })),
		broken("IfMatch ignored", "IfMatch", put(func(_ *builder.Body, opt *opts) { opt.IfMatch = "" })),
		broken("IfAbsent not atomic", "ConcurrentIfAbsent", checkThenPut(func(opt opts) bool { return opt.IfAbsent })),
		broken("IfMatch not atomic", "ConcurrentIfMatch", checkThenPut(func(opt opts) bool { return opt.IfMatch != "" })),
		broken("checksum not verified", "BadBody", put(func(b *builder.Body, _ *opts) { b.Checked = false })),
		broken("size not verified", "BadBody", put(func(b *builder.Body, _ *opts) { b.Size = int64(len(whole(b))) })),
		broken("long body truncated", "BadBody", put(func(b *builder.Body, _ *opts) {
			all := whole(b)
			b.Reader = bytes.NewReader(all[:min(int64(len(all)), b.Size)])
		})),
		broken("body from where it stands", "BodyFromStart", put(func(b *builder.Body, _ *opts) {
			rest, err := io.ReadAll(b.Reader)
			if err == nil {
				b.Reader, b.Size = bytes.NewReader(rest), int64(len(rest))
			}
		})),
		broken("metadata dropped", "Meta", put(func(_ *builder.Body, opt *opts) { opt.Meta = nil })),
		broken("two conditions accepted", "BothConditions", put(func(_ *builder.Body, opt *opts) {
			if opt.IfAbsent {
				opt.IfMatch = ""
			}
		})),
		broken("any key accepted", "RefusedKeys", brokenObjects{put: func(o builder.Objects, ctx context.Context, key string, body builder.Body, opt opts) (infos, error) {
			info, err := o.Put(ctx, key, body, opt)
			if strings.Contains(key, "..") {
				err = nil
			}
			return info, err
		}}),
		broken("written though refused", "BadBody", brokenObjects{put: func(o builder.Objects, ctx context.Context, key string, body builder.Body, opt opts) (infos, error) {
			info, err := o.Put(ctx, key, body, opt)
			if err != nil && body.Checked {
				body.Checked = false
				o.Put(ctx, key, body, opt)
			}
			return info, err
		}}),
		broken("ETag of the size alone", "ETag", brokenObjects{
			put: func(o builder.Objects, ctx context.Context, key string, body builder.Body, opt opts) (infos, error) {
				info, err := o.Put(ctx, key, body, opt)
				info.ETag = fmt.Sprint(info.Size)
				return info, err
			},
		}),
		broken("absence has its own error", "Absent", brokenObjects{stat: func(o builder.Objects, ctx context.Context, key string) (infos, error) {
			info, err := o.Stat(ctx, key)
			if errors.Is(err, builder.ErrNotExist) {
				err = errors.New("404")
			}
			return info, err
		}}),
		broken("range's length ignored", "Range", get(func(_, n *int64) { *n = -1 })),
		broken("range's offset ignored", "Range", get(func(off, _ *int64) { *off = 0 })),
		broken("range of 0 bytes is everything", "Range", get(func(_, n *int64) {
			if *n == 0 {
				*n = -1
			}
		})),
		broken("range beyond the end fails", "Range", brokenObjects{get: func(o builder.Objects, ctx context.Context, key string, off, n int64) (io.ReadCloser, infos, error) {
			r, info, err := o.Get(ctx, key, off, n)
			if err == nil && off > 0 && off >= info.Size {
				return nil, info, errors.New("416")
			}
			return r, info, err
		}}),
		broken("info describes the range", "Range", brokenObjects{get: func(o builder.Objects, ctx context.Context, key string, off, n int64) (io.ReadCloser, infos, error) {
			r, info, err := o.Get(ctx, key, off, n)
			if n >= 0 {
				info.Size = min(info.Size, n)
			}
			return r, info, err
		}}),
		broken("bytes and info read apart", "ConcurrentReads", brokenObjects{get: func(o builder.Objects, ctx context.Context, key string, off, n int64) (io.ReadCloser, infos, error) {
			info, err := o.Stat(ctx, key)
			if err != nil {
				return nil, info, err
			}
			time.Sleep(time.Millisecond)
			r, _, err := o.Get(ctx, key, off, n)
			return r, info, err
		}}),
		broken("list without times", "Modified", brokenObjects{list: func(o builder.Objects, ctx context.Context, prefix string, yield func(infos) error) error {
			return o.List(ctx, prefix, func(i infos) error { i.Modified = time.Time{}; return yield(i) })
		}}),
		broken("headers of another kind", "Headers", brokenObjects{stat: func(o builder.Objects, ctx context.Context, key string) (infos, error) {
			i, err := o.Stat(ctx, key)
			i.Headers = layout.HeadersOf(layout.Bundle)
			return i, err
		}}),
		broken("list in reverse", "List", list(func(all []infos, prefix string) []infos {
			all = withPrefix(all, prefix)
			slices.Reverse(all)
			return all
		})),
		broken("list ignores the prefix", "List", list(func(all []infos, _ string) []infos { return all })),
		broken("list ends at a page", "ListMany", list(func(all []infos, prefix string) []infos {
			all = withPrefix(all, prefix)
			return all[:min(len(all), 1000)]
		})),
		broken("list goes on after an error", "ListStops", brokenObjects{list: func(o builder.Objects, ctx context.Context, prefix string, yield func(infos) error) error {
			var last error
			err := o.List(ctx, prefix, func(i infos) error {
				if err := yield(i); err != nil {
					last = err
				}
				return nil
			})
			return errors.Join(err, last)
		}}),
		broken("list wraps yield's error", "ListStops", brokenObjects{list: func(o builder.Objects, ctx context.Context, prefix string, yield func(infos) error) error {
			if err := o.List(ctx, prefix, yield); err != nil {
				return fmt.Errorf("list: %w", err)
			}
			return nil
		}}),
		fault{"Objects: stale reads", "Replace", func(t *testing.T) {
			Objects(t, func(*testing.T) builder.Objects {
				return &staleObjects{Objects: newMemObjects(), old: make(map[string]*memObjects)}
			})
		}},
	)
}

// brokenDeletes replaces Delete.
type brokenDeletes struct {
	*memObjects
	delete func(m *memObjects, ctx context.Context, keys []string) error
}

func (b brokenDeletes) Delete(ctx context.Context, keys ...string) error {
	return b.delete(b.memObjects, ctx, keys)
}

func deleteFaults() []fault {
	broken := func(name, foundBy string, delete func(m *memObjects, ctx context.Context, keys []string) error) fault {
		return fault{"Deletes: " + name, foundBy, func(t *testing.T) {
			Deletes(t, func(*testing.T) DeletingObjects { return brokenDeletes{newMemObjects(), delete} })
		}}
	}
	return []fault{
		broken("nothing is removed", "Kinds", func(*memObjects, context.Context, []string) error { return nil }),
		broken("absence is an error", "Idempotent", func(m *memObjects, ctx context.Context, keys []string) error {
			for _, key := range keys {
				if _, err := m.Stat(ctx, key); err != nil {
					return err
				}
			}
			return m.Delete(ctx, keys...)
		}),
		broken("keys are prefixes", "LeavesOthers", func(m *memObjects, ctx context.Context, keys []string) error {
			for _, key := range keys {
				key, _, _ = strings.Cut(key, ".tar.gz")
				if err := m.List(ctx, key, func(i builder.ObjectInfo) error { return m.Delete(ctx, i.Key) }); err != nil {
					return err
				}
			}
			return nil
		}),
		broken("only a thousand", "Many", func(m *memObjects, ctx context.Context, keys []string) error {
			return m.Delete(ctx, keys[:min(len(keys), 1000)]...)
		}),
		broken("any key", "Foreign", func(m *memObjects, ctx context.Context, keys []string) error {
			for _, key := range keys {
				_ = m.Delete(ctx, key)
			}
			return ctx.Err()
		}),
		broken("context ignored", "Cancelled", func(m *memObjects, ctx context.Context, keys []string) error {
			return m.Delete(context.WithoutCancel(ctx), keys...)
		}),
	}
}

// staleObjects describes an object as it was before its last write.
type staleObjects struct {
	builder.Objects
	mu  sync.Mutex
	old map[string]*memObjects
}

func (s *staleObjects) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, info, err := s.Objects.Get(ctx, key, 0, -1); err == nil {
		was := newMemObjects()
		b, _ := io.ReadAll(r)
		was.Put(ctx, key, builder.Body{Reader: bytes.NewReader(b), Size: info.Size}, builder.PutOptions{Meta: info.Meta})
		s.old[key] = was
	}
	return s.Objects.Put(ctx, key, body, opt)
}

func (s *staleObjects) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.old[key]; was != nil {
		return was.Stat(ctx, key)
	}
	return s.Objects.Stat(ctx, key)
}

type brokenCatalog struct {
	*memCatalog
	apply    func(m *memCatalog, ctx context.Context, edit catalog.Edit) error
	snapshot func(items []catalog.Item) []catalog.Item
	head     func(catalog.Head) catalog.Head
	log      func(m *memCatalog, ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error
}

func (b brokenCatalog) Head(ctx context.Context) (catalog.Head, error) {
	head, err := b.memCatalog.Head(ctx)
	if b.head != nil {
		head = b.head(head)
	}
	return head, err
}

func (b brokenCatalog) Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
	if b.log != nil {
		return b.log(b.memCatalog, ctx, after, yield)
	}
	return b.memCatalog.Log(ctx, after, yield)
}

func (b brokenCatalog) Apply(ctx context.Context, edit catalog.Edit) error {
	if b.apply != nil {
		return b.apply(b.memCatalog, ctx, edit)
	}
	return b.memCatalog.Apply(ctx, edit)
}

func (b brokenCatalog) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	items, err := b.memCatalog.Snapshot(ctx)
	if b.snapshot != nil {
		items = b.snapshot(items)
	}
	return items, err
}

func catalogFaults() []fault {
	broken := func(name, foundBy string, b brokenCatalog) fault {
		return fault{"Catalog: " + name, foundBy, func(t *testing.T) {
			Catalog(t, func(*testing.T) CatalogStore {
				b := b
				b.memCatalog = newMemCatalog(time.Now)
				return b
			})
		}}
	}
	return []fault{
		broken("ends at a page", "Many", brokenCatalog{snapshot: func(items []catalog.Item) []catalog.Item { return items[:min(len(items), 66)] }}),
		broken("attributes dropped", "RoundTrip", brokenCatalog{snapshot: func(items []catalog.Item) []catalog.Item {
			for i := range items {
				items[i].DeviceAttr = nil
			}
			return items
		}}),
		broken("removal ignored", "Remove", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			edit.Changes = slices.DeleteFunc(slices.Clone(edit.Changes), func(c catalog.Change) bool { return c.Item == nil })
			return m.Apply(ctx, edit)
		}}),
		broken("removal of nothing fails", "Remove", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			for _, c := range edit.Changes {
				if c.Item == nil && !slices.ContainsFunc(m.items, func(it catalog.Item) bool { return it.Key() == c.Key }) {
					return builder.ErrNotExist
				}
			}
			return m.Apply(ctx, edit)
		}}),
		broken("first change of a key wins", "InOrder", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			edit.Changes = slices.Clone(edit.Changes)
			slices.Reverse(edit.Changes)
			return m.Apply(ctx, edit)
		}}),
		broken("items merged", "Replace", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			for _, c := range edit.Changes {
				for _, it := range m.items {
					if c.Item != nil && it.Key() == c.Key && c.Item.DeviceAttr == nil {
						merged := *c.Item
						merged.DeviceAttr = it.DeviceAttr
						c = catalog.Put(merged)
					}
				}
				if err := m.Apply(ctx, catalog.Edit{Changes: []catalog.Change{c}}); err != nil {
					return err
				}
			}
			return nil
		}}),
		broken("keys joined by a slash", "KeysApart", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			for _, c := range edit.Changes {
				m.items = slices.DeleteFunc(m.items, func(it catalog.Item) bool { return it.Key().String() == c.Key.String() })
			}
			return m.Apply(ctx, edit)
		}}),
		broken("context ignored", "Cancelled", brokenCatalog{apply: func(m *memCatalog, _ context.Context, edit catalog.Edit) error {
			return m.Apply(context.Background(), edit)
		}}),
		broken("updates lost", "Concurrent", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			items, err := m.Snapshot(ctx)
			if err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.items = catalog.Apply(items, edit.Changes)
			return nil
		}}),
		broken("no log", "Log", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			err := m.Apply(ctx, edit)
			m.log = nil
			return err
		}}),
		broken("authors dropped", "Log", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			edit.By = catalog.Author{}
			return m.Apply(ctx, edit)
		}}),
		broken("what was is dropped", "Log", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			items := m.items
			m.items = nil
			err := m.Apply(ctx, edit)
			m.items = catalog.Apply(items, edit.Changes)
			return err
		}}),
		broken("log from an entry on", "Log", brokenCatalog{log: func(m *memCatalog, ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
			return m.Log(ctx, max(after, 1)-1, yield)
		}}),
		broken("log backwards", "Log", brokenCatalog{log: func(m *memCatalog, ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
			for _, e := range slices.Backward(m.log[after:]) {
				if err := yield(e); err != nil {
					return err
				}
			}
			return nil
		}}),
		broken("yield's error wrapped", "Log", brokenCatalog{log: func(m *memCatalog, ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
			if err := m.Log(ctx, after, yield); err != nil {
				return fmt.Errorf("log: %w", err)
			}
			return nil
		}}),
		broken("log ends at a page", "LogOfMany", brokenCatalog{log: func(m *memCatalog, ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
			for _, e := range m.log[after:min(after+32, uint64(len(m.log)))] {
				if err := yield(e); err != nil {
					return err
				}
			}
			return nil
		}}),
		broken("changes of large edits dropped", "LogOfMany", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			items := catalog.Apply(m.items, edit.Changes)
			if len(edit.Changes) > 32 {
				edit.Changes = edit.Changes[:32]
			}
			err := m.Apply(ctx, edit)
			m.items = items
			return err
		}}),
		broken("acts ignored", "Act", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			if edit.Act != nil {
				return nil
			}
			return m.Apply(ctx, edit)
		}}),
		broken("what is refused is logged", "Refused", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			if err := edit.Check(); err != nil {
				entry, _ := edit.Entry(m.head(), func(catalog.Key) *catalog.Item { return nil }, time.Now())
				m.log = append(m.log, entry)
				return err
			}
			return m.Apply(ctx, edit)
		}}),
		broken("escape sequences accepted", "Refused", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			edit.By = catalog.Author{}
			return m.Apply(ctx, edit)
		}}),
		broken("nothing is an entry", "Refused", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			if len(edit.Changes) == 0 {
				edit.Act = &catalog.Act{}
			}
			return m.Apply(ctx, edit)
		}}),
		broken("base ignored", "Conditional", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			edit.Base = ""
			return m.Apply(ctx, edit)
		}}),
		broken("the empty log is no base", "Conditional", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			if edit.Base == catalog.NewHead().Digest {
				edit.Base = ""
			}
			return m.Apply(ctx, edit)
		}}),
		broken("base compared with the number", "Conditional", brokenCatalog{head: func(h catalog.Head) catalog.Head { return catalog.Head{Number: h.Number} }}),
		broken("base fits if the items do", "Conditional", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			if edit.Base != "" {
				edit.Base = m.head().Digest
			}
			return m.Apply(ctx, edit)
		}}),
		broken("writes before it refuses", "Conditional", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			err := m.Apply(ctx, edit)
			if errors.Is(err, builder.ErrPrecondition) {
				m.items = catalog.Apply(m.items, edit.Changes)
			}
			return err
		}}),
		broken("items not compared", "Was", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			return m.Apply(ctx, edit.On(catalog.Head{Digest: edit.Base}, m.items))
		}}),
		broken("only the first item compared", "Was", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			all := edit.On(catalog.Head{Digest: edit.Base}, m.items)
			if len(edit.Changes) > 0 {
				all.Changes[0].Was = edit.Changes[0].Was
			}
			return m.Apply(ctx, all)
		}}),
		broken("base looked at before, not while it writes", "ConditionalTogether", brokenCatalog{apply: func(m *memCatalog, ctx context.Context, edit catalog.Edit) error {
			head, err := m.Head(ctx)
			if err != nil {
				return err
			}
			if edit.Base != head.Digest {
				return builder.ErrPrecondition
			}
			time.Sleep(time.Millisecond)
			edit.Base = ""
			return m.Apply(ctx, edit)
		}}),
	}
}

type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func faultQueueOptions() (*testClock, QueueOptions) {
	clock := &testClock{now: time.Unix(1e9, 0)}
	return clock, QueueOptions{Clock: builder.Clock{Pass: func(_ context.Context, d time.Duration) { clock.Advance(d) }}, Visibility: 50 * time.Millisecond, Patience: 300 * time.Millisecond, MaxReceives: 3, Exact: true}
}

type brokenQueue struct {
	*memQueue
	send    func(m *memQueue, ctx context.Context, bodies ...[]byte) error
	receive func(m *memQueue, ctx context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error)
	extend  func(m *memQueue, ctx context.Context, receipt string, visibility time.Duration) error
	delete  func(m *memQueue, ctx context.Context, receipt string) error
	redrive func(m *memQueue, ctx context.Context) (int, error)
	dead    func(m *memQueue, ctx context.Context, max int) ([]builder.Message, error)
}

func (b brokenQueue) Send(ctx context.Context, bodies ...[]byte) error {
	if b.send != nil {
		return b.send(b.memQueue, ctx, bodies...)
	}
	return b.memQueue.Send(ctx, bodies...)
}

func (b brokenQueue) Receive(ctx context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error) {
	if b.receive != nil {
		return b.receive(b.memQueue, ctx, max, visibility, wait)
	}
	return b.memQueue.Receive(ctx, max, visibility, wait)
}

func (b brokenQueue) Extend(ctx context.Context, receipt string, visibility time.Duration) error {
	if b.extend != nil {
		return b.extend(b.memQueue, ctx, receipt, visibility)
	}
	return b.memQueue.Extend(ctx, receipt, visibility)
}

func (b brokenQueue) Delete(ctx context.Context, receipt string) error {
	if b.delete != nil {
		return b.delete(b.memQueue, ctx, receipt)
	}
	return b.memQueue.Delete(ctx, receipt)
}

func (b brokenQueue) Redrive(ctx context.Context) (int, error) {
	if b.redrive != nil {
		return b.redrive(b.memQueue, ctx)
	}
	return b.memQueue.Redrive(ctx)
}

func (b brokenQueue) Dead(ctx context.Context, max int) ([]builder.Message, error) {
	if b.dead != nil {
		return b.dead(b.memQueue, ctx, max)
	}
	return b.memQueue.Dead(ctx, max)
}

func queueFaults() []fault {
	broken := func(name, foundBy string, b brokenQueue) fault {
		return fault{"Queue: " + name, foundBy, func(t *testing.T) {
			clock, opt := faultQueueOptions()
			Queue(t, func(*testing.T) builder.Queue {
				b := b
				b.memQueue = newMemQueue(clock.Now, opt.MaxReceives)
				return b
			}, opt)
		}}
	}
	brokenDead := func(name, foundBy string, maxReceives int, b brokenQueue) fault {
		return fault{"DeadLetters: " + name, foundBy, func(t *testing.T) {
			clock, opt := faultQueueOptions()
			DeadLetters(t, func(*testing.T) DeadQueue {
				b := b
				b.memQueue = newMemQueue(clock.Now, maxReceives)
				return b
			}, opt)
		}}
	}
	receive := func(change func(msg *builder.Message)) brokenQueue {
		return brokenQueue{receive: func(m *memQueue, ctx context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error) {
			msgs, err := m.Receive(ctx, max, visibility, wait)
			for i := range msgs {
				change(&msgs[i])
			}
			return msgs, err
		}}
	}
	withVisibility := func(f func(visibility time.Duration) time.Duration) brokenQueue {
		return brokenQueue{receive: func(m *memQueue, ctx context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error) {
			return m.Receive(ctx, max, f(visibility), wait)
		}}
	}
	inFlight := func(m *memQueue, receipt string) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return slices.ContainsFunc(m.live, func(msg *memMessage) bool {
			return msg.Receipt == receipt && msg.visible.After(m.now())
		})
	}
	const n = 3 // faultQueueOptions' MaxReceives
	return []fault{
		broken("never redelivered", "Redelivered", withVisibility(func(time.Duration) time.Duration { return time.Hour })),
		broken("not hidden", "Hidden", withVisibility(func(time.Duration) time.Duration { return 0 })),
		broken("hidden for too short", "Hidden", withVisibility(func(visibility time.Duration) time.Duration { return visibility / 20 })),
		broken("receives not counted", "Redelivered", receive(func(msg *builder.Message) { msg.Receives = 1 })),
		broken("one receipt for all deliveries", "Redelivered", receive(func(msg *builder.Message) { msg.Receipt = msg.ID })),
		broken("an ID for each delivery", "Redelivered", receive(func(msg *builder.Message) { msg.ID = msg.Receipt })),
		broken("body cut at a NUL or non-ASCII", "RoundTrip", receive(func(msg *builder.Message) {
			if i := slices.IndexFunc(msg.Body, func(b byte) bool { return b >= 0x80 }); i >= 0 {
				msg.Body = msg.Body[:i]
			}
		})),
		broken("more than ten at once", "AtMostTen", brokenQueue{receive: func(m *memQueue, ctx context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error) {
			a, err := m.Receive(ctx, max, visibility, wait)
			if max <= 10 || err != nil {
				return a, err
			}
			b, err := m.Receive(ctx, max-10, visibility, 0)
			return append(a, b...), err
		}}),
		broken("max ignored", "AtMostTen", brokenQueue{receive: func(m *memQueue, ctx context.Context, _ int, visibility, wait time.Duration) ([]builder.Message, error) {
			return m.Receive(ctx, 10, visibility, wait)
		}}),
		broken("does not wait", "Empty", brokenQueue{receive: func(m *memQueue, ctx context.Context, max int, visibility, _ time.Duration) ([]builder.Message, error) {
			return m.Receive(ctx, max, visibility, 0)
		}}),
		broken("waits on though cancelled", "Cancelled", brokenQueue{receive: func(m *memQueue, _ context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error) {
			return m.Receive(context.Background(), max, visibility, wait)
		}}),
		broken("long messages accepted", "Sizes", brokenQueue{send: func(m *memQueue, ctx context.Context, bodies ...[]byte) error {
			for _, b := range bodies {
				if err := m.Send(ctx, b[:min(len(b), 1<<20)]); err != nil {
					return err
				}
			}
			return nil
		}}),
		broken("only the first is sent", "RoundTrip", brokenQueue{send: func(m *memQueue, ctx context.Context, bodies ...[]byte) error {
			return m.Send(ctx, bodies[:min(len(bodies), 1)]...)
		}}),
		broken("extend does nothing", "Extend", brokenQueue{extend: func(m *memQueue, _ context.Context, receipt string, visibility time.Duration) error {
			if !inFlight(m, receipt) {
				return builder.ErrNotExist
			}
			return nil
		}}),
		broken("extend to nothing does nothing", "ExtendToNothing", brokenQueue{extend: func(m *memQueue, ctx context.Context, receipt string, visibility time.Duration) error {
			if visibility == 0 && inFlight(m, receipt) {
				return nil
			}
			return m.Extend(ctx, receipt, visibility)
		}}),
		broken("any receipt extends", "ExtendInvalid", brokenQueue{extend: func(m *memQueue, ctx context.Context, receipt string, visibility time.Duration) error {
			m.Extend(ctx, receipt, visibility)
			return nil
		}}),
		broken("delete does nothing", "Delete", brokenQueue{delete: func(*memQueue, context.Context, string) error { return nil }}),
		broken("delete again fails", "Delete", brokenQueue{delete: func(m *memQueue, ctx context.Context, receipt string) error {
			if !inFlight(m, receipt) {
				return builder.ErrNotExist
			}
			return m.Delete(ctx, receipt)
		}}),
		broken("delete does nothing once expired", "DeleteExpired", brokenQueue{delete: func(m *memQueue, ctx context.Context, receipt string) error {
			if !inFlight(m, receipt) {
				return nil
			}
			return m.Delete(ctx, receipt)
		}}),
		broken("taken twice", "Concurrent", brokenQueue{receive: func(m *memQueue, ctx context.Context, max int, visibility, wait time.Duration) ([]builder.Message, error) {
			msgs, err := m.Receive(ctx, max, 0, wait)
			time.Sleep(time.Millisecond)
			for _, msg := range msgs {
				m.mu.Lock()
				for _, l := range m.live {
					if l.ID == msg.ID {
						l.visible = m.now().Add(visibility)
					}
				}
				m.mu.Unlock()
			}
			return msgs, err
		}}),
		brokenDead("never dead", "TooOften", 1000, brokenQueue{}),
		brokenDead("dead too early", "TooOften", n-1, brokenQueue{}),
		brokenDead("dead too late", "TooOften", n+1, brokenQueue{}),
		brokenDead("looking takes", "TooOften", n, brokenQueue{dead: func(m *memQueue, ctx context.Context, max int) ([]builder.Message, error) {
			msgs, err := m.Dead(ctx, max)
			m.dead = nil
			return msgs, err
		}}),
		brokenDead("redrive keeps counts", "Redrive", n, brokenQueue{redrive: func(m *memQueue, ctx context.Context) (int, error) {
			count := len(m.dead)
			m.live, m.dead = append(m.live, m.dead...), nil
			return count, nil
		}}),
		brokenDead("redrive loses", "Redrive", n, brokenQueue{redrive: func(m *memQueue, ctx context.Context) (int, error) {
			count := len(m.dead)
			m.dead = nil
			return count, nil
		}}),
		brokenDead("redrive moves ten", "Several", n, brokenQueue{redrive: func(m *memQueue, ctx context.Context) (int, error) {
			rest := slices.Clone(m.dead[min(10, len(m.dead)):])
			m.dead = m.dead[:min(10, len(m.dead))]
			count, err := m.Redrive(ctx)
			m.dead = rest
			return count, err
		}}),
	}
}

type brokenLedger struct {
	*memLedger
	next  func(m *memLedger, ctx context.Context) (uint64, error)
	open  func(m *memLedger, ctx context.Context, id string, parts int) error
	done  func(m *memLedger, ctx context.Context, id string, part int) (int, error)
	close func(m *memLedger, ctx context.Context, id string) error
}

func (b brokenLedger) Next(ctx context.Context) (uint64, error) {
	if b.next != nil {
		return b.next(b.memLedger, ctx)
	}
	return b.memLedger.Next(ctx)
}

func (b brokenLedger) Open(ctx context.Context, id string, parts int) error {
	if b.open != nil {
		return b.open(b.memLedger, ctx, id, parts)
	}
	return b.memLedger.Open(ctx, id, parts)
}

func (b brokenLedger) Done(ctx context.Context, id string, part int) (int, error) {
	if b.done != nil {
		return b.done(b.memLedger, ctx, id, part)
	}
	return b.memLedger.Done(ctx, id, part)
}

func (b brokenLedger) Close(ctx context.Context, id string) error {
	if b.close != nil {
		return b.close(b.memLedger, ctx, id)
	}
	return b.memLedger.Close(ctx, id)
}

func ledgerFaults() []fault {
	broken := func(name, foundBy string, b brokenLedger) fault {
		return fault{"Ledger: " + name, foundBy, func(t *testing.T) {
			Ledger(t, func(*testing.T) builder.Ledger {
				b := b
				b.memLedger = newMemLedger()
				return b
			})
		}}
	}
	undone := func(m *memLedger, id string, part int) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		done := m.entries[id]
		return part >= 0 && part < len(done) && !done[part]
	}
	return []fault{
		broken("numbers stand still", "Next", brokenLedger{next: func(*memLedger, context.Context) (uint64, error) { return 7, nil }}),
		broken("numbers not taken atomically", "ConcurrentNext", brokenLedger{next: func(m *memLedger, ctx context.Context) (uint64, error) {
			m.mu.Lock()
			n := m.last + 1
			m.mu.Unlock()
			time.Sleep(time.Millisecond)
			m.mu.Lock()
			m.last = n
			m.mu.Unlock()
			return n, ctx.Err()
		}}),
		broken("parts counted, not marked", "Done", brokenLedger{done: func(m *memLedger, ctx context.Context, id string, part int) (int, error) {
			m.mu.Lock()
			for p, d := range m.entries[id] {
				if part >= 0 && part < len(m.entries[id]) && !d {
					m.entries[id][p] = true
					break
				}
			}
			left := 0
			for _, d := range m.entries[id] {
				if !d {
					left++
				}
			}
			m.mu.Unlock()
			if _, err := m.Done(ctx, id, part); err != nil {
				return 0, err
			}
			return left, nil
		}}),
		broken("0 told once", "Done", brokenLedger{done: func(m *memLedger, ctx context.Context, id string, part int) (int, error) {
			first := undone(m, id, part)
			left, err := m.Done(ctx, id, part)
			if err == nil && left == 0 && !first {
				left = 1
			}
			return left, err
		}}),
		broken("64 parts", "ManyParts", brokenLedger{done: func(m *memLedger, ctx context.Context, id string, part int) (int, error) {
			if part >= 64 && part < 130 {
				part %= 64
			}
			return m.Done(ctx, id, part)
		}}),
		broken("opening again resets", "OpenAgain", brokenLedger{open: func(m *memLedger, ctx context.Context, id string, parts int) error {
			if parts > 0 {
				m.Close(ctx, id)
			}
			return m.Open(ctx, id, parts)
		}}),
		broken("not open is nothing left", "NotOpen", brokenLedger{done: func(m *memLedger, ctx context.Context, id string, part int) (int, error) {
			left, err := m.Done(ctx, id, part)
			if errors.Is(err, builder.ErrNotExist) {
				err = nil
			}
			return left, err
		}}),
		broken("never closed", "NotOpen", brokenLedger{close: func(*memLedger, context.Context, string) error { return nil }}),
		broken("closing again fails", "NotOpen", brokenLedger{close: func(m *memLedger, ctx context.Context, id string) error {
			if m.entries[id] == nil {
				return builder.ErrNotExist
			}
			return m.Close(ctx, id)
		}}),
		broken("no parts accepted", "Refused", brokenLedger{open: func(m *memLedger, ctx context.Context, id string, parts int) error {
			return m.Open(ctx, id, max(parts, 1))
		}}),
		broken("IDs in one case", "IDs", brokenLedger{open: func(m *memLedger, ctx context.Context, id string, parts int) error {
			if id == "A" {
				return nil
			}
			return m.Open(ctx, id, parts)
		}}),
		broken("marks lost", "FanIn", brokenLedger{done: func(m *memLedger, ctx context.Context, id string, part int) (int, error) {
			m.mu.Lock()
			before := slices.Clone(m.entries[id])
			m.mu.Unlock()
			left, err := m.Done(ctx, id, part)
			if err != nil || !strings.HasPrefix(id, "build") {
				return left, err
			}
			time.Sleep(time.Millisecond)
			before[part] = true
			m.mu.Lock()
			m.entries[id] = before
			m.mu.Unlock()
			return left, nil
		}}),
	}
}
