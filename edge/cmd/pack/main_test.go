package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/run/cdn"
)

// An edge that looks at the index more seldom than the invalidation after a publish assumes would go on answering,
// and be cached, from the one before.
func TestTheEdgeSettlesInTime(t *testing.T) {
	if (2*maxRefresh+maxTimeout)*time.Second > cdn.Settled {
		t.Errorf("an index may be used for %d seconds and the next take %d, and cdn.Settled is %s", 2*maxRefresh, maxTimeout, cdn.Settled)
	}
	for _, c := range []config{
		{RefreshSeconds: 5.1, TimeoutSeconds: 2}, {RefreshSeconds: 0, TimeoutSeconds: 2}, {RefreshSeconds: -1, TimeoutSeconds: 2},
		{RefreshSeconds: 5, TimeoutSeconds: 2.1}, {RefreshSeconds: 5, TimeoutSeconds: 0}, {RefreshSeconds: math.Inf(1), TimeoutSeconds: 2},
	} {
		out := filepath.Join(t.TempDir(), "dist")
		err := pack(t.Context(), c, "", out)
		if _, made := os.Stat(out); err == nil || !strings.Contains(err.Error(), "-refresh") || made == nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
