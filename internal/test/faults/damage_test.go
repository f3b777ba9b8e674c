package faults_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	releases "github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/test/reference"
)

// damages are what happens to files.
var damages = map[string]func(data []byte) []byte{
	"cut":     func(data []byte) []byte { return data[:len(data)/2] },
	"emptied": func([]byte) []byte { return nil },
	"grown":   func(data []byte) []byte { return append(slices.Clone(data), data...) },
	"flipped": func(data []byte) []byte {
		data = slices.Clone(data)
		data[len(data)/2] ^= 0x10
		return data
	},
}

// Every file of a kind is damaged on the disk, behind the store's back. What can be known is not served: a
// wrong length, in every kind; a flipped bit in the index. A flipped bit in a bundle, or in what one is
// composed of, the server does not look for, but the device sees it: the gzip's checksum and the SHA-256 of
// every file are off. A flipped bit in a manifest that is sent alone can be seen by fsck and by those who ask
// for a signed statement instead.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	cases := 0
	kinds := []string{layout.IndexKey, layout.PiecePrefix, layout.BinaryPrefix}
	if copies() {
		kinds = append(kinds, layout.BundlePrefix, layout.ManifestPrefix)
	}
	for _, prefix := range kinds {
		for name, damage := range damages {
			cases++
			t.Run(strings.Trim(prefix, "/")+" "+name, func(t *testing.T) { damaged(t, prefix, name, damage) })
		}
	}
	counted(t, "%d kinds of damage to whole kinds of objects", cases)
}

func damaged(t *testing.T, prefix, name string, damage func([]byte) []byte) {
	ctx := t.Context()
	dir := folder(t)
	store, base := openLocal(t, dir, local.Options{})
	defer store.Close()
	w := newWorld(t, base)
	w.begin()
	st := pipeline.New(base, pipeline.Config{Builder: small()})
	must(t, st.Build(ctx, builder.PlanOptions{}, nil))
	old := w.fresh(base.Objects)
	w.everybody(old)
	before, err := stored(ctx, base.Objects)
	must(t, err)
	n := damageAll(t, dir, prefix, damage)
	if n == 0 {
		t.Fatal("there is nothing to damage")
	}

	seen := askAll(t, w, old, prefix == layout.IndexKey)
	if prefix == layout.PiecePrefix && !copies() {
		// S12: whoever asks next gets the right answer, of pieces that have been made again. Unless a binary is damaged as well, all is well.
		for status := range askAll(t, w, old, false) {
			if status == unsound || status == http.StatusServiceUnavailable {
				t.Errorf("asked again, the server answers %d", status)
			}
		}
		damageAll(t, dir, prefix, damage)
	}
	if prefix == layout.IndexKey {
		young := askAllRestarted(t, w, base)
		if young[http.StatusServiceUnavailable] != len(selections()) {
			t.Fatalf("a server that starts on a damaged index answers %v", young)
		}
	} else if prefix == layout.BundlePrefix && name != "flipped" && seen[http.StatusServiceUnavailable] == 0 {
		t.Fatalf("nobody noticed: %v", seen)
	} else if prefix == layout.BundlePrefix && name == "flipped" && seen[unsound] == 0 {
		t.Fatalf("no device noticed: %v", seen)
	}

	rep, err := fsck.Store(ctx, base.Objects, fsck.Options{Deep: true})
	if prefix != layout.IndexKey {
		must(t, err) // an index that cannot be read at all ends the check
	}
	if err == nil && rep.Complete() {
		t.Fatal("fsck --deep finds nothing")
	}
	if prefix == layout.IndexKey {
		must(t, os.Remove(filepath.Join(dir, "objects", layout.IndexKey)))
		must(t, st.Build(ctx, builder.PlanOptions{Verify: true}, nil))
	} else {
		must(t, (&fsck.Repairer{Objects: base.Objects, Sources: base.Sources}).Repair(ctx, rep))
		if !rep.Complete() {
			t.Fatalf("%d problems, %d repaired, the first %+v", len(rep.Problems), rep.Repaired, rep.Problems[0])
		}
	}
	w.complete()
	after, err := stored(ctx, base.Objects)
	must(t, err)
	must(t, contains(after, before))
	w.fromScratch()
	w.everybody(w.fresh(base.Objects))
}

