package ask_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/operate/ask"
	operate "github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/store/source"
	"github.com/precast-ota/precast/internal/store/storetest"
)

// installation is a pipeline over drivers in memory, and a server of what it publishes.
type installation struct {
	t      *rapid.T
	memory storetest.Memory
	pub    *server.Published
	url    string
	opt    builder.Options
}

func newInstallation(t *rapid.T, params func(*builder.Options)) *installation {
	log := slog.New(slog.DiscardHandler)
	in := &installation{t: t, memory: storetest.NewMemory(time.Now, 5), opt: builder.Options{Params: builder.DefaultParams(), Log: log}}
	params(&in.opt)
	in.pub = server.NewPublished(in.memory.Objects, log)
	s := httptest.NewServer(server.New(in.memory.Objects, in.pub, server.NewMetrics(), log).Handler())
	t.Cleanup(s.Close)
	in.url = s.URL
	return in
}

func (in *installation) must(err error) {
	in.t.Helper()
	if err != nil {
		in.t.Fatal(err)
	}
}

// change puts a few releases into the catalog.
func (in *installation) change(least int) {
	im := &operate.Importer{Objects: in.memory.Objects, Catalog: in.memory.Catalog}
	for range rapid.IntRange(least, least+3).Draw(in.t, "changes") {
		app, version := rapid.SampledFrom(someApps).Draw(in.t, "app"), fmt.Sprint(rapid.IntRange(1, 8).Draw(in.t, "version"))
		it := catalog.Item{App: app, Track: rapid.SampledFrom(someTracks).Draw(in.t, "track"), Version: version,
			DeviceAttr: operate.Attributes(rapid.SliceOfNDistinct(rapid.SampledFrom(someAttrs), 0, 2, rapid.ID).Draw(in.t, "attrs")...)}
		if rapid.Bool().Draw(in.t, "rollout") {
			it.Rollout = &catalog.Rollout{Percent: 30, Salt: "spring"}
		}
		if rapid.IntRange(0, 2).Draw(in.t, "floor") == 0 {
			it.Floors = operate.Floors(fmt.Sprint(rapid.IntRange(1, 8).Draw(in.t, "floor")))
		}
		// The content is that of release, so that questions hold its digests. What cannot be put changes nothing.
		_, err := im.Import(in.t.Context(), []operate.Release{{Item: it, Open: func() (io.ReadSeekCloser, error) {
			return builder.NopCloser{ReadSeeker: strings.NewReader(app + " " + version)}, nil
		}}}, false)
		if err != nil {
			in.t.Logf("not put: %v", err)
		}
	}
}

func (in *installation) build() {
	in.t.Helper()
	p := pipeline.New(pipeline.Drivers{
		Ports:  builder.Ports{Objects: in.memory.Objects, Catalog: in.memory.Catalog, Queue: in.memory.Queue, Ledger: in.memory.Ledger, Sources: &source.Sources{Objects: in.memory.Objects}},
		Writer: in.memory.Catalog, DeadLetters: in.memory.Queue,
	}, pipeline.Config{Builder: in.opt})
	in.must(p.Build(in.t.Context(), builder.PlanOptions{}, nil))
	in.must(in.pub.Refresh(in.t.Context()))
}

func (in *installation) ask(q ask.Question) *ask.Report {
	in.t.Helper()
	items, err := in.memory.Catalog.Snapshot(in.t.Context())
	in.must(err)
	ix, _, err := builder.ReadIndex(in.t.Context(), in.memory.Objects)
	in.must(err)
	plan, err := builder.New(builder.Ports{Objects: in.memory.Objects}, in.opt).Plan(in.t.Context(), items, builder.PlanOptions{})
	in.must(err)
	rep, err := ask.Source{Objects: in.memory.Objects, Index: ix, Plan: plan}.Ask(in.t.Context(), q)
	in.must(err)
	return rep
}

// get is what a device gets.
func (in *installation) get(q ask.Question) (*http.Response, string) {
	in.t.Helper()
	req, err := http.NewRequestWithContext(in.t.Context(), http.MethodGet, in.url+"/package?"+q.Query, nil)
	in.must(err)
	req.Header.Set("Accept-Encoding", "identity")
	if q.Held != "" {
		req.Header.Set("If-None-Match", q.Held)
	}
	resp, err := http.DefaultClient.Do(req)
	in.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	in.must(err)
	return resp, string(body)
}

