package gc_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/operate/gc"
)

// Keyrings are nobody's leftovers: a device with an old root key walks from version to version, however old they are.
// So are statements, if somebody stores them.
func TestKeyringsStay(t *testing.T) {
	s := newShelf(t, 8)
	trusted := map[string]string{
		layout.KeyringKey:                                       "version 2",
		layout.KeyringVersionKey(1):                             "version 1",
		layout.KeyringVersionKey(2):                             "version 2",
		layout.StatementKey(1, 20000, strings.Repeat("ab", 32)): "of a generation that goes",
	}
	for key, data := range trusted {
		_, err := s.memory.Objects.Put(t.Context(), key, builder.Body{Reader: strings.NewReader(data), Size: int64(len(data))}, builder.PutOptions{})
		must(t, err)
	}
	s.now = s.now.Add(10 * 365 * 24 * time.Hour)
	rep, err := s.collector(gc.Options{Keep: 1, Grace: time.Minute, Keys: 1000}).Sweep(t.Context())
	must(t, err)
	if rep.Removed().Objects == 0 {
		t.Fatal("nothing was removed at all")
	}
	for _, k := range rep.Kinds {
		for key := range trusted {
			if slices.Contains(k.Keys, key) {
				t.Errorf("%s was removed", key)
			}
		}
	}
	for key, want := range trusted {
		data, err := io.ReadAll(get(t, s.memory.Objects, key))
		if err != nil || string(data) != want {
			t.Errorf("%s is %q, %v", key, data, err)
		}
	}
	checked, err := fsck.Store(t.Context(), s.memory.Objects, fsck.Options{Deep: true})
	must(t, err)
	if !checked.Complete() {
		t.Errorf("%+v", checked.Problems)
	}
}
