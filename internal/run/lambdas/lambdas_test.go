package lambdas_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/seed"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T) *local.Store {
	t.Helper()
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// job is what a plan job says.
type job struct {
	Kind   string
	After  uint64
	Since  int64
	Verify bool
}

func jobs(t *testing.T, q builder.Queue) []job {
	t.Helper()
	messages, err := q.Receive(t.Context(), 10, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []job
	for _, m := range messages {
		var j job
		if err := json.Unmarshal(m.Body, &j); err != nil {
			t.Fatal(err)
		}
		all = append(all, j)
	}
	return all
}

// A batch as the stream sends it, from the documentation's example
// (https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html).
const batch = `{"Records": [
	{"eventID": "1", "eventName": "INSERT", "dynamodb": {"ApproximateCreationDateTime": 1700000002.5, "SequenceNumber": "111", "Keys": {"app": {"S": "a"}, "env": {"S": "prod"}}}},
	{"eventID": "2", "eventName": "MODIFY", "dynamodb": {"ApproximateCreationDateTime": 1700000001, "SequenceNumber": "222"}},
	{"eventID": "3", "eventName": "REMOVE", "dynamodb": {"SequenceNumber": "333"}}]}`

func TestEnqueuer(t *testing.T) {
	for _, c := range []struct {
		name, event string
		want        job
	}{
		{"a batch", batch, job{Kind: "plan", Since: 1700000001000}},
		{"poison", `{"Records": ["what?", {"dynamodb": 7}, {"dynamodb": {"SequenceNumber": "5"}}]}`, job{Kind: "plan"}},
		{"a schedule", `{"source": "aws.scheduler", "detail": {}}`, job{Kind: "plan"}},
		{"a schedule that asks for more", `{"verify": true}`, job{Kind: "plan", Verify: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := open(t)
			e := &lambdas.Enqueuer{Ledger: store.Ledger(), Queue: store.Queue(), Log: quiet}
			resp, err := e.Handle(t.Context(), json.RawMessage(c.event))
			if err != nil || len(resp.BatchItemFailures) != 0 {
				t.Fatalf("%+v, %v", resp, err)
			}
			got := jobs(t, store.Queue())
			if len(got) != 1 || got[0].After == 0 {
				t.Fatalf("jobs %+v, want one that has a number", got)
			}
			got[0].After = 0
			if got[0] != c.want {
				t.Fatalf("job %+v, want %+v", got[0], c.want)
			}
		})
	}
}

func TestEnqueuerCountsDeadLettersOnSchedule(t *testing.T) {
	store := open(t)
	var out bytes.Buffer
	e := &lambdas.Enqueuer{Ledger: store.Ledger(), Queue: store.Queue(), Log: quiet,
		Depth:   func(context.Context) (int, int, int, error) { return 4, 1, 3, nil },
		Metrics: &lambdas.Metrics{Out: &out, Now: time.Now, Namespace: "N", Service: "enqueuer"}}
	for _, ev := range []string{batch, `{}`} {
		if _, err := e.Handle(t.Context(), json.RawMessage(ev)); err != nil {
			t.Fatal(err)
		}
		if counted := strings.Contains(out.String(), `"DeadLetters":3`); counted != (ev == `{}`) {
			t.Fatalf("after %s: %s", ev, &out)
		}
	}
}

type brokenQueue struct{ builder.Queue }

func (brokenQueue) Send(context.Context, ...[]byte) error { return errors.New("no queue today") }

func TestEnqueuerThatCannotSend(t *testing.T) {
	store := open(t)
	e := &lambdas.Enqueuer{Ledger: store.Ledger(), Queue: brokenQueue{store.Queue()}, Log: quiet}
	resp, err := e.Handle(t.Context(), json.RawMessage(batch))
	if err != nil || len(resp.BatchItemFailures) != 1 || resp.BatchItemFailures[0].ItemIdentifier != "111" {
		t.Fatalf("%+v, %v: want the batch to come again from its first record", resp, err)
	}
	if _, err := e.Handle(t.Context(), json.RawMessage(`{}`)); err == nil {
		t.Fatal("a schedule's event that was lost is reported as done")
	}
}

// built brings the sample in and builds it under params.
func built(t *testing.T, store *local.Store, opt builder.Options) {
	t.Helper()
	im := &release.Importer{Objects: store.Objects(), Catalog: store.Catalog()}
	if _, err := im.Import(t.Context(), seed.Releases(500, 1), false); err != nil {
		t.Fatal(err)
	}
	build(t, store, opt)
}

func build(t *testing.T, store *local.Store, opt builder.Options) {
	t.Helper()
	if err := pipeline.New(pipeline.Local(store), pipeline.Config{Builder: opt}).Build(t.Context(), builder.PlanOptions{}, nil); err != nil {
		t.Fatal(err)
	}
}

// deliver passes what is in the queue to the worker as SQS and Lambda would, once.
func deliver(t *testing.T, ctx context.Context, store *local.Store, w *lambdas.Worker) (delivered, failed int) {
	t.Helper()
	messages, err := store.Queue().Receive(t.Context(), 10, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ev events.SQSEvent
	for _, m := range messages {
		ev.Records = append(ev.Records, events.SQSMessage{MessageId: m.ID, ReceiptHandle: m.Receipt, Body: string(m.Body),
			Attributes: map[string]string{"ApproximateReceiveCount": fmt.Sprint(m.Receives)}})
	}
	resp, err := w.Handle(ctx, ev)
	if err != nil {
		t.Fatal(err)
	}
	failures := make(map[string]bool)
	for _, f := range resp.BatchItemFailures {
		failures[f.ItemIdentifier] = true
	}
	for _, m := range messages {
		if !failures[m.ID] {
			if err := store.Queue().Delete(t.Context(), m.Receipt); err != nil {
				t.Fatal(err)
			}
		}
	}
	return len(messages), len(failures)
}

func TestWorkerBuildsByBatches(t *testing.T) {
	store := open(t)
	im := &release.Importer{Objects: store.Objects(), Catalog: store.Catalog()}
	if _, err := im.Import(t.Context(), seed.Releases(500, 1), false); err != nil {
		t.Fatal(err)
	}
	var metrics bytes.Buffer
	now := time.UnixMilli(1_700_000_010_000)
	d := pipeline.Local(store)
	b := builder.New(d.Ports, builder.Options{PartBytes: 20_000,
		Observer: &lambdas.Metrics{Out: &metrics, Now: func() time.Time { return now }, Namespace: "N", Service: "builder"}})
	w := &lambdas.Worker{DeliveryPolicy: builder.DeliveryPolicy{Builder: b}, Concurrency: 2}
	e := &lambdas.Enqueuer{Ledger: d.Ledger, Queue: d.Queue, Log: quiet}
	if _, err := e.Handle(t.Context(), json.RawMessage(batch)); err != nil {
		t.Fatal(err)
	}
	for {
		delivered, failed := deliver(t, t.Context(), store, w)
		if failed > 0 {
			t.Fatalf("%d of %d jobs failed", failed, delivered)
		}
		if delivered == 0 {
			break
		}
	}
	ix, _, err := builder.ReadIndex(t.Context(), d.Objects)
	if err != nil || ix == nil || len(ix.Items) != 9 {
		t.Fatalf("index %v, %v", ix, err)
	}
	for _, key := range builder.Cover(ix, nil).Keys() {
		if _, err := d.Objects.Stat(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	// The change of the batch was made at 1,700,000,001.
	found := false
	for line := range strings.Lines(metrics.String()) {
		var m struct {
			ChangeToServableSeconds float64
			AWS                     struct {
				Timestamp         int64
				CloudWatchMetrics []struct {
					Namespace  string
					Dimensions [][]string
					Metrics    []struct{ Name, Unit string }
				}
			} `json:"_aws"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil || m.AWS.Timestamp != now.UnixMilli() || len(m.AWS.CloudWatchMetrics[0].Metrics) == 0 {
			t.Fatalf("%s: %v", line, err)
		}
		if m.ChangeToServableSeconds == 9 {
			found = true
		}
	}
	if !found {
		t.Fatalf("no metric says that the change took 9 s:\n%s", metrics.String())
	}
}

// Out of time, the worker hands everything back, visible at once.
func TestWorkerStopsBeforeItsDeadline(t *testing.T) {
	store := open(t)
	d := pipeline.Local(store)
	w := &lambdas.Worker{DeliveryPolicy: builder.DeliveryPolicy{Builder: builder.New(d.Ports, builder.Options{}), Margin: time.Hour}}
	if _, err := builder.RequestPlan(t.Context(), d.Ledger, d.Queue, builder.Request{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // less than the margin: no time at all
	defer cancel()
	if delivered, failed := deliver(t, ctx, store, w); delivered != 1 || failed != 1 {
		t.Fatalf("%d of %d jobs handed back, want 1 of 1", failed, delivered)
	}
	if delivered, failed := deliver(t, t.Context(), store, w); delivered != 1 || failed != 0 {
		t.Fatalf("the job was not there for the next: %d delivered, %d failed", delivered, failed)
	}
}

func TestWorkerReportsFailuresOneByOne(t *testing.T) {
	store := open(t)
	d := pipeline.Local(store)
	w := &lambdas.Worker{DeliveryPolicy: builder.DeliveryPolicy{Builder: builder.New(d.Ports, builder.Options{})}}
	if err := d.Queue.Send(t.Context(), []byte("nonsense"), []byte(`{"kind":"plan","after":1}`)); err != nil {
		t.Fatal(err)
	}
	if delivered, failed := deliver(t, t.Context(), store, w); delivered != 2 || failed != 1 {
		t.Fatalf("%d of %d failed, want 1 of 2", failed, delivered)
	}
}

func TestComposer(t *testing.T) {
	store := open(t)
	nothing := builder.DefaultParams()
	nothing.MaxBytes = 1
	built(t, store, builder.Options{Params: nothing})
	objects := store.Objects()
	first, _, err := builder.ReadIndex(t.Context(), objects)
	if err != nil {
		t.Fatal(err)
	}
	// The next generation: the retained one can still be asked for.
	im := &release.Importer{Objects: objects, Catalog: store.Catalog()}
	it := catalog.Item{App: "scoreboard", Track: "prod", Version: "9", DeviceAttr: map[string]bool{"gamer": true}}
	if _, err := im.Import(t.Context(), []release.Release{{Item: it, Open: func() (io.ReadSeekCloser, error) {
		return builder.NopCloser{ReadSeeker: strings.NewReader("nine")}, nil
	}}}, false); err != nil {
		t.Fatal(err)
	}
	build(t, store, builder.Options{Params: nothing})
	second, _, err := builder.ReadIndex(t.Context(), objects)
	if err != nil || second.Generation != 2 {
		t.Fatal(second, err)
	}
	c := &lambdas.Composer{Objects: objects, Composer: builder.NewComposer(objects), Log: quiet}
	ask := func(method, key, query, held string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest(method, "/"+key, nil)
		r.Header.Set(edge.SelectionHeader, query)
		r.Header.Set(edge.HeldHeader, held)
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w
	}
	query := "attrgamer=prod&cpuarch=armv8"
	d, old := edge.Decide(second, query, ""), edge.Decide(first, query, "")
	held := edge.Hex(d.Set.Item(0).MD5[:])
	part := edge.Decide(second, query, held)
	var everything []string
	for i := range d.Set.Len() {
		everything = append(everything, edge.Hex(d.Set.Item(i).SHA256[:]))
	}
	all := strings.Join(everything, ",")
	whole := edge.Decide(second, query, all)
	for name, a := range map[string]struct{ key, query, held string }{
		"full":     {layout.BundleKey(d.Set.ID(), "0"), query, ""},
		"retained": {layout.BundleKey(old.Set.ID(), "0"), query, ""},
		"subset":   {layout.BundleKey(d.Set.ID(), part.Mask.String()), query, held},
		"manifest": {layout.ManifestKey(d.Set.ID(), part.Mask.String()), query + "&payloadtype=metadataonly", held},
	} {
		w := ask(http.MethodGet, a.key, a.query, a.held)
		if w.Code != 200 || w.Body.Len() == 0 {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
		// It was stored, with the same bytes.
		body, info, err := objects.Get(t.Context(), a.key, 0, -1)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data, err := io.ReadAll(body)
		body.Close()
		if err != nil || !bytes.Equal(data, w.Body.Bytes()) || info.Size != int64(w.Body.Len()) {
			t.Fatalf("%s: stored %d bytes, sent %d: %v", name, len(data), w.Body.Len(), err)
		}
		// What was sent now, and what the store sends from now on, have one ETag.
		for range 2 {
			if got := w.Header().Get("ETag"); got != `"`+info.ETag+`"` {
				t.Errorf("%s: sent with ETag %s, stored with %s", name, got, info.ETag)
			}
			w = ask(http.MethodGet, a.key, a.query, a.held)
		}
	}
	// No oracle: what does not follow from the selection is not composed, whatever is named.
	for name, a := range map[string]struct {
		method, key, query, held string
		status                   int
	}{
		"another's set":         {"GET", layout.BundleKey(d.Set.ID(), "0"), "cpuarch=armv8", "", 404},
		"another mask":          {"GET", layout.BundleKey(d.Set.ID(), "2"), query, held, 404},
		"all held":              {"GET", layout.BundleKey(d.Set.ID(), "7"), query, "", 404},
		"nothing lacking":       {"GET", layout.BundleKey(d.Set.ID(), whole.Mask.String()), query, all, 404},
		"made up":               {"GET", layout.BundleKey(strings.Repeat("0", 64), "0"), query, "", 404},
		"bundle for a list":     {"GET", layout.BundleKey(d.Set.ID(), "0"), query + "&payloadtype=metadataonly", "", 404},
		"no selection":          {"GET", layout.BundleKey(d.Set.ID(), "0"), "", "", 400},
		"hostile selection":     {"GET", layout.BundleKey(d.Set.ID(), "0"), "cpuarch=%00", "", 400},
		"the index":             {"GET", layout.IndexKey, query, "", 404},
		"a piece":               {"GET", layout.PieceKey(strings.Repeat("0", 64), "e"), query, "", 404},
		"a path out of the way": {"GET", "bundles/../index", query, "", 404},
		"another method":        {"POST", layout.BundleKey(d.Set.ID(), "0"), query, "", 405},
	} {
		w := ask(a.method, a.key, a.query, a.held)
		var body map[string]string
		if w.Code != a.status || json.Unmarshal(w.Body.Bytes(), &body) != nil || body["error"] == "" {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, a.status)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/"+layout.BundleKey(d.Set.ID(), "0"), nil)
	r.Header.Set(edge.SelectionHeader, query)
	r.Header.Set("Range", "bytes=10-19")
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	if w.Code != http.StatusPartialContent || w.Body.Len() != 10 {
		t.Errorf("range: %d, %d bytes", w.Code, w.Body.Len())
	}
}

// slow are objects that do not answer: reads of keys with the prefix, or writes, until their context ends or end is
// closed.
type slow struct {
	builder.Objects
	reads  string
	writes bool
	begun  chan struct{} // closed by the first one that waits; may be nil
	end    chan struct{} // may be nil
}

func (s slow) wait(ctx context.Context) error {
	if s.begun != nil {
		close(s.begun)
	}
	select {
	case <-s.end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slow) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if s.reads != "" && strings.HasPrefix(key, s.reads) {
		if err := s.wait(ctx); err != nil {
			return builder.ObjectInfo{}, err
		}
	}
	return s.Objects.Stat(ctx, key)
}

func (s slow) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if s.reads != "" && strings.HasPrefix(key, s.reads) {
		if err := s.wait(ctx); err != nil {
			return nil, builder.ObjectInfo{}, err
		}
	}
	return s.Objects.Get(ctx, key, off, n)
}

func (s slow) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if s.writes {
		// As a store would, half way.
		if _, err := io.CopyN(io.Discard, body.Reader, body.Size/2); err != nil {
			return builder.ObjectInfo{}, err
		}
		if err := s.wait(ctx); err != nil {
			return builder.ObjectInfo{}, err
		}
		if _, err := body.Reader.Seek(0, io.SeekStart); err != nil {
			return builder.ObjectInfo{}, err
		}
	}
	return s.Objects.Put(ctx, key, body, opt)
}

// A composer says when to come again before CloudFront gives it up. What cannot be stored by then is sent all the
// same. What is too large to be sent is stored, however long that takes.
func TestComposerBeginsInTime(t *testing.T) {
	store := open(t)
	nothing := builder.DefaultParams()
	nothing.MaxBytes = 1
	built(t, store, builder.Options{Params: nothing})
	objects := store.Objects()
	ix, _, err := builder.ReadIndex(t.Context(), objects)
	if err != nil {
		t.Fatal(err)
	}
	query := "attrgamer=prod&cpuarch=armv8"
	key := layout.BundleKey(edge.Decide(ix, query, "").Set.ID(), "0")
	ask := func(c *lambdas.Composer) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/"+key, nil)
		r.Header.Set(edge.SelectionHeader, query)
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w
	}
	composer := func(o slow) *lambdas.Composer {
		return &lambdas.Composer{Objects: o, Composer: builder.NewComposer(o), FirstByte: lambdas.FirstByte, Log: quiet}
	}
	set := edge.Decide(ix, query, "").Set
	whole, err := builder.NewComposer(objects).Compose(t.Context(), layout.Bundle, set, edge.Mask{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(whole)
	if err != nil {
		t.Fatal(err)
	}
	stored := func() bool {
		_, err := objects.Stat(context.Background(), key)
		return err == nil
	}
	for _, reads := range []string{layout.IndexKey, layout.PiecePrefix} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			w := ask(composer(slow{Objects: objects, reads: reads}))
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || time.Since(start) != lambdas.FirstByte || stored() {
				t.Errorf("reading %s hangs: %d %v after %s", reads, w.Code, w.Header(), time.Since(start))
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w := ask(composer(slow{Objects: objects, writes: true}))
		if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), want) || time.Since(start) != lambdas.FirstByte || stored() {
			t.Errorf("storing hangs: %d, %d bytes of %d after %s, stored %v", w.Code, w.Body.Len(), len(want), time.Since(start), stored())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		start, o := time.Now(), slow{Objects: objects, writes: true, begun: make(chan struct{}), end: make(chan struct{})}
		go func() {
			<-o.begun
			time.Sleep(2 * lambdas.FirstByte)
			close(o.end)
		}()
		c := composer(o)
		c.MaxSent = int64(len(want)) - 1
		w := ask(c)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || time.Since(start) != 2*lambdas.FirstByte || !stored() {
			t.Errorf("storing what is too large to be sent takes long: %d, %d bytes of %d after %s, stored %v", w.Code, w.Body.Len(), len(want), time.Since(start), stored())
		}
	})
}
