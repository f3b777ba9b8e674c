package client_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// Through the CDN, as far as it can be had on one machine: the viewer functions, the cache, the edge as
// WebAssembly, the bucket, and the composer, which signs.
func TestThroughTheCDN(t *testing.T) {
	if testing.Short() {
		t.Skip("packs the edge")
	}
	dist := t.TempDir()
	pack := exec.Command("go", "run", "./edge/cmd/pack", "-out", dist)
	pack.Dir = ".."
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("pack: %v\n%s", err, out)
	}
	w := newWorld(t)
	signer := signing.Signer(signingKey)
	cdn, err := rig.Start(t.Context(), rig.Options{
		Objects: w.objects, Dist: dist, Now: w.clock.Now,
		Compose: func(objects builder.Objects) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				m, err := issuer.New(signer, issuer.DefaultSchedule(), w.clock.Now)
				if err != nil {
					t.Error(err)
				}
				c := &lambdas.Composer{Objects: objects, Composer: builder.NewComposer(objects), Log: slog.New(slog.DiscardHandler), Statements: m}
				c.ServeHTTP(rw, r)
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cdn.Close(); err != nil {
			t.Error(err)
		}
	})
	front := w.front
	w.front = cdn.URL
	devices := w.devices()
	for kind, d := range devices {
		if err := d.update(); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		wantFiles(t, d, released(1))
	}
	// Every spelling of a selection is one statement in the cache, and so is every slot while nothing is rolled out.
	// (Devices tell what they hold only where there are floors.)
	hit := func(path string, header ...string) string {
		t.Helper()
		req, _ := http.NewRequest(http.MethodGet, cdn.URL+path, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("X-Cache"))
	}
	for _, path := range []string{"/package?payloadType=statement&cpuArch=ARMv8&attrGamer=prod", "/package?attrGamer=prod&os=prod&cpuArch=armv8&payloadType=Statement", "/package?slot=77&attrGamer=prod&cpuArch=armv8&payloadType=Statement"} {
		if got := hit(path); got != "200 Hit from cloudfront" {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := hit("/statements/00000000000000000001/1/" + filepath.Base(dist)); got[:3] != "404" {
		t.Errorf("a statement by its path: %s", got)
	}
	// A release, and a revoked key, once the caches have forgotten.
	w.nextKeyring(func(k *keyring.Keyring) {
		k.Signing, k.Revoked = publics(key(3)), []string{signingKey.Public().ID()}
	}, rootKey)
	signer = key(3)
	want := w.publish()
	w.clock.advance(2 * time.Minute)
	cdn.Invalidate("/package*")
	for kind, d := range devices {
		var err error
		for range 3 { // what was stale may have been served once more while it was fetched
			if err = d.update(); err == nil {
				if files, _ := d.installed(); files["os_armv8_1.2"] != "" {
					break
				}
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		wantFiles(t, d, want)
	}
	w.front = front
}
