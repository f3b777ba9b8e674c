package rig_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudfront"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/operate/inspect"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/limits"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/seed"
)

// site is the sample, built, behind the rig with the real edge functions and, beside it, the server's own
// answers.
type site struct {
	*rig.Rig
	t      testing.TB
	store  *local.Store
	opt    builder.Options
	pub    *server.Published
	direct *httptest.Server
}

const itemSize = 3000 // bytes of each binary

// built builds the sample into a data folder, once for all tests: it takes a second.
func built(opt builder.Options) (dir string, err error) {
	switch {
	case opt.Params.MaxBytes == 1:
		return builtNothing()
	case opt.Params.SubsetItems == 1:
		return builtFew()
	}
	return builtAll()
}

var (
	builtAll     = sync.OnceValues(func() (string, error) { return buildSample("all", builder.Options{}) })
	builtFew     = sync.OnceValues(func() (string, error) { return buildSample("few", few()) })
	builtNothing = sync.OnceValues(func() (string, error) { return buildSample("nothing", nothingPrebuilt()) })
)

// link makes a folder of the same data. Objects are replaced, never changed: their files can be shared.
func link(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		local, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		into := filepath.Join(to, local)
		switch {
		case d.IsDir():
			return os.MkdirAll(into, 0o755)
		case strings.HasPrefix(local, "locks"):
			return nil
		case strings.HasPrefix(local, "objects"), strings.HasPrefix(local, "meta"):
			return os.Link(path, into)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(into, content, 0o600)
	})
}

func buildSample(name string, opt builder.Options) (string, error) {
	dir := filepath.Join(scratch, name)
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		return "", err
	}
	defer store.Close()
	ctx := context.Background()
	im := &release.Importer{Objects: store.Objects(), Catalog: store.Catalog()}
	if _, err := im.Import(ctx, seed.Releases(itemSize, 1), false); err != nil {
		return "", err
	}
	return dir, pipeline.New(pipeline.Local(store), pipeline.Config{Builder: opt}).Build(ctx, builder.PlanOptions{}, nil)
}

