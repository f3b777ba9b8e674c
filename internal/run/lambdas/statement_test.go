package lambdas_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
)

func TestComposerSignsStatements(t *testing.T) {
	store := open(t)
	nothing := builder.DefaultParams()
	nothing.MaxBytes = 1
	built(t, store, builder.Options{Params: nothing})
	objects := store.Objects()
	release := func(version string) {
		t.Helper()
		im := &release.Importer{Objects: objects, Catalog: store.Catalog()}
		it := catalog.Item{App: "scoreboard", Track: "prod", Version: version, DeviceAttr: map[string]bool{"gamer": true}}
		if _, err := im.Import(t.Context(), []release.Release{{Item: it, Open: func() (io.ReadSeekCloser, error) {
			return builder.NopCloser{ReadSeeker: strings.NewReader(version)}, nil
		}}}, false); err != nil {
			t.Fatal(err)
		}
		build(t, store, builder.Options{Params: nothing})
	}
	release("9")
	release("10")
	key, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	m, err := issuer.New(key, issuer.DefaultSchedule(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	c := &lambdas.Composer{Objects: objects, Composer: builder.NewComposer(objects), Log: quiet, Statements: m}
	ask := func(path, query string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/"+path, nil)
		r.Header.Set(edge.SelectionHeader, query)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w
	}
	const query = "attrgamer=prod&cpuarch=armv8&payloadtype=statement"
	path := func(generation, epoch uint64) string {
		ix, err := builder.ReadGeneration(t.Context(), objects, generation)
		if err != nil {
			t.Fatal(err)
		}
		d := edge.Decide(ix, query, "")
		d.Epoch = epoch
		_, p := d.Object()
		return p
	}
	today := m.Epoch()
	for name, p := range map[string]string{"current": path(3, today), "one behind": path(2, today), "the edge is a day behind": path(3, today-1), "and ahead": path(3, today+1)} {
		w := ask(p, query)
		if w.Code != 200 || w.Header().Get("Cache-Control") != layout.PackageCacheControl || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
		s, err := statement.Parse(w.Body.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(key.Public()); err != nil || s.Selection != "attrgamer=prod&cpuarch=armv8" {
			t.Errorf("%s: %v %s", name, err, w.Body)
		}
		if again := ask(p, query, "If-None-Match", w.Header().Get("ETag")); again.Code != 304 {
			t.Errorf("%s again: %d", name, again.Code)
		}
		// It is not kept: the next key signs other bytes.
		if _, err := objects.Stat(t.Context(), p); err == nil {
			t.Errorf("%s was stored", name)
		}
	}
	for name, a := range map[string]struct {
		path, query string
		status      int
	}{
		"long ago":               {path(1, today), query, 404},
		"not published yet":      {strings.Replace(path(3, today), "0003/", "0004/", 1), query, 404},
		"from the future":        {path(3, today+1000), query, 503},
		"from the past":          {path(3, today-2), query, 503},
		"another's":              {path(3, today), "cpuarch=armv8&payloadtype=statement", 404},
		"a bundle's selection":   {path(3, today), "attrgamer=prod&cpuarch=armv8", 404},
		"a selection of nothing": {path(3, today), "cpuarch=riscv&payloadtype=statement", 404},
		"no selection":           {path(3, today), "", 400},
		"a bundle by it":         {layout.BundleKey(strings.Repeat("0", 64), "0"), query, 404},
	} {
		if w := ask(a.path, a.query); w.Code != a.status {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, a.status)
		}
	}
	c.Statements = nil
	if w := ask(path(3, today), query); w.Code != 404 || !strings.Contains(w.Body.String(), edge.ErrNotSigned) {
		t.Errorf("no key: %d %s", w.Code, w.Body)
	}
}