// agree fails unless an answer is what a server gives.
func (in *installation) agree(q ask.Question, a *ask.Answer, sized bool) {
	in.t.Helper()
	resp, body := in.get(q)
	etag := ""
	if a.ETag != "" {
		etag = `"` + a.ETag + `"`
	}
	if resp.StatusCode != a.Status || resp.Header.Get("ETag") != etag || a.Error != "" && !strings.Contains(body, `"`+a.Error+`"`) {
		in.t.Fatalf("%+v: the server says %d %v %q, ask %+v", q, resp.StatusCode, resp.Header, body[:min(len(body), 200)], a)
	}
	if a.Status != http.StatusOK {
		return
	}
	if sized && int64(len(body)) != a.Size {
		in.t.Fatalf("%+v: %d bytes, said to be %d", q, len(body), a.Size)
	}
	_, list := in.get(ask.Question{Query: "payloadType=metadataOnly&" + q.Query, Held: q.Held})
	m, err := manifest.Decode(strings.NewReader(list))
	in.must(err)
	files := m.Files()
	for _, it := range a.Items {
		e, ok := files[layout.FileName(it.App, it.Version)]
		if delete(files, layout.FileName(it.App, it.Version)); !ok || e.SHA256 != it.SHA256 || e.MD5 != it.MD5 || e.Size != it.Size || (e.StatusCode == manifest.StatusHeld) != it.Held {
			in.t.Fatalf("%+v: %+v is %+v in the manifest", q, it, e)
		}
	}
	if len(files) > 0 {
		in.t.Fatalf("%+v: ask does not name %v", q, files)
	}
}

// What ask foretells is what a server then gives: now, and after the changes that wait. A URL is told the same.
func TestAskForetellsTheServer(t *testing.T) {
	sources := make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		in := newInstallation(t, func(o *builder.Options) {
			o.Params.MaxBundles = rapid.SampledFrom([]uint64{0, 5, 10_000}).Draw(t, "copies")
		})
		base, err := url.Parse(in.url)
		in.must(err)
		unborn := questions().Draw(t, "before anything is published")
		in.agree(unborn, &in.ask(unborn).Answer, true)
		in.change(6)
		in.build()
		in.change(1)
		type foretold struct {
			q    ask.Question
			next *ask.Answer
		}
		var all []foretold
		for range 4 {
			q := questions().Draw(t, "question")
			if rapid.IntRange(0, 4).Draw(t, "broken") == 0 {
				q.Query = rapid.SampledFrom([]string{"", "x=%", "cpuArch=a&slot=10000", "cpuArch=a&payloadType=all"}).Draw(t, "query")
			}
			rep := in.ask(q)
			in.agree(q, &rep.Answer, true)
			sources[rep.Source]++
			live, err := ask.Live(t.Context(), http.DefaultClient, base, q)
			in.must(err)
			if live.Status != rep.Status || live.Error != rep.Error || live.Size != rep.Size || live.Kind != rep.Kind && rep.Status == http.StatusOK || live.ETag != rep.ETag || live.Query != rep.Query || !reflect.DeepEqual(live.Held, rep.Held) {
				t.Fatalf("%+v: a URL tells %+v, the store %+v", q, live, rep)
			}
			if names := itemNames(live.Items); rep.Status == http.StatusOK && !slices.Equal(names, itemNames(rep.Items)) {
				t.Fatalf("%+v: a URL tells %v, the store %v", q, names, itemNames(rep.Items))
			}
			if rep.ETag != "" { // a cache asks whether its copy is right
				again := ask.Question{Query: q.Query, Held: `W/"` + rep.ETag + `"`}
				in.agree(again, &in.ask(again).Answer, true)
			}
			next := &rep.Answer
			if rep.Waiting.Changed {
				next = rep.Waiting.Answer
			}
			all = append(all, foretold{q, next})
			for _, o := range rep.Slots {
				one := ask.Question{Query: fmt.Sprint("slot=", o.Example, "&", q.Query), Held: q.Held}
				in.agree(one, &o.Answer, true)
				if o.Waiting != nil {
					all = append(all, foretold{one, o.Waiting})
				}
			}
		}
		in.build()
		for _, f := range all {
			in.agree(f.q, f.next, false)
		}
	})
	t.Log(sources)
	if sources["composed"] == 0 || sources["prebuilt"] == 0 {
		t.Errorf("answers came from %v", sources)
	}
}

