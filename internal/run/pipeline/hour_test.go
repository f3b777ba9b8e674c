package pipeline_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

func opener(data []byte) func() (io.ReadSeekCloser, error) {
	return func() (io.ReadSeekCloser, error) { return builder.NopCloser{ReadSeeker: bytes.NewReader(data)}, nil }
}

var hourSize = flag.Int("hour", 3<<20, "size of the catalog in the hour of releases, in bytes")

// hour is an installation whose clock a test moves.
type hour struct {
	t    *testing.T
	dir  string
	d    pipeline.Drivers
	p    *pipeline.Pipeline
	now  time.Time
	aged time.Time // files from here on, by the real clock, have been written since the last pass
}

// pass lets time pass. What has been written since the last time was written now, by the clock that passes.
func (h *hour) pass(by time.Duration) {
	h.t.Helper()
	must(h.t, filepath.WalkDir(h.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && !info.ModTime().Before(h.aged) && info.ModTime().Before(h.aged.AddDate(1, 0, 0)) {
			err = os.Chtimes(path, h.now, h.now)
		}
		return err
	}))
	h.now = h.now.Add(by)
}

// used is what du says of the folder, in bytes.
func (h *hour) used() int64 {
	h.t.Helper()
	out, err := exec.Command("du", "-sk", h.dir).Output()
	must(h.t, err)
	kib, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	must(h.t, err)
	return kib << 10
}

// needed is the size of the binaries that the history needs.
func (h *hour) needed() int64 {
	h.t.Helper()
	kept, err := history.Kept(h.t.Context(), h.d.Objects)
	must(h.t, err)
	sizes := make(map[string]int64)
	for _, e := range kept {
		ix, err := builder.ReadGeneration(h.t.Context(), h.d.Objects, e.Generation)
		must(h.t, err)
		for i := range ix.Items {
			sizes[builder.BinaryKey(&ix.Items[i])] = ix.Items[i].Size
		}
	}
	var sum int64
	for _, n := range sizes {
		sum += n
	}
	return sum
}

func (h *hour) build() {
	h.t.Helper()
	must(h.t, h.p.Build(h.t.Context(), builder.PlanOptions{}, nil))
}

// C19: an hour of ordinary work, compressed. Every minute there is a release, some to a part of the fleet first, and now
// and then one that is given up; the folder is at most 1.8 times the binaries that the history still needs, whether they
// compress or not. All that is restorable can be gone back to, also where pieces were given up; after 90 days and more, the
// binaries of older releases go by themselves.
func TestC19AnHourOfReleases(t *testing.T) {
	for name, compressible := range map[string]bool{"half of it compresses": true, "nothing compresses": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hourOfReleases(t, compressible)
		})
	}
}

func hourOfReleases(t *testing.T, compressible bool) {
	const apps = 10
	size := *hourSize / apps
	start := time.Now()
	h := &hour{t: t, dir: t.TempDir(), aged: start, now: start.AddDate(2, 0, 0)} // well apart from the clock that files are written by
	store, err := local.Open(h.dir, local.Options{})
	must(t, err)
	defer store.Close()
	h.d = pipeline.Local(store)
	opt := without(t)
	opt.Clock = builder.Clock{Time: func() time.Time { return h.now }, Pass: func(_ context.Context, d time.Duration) { h.now = h.now.Add(d) }}
	h.p = pipeline.New(h.d, pipeline.Config{Builder: opt, MinFree: minFree(t, "0"), History: 90 * 24 * time.Hour})
	r := rand.New(rand.NewPCG(19, 19))
	release := func(app, n, percent int) {
		t.Helper()
		it := catalog.Item{App: "os_a", Track: "prod", Version: fmt.Sprint(n)}
		if app > 0 {
			it.App, it.DeviceAttr = fmt.Sprint("app", app), map[string]bool{fmt.Sprint("x", app%3): true}
		}
		if percent > 0 {
			it.Rollout = &catalog.Rollout{Percent: float64(percent)}
		}
		data := content(size, uint64(n*apps+app))
		if !compressible {
			r := rand.New(rand.NewPCG(uint64(n), uint64(app)))
			for i := range data {
				data[i] = byte(r.Uint32() >> 24)
			}
		}
		bring(t, h.d, it, data)
	}
	for app := range apps {
		release(app, 0, 0)
	}
	h.build()
	for minute := 1; minute <= 60; minute++ {
		h.pass(time.Minute)
		app, percent := r.IntN(apps), 0
		if minute%3 == 0 {
			percent = 1 + r.IntN(99)
		}
		release(app, minute, percent)
		if minute == 30 { // an upload that is never published
			key := layout.BinaryKey(strings.Repeat("0", 64), "lost", "1")
			_, err := h.d.Objects.Put(t.Context(), key, builder.BytesBody(content(size, 1<<40)), builder.PutOptions{})
			must(t, err)
		}
		h.build()
		if minute%10 == 0 {
			_, err := h.p.Collect(t.Context())
			must(t, err)
		}
	}
	h.pass(10 * time.Minute)
	rep, err := h.p.Collect(t.Context())
	must(t, err)
	used, needed := h.used(), h.needed()
	t.Logf("%d releases of a catalog of %.1f MB: the folder has %.1f MB, %.2f times the %.1f MB of binaries that the history needs; %d generations",
		60, float64(*hourSize)/1e6, float64(used)/1e6, float64(used)/float64(needed), float64(needed)/1e6, rep.Generation)
	if float64(used) > 1.8*float64(needed) {
		t.Errorf("the folder is more than 1.8 times the binaries that the history needs")
	}
	complete(t, h.d.Objects)

	// Everything that is in the history can be gone back to.
	for _, back := range []uint64{rep.Generation - 2, rep.Generation - 40, 1} {
		res, err := h.p.Rollback(t.Context(), history.Request{Generation: back})
		must(t, err)
		if len(res.Missing) > 0 || res.Lacking > 0 {
			t.Fatalf("gone back to generation %d: missing %v, %d lacking", back, res.Missing, res.Lacking)
		}
		complete(t, h.d.Objects)
	}
	_, err = h.p.Unpin(t.Context(), catalog.Author{})
	must(t, err)
	h.build()

	h.pass(91 * 24 * time.Hour)
	_, err = h.p.Collect(t.Context())
	must(t, err)
	before := needed
	used, needed = h.used(), h.needed()
	usage, err := h.d.Disk.Usage(t.Context())
	must(t, err)
	t.Logf("91 days later: %.1f MB, %.2f times the %.1f MB of binaries that are still needed", float64(used)/1e6, float64(used)/float64(needed), float64(needed)/1e6)
	if binaries := usage[layout.BinaryPrefix]; binaries != needed || needed >= before {
		t.Errorf("91 days later there are %d bytes of binaries, and %d are needed, of %d", binaries, needed, before)
	}
	if _, err := h.d.Objects.Stat(t.Context(), layout.BinaryKey(strings.Repeat("0", 64), "lost", "1")); err == nil {
		t.Error("what was never published is still there")
	}
	complete(t, h.d.Objects)
}

// complete fails unless every combination can be answered.
func complete(t *testing.T, objects builder.Objects) {
	t.Helper()
	rep, err := fsck.Store(t.Context(), objects, fsck.Options{Deep: true})
	must(t, err)
	if !rep.Complete() {
		t.Fatalf("not complete: %+v", rep.Problems)
	}
}
