package faults_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/history"
	releases "github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/store/local"
)

// playRollback rolls a data folder back. arg is the crash, and the generation to go back to.
func playRollback(dir, arg string) error {
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	return rollBack(context.Background(), pipeline.Local(store), arg)
}

func rollBack(ctx context.Context, d pipeline.Drivers, arg string) error {
	c := &crash{}
	var to uint64
	if _, err := fmt.Sscan(arg, &c.at, &c.half, &to); err != nil {
		return fmt.Errorf("parse crash %q: %w", arg, err)
	}
	c.install(&d)
	res, err := pipeline.New(d, pipeline.Config{Builder: small()}).Rollback(ctx, history.Request{Generation: to, By: catalog.Author{Message: "it does not start"}})
	if err == nil && res.Problem != "" {
		err = errors.New(res.Problem)
	}
	c.told()
	return err
}

// A rollback is killed at every single write, and asked for again.
func TestRollbackKilledAtEveryWrite(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	store, d := openLocal(t, dir, local.Options{})
	defer func() { store.Close() }()
	killRollbacks(t, d, func(arg string) (out string, err error) {
		must(t, store.Close()) // one process at a time has the folder
		out, err = child("rollback", dir, arg)
		store, d = openLocal(t, dir, local.Options{})
		return out, err
	}, func() pipeline.Drivers { return d })
}

// killRollbacks plays rollbacks, each in a process of its own, which run starts. now are the drivers, after a run.
func killRollbacks(t *testing.T, d pipeline.Drivers, run func(arg string) (string, error), now func() pipeline.Drivers) {
	ctx := t.Context()
	w := newWorld(t, d)
	w.begin()
	// Six generations: two of them are further back than a rollback goes without an announcement.
	for n := range 6 {
		if n > 0 {
			w.change(func() error {
				_, err := importer(d).Import(ctx, []releases.Release{release(2, n, 900), release(n%2, n, 700)}, false)
				return err
			})
		}
		must(t, pipeline.New(d, pipeline.Config{Builder: small(), Visibility: 2 * time.Second}).Build(ctx, builder.PlanOptions{}, nil))
	}
	states := w.states
	said := make([][]string, 3) // by generation
	for g := uint64(1); g <= 2; g++ {
		ix, err := builder.ReadGeneration(ctx, d.Objects, g)
		must(t, err)
		said[g] = itemsOf(ix)
	}
	var points []string
	for i, last := 0, 1; i < last; i++ {
		to := uint64(1 + i%2)
		at := "0 false"
		if i > 0 {
			at = points[i-1]
		}
		d := now()
		before, _, err := builder.ReadIndex(ctx, d.Objects)
		must(t, err)
		// Whoever published this died before making the copy: the rollback has to.
		// And an answer is not prebuilt any more: it has a job written for it.
		target, err := builder.ReadGeneration(ctx, d.Objects, to)
		must(t, err)
		must(t, remover(d).Delete(ctx, layout.HistoryKey(before.Generation)))
		if covered := builder.Cover(target, nil).Keys(); len(covered) > 0 {
			must(t, remover(d).Delete(ctx, covered[0]))
		}
		out, err := run(fmt.Sprint(at, " ", to))
		d = now()
		w.base = d
		if i == 0 {
			must(t, err)
			writes, puts := counts(t, out)
			if least := fewer(4); writes < least || len(puts) < least-1 {
				t.Fatalf("a rollback has only %d writes, %d of them objects'", writes, len(puts))
			}
			for n := range writes {
				points = append(points, fmt.Sprint(n+1, " false"))
			}
			for _, n := range puts {
				points = append(points, fmt.Sprint(n, " true"))
			}
			last += len(points)
			counted(t, "%d kills: %d writes, %d of them also half-way", writes+len(puts), writes, len(puts))
		} else if !errors.Is(err, errKilled) {
			t.Fatalf("killed at %s: the process was not killed: %v", at, err)
		}
		must(t, servable(ctx, d.Objects))
		ix, _, err := builder.ReadIndex(ctx, d.Objects)
		must(t, err)
		switch {
		case ix.Generation == before.Generation && ix.Pin == before.Pin && fmt.Sprint(itemsOf(ix)) == fmt.Sprint(itemsOf(before)):
		case ix.Generation == before.Generation+1 && ix.Pin != "" && fmt.Sprint(itemsOf(ix)) == fmt.Sprint(said[to]):
		default:
			t.Fatalf("killed at %s: published is generation %d, neither what was before nor generation %d", at, ix.Generation, to)
		}
		_, err = run(fmt.Sprint("0 false ", to))
		must(t, err)
		d = now()
		w.base = d
		must(t, drain(ctx, d))
		w.complete()
		ix, _, err = builder.ReadIndex(ctx, d.Objects)
		must(t, err)
		if ix.Pin == "" || fmt.Sprint(itemsOf(ix)) != fmt.Sprint(said[to]) {
			t.Fatalf("killed at %s: asked for again, generation %d is published with %v", at, ix.Generation, itemsOf(ix))
		}
		for g := uint64(1); g < ix.Generation; g++ {
			if _, err := builder.ReadGeneration(ctx, d.Objects, g); err != nil {
				t.Fatalf("killed at %s: generation %d is lost: %v", at, g, err)
			}
		}
		w.states, w.floor = states[to-1:to], 0
		w.everybody(w.fresh(d.Objects))
	}
	// Nothing of it is in the way of what comes then.
	d = now()
	w.base, w.states, w.floor = d, states, len(states)-1
	_, err := pipeline.New(d, pipeline.Config{}).Unpin(ctx, catalog.Author{})
	must(t, err)
	must(t, pipeline.New(d, pipeline.Config{Builder: small(), Visibility: 2 * time.Second}).Build(ctx, builder.PlanOptions{}, nil))
	must(t, drain(ctx, d))
	w.settle(time.Minute, time.Second)
	w.everybody(w.fresh(d.Objects))
}

// servable fails unless devices get what is published: all is there and sound, but for bundles that nobody had a
// reason to build before it was rolled back to. Those are composed, until a job has written them.
func servable(ctx context.Context, objects builder.Objects) error {
	rep, err := fsck.Store(ctx, objects, fsck.Options{Deep: true})
	if err != nil {
		return err
	}
	for _, p := range rep.Problems {
		answer := strings.HasPrefix(p.Key, layout.BundlePrefix) || strings.HasPrefix(p.Key, layout.ManifestPrefix)
		if !answer || p.Kind != fsck.Missing || !strings.Contains(p.Devices, "composed") {
			return fmt.Errorf("%s: %s: %s", p.Kind, p.Key, p.Detail)
		}
	}
	return nil
}

// drain does the jobs that there are.
func drain(ctx context.Context, d pipeline.Drivers) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	// A queue may give a job to a wait that has just ended: waits are short, and so is what hides such a job.
	worker := &builder.Worker{DeliveryPolicy: builder.DeliveryPolicy{Builder: builder.New(d.Ports, small()), Visibility: 2 * time.Second}, Wait: time.Second, Concurrency: 2}
	all.Go(func() { _ = worker.Run(ctx) }) // ends with ctx
	for {
		waiting, inFlight, dead, err := d.DeadLetters.Depth(ctx)
		if err != nil || dead > 0 {
			return fmt.Errorf("%d dead letters: %w", dead, err)
		}
		if waiting+inFlight == 0 {
			return nil
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// remover is what removes objects.
func remover(d pipeline.Drivers) interface {
	Delete(ctx context.Context, keys ...string) error
} {
	return d.Objects.(interface {
		Delete(ctx context.Context, keys ...string) error
	})
}
