package builder_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// damages are what becomes of an object's bytes; nil: it is missing.
var damages = map[string]func(data string) []byte{
	"flipped": func(data string) []byte {
		b := []byte(data)
		b[len(b)/2] ^= 1
		return b
	},
	"last byte": func(data string) []byte { return append([]byte(data[:len(data)-1]), data[len(data)-1]^1) },
	"cut":       func(data string) []byte { return []byte(data[:len(data)/2]) },
	"emptied":   func(string) []byte { return []byte{} },
	"grown":     func(data string) []byte { return []byte(data + data) },
	"missing":   nil,
}

// damage writes other bytes under an object's key, with the metadata that it has.
func (w *world) damage(key string, damage func(string) []byte) {
	w.t.Helper()
	if damage == nil {
		if err := w.delete(key); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	info, err := w.base.Objects.Stat(context.Background(), key)
	if err == nil {
		_, err = w.base.Objects.Put(context.Background(), key, builder.BytesBody(damage(w.read(key))), builder.PutOptions{Meta: info.Meta})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// item returns a published item.
func (w *world) item(app string) (*index.Index, *index.Item) {
	w.t.Helper()
	ix, _, err := builder.ReadIndex(context.Background(), w.base.Objects)
	if err != nil || ix == nil {
		w.t.Fatal("nothing is published: ", err)
	}
	i := slices.IndexFunc(ix.Items, func(it index.Item) bool { return it.App == app })
	return ix, &ix.Items[i]
}

// bundle is what a device gets that names an attribute.
func (w *world) set(ix *index.Index, attr string) edge.Set {
	w.t.Helper()
	d := edge.Decide(ix, "attr"+attr+"=prod&cpuarch=armv8", "")
	if d.Status != edge.StatusOK {
		w.t.Fatalf("%d %s", d.Status, d.Error)
	}
	return d.Set
}

var noise = strings.Repeat("the content of an operating system; ", 1000)

func TestS12ADamagedPieceIsMadeAgain(t *testing.T) {
	t.Parallel()
	damagedPieces(t, func(t *testing.T, opt builder.Options, wrap func(*pipeline.Drivers)) *world {
		w := newWorld(t, t.TempDir(), opt, wrap)
		t.Cleanup(w.close)
		return w
	})
}

func damagedPieces(t *testing.T, open func(*testing.T, builder.Options, func(*pipeline.Drivers)) *world) {
	for name, damage := range damages {
		t.Run("S12 "+name, func(t *testing.T) {
			w := open(t, builder.Options{}, func(*pipeline.Drivers) {})
			w.put("os_x", "prod", "1", noise, "x")
			w.build(builder.PlanOptions{})
			_, it := w.item("os_x")
			key := builder.PieceKey(it)
			sound := w.read(key)
			w.damage(key, damage)
			w.put("app", "prod", "1", "the change", "x") // is in one bundle with it
			w.events.reset()
			w.build(builder.PlanOptions{})
			if !slices.Equal(w.events.mended, []string{key}) {
				t.Errorf("made again: %v", w.events.mended)
			}
			if got := w.read(key); got != sound {
				t.Errorf("the piece has %d other bytes", len(got))
			}
			w.checkComplete()
		})
	}
}

// A piece that is damaged anew as soon as it has been made again is made again twice, by the next try of the job.
func TestS12DamageTwiceInARow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.put("os_x", "prod", "1", noise, "x")
	w.build(builder.PlanOptions{})
	_, it := w.item("os_x")
	key := builder.PieceKey(it)
	w.damage(key, damages["flipped"])
	w.put("app", "prod", "1", "the change", "x")
	w.events.reset()
	w.drivers.Objects = &redamaging{Objects: w.base.Objects, w: w, key: key, left: 2}
	w.build(builder.PlanOptions{})
	if len(w.events.mended) != 3 {
		t.Errorf("made again %d times", len(w.events.mended))
	}
	w.checkComplete()
}

// redamaging damages an object as often as it is written.
type redamaging struct {
	builder.Objects
	w    *world
	key  string
	mu   sync.Mutex
	left int
}

func (r *redamaging) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	info, err := r.Objects.Put(ctx, key, body, opt)
	r.mu.Lock()
	defer r.mu.Unlock()
	if key == r.key && r.left > 0 {
		r.left--
		r.w.damage(key, damages["flipped"])
	}
	return info, err
}

// reads counts how often an object is opened.
type reads struct {
	builder.Objects
	mu sync.Mutex
	n  map[string]int
}

func (r *reads) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	r.mu.Lock()
	r.n[key]++
	r.mu.Unlock()
	return r.Objects.Get(ctx, key, off, n)
}

