package cost

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/seed"
	"github.com/precast-ota/precast/terraform"
)

// tally is a number of calls, by their kind. The builder makes them at the same time.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tally) add(kind string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[kind] += n
}

// reset returns the numbers since it was last called.
func (t *tally) reset() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.n
	t.n = make(map[string]int)
	return n
}

// counted counts the calls that cost something.
type counted struct {
	builder.Objects
	builder.Ledger
	builder.Queue
	builder.Catalog
	calls *tally
}

func (c counted) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	c.calls.add("get", 1)
	return c.Objects.Stat(ctx, key)
}

func (c counted) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	c.calls.add("get", 1)
	return c.Objects.Get(ctx, key, off, n)
}

func (c counted) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	c.calls.add("put", 1)
	return c.Objects.Put(ctx, key, body, opt)
}

func (c counted) Next(ctx context.Context) (uint64, error) {
	c.calls.add("write", 1)
	return c.Ledger.Next(ctx)
}

func (c counted) Open(ctx context.Context, id string, parts int) error {
	c.calls.add("write", 1)
	return c.Ledger.Open(ctx, id, parts)
}

func (c counted) Done(ctx context.Context, id string, part int) (int, error) {
	c.calls.add("write", 1)
	return c.Ledger.Done(ctx, id, part)
}

func (c counted) Close(ctx context.Context, id string) error {
	c.calls.add("write", 1)
	return c.Ledger.Close(ctx, id)
}

func (c counted) Send(ctx context.Context, bodies ...[]byte) error {
	c.calls.add("job", len(bodies))
	return c.Queue.Send(ctx, bodies...)
}

func (c counted) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	c.calls.add("scan", 1)
	return c.Catalog.Snapshot(ctx)
}

