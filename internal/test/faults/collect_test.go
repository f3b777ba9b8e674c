package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	releases "github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// TestWithoutCopies plays what is played with copies in a data folder without them, in a process of its own.
func TestWithoutCopies(t *testing.T) {
	if !copies() {
		t.Skip("this is it")
	}
	t.Parallel()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "-test.count=1", "-test.run", "^(TestKilledAtEveryWrite|TestOutage|TestClockJumps|TestReadErrors|TestLostEvents|TestDamagedFiles|TestRollbackKilledAtEveryWrite)$")
	cmd.Env = append(os.Environ(), envCopies+"=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("without copies: %v\n%s", err, out)
	}
	counted(t, "7 tests, one seed of each")
}

// crashingDisk crashes behind a removal.
type crashingDisk struct {
	pipeline.Disk
	c *crash
}

func (d crashingDisk) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		hit := d.c.begin(false)
		if err := d.Disk.Delete(ctx, key); err != nil {
			return err
		}
		d.c.did(hit)
	}
	return nil
}

// collecting is a pipeline that removes what nothing needs, by a clock that is ahead.
func collecting(d pipeline.Drivers, ahead time.Duration) *pipeline.Pipeline {
	opt := small()
	opt.Params.MaxBundles = 0
	opt.Clock.Time = func() time.Time { return time.Now().Add(ahead) }
	return pipeline.New(d, pipeline.Config{Builder: opt, History: 24 * time.Hour})
}

// playCollect removes what nothing needs. arg is the crash, and how far the clock is ahead.
func playCollect(dir, arg string) error {
	c := &crash{}
	var ahead int64
	if _, err := fmt.Sscan(arg, &c.at, &c.half, &ahead); err != nil {
		return fmt.Errorf("parse crash %q: %w", arg, err)
	}
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	d := pipeline.Local(store)
	c.install(&d)
	d.Disk = crashingDisk{d.Disk, c}
	rep, err := collecting(d, time.Duration(ahead)).Collect(context.Background())
	if err == nil && rep == nil {
		err = errors.New("it found jobs")
	}
	c.told()
	return err
}

// releasesBy brings in generations, and builds them.
func releasesBy(t *testing.T, w *world, d pipeline.Drivers, from, to int, ahead time.Duration) {
	t.Helper()
	for n := from; n < to; n++ {
		w.change(func() error {
			_, err := importer(d).Import(t.Context(), []releases.Release{release(2, n, 900), release(n%2, n, 700)}, false)
			return err
		})
		must(t, collecting(d, ahead).Build(t.Context(), builder.PlanOptions{}, nil))
	}
}

// C19, C20: a server that removes what nothing needs is killed at every write and every removal. What is published stays
// complete, builds go on, and the next time removes the rest.
func TestCollectKilledAtEveryWrite(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	store, d := openLocal(t, dir, local.Options{})
	defer func() { store.Close() }()
	w := newWorld(t, d)
	w.begin()
	releasesBy(t, w, d, 1, 8, 0)
	run := func(arg string) (string, error) {
		must(t, store.Close())
		out, err := child("collect", dir, arg)
		store, d = openLocal(t, dir, local.Options{})
		w.base = d
		return out, err
	}
	points := []string{"0 false"}
	kills := 0
	for i := 0; i < len(points); i++ {
		ahead := time.Duration(i+1) * time.Hour // past every lease of the killed
		out, err := run(fmt.Sprint(points[i], " ", int64(ahead)))
		switch {
		case i == 0:
			must(t, err)
			writes, puts := counts(t, out)
			for n := range writes {
				points = append(points, fmt.Sprint(n+1, " false"))
			}
			for _, n := range puts {
				points = append(points, fmt.Sprint(n, " true"))
			}
		case errors.Is(err, errKilled):
			kills++
		case err != nil: // a later run may have less to do
			t.Fatalf("killed at %s: %v", points[i], err)
		}
		must(t, servable(t.Context(), d.Objects))
		must(t, remover(d).Delete(t.Context(), layout.SweepKey)) // as if its lease had ended: that was by a clock that is ahead
		releasesBy(t, w, d, 8+2*i, 10+2*i, ahead+time.Hour/2)
		w.everybody(w.fresh(d.Objects))
	}
	if kills < 5 {
		t.Fatalf("%d kills", kills)
	}
	_, err := run(fmt.Sprint("0 false ", int64(48*time.Hour)))
	must(t, err)
	must(t, servable(t.Context(), d.Objects))
	pieces, binaries := 0, 0
	for prefix, n := range map[string]*int{layout.PiecePrefix: &pieces, layout.BinaryPrefix: &binaries} {
		must(t, d.Objects.List(t.Context(), prefix, func(builder.ObjectInfo) error { *n++; return nil }))
	}
	if pieces >= binaries {
		t.Fatalf("%d pieces are left, of %d binaries", pieces, binaries)
	}
	counted(t, "more than 5 kills")
}

// fullObjects are on a full disk.
type fullObjects struct{ builder.Objects }

func (fullObjects) Put(context.Context, string, builder.Body, builder.PutOptions) (builder.ObjectInfo, error) {
	return builder.ObjectInfo{}, syscall.ENOSPC
}

// On a full disk nothing is removed that is needed, and devices notice nothing; later it goes on.
func TestCollectOnAFullDisk(t *testing.T) {
	t.Parallel()
	_, d := openLocal(t, folder(t), local.Options{})
	w := newWorld(t, d)
	w.begin()
	releasesBy(t, w, d, 1, 8, 0)
	full := d
	full.Objects = fullObjects{d.Objects}
	if _, err := collecting(full, time.Hour).Collect(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	w.complete()
	w.everybody(w.fresh(d.Objects))
	rep, err := collecting(d, time.Hour).Collect(t.Context())
	must(t, err)
	if rep.Removed().Objects == 0 {
		t.Fatal("nothing was removed")
	}
	w.complete()
	w.everybody(w.fresh(d.Objects))
	var kinds []string
	for _, k := range rep.Kinds {
		if k.Objects > 0 {
			kinds = append(kinds, k.Kind)
		}
	}
	if got := strings.Join(kinds, " "); got != "pieces" {
		t.Fatalf("removed were %s", got)
	}
	counted(t, "1 disk")
}