// Many that need a damaged piece at once, in two processes, all get the right bundle. Each process makes the piece once
// at most.
func TestS12TwoWorkersAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.put("os_x", "prod", "1", noise, "x")
	w.build(builder.PlanOptions{})
	ix, it := w.item("os_x")
	set := w.set(ix, "x")
	want := w.read(layout.BundleKey(set.ID(), "0"))
	for name, damage := range damages {
		t.Run("S12 "+name, func(t *testing.T) {
			w.damage(builder.PieceKey(it), damage)
			var g errgroup.Group
			for range 2 {
				counting := &reads{Objects: w.base.Objects, n: make(map[string]int)}
				c := builder.NewMendingComposer(counting, builder.PieceMaker{Objects: counting}, builder.Clock{})
				for range 8 {
					g.Go(func() error {
						for {
							answer, err := c.Compose(t.Context(), layout.Bundle, set, edge.Mask{})
							if err != nil {
								return err
							}
							got, err := io.ReadAll(answer)
							answer.Close()
							if err == nil && string(got) != want {
								return errors.New("a wrong bundle was read to its end")
							}
							if answer.Damage() == nil {
								return err
							}
						}
					})
				}
				defer func() {
					if n := counting.n[builder.BinaryKey(it)]; n > 1 {
						t.Errorf("one process made the piece %d times", n)
					}
				}()
			}
			must(t, g.Wait())
		})
	}
}

// A piece whose binary is damaged as well: both are named, and that is looked at once a minute, not at every request.
func TestS12ADamagedBinaryIsNamedOnce(t *testing.T) {
	t.Parallel()
	for name, damage := range damages {
		t.Run("S12 "+name, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), builder.Options{})
			defer w.close()
			w.put("os_x", "prod", "1", noise, "x")
			w.build(builder.PlanOptions{})
			ix, it := w.item("os_x")
			set, piece, binary := w.set(ix, "x"), builder.PieceKey(it), builder.BinaryKey(it)
			want := w.read(layout.BundleKey(set.ID(), "0"))
			w.damage(binary, damage)
			w.damage(piece, damages["flipped"])
			now := time.Unix(1, 0)
			counting := &reads{Objects: w.base.Objects, n: make(map[string]int)}
			c := builder.NewMendingComposer(counting, builder.PieceMaker{Objects: counting}, builder.Clock{Time: func() time.Time { return now }})
			store := func() error {
				_, err := c.Store(t.Context(), layout.BundleKey(set.ID(), "0"), layout.Bundle, set, edge.Mask{}, builder.PutOptions{})
				return err
			}
			for range 10 {
				err := store()
				if err == nil || !strings.Contains(err.Error(), piece) || !strings.Contains(err.Error(), binary) {
					t.Fatalf("it does not name both: %v", err)
				}
			}
			if n := counting.n[binary]; n != 1 {
				t.Errorf("the binary was read %d times", n)
			}
			body := builder.BytesBody([]byte(noise))
			_, err := w.base.Objects.Put(t.Context(), binary, body, builder.PutOptions{})
			must(t, err)
			now = now.Add(time.Minute)
			must(t, store())
			if got := w.read(layout.BundleKey(set.ID(), "0")); got != want {
				t.Error("another bundle was stored")
			}
		})
	}
}

// The build that needs such a piece fails with an error that names both, and publishes nothing.
func TestS12ABuildNamesADamagedBinary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.put("os_x", "prod", "1", noise, "x")
	w.build(builder.PlanOptions{})
	_, it := w.item("os_x")
	w.damage(builder.BinaryKey(it), damages["flipped"])
	w.damage(builder.PieceKey(it), damages["cut"])
	w.put("app", "prod", "1", "the change", "x")
	w.request()
	b := builder.New(w.drivers.Ports, w.opt)
	var failed error
	for failed == nil {
		messages, err := w.base.Queue.Receive(t.Context(), 1, time.Minute, 0)
		must(t, err)
		if len(messages) == 0 {
			t.Fatal("no job failed")
		}
		if failed = b.Handle(t.Context(), messages[0]); failed == nil {
			must(t, w.base.Queue.Delete(t.Context(), messages[0].Receipt))
		}
	}
	for _, key := range []string{builder.PieceKey(it), builder.BinaryKey(it)} {
		if !strings.Contains(failed.Error(), key) {
			t.Errorf("%v does not name %s", failed, key)
		}
	}
	if w.generation() != 1 {
		t.Errorf("generation %d is published", w.generation())
	}
}

// Whoever may not write pieces asks a builder, once a minute.
func TestS12ABuilderIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir(), builder.Options{})
	defer w.close()
	w.put("os_x", "prod", "1", noise, "x")
	w.build(builder.PlanOptions{})
	ix, it := w.item("os_x")
	set := w.set(ix, "x")
	want := w.read(layout.BundleKey(set.ID(), "0"))
	w.damage(builder.PieceKey(it), damages["emptied"])
	c := builder.NewMendingComposer(w.base.Objects, builder.QueueMender{Queue: w.base.Queue}, builder.Clock{})
	for range 3 {
		if _, err := c.Compose(t.Context(), layout.Bundle, set, edge.Mask{}); !errors.Is(err, builder.ErrMendLater) {
			t.Fatalf("it says %v", err)
		}
	}
	if waiting, _, _, err := w.base.DeadLetters.Depth(t.Context()); err != nil || waiting != 1 {
		t.Fatalf("%d jobs wait, %v", waiting, err)
	}
	w.pump(builder.New(w.drivers.Ports, w.opt), nil)
	answer, err := c.Compose(t.Context(), layout.Bundle, set, edge.Mask{})
	must(t, err)
	defer answer.Close()
	if got, err := io.ReadAll(answer); err != nil || string(got) != want {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if n := len(w.events.mended); n != 1 {
		t.Errorf("made again %d times", n)
	}
}