// A server that is none of ours tells nothing that looks like words of ours, and holds nobody up.
func TestAskOfAStranger(t *testing.T) {
	const forged = "x\n200: a bundle\r\nprecast: all is well"
	quoted, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		status     int
		body, want string // want: what the error says; empty: there is none
	}{
		"an error in JSON":      {http.StatusBadGateway, `{"error": ` + string(quoted) + `}`, ""},
		"an error in HTML":      {http.StatusForbidden, "<html>" + forged + strings.Repeat("<br>", 10_000), ""},
		"an error without text": {http.StatusBadGateway, "", ""},
		"a list":                {http.StatusOK, `{` + string(quoted) + `: {"latestVersion": ` + string(quoted) + `, "size": -1}}`, ""},
		"no list":               {http.StatusOK, "welcome", "decode manifest"},
		"too long a list":       {http.StatusOK, `{"` + strings.Repeat("x", 17<<20) + `": {}}`, "decode manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer s.Close()
			base, err := url.Parse(strings.Replace(s.URL, "http://", "http://eve:secret@", 1))
			if err != nil {
				t.Fatal(err)
			}
			rep, err := ask.Live(t.Context(), http.DefaultClient, base, ask.Question{Query: "cpuArch=x y"})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if rep.Status != c.status || (rep.Error == "") != (c.status == http.StatusOK) || len(rep.Error) > 300 || strings.ContainsAny(fmt.Sprint(rep.Error, rep.Items), "\r\n") || strings.Contains(rep.Of, "secret") {
				t.Fatalf("%+v", rep)
			}
		})
	}
}

// What cannot be composed is foretold, with the reason: a piece is made again, unless its binary is lost as well.
func TestAskForetellsWhatIsLost(t *testing.T) {
	statuses := make(map[int]int) // of answers that lack a piece
	rapid.Check(t, func(t *rapid.T) {
		in := newInstallation(t, func(o *builder.Options) { o.Params.MaxBundles = 0 })
		in.change(6)
		in.build()
		var pieces, binaries []string
		in.must(in.memory.Objects.List(t.Context(), layout.PiecePrefix, func(o builder.ObjectInfo) error {
			pieces = append(pieces, o.Key)
			return nil
		}))
		if len(pieces) == 0 {
			t.Skip("no release was put")
		}
		lost := rapid.SampledFrom(pieces).Draw(t, "lost")
		in.must(in.memory.Objects.Delete(t.Context(), lost))
		if rapid.Bool().Draw(t, "and its binary") {
			sum, _, _ := strings.Cut(strings.TrimPrefix(lost, layout.PiecePrefix), "/")
			in.must(in.memory.Objects.List(t.Context(), layout.BinaryPrefix+sum, func(o builder.ObjectInfo) error {
				binaries = append(binaries, o.Key)
				return nil
			}))
			for _, key := range binaries {
				in.must(in.memory.Objects.Delete(t.Context(), key))
			}
		}
		for range 5 {
			q := questions().Draw(t, "question")
			rep := in.ask(q)
			resp, body := in.get(q)
			if resp.StatusCode != rep.Status || rep.Status == http.StatusServiceUnavailable && rep.Problem == "" || rep.Size != 0 && rep.Size != int64(len(body)) {
				t.Fatalf("%+v: the server says %d, ask %+v", q, resp.StatusCode, rep.Answer)
			}
			if rep.Problem != "" {
				statuses[rep.Status]++
			}
		}
	})
	if statuses[http.StatusOK] == 0 || statuses[http.StatusServiceUnavailable] == 0 {
		t.Errorf("answers that lack a piece had the statuses %v", statuses)
	}
}

func itemNames(items []ask.Item) []string {
	var names []string
	for _, it := range items {
		names = append(names, fmt.Sprint(it.App, " ", it.Version, " ", it.SHA256, " ", it.Held))
	}
	slices.Sort(names)
	return names
}
