package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/internal/trust/signing"

	"pgregory.net/rapid"
)

func TestUpdates(t *testing.T) { onBothKinds(t, updates) }

func updates(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	want := w.statementNow()
	for name, d := range w.devices() {
		t.Run(name, func(t *testing.T) {
			mustUpdate(t, d)
			files, times := d.installed()
			if len(files) != len(want.Items) || times != 1 {
				t.Fatalf("%d files, installed %d times", len(files), times)
			}
			for _, it := range want.Items {
				if files[it.FileName()] != contentOf(it.App, 1) {
					t.Errorf("%s is wrong", it.FileName())
				}
			}
			mustUpdate(t, d)
			if _, times := d.installed(); times != 1 {
				t.Errorf("installed %d times", times)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	w := newWorld(t)
	good := client.Options{URL: w.front, Selection: "cpuArch=x", Roots: signing.PublicPEM(rootKey.Public()), Dir: t.TempDir(),
		Install: func(context.Context, client.Set) error { return nil }}
	if _, err := client.New(good); err != nil {
		t.Fatal(err)
	}
	private, _ := rootKey.PEM()
	for _, c := range []struct {
		why, want string
		change    func(o *client.Options)
	}{
		{"no address", "", func(o *client.Options) { o.URL = "packages" }},
		{"no selection", "", func(o *client.Options) { o.Selection = "os=prod" }},
		{"no root", "", func(o *client.Options) { o.Roots = nil }},
		{"a private root", "", func(o *client.Options) { o.Roots = private }},
		{"no folder", "make client: Options.Dir is required", func(o *client.Options) { o.Dir = "" }},
		{"no install", "make client: Options.Install is required", func(o *client.Options) { o.Install = nil }},
	} {
		bad := good
		c.change(&bad)
		if _, err := client.New(bad); err == nil || c.want != "" && err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.why, err, c.want)
		}
	}
}

// What fails on the device is tried again, and what has changed there is noticed.
func TestTroubleOnTheDevice(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	fail := true
	installed := 0
	device := func(selection string) *client.Client {
		t.Helper()
		c, err := client.New(client.Options{URL: w.front, Selection: selection, Roots: signing.PublicPEM(rootKey.Public()), Dir: dir, Clock: w.clock,
			Install: func(_ context.Context, set client.Set) error {
				if fail {
					return errors.New("the flash is full")
				}
				installed++
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := device(query)
	for range 2 {
		if _, err := c.Update(t.Context()); err == nil || !strings.Contains(err.Error(), "the flash is full") {
			t.Fatalf("%v", err)
		}
	}
	fail = false
	res, err := c.Update(t.Context())
	if err != nil || !res.Changed || res.Downloaded != 0 || installed != 1 {
		t.Fatalf("%+v, installed %d times, error %v", res, installed, err)
	}
	// A file that has changed meanwhile is downloaded anew before it is used again.
	of := slices.IndexFunc(res.Files, func(f client.File) bool { return f.App == "os_armv8" })
	if err := os.WriteFile(res.Files[of].Path, []byte(strings.Repeat("!", fileSize)), 0o600); err != nil {
		t.Fatal(err)
	}
	c = device("cpuArch=armv8") // the same file, as another kind of device
	if _, err := c.Update(t.Context()); !strings.Contains(fmt.Sprint(err), "has changed on this device") {
		t.Errorf("%v", err)
	}
	if res, err := c.Update(t.Context()); err != nil || len(res.Files) != 1 || installed != 2 {
		t.Errorf("%+v, installed %d times, error %v", res, installed, err)
	}
	// What the device has forgotten how to read is said, not passed over.
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Update(t.Context()); !strings.Contains(fmt.Sprint(err), "the device starts anew") {
		t.Errorf("%v", err)
	}
}

// Only what a device lacks is downloaded.
func TestDownloadsWhatIsLacking(t *testing.T) { onBothKinds(t, downloadsWhatIsLacking) }

func downloadsWhatIsLacking(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	d := w.goDevice()
	mustUpdate(t, d)
	if got := d.last.Downloaded; got < 3*fileSize*9/10 {
		t.Errorf("everything took %d bytes", got)
	}
	entries, err := os.ReadDir(filepath.Join(d.dir, "files"))
	if err != nil || len(entries) != 3 {
		t.Fatal(entries, err)
	}
	// Two of three are there; the state does not know of it.
	if err := errors.Join(os.Remove(filepath.Join(d.dir, "files", entries[1].Name())), os.Remove(filepath.Join(d.dir, "state.json"))); err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, d)
	if got := d.last.Downloaded; got == 0 || got > 2*fileSize {
		t.Errorf("one file took %d bytes", got)
	}
}

// A request names 64 held files at most: what else the device holds comes once more, and is allowed for.
func TestManyFiles(t *testing.T) {
	for kind := range newWorld(t).devices() {
		if kind == "busybox" { // takes 6 s, and nothing here depends on the shell
			continue
		}
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			d := w.devices()[kind]
			files := make(map[string]string)
			for i := range 72 {
				files[fmt.Sprintf("app%02d_1", i)] = strings.Repeat(contentOf("app", i), 3)
			}
			s := w.statementNow()
			w.attacked(func(rw http.ResponseWriter, r *http.Request) {
				switch {
				case isStatement(r):
					s.Items = items(files)
					w.signedBy(signingKey, s).send(rw)
				case isBundle(r):
					rest := maps.Clone(files)
					for _, it := range items(files) {
						if strings.Contains(r.Header.Get("If-None-Match"), it.SHA256) {
							delete(rest, it.FileName())
						}
					}
					// As the builder does: all is listed, what is held with its status.
					w.bundleOf(rest, files).send(rw)
				default:
					w.pass(rw, r)
				}
			})
			mustUpdate(t, d)
			wantFiles(t, d, files)
			delete(files, "app00_1")
			files["app00_2"] = "new"
			s.Generation++
			mustUpdate(t, d)
			wantFiles(t, d, files)
		})
	}
}

// Whatever the builder makes is within the limits that a device infers from the statement.
func TestLimitsAllowForRealBundles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "items")
		var size int64
		for range n {
			size += rapid.Int64Range(0, 1<<33).Draw(t, "size")
		}
		// Stored blocks of 65,535 bytes, each with 5 bytes before it; headers, padding and a PAX header for
		// every file; a manifest of at most 4 KiB for each.
		worst := size + size/65535*5 + int64(n)*(512*6+1024+16) + int64(n)*4096 + 2048 + 64
		if limit := client.MaxBundle(n, size); worst > limit {
			t.Fatalf("%d items of %d bytes: %d bytes, the limit is %d", n, size, worst, limit)
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	w := newWorld(b)
	kinds := map[string]device{"go": w.goDevice()}
	for kind, sh := range shells(b) {
		kinds[kind] = w.shDevice(sh)
	}
	for kind, d := range kinds {
		mustUpdate(b, d)
		// Nothing new: a keyring and a statement are got and verified.
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				mustUpdate(b, d)
			}
		})
	}
}
