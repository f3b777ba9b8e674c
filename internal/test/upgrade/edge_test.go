package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/run/lambdazip"
	"github.com/precast-ota/precast/internal/run/signingkey"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/trust/issuer"
)

// edge packs the frozen edge, as edge/cmd/pack packs this one.
func (f frozen) edge() (dist string) {
	f.t.Helper()
	dist = f.t.TempDir()
	sources := f.unpack()
	wasm := filepath.Join(dist, "edge.wasm")
	command(f.t, sources, offline("GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"), "go", "build", "-trimpath", "-buildmode=c-shared",
		"-ldflags", "-s -w -buildid=", "-o", wasm, "./edge/wasm")
	files := []lambdazip.File{{Name: "config.json", Mode: 0o644, Data: []byte(`{"refreshSeconds":5,"timeoutSeconds":2}`)}}
	paths := []string{wasm}
	for _, name := range shimFiles() {
		paths = append(paths, filepath.Join(sources, "edge", "shim", name))
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		files = append(files, lambdazip.File{Name: filepath.Base(path), Mode: 0o644, Data: data})
	}
	packed, err := lambdazip.Encode(files...)
	if err != nil {
		f.t.Fatal(err)
	}
	for name, data := range map[string][]byte{"edge.zip": packed, "function.js": f.read("function.js"), "response.js": f.read("response.js")} {
		if err := os.WriteFile(filepath.Join(dist, name), data, 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
	return dist
}

// presentEdge packs this program's edge, once for all tests.
var presentEdge = sync.OnceValues(func() (dist string, err error) {
	dist = filepath.Join(scratch, "dist")
	out, err := inRoot("go", "run", "./edge/cmd/pack", "-out", dist)
	if err != nil {
		return "", fmt.Errorf("pack the edge: %w\n%s", err, out)
	}
	return dist, nil
})

// cdn puts an edge in front of an installation's data folder, with a table of rollouts. This program's composer signs.
func cdn(t *testing.T, installation, dist string, table []string) *rig.Rig {
	t.Helper()
	objects, err := local.OpenObjects(filepath.Join(installation, "data"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := signingkey.Open(t.Context(), "file:"+only(t, filepath.Join(installation, "keys", "signing-*.pem")), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	statements, err := issuer.New(key, issuer.DefaultSchedule(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := rig.Start(ctx, rig.Options{Objects: objects, Dist: dist, Compose: func(objects builder.Objects) http.Handler {
		return &lambdas.Composer{Objects: objects, Composer: builder.NewComposer(objects), Statements: statements,
			FirstByte: lambdas.FirstByte, Log: slog.New(slog.DiscardHandler)}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	items := make(map[string]string)
	for i, value := range table {
		items[fmt.Sprint("rollouts.", i)] = value
	}
	if len(items) == 0 {
		t.Fatal("nothing is rolled out")
	}
	if err := r.Store.Replace(items); err != nil {
		t.Fatal(err)
	}
	return r
}

// The new edge comes first: it answers from what the earlier builder wrote, as the earlier server did, and all clients
// update through it.
func TestEdgeBeforeBuilder(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		dist, err := presentEdge()
		if err != nil {
			t.Fatal(err)
		}
		dir := f.installation()
		var table []string
		if err := json.Unmarshal([]byte(command(t, "", nil, f.build("./cmd/table"), filepath.Join(dir, "data", "objects", "index"))), &table); err != nil {
			t.Fatal(err)
		}
		r := cdn(t, dir, dist, table)
		for _, want := range f.answers() {
			status, body := get(t, r.URL+"/package?"+want.Query, want.Held)
			if status != want.Status || digest(body) != want.SHA256 {
				t.Errorf("%s (held %q): status %d, %.200q; was %+v", want.Query, want.Held, status, body, want)
			}
		}
		updated(t, "clients", f.devices(dir), r.URL)
	})
}

// The earlier edge is still there when the new builder publishes: it answers as the new server does, and all clients
// update through it.
func TestBuilderBeforeEdge(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		dir := f.installation()
		data := filepath.Join(dir, "data")
		c := f.commands(dir)
		c.says(0, "unpin")
		objects, err := local.OpenObjects(data)
		if err != nil {
			t.Fatal(err)
		}
		ix, _, err := builder.ReadIndex(t.Context(), objects)
		if err != nil {
			t.Fatal(err)
		}
		r := cdn(t, dir, f.edge(), edge.TableOf(ix).Values())
		s := serve(t, c.program, data, c.env...)
		statuses := make(map[int]int)
		for _, a := range f.answers() {
			status, body := get(t, r.URL+"/package?"+a.Query, a.Held)
			wantStatus, want := get(t, s.url+"/package?"+a.Query, a.Held)
			if status != wantStatus || digest(body) != digest(want) {
				t.Errorf("%s (held %q): status %d, %.200q; the server's is %d, %.200q", a.Query, a.Held, status, body, wantStatus, want)
			}
			statuses[status]++
		}
		if statuses[200] == 0 || statuses[304] == 0 || statuses[404] == 0 {
			t.Errorf("the answers are %v", statuses)
		}
		updated(t, "clients", f.devices(dir), r.URL)
	})
}
