package history_test

import (
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/history"
)

// An index that is lost takes its generation with it: no number stands for two contents, whether the lost one was a
// rollback, which is not in the history, or not.
func TestNoGenerationTwice(t *testing.T) { onBothKinds(t, noGenerationTwice) }

func noGenerationTwice(t *testing.T, newWorld func(testing.TB) *world) {
	for name, rolledBack := range map[string]bool{"a rollback": true, "a build": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.publish("1", "2")
			if rolledBack {
				_, err := w.pipeline().Rollback(t.Context(), history.Request{})
				must(t, err)
			}
			lost := w.index().Generation
			seen := map[uint64]string{lost: w.version()}
			for range 2 { // the second time, what is lost was published after a number left out
				must(t, w.memory.Objects.Delete(t.Context(), layout.IndexKey))
				w.put("app", "prod", "3", "release 3 of the app", "x")
				must(t, w.build())
				w.complete()
				ix := w.index()
				if ix.Generation <= lost {
					t.Fatalf("generation %d, and %s was generation %d", ix.Generation, seen[lost], lost)
				}
				lost, seen[ix.Generation] = ix.Generation, w.version()
			}
			// What is in the history can be gone back to, over the numbers left out.
			_, err := w.pipeline().Rollback(t.Context(), history.Request{Generation: 2})
			must(t, err)
			if w.version() != "2" {
				t.Errorf("%s is published", w.version())
			}
		})
	}
}

// The first generation of all has the number 1.
func TestFirstGeneration(t *testing.T) { onBothKinds(t, firstGeneration) }

func firstGeneration(t *testing.T, newWorld func(testing.TB) *world) {
	w := newWorld(t)
	w.publish("1")
	ix, err := builder.ReadGeneration(t.Context(), w.memory.Objects, 1)
	must(t, err)
	if w.index().Generation != 1 || ix.Generation != 1 {
		t.Errorf("generation %d", w.index().Generation)
	}
}
