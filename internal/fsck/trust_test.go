package fsck_test

import (
	"strings"
	"testing"

	"precast/internal/fsck"
	"precast/internal/layout"
)

// Keyrings and statements belong here: a check takes none of them for a stranger, and counts them for nothing else.
func TestKeyringsAreNoStrangers(t *testing.T) {
	w := newWorld(t)
	for _, deep := range []bool{false, true} {
		before := w.check(fsck.Options{Deep: deep})
		for _, key := range []string{
			layout.KeyringKey, layout.KeyringVersionKey(1), layout.KeyringVersionKey(2), layout.StatementKey(1, 20000, strings.Repeat("ab", 32)),
		} {
			w.write(key, "of "+key, nil)
		}
		after := w.check(fsck.Options{Deep: deep})
		if !after.Complete() || len(after.Problems) > 0 || after.Objects != before.Objects {
			t.Errorf("deep=%v: %d objects, then %d with %+v", deep, before.Objects, after.Objects, after.Problems)
		}
	}
}