// newSite serves the sample, built under opt. change may change the rig's options.
func newSite(t testing.TB, opt builder.Options, change ...func(*rig.Options)) *site {
	t.Helper()
	dir, err := packed()
	if err != nil {
		t.Fatal(err)
	}
	sample, err := built(opt)
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	if err := link(data, sample); err != nil {
		t.Fatal(err)
	}
	store, err := local.Open(data, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	s := &site{t: t, store: store, opt: opt, pub: server.NewPublished(store.Objects(), quiet())}
	s.direct = httptest.NewUnstartedServer(nil)
	s.direct.Config = limits.HTTP(server.New(store.Objects(), s.pub, server.NewMetrics(), quiet()).Handler(), quiet())
	s.direct.Start()
	t.Cleanup(s.direct.Close)
	if err := s.pub.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	options := rig.Options{Objects: store.Objects(), Dist: dir}
	for _, f := range change {
		f(&options)
	}
	s.Rig = start(t, options)
	// What the builder's function does after a publish; the waiting is the rig's clock's.
	s.opt.Observer = &cdn.CDN{
		Rollouts: &cdn.Rollouts{Client: s.Store, Store: s.Store.ARN(), Objects: store.Objects(), Log: quiet(), Now: time.Now,
			Table: func(ix *index.Index) []string { return edge.TableOf(ix).Values() }},
		Invalidator: &cdn.Invalidator{Client: invalidations{s.Rig}, Log: quiet(), Wait: func(_ context.Context, d time.Duration) error {
			s.Advance(d)
			return nil
		}},
	}
	return s
}

// invalidations is the rig as the CloudFront API.
type invalidations struct{ rig *rig.Rig }

func (i invalidations) CreateInvalidation(_ context.Context, in *cloudfront.CreateInvalidationInput, _ ...func(*cloudfront.Options)) (*cloudfront.CreateInvalidationOutput, error) {
	i.rig.Invalidate(in.InvalidationBatch.Paths.Items...)
	return &cloudfront.CreateInvalidationOutput{}, nil
}

func (s *site) importer() *release.Importer {
	return &release.Importer{Objects: s.store.Objects(), Catalog: s.store.Catalog()}
}

// build builds and publishes what is in the catalog. The observer has been told when it returns.
func (s *site) build() {
	s.t.Helper()
	st := pipeline.New(pipeline.Local(s.store), pipeline.Config{Builder: s.opt})
	if err := st.Build(s.t.Context(), builder.PlanOptions{}, nil); err != nil {
		s.t.Fatal(err)
	}
	if err := s.pub.Refresh(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// release puts a new version of the gamers' scoreboard into the catalog, and builds.
func (s *site) release(version string) {
	s.t.Helper()
	s.put(catalog.Item{App: "scoreboard", Track: "prod", Version: version, DeviceAttr: map[string]bool{"gamer": true}})
	s.build()
}

// put puts a release into the catalog.
func (s *site) put(it catalog.Item) {
	s.t.Helper()
	open := func() (io.ReadSeekCloser, error) { return noClose{seed.Content(1, it, itemSize)}, nil }
	if _, err := s.importer().Import(s.t.Context(), []release.Release{{Item: it, Open: open}}, false); err != nil {
		s.t.Fatal(err)
	}
}

type noClose struct{ io.ReadSeeker }

func (noClose) Close() error { return nil }

func (s *site) index() *index.Index {
	s.t.Helper()
	ix, _, err := builder.ReadIndex(s.t.Context(), s.store.Objects())
	if err != nil {
		s.t.Fatal(err)
	}
	return ix
}

// digests are those of the items that a query gets, in the set's order.
func (s *site) digests(query string) (md5s, sha256s []string) {
	d := edge.Decide(s.index(), query, "")
	for i := range d.Set.Len() {
		md5s = append(md5s, edge.Hex(d.Set.Item(i).MD5[:]))
		sha256s = append(sha256s, edge.Hex(d.Set.Item(i).SHA256[:]))
	}
	return md5s, sha256s
}

// get asks the rig.
func (s *site) get(target string, header ...string) answer {
	s.t.Helper()
	return get(s.t, s.Rig, target, header...)
}

// expect fails unless the server itself answers the same: status and body.
func (s *site) expect(a answer, target string, header ...string) {
	s.t.Helper()
	want := s.ask(http.MethodGet, target, header...)
	if a.status != want.status || !bytes.Equal(a.body, want.body) {
		s.t.Fatalf("%s %q: %v\nwant %d, %d bytes: %.200q", target, header, a, want.status, len(want.body), want.body)
	}
}

// ask asks the server itself.
func (s *site) ask(method, target string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.direct.URL+target, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := s.direct.Client().Transport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: body}
}

// fetched lists the keys that CloudFront (not the origin-request function) got from S3, in order.
func (s *site) fetched() []string {
	var keys []string
	for _, r := range s.S3.Requests() {
		if r.By == "AKIACLOUDFRONT" {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

// files are the names in a bundle, and those that its manifest says the device holds.
func files(t testing.TB, body []byte) (brought, held []string) {
	t.Helper()
	rep, err := inspect.Bundle(context.Background(), bytes.NewReader(body))
	if err != nil || len(rep.Problems) > 0 {
		t.Fatalf("bundle is not sound: %v, %v", err, rep.Problems)
	}
	for name, e := range rep.Manifest.Files() {
		if e.StatusCode == manifest.StatusHeld {
			held = append(held, name)
		} else {
			brought = append(brought, name)
		}
	}
	return brought, held
}

// few prebuilds full bundles and upgrade paths only: that takes a sixth of the time.
func few() builder.Options {
	p := builder.DefaultParams()
	p.SubsetItems = 1
	return builder.Options{Params: p}
}

func nothingPrebuilt() builder.Options {
	p := builder.DefaultParams()
	p.MaxBytes = 1
	return builder.Options{Params: p}
}

func held(digests []string) []string {
	if len(digests) == 0 {
		return nil
	}
	return []string{"If-None-Match", strings.Join(digests, ", ")}
}
