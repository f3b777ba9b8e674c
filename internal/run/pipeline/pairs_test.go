package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/operate/gc"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/store/source"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// S6: whatever two commands do at once, they could have done one after the other.
func TestS6PairsOfCommandsAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		pairs(t, func() (pipeline.Drivers, func()) {
			m := storetest.NewMemory(time.Now, 5)
			return pipeline.Drivers{
				Ports: builder.Ports{
					Objects: m.Objects, Catalog: m.Catalog, Queue: m.Queue, Ledger: m.Ledger, Sources: &source.Sources{Objects: m.Objects},
				},
				Writer: m.Catalog, DeadLetters: m.Queue,
			}, func() {}
		})
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		pairs(t, func() (pipeline.Drivers, func()) {
			store, err := local.Open(t.TempDir(), local.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return pipeline.Local(store), func() {
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	})
}

// installation is what commands work on.
type installation struct {
	drivers pipeline.Drivers
}

// command is one that somebody gives.
type command struct {
	name string
	do   func(ctx context.Context, in *installation, items release.Catalog) error
}

func (in *installation) pipeline() *pipeline.Pipeline {
	return pipeline.New(in.drivers, pipeline.Config{Builder: builder.Options{
		Params: index.Params{MaxBundles: 20, MaxBytes: 1 << 30, MaxCombinations: 50, SubsetItems: 1}, Concurrency: 2,
	}})
}

func importing(releases ...release.Release) func(context.Context, *installation, release.Catalog) error {
	return func(ctx context.Context, in *installation, items release.Catalog) error {
		im := &release.Importer{Objects: in.drivers.Objects, Catalog: items}
		_, err := im.Import(ctx, releases, false)
		return err
	}
}

func drawRelease(t *rapid.T) release.Release {
	content := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "content")
	it := catalog.Item{
		App: rapid.SampledFrom([]string{"a", "A", "b"}).Draw(t, "app"), Track: rapid.SampledFrom([]string{"prod", "beta"}).Draw(t, "track"),
		Version: rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "version"),
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		it.Floors = release.Floors("1")
	case 1:
		it.Rollout = &catalog.Rollout{Percent: 10, Salt: "s"}
	case 2:
		it.DeviceAttr = release.Attributes("gamer")
	}
	return release.Release{Item: it, Open: func() (io.ReadSeekCloser, error) {
		return builder.NopCloser{ReadSeeker: strings.NewReader(it.Version + content)}, nil
	}}
}

