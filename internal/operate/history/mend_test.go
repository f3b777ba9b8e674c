package history_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// Sets too large for all their subsets: devices that took what is rolled back need bundles that were never
// built. They are counted, composed meanwhile, and written by a job.
func TestRollbackAsksForWhatWasNeverBuilt(t *testing.T) {
	w := newWorld(t)
	for i := range 6 {
		w.put(fmt.Sprint("other", i), "prod", "1", fmt.Sprint("another app, ", i), "x")
	}
	w.publish("1", "2")
	// Nothing but the app changes from 2 to 1: what devices lack is the same both ways. From 3, it is not.
	w.put("other0", "prod", "2", "another app, second release", "x")
	w.put("other1", "prod", "2", "another app, second release too", "x")
	w.publish("3")
	res, err := w.pipeline().Rollback(t.Context(), history.Request{Generation: 2})
	must(t, err)
	if res.Lacking == 0 || len(res.Missing) > 0 || res.Writes != 1 || res.Problem != "" {
		t.Fatalf("%+v", res)
	}
	waiting, _, _, err := w.memory.Queue.Depth(t.Context())
	must(t, err)
	if waiting != 1 {
		t.Fatalf("%d jobs", waiting)
	}
	var stays *pipeline.PinnedError
	if err := w.build(); !errors.As(err, &stays) { // does whatever is in the queue
		t.Fatal(err)
	}
	w.complete()
	k := &history.Keeper{Objects: w.memory.Objects, Ledger: w.memory.Ledger}
	if missing, lacking, err := k.Check(t.Context(), res.Generation); err != nil || lacking > 0 || len(missing) > 0 {
		t.Fatalf("%d lacking, missing %v, %v", lacking, missing, err)
	}
	if missing, lacking, err := k.Check(t.Context(), 1); err != nil || lacking > 0 || missing != nil {
		t.Fatalf("of a generation that is not published: %d lacking, missing %v, %v", lacking, missing, err)
	}
}
