package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// wantKeys checks that got is want, sorted.
func wantKeys(t *testing.T, what string, got, want []string) {
	t.Helper()
	want = slices.Sorted(slices.Values(want))
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Errorf("%s: %d keys, want %d; from the first difference: %.300q, want %.300q",
				what, len(got), len(want), got[min(i, len(got)):], want[min(i, len(want)):])
			return
		}
	}
}

func (o objects) list(t *testing.T) {
	all := anyKeys()
	for _, mask := range []string{"0", "1", "10", "2", "a", "f"} {
		for _, id := range []string{sha0, sha1, shaF} {
			all = append(all, layout.BundleKey(id, mask), layout.ManifestKey(id, mask))
		}
	}
	for i := range uint64(12) {
		all = append(all, layout.HistoryKey(i*i*i))
	}
	all = append(all, layout.BinaryKey(sha0, "app", "1.0-a"), layout.BinaryKey(sha0, "app", "1"), layout.BinaryKey(sha0, "App", "1"))
	slices.Sort(all)
	all = slices.Compact(all)
	infos := make(map[string]builder.ObjectInfo)
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(all)) {
		infos[all[i]] = o.put(t, all[i], []byte(all[i]))
	}
	for _, prefix := range []string{
		"", "b", "bundles", "bundles/", "bundles/0", "bundles/" + sha0, "bundles/" + sha0 + "/", "bundles/" + sha1 + "/1",
		"index", "index.", "index.d/", "index.d/0000000000000000002", "plans/", "pieces/" + sha0 + "/deflate9",
		"manifests/" + shaF + "/f.json", "manifests/" + shaF + "/f.json/", "binaries/" + sha0 + "/app_1",
		"z", "bundles//", "/", "..", "../", "./", "bundles/../", "index/", "\x00", "a\x00/", strings.Repeat("x", 300) + "/y",
	} {
		var want []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		wantKeys(t, fmt.Sprintf("List(%q)", prefix), o.keys(t, prefix), want)
	}
	err := o.List(t.Context(), "", func(i builder.ObjectInfo) error {
		if want := infos[i.Key]; i.Size != want.Size || i.ETag != want.ETag {
			t.Errorf("List describes %q as %+v, want %+v", i.Key, i, want)
		}
		return nil
	})
	if err != nil {
		t.Errorf("List: %v", err)
	}
	// A replacement is listed as it is now.
	now := o.put(t, layout.IndexKey, []byte("now"))
	err = o.List(t.Context(), layout.IndexKey, func(i builder.ObjectInfo) error {
		if i.Key == layout.IndexKey && (i.Size != now.Size || i.ETag != now.ETag) {
			t.Errorf("List describes the index as %+v, want %+v", i, now)
		}
		return nil
	})
	if err != nil {
		t.Errorf("List: %v", err)
	}
}

func (o objects) listStops(t *testing.T) {
	for i := range uint64(5) {
		o.put(t, layout.PlanKey(i), []byte("x"))
	}
	stop := errors.New("stop")
	for _, after := range []int{1, 3, 5} {
		n := 0
		err := o.List(t.Context(), "", func(builder.ObjectInfo) error {
			if n++; n == after {
				return stop
			}
			return nil
		})
		if err != stop || n != after {
			t.Errorf("List that is stopped after %d called %d times and returned %v, want the same error", after, n, err)
		}
	}
}

// What yield does with the store must not block.
func (o objects) listReenters(t *testing.T) {
	for i := range uint64(5) {
		o.put(t, layout.PlanKey(i), []byte("x"))
	}
	var keys []string
	err := o.List(t.Context(), layout.PlanPrefix, func(i builder.ObjectInfo) error {
		keys = append(keys, i.Key)
		if _, err := o.Stat(t.Context(), i.Key); err != nil {
			return err
		}
		_, err := o.Put(t.Context(), i.Key, body([]byte("again")), builder.PutOptions{IfMatch: i.ETag})
		return err
	})
	if err != nil || len(keys) != 5 {
		t.Errorf("List that writes on the way saw %q, %v", keys, err)
	}
}

// listMany needs more than one page of S3, which holds 1000 keys.
func (o objects) listMany(t *testing.T) {
	const n = 1050
	var want []string
	for i := range n {
		want = append(want, layout.PlanKey(uint64(i)))
	}
	together(10, func(w int) {
		for i := w; i < n; i += 10 {
			if _, err := o.Put(t.Context(), want[i], body(nil), builder.PutOptions{IfAbsent: true}); err != nil {
				t.Errorf("Put: %v", err)
				return
			}
		}
	})
	wantKeys(t, "List of many", o.keys(t, layout.PlanPrefix), want)
}