func drawKey(t *rapid.T) catalog.Key {
	return catalog.Key{App: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app"), Track: "prod"}
}

func drawCommand(t *rapid.T) command {
	switch rapid.SampledFrom([]string{"put", "put", "put", "import", "import", "rollout", "rm", "promote", "rollback", "build", "gc"}).Draw(t, "command") {
	case "put":
		r := drawRelease(t)
		return command{fmt.Sprintf("put %s %s", r.Key(), r.Version), importing(r)}
	case "import":
		all := []release.Release{drawRelease(t), drawRelease(t)}
		return command{fmt.Sprintf("import %s %s and %s %s", all[0].Key(), all[0].Version, all[1].Key(), all[1].Version), importing(all...)}
	case "rm":
		key := drawKey(t)
		return command{"rm " + key.String(), func(ctx context.Context, in *installation, items release.Catalog) error {
			_, _, err := (&release.Importer{Objects: in.drivers.Objects, Catalog: items}).Remove(ctx, key)
			return err
		}}
	case "rollout":
		key, percent := drawKey(t), rapid.SampledFrom([]float64{5, 50, 100}).Draw(t, "percent")
		return command{fmt.Sprintf("rollout %s %v", key, percent), func(ctx context.Context, in *installation, items release.Catalog) error {
			_, err := (&release.Importer{Objects: in.drivers.Objects, Catalog: items}).SetRollout(ctx, key, percent)
			return err
		}}
	case "promote":
		pr := release.Promotion{App: rapid.SampledFrom([]string{"", "a"}).Draw(t, "app"), From: "beta", To: "prod"}
		return command{"promote " + pr.App, func(ctx context.Context, in *installation, items release.Catalog) error {
			_, err := (&release.Importer{Objects: in.drivers.Objects, Catalog: items}).Promote(ctx, pr)
			return err
		}}
	case "rollback":
		return command{"rollback 1", func(ctx context.Context, in *installation, _ release.Catalog) error {
			_, err := in.pipeline().Rollback(ctx, history.Request{Generation: 1})
			return err
		}}
	case "build":
		return command{"build", func(ctx context.Context, in *installation, _ release.Catalog) error {
			return in.pipeline().Build(ctx, builder.PlanOptions{}, nil)
		}}
	}
	return command{"gc", func(ctx context.Context, in *installation, items release.Catalog) error {
		deleter := in.drivers.Objects.(gc.Deleter)
		_, err := gc.New(in.drivers.Objects, deleter, items, gc.Options{Grace: 1, Lease: 200 * time.Millisecond, Pause: 1}).Sweep(ctx)
		return err
	}}
}

// start makes an installation of two generations, and what has changed since.
func start(t *rapid.T, drivers pipeline.Drivers, since []command) *installation {
	in := &installation{drivers}
	ctx := context.Background()
	for _, version := range []string{"0", "1"} {
		for _, app := range []string{"os_x", "a"} {
			it := catalog.Item{App: app, Track: "prod", Version: version}
			err := importing(release.Release{Item: it, Open: func() (io.ReadSeekCloser, error) {
				return builder.NopCloser{ReadSeeker: strings.NewReader(version + "x")}, nil
			}})(ctx, in, in.pipeline())
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := in.pipeline().Build(ctx, builder.PlanOptions{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range since {
		_ = c.do(ctx, in, in.pipeline()) // a refusal is a beginning, too
	}
	return in
}

// outcome is what is left of two commands: how each ended, the catalog, and what is published.
func (in *installation) outcome(t *rapid.T, errs [2]error) string {
	ctx := context.Background()
	var b bytes.Buffer
	for i, err := range errs {
		pinned := (*pipeline.PinnedError)(nil)
		switch {
		case errors.As(err, &pinned):
			fmt.Fprintf(&b, "%d: pinned\n", i)
		case err != nil:
			fmt.Fprintf(&b, "%d: refused\n", i)
		default:
			fmt.Fprintf(&b, "%d: done\n", i)
		}
	}
	items, err := in.drivers.Catalog.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := catalog.Encode(&b, items); err != nil {
		t.Fatal(err)
	}
	ix, _, err := builder.ReadIndex(ctx, in.drivers.Objects)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "pin %q\n", ix.Pin)
	for _, it := range ix.Items {
		fmt.Fprintf(&b, "%+v\n", it)
	}
	return b.String()
}

// complete fails unless all that the published index needs is there, and the log tells of all that was done.
func (in *installation) complete(t *rapid.T) {
	ctx := context.Background()
	ix, _, err := builder.ReadIndex(ctx, in.drivers.Objects)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i := range ix.Items {
		keys = append(keys, builder.BinaryKey(&ix.Items[i]), builder.PieceKey(&ix.Items[i]))
	}
	absent, err := history.Absent(ctx, in.drivers.Objects, keys)
	if err != nil || len(absent) > 0 {
		t.Fatalf("published without %v, %v", absent, err)
	}
	head, hands := catalog.NewHead(), make(catalog.Hands)
	err = in.drivers.Writer.Log(ctx, 0, func(e catalog.LogEntry) error {
		if others := hands.Next(e); len(others) > 0 {
			t.Errorf("entry %d does not know how entries before it left %v", e.Number, others)
		}
		err := e.Follow(head)
		head = e.Head()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	items, err := in.drivers.Catalog.Snapshot(ctx)
	if others := hands.Since(items); err != nil || len(others) > 0 {
		t.Fatalf("the log has left %v in another way, %v", others, err)
	}
}

// meeting is the catalog of one of two commands. Neither changes it before the other one wants to change it as well, or
// has ended: so each works out its change from what it is before the other's.
type meeting struct {
	*pipeline.Pipeline
	wants *sync.Once
	mine  chan struct{} // closed when this one wants to change it, or has ended
	other <-chan struct{}
}

func (m meeting) Apply(ctx context.Context, edit catalog.Edit) error {
	m.arrive()
	<-m.other
	return m.Pipeline.Apply(ctx, edit)
}

func (m meeting) arrive() { m.wants.Do(func() { close(m.mine) }) }

func pairs(t *testing.T, open func() (drivers pipeline.Drivers, done func())) {
	overlapped := make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		since := rapid.SliceOfN(rapid.Custom(drawCommand), 0, 2).Draw(t, "since")
		pair := [2]command{drawCommand(t), drawCommand(t)}
		if pair[0].name == "gc" && pair[1].name == "gc" {
			t.Skip("one sweep at a time: the other one is refused")
		}
		one := func(run func(in *installation) [2]error) string {
			drivers, done := open()
			defer done()
			in := start(t, drivers, since)
			errs := run(in)
			in.complete(t)
			return in.outcome(t, errs)
		}
		ctx := context.Background()
		var said [2]error
		together := one(func(in *installation) (errs [2]error) {
			var all sync.WaitGroup
			arrived := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
			for i, c := range pair {
				all.Go(func() {
					m := meeting{in.pipeline(), new(sync.Once), arrived[i], arrived[1-i]}
					defer m.arrive()
					errs[i] = c.do(ctx, in, m)
				})
			}
			all.Wait()
			said = errs
			return errs
		})
		var serial []string
		for _, order := range [][2]int{{0, 1}, {1, 0}} {
			outcome := one(func(in *installation) (errs [2]error) {
				for _, i := range order {
					errs[i] = pair[i].do(ctx, in, in.pipeline())
				}
				return errs
			})
			if outcome == together {
				overlapped[strings.Fields(pair[0].name)[0]+"/"+strings.Fields(pair[1].name)[0]]++
				return
			}
			serial = append(serial, outcome)
		}
		t.Fatalf("%s and %s at once:\n%s(%v, %v)\nneither in order:\n%s\nnor the other way round:\n%s", pair[0].name, pair[1].name, together, said[0], said[1], serial[0], serial[1])
	})
	t.Logf("pairs: %v", overlapped)
}
