package fsck_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
)

// swept removes records between their being listed and read, as a sweep beside the check does.
type swept struct {
	builder.Objects
	t      *testing.T
	remove func(key string) bool
	n      int
}

func (s *swept) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if s.remove(key) {
		s.n++
		must(s.t, s.Objects.(interface {
			Delete(ctx context.Context, keys ...string) error
		}).Delete(ctx, key))
	}
	return s.Objects.Get(ctx, key, off, n)
}

// What a sweep gives up while a check runs is no damage.
func TestBesideASweep(t *testing.T) {
	for _, prefix := range []string{layout.HistoryPrefix, layout.PlanPrefix, layout.RejectPrefix} {
		for _, deep := range []bool{false, true} {
			w := newWorld(t)
			w.write(layout.RejectKey(strings.Repeat("ab", 32)), `{"reason": "x"}`, nil)
			s := &swept{w.memory.Objects, t, func(key string) bool { return strings.HasPrefix(key, prefix) }, 0}
			rep, err := fsck.Store(t.Context(), s, fsck.Options{Deep: deep})
			must(t, err)
			if s.n == 0 || !rep.Complete() {
				t.Errorf("%s, deep=%v: %d removed, then %+v", prefix, deep, s.n, rep.Problems)
			}
		}
	}
}