// The plans of the schedules, when there is nothing to do and when every object is looked up, make as many calls as
// are counted. What the index was before is there: the schedule goes on for months.
func TestScheduledPlans(t *testing.T) {
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	c := counted{store.Objects(), store.Ledger(), store.Queue(), store.Catalog(), &tally{n: make(map[string]int)}}
	ports := pipeline.Local(store).Ports
	ports.Objects, ports.Catalog, ports.Ledger, ports.Queue = c, c, c, c
	var b *builder.Builder
	plan := func(r builder.PlanOptions) map[string]int {
		t.Helper()
		// A function that has just started remembers nothing.
		b = builder.New(ports, builder.Options{Params: builder.DefaultParams(), Log: slog.New(slog.DiscardHandler)})
		c.calls.reset()
		if _, err := builder.RequestPlan(t.Context(), c, c, builder.Request{PlanOptions: r}); err != nil {
			t.Fatal(err)
		}
		for {
			messages, err := c.Receive(t.Context(), 10, time.Minute, 0)
			if err != nil {
				t.Fatal(err)
			}
			if len(messages) == 0 {
				return c.calls.reset()
			}
			for _, m := range messages {
				if err := b.Handle(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				if err := c.Delete(t.Context(), m.Receipt); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	im := &release.Importer{Objects: store.Objects(), Catalog: store.Catalog()}
	for rng := range 5 {
		if _, err := im.Import(t.Context(), []release.Release{{Item: catalog.Item{App: "os_armv8", Track: "prod", Version: fmt.Sprint(rng), CPUArch: "armv8"},
			Open: func() (io.ReadSeekCloser, error) { return content{strings.NewReader(fmt.Sprint(rng))}, nil }}}, false); err != nil {
			t.Fatal(err)
		}
		plan(builder.PlanOptions{})
	}
	if _, err := im.Import(t.Context(), seed.Releases(100, 1), false); err != nil {
		t.Fatal(err)
	}
	plan(builder.PlanOptions{})

	nothing := plan(builder.PlanOptions{})
	if want := map[string]int{"get": getsPerPlan, "put": putsPerPlan, "write": writesPerPlan, "job": 1, "scan": 1}; !maps.Equal(nothing, want) {
		t.Errorf("a plan that finds nothing to do: %v, want %v", nothing, want)
	}
	items, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Plan(t.Context(), items, builder.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	verified := plan(builder.PlanOptions{Verify: true})
	jobs := verified["job"] - 1
	if bundles := p.Coverage.Bundles; jobs != (bundles+bundlesPerJob-1)/bundlesPerJob {
		t.Errorf("%d bundles are %d jobs", bundles, jobs)
	}
	// Some things are looked at twice, once for every job: the plan, the index.
	lookups := 2 * (p.Coverage.Bundles + len(items))
	if got := verified["get"] - nothing["get"]; got < lookups || got > lookups+20 {
		t.Errorf("%d objects are looked up, want %d", got, lookups)
	}
	if verified["put"] != putsPerPlan+putsPerVerify || verified["scan"] != 1 || verified["write"] > writesPerPlan+writesPerVerify*(1+jobs) {
		t.Errorf("a plan that looks everything up: %v", verified)
	}
}

type content struct{ *strings.Reader }

func (content) Close() error { return nil }

// What the module has is what is counted.
func TestModuleIsCounted(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		data, err := fs.ReadFile(terraform.Module(), name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	watched := read("observability.tf")
	if n := len(regexp.MustCompile(`(?m)^      says +=`).FindAllString(watched, -1)); n != alarms {
		t.Errorf("%d alarms, not %d", n, alarms)
	}
	if n := strings.Count(watched, `resource "aws_cloudwatch_dashboard"`); n != dashboards {
		t.Errorf("%d dashboards, not %d", n, dashboards)
	}
	variables := read("variables.tf")
	schedules := regexp.MustCompile(`variable "\w+_schedule" \{[^}]*?default += "(.*)"`).FindAllStringSubmatch(variables, -1)
	if len(schedules) != 2 || schedules[0][1] != "rate(15 minutes)" || schedules[1][1] != "rate(1 day)" || plans != 30*24*60/15+30 || verifies != 30 {
		t.Errorf("schedules %q, and %d plans of them %d verify", schedules, plans, verifies)
	}

	// Metrics of our own: whatever a function writes is one for its service.
	var out strings.Builder
	names := make(map[string]bool)
	for _, service := range []string{"builder", "enqueuer"} {
		m := &lambdas.Metrics{Out: &out, Now: time.Now, Namespace: "n", Service: service}
		if service == "enqueuer" {
			m.Jobs(1, 2, 3)
			continue
		}
		m.Planned(t.Context(), builder.Report{})
		m.Stored(t.Context(), builder.Stored{Size: 1})
		m.Rejected(t.Context(), builder.Rejection{})
		m.Published(t.Context(), builder.Published{Changed: true, Since: time.Now()})
	}
	for line := range strings.Lines(out.String()) {
		var l struct {
			Service string `json:"service"`
			AWS     struct {
				CloudWatchMetrics []struct{ Metrics []struct{ Name string } }
			} `json:"_aws"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		for _, m := range l.AWS.CloudWatchMetrics[0].Metrics {
			names[l.Service+" "+m.Name] = true
		}
	}
	if len(names) != metrics {
		t.Errorf("%d metrics, not %d: %v", len(names), metrics, names)
	}
}

// docs/operations.md says about $8.
func TestWatchingCostsAboutEightDollars(t *testing.T) {
	p, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Catalog{{}, {Items: 9, Bundles: 100, BundleBytes: 2 << 30}} {
		e, err := Of(Fleet{Regions: map[string]float64{"us": 1}}, c, Defaults(), p)
		if err != nil {
			t.Fatal(err)
		}
		var usd float64
		for _, l := range e.Standing {
			usd += l.USD
		}
		if usd < 7.5 || usd > 8.5 {
			t.Errorf("$%.2f for %+v", usd, c)
		}
	}
}