// damageAll damages every file of a kind.
func damageAll(t *testing.T, dir, prefix string, damage func([]byte) []byte) int {
	t.Helper()
	n := 0
	root := filepath.Join(dir, "objects", filepath.FromSlash(prefix))
	must(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, damage(data), 0o644)
	}))
	return n
}

// unsound is what a device says of an answer whose checksums are off.
const unsound = -1

// askAll asks every selection of a server over damaged files. right: all answers are right, as those of a
// server that goes on with what it has read. Otherwise they are right, or 503, or the device can tell.
func askAll(t *testing.T, w *world, f front, right bool) map[int]int {
	t.Helper()
	seen := make(map[int]int)
	for _, params := range selections() {
		query := url.Values{}
		for _, p := range params {
			query.Add(p[0], p[1])
		}
		resp, err := f.ask(t.Context(), query.Encode(), "")
		if errors.Is(err, errBrokenOff) && !copies() { // composed of a piece that is shorter or longer than it was
			seen[unsound]++
			continue
		}
		must(t, err)
		status := resp.status
		files, _, err := contents(t.Context(), resp)
		wantStatus, want := reference.Answer(w.states[0], params, nil)
		switch {
		case status == http.StatusServiceUnavailable:
			if resp.header.Get("Retry-After") == "" {
				t.Errorf("%v: 503 without Retry-After", params)
			}
		case err != nil:
			status = unsound
		case status != wantStatus || !slices.Equal(files, want):
			t.Errorf("%v: %d %v, not %d %v", params, status, files, wantStatus, want)
		}
		if right && (status == http.StatusServiceUnavailable || status == unsound) {
			t.Errorf("%v: %d", params, status)
		}
		seen[status]++
	}
	return seen
}

// askAllRestarted asks a server that starts now.
func askAllRestarted(t *testing.T, w *world, d pipeline.Drivers) map[int]int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	return askAll(t, w, w.serve(ctx, d.Objects, w.pipeline()), false)
}

// S12: a build that composes from damaged pieces makes them again from their binaries, says so, and is completed.
func TestDamagedPieces(t *testing.T) {
	t.Parallel()
	if !copies() {
		t.Skip("no build reads pieces: internal/run/server has the damaged pieces that are sent")
	}
	for name, damage := range damages {
		t.Run("S12 "+name, func(t *testing.T) {
			ctx := t.Context()
			dir := folder(t)
			store, base := openLocal(t, dir, local.Options{MaxReceives: 1})
			defer store.Close()
			w := newWorld(t, base)
			w.begin()
			must(t, w.pipeline().Build(ctx, builder.PlanOptions{}, nil))
			before, err := stored(ctx, base.Objects)
			must(t, err)
			if damageAll(t, dir, layout.PiecePrefix, damage) == 0 {
				t.Fatal("there is nothing to damage")
			}
			w.change(func() error {
				_, err := importer(base).Import(ctx, []releases.Release{release(2, 1, 900)}, false)
				return err
			})
			st := w.pipeline()
			mended := make(map[string]bool)
			defer st.Subscribe(func(ev pipeline.Event) {
				if ev.Stored != nil && ev.Stored.Mended {
					mended[ev.Stored.Key] = true
				}
			})()
			must(t, st.Build(ctx, builder.PlanOptions{}, nil))
			if len(mended) == 0 || w.log.count("a missing or damaged piece was made again") < len(mended) {
				t.Fatalf("%d pieces made again; the log says %s", len(mended), w.log.tail())
			}
			for key, was := range before { // those that the change did not need are as they were damaged
				if strings.HasPrefix(key, layout.PiecePrefix) && !mended[key] {
					must(t, os.WriteFile(filepath.Join(dir, "objects", filepath.FromSlash(key)), []byte(was), 0o644))
				}
			}
			w.settle(0, 0)
			for key := range mended {
				after, err := read(ctx, base.Objects, key)
				must(t, err)
				if after != before[key] {
					t.Errorf("%s is not what it was", key)
				}
			}
			w.everybody(w.fresh(base.Objects))
		})
	}
	counted(t, "%d kinds of damage", len(damages))
}
