package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// DeletingObjects are objects that can be removed: see package gc.
type DeletingObjects interface {
	builder.Objects
	// Delete removes objects; removing what is not there is no error. On error some of them may have been
	// removed. A key that is not of the layout is an error.
	Delete(ctx context.Context, keys ...string) error
}

// Deletes checks how a driver removes objects. Each call of open returns an empty store.
func Deletes(t *testing.T, open func(t *testing.T) DeletingObjects) {
	for _, test := range []struct {
		name string
		run  func(deletes, *testing.T)
	}{
		{"Kinds", deletes.kinds},
		{"Idempotent", deletes.idempotent},
		{"LeavesOthers", deletes.leavesOthers},
		{"None", deletes.none},
		{"Again", deletes.again},
		{"Foreign", deletes.foreign},
		{"Cancelled", deletes.cancelled},
		{"Many", deletes.many},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := open(t)
			test.run(deletes{objects{d}, d}, t)
		})
	}
}

type deletes struct {
	objects
	d DeletingObjects
}

func (d deletes) delete(t *testing.T, keys ...string) {
	t.Helper()
	if err := d.d.Delete(t.Context(), keys...); err != nil {
		t.Fatalf("Delete(%q): %v", keys, err)
	}
}

func (d deletes) kinds(t *testing.T) {
	for _, key := range anyKeys() {
		d.put(t, key, []byte(key))
	}
	for _, key := range anyKeys() {
		d.delete(t, key)
		d.wantAbsent(t, key)
	}
}

func (d deletes) idempotent(t *testing.T) {
	d.delete(t, layout.PlanKey(1))
	d.put(t, layout.PlanKey(1), []byte("x"))
	d.put(t, layout.PlanKey(3), []byte("x"))
	for range 2 {
		d.delete(t, layout.PlanKey(1), layout.PlanKey(2), layout.PlanKey(3))
	}
	d.wantAbsent(t, layout.PlanKey(1))
	d.wantAbsent(t, layout.PlanKey(3))
}

// Names that begin alike, or that lie in one folder, are apart.
func (d deletes) leavesOthers(t *testing.T) {
	stay := []string{
		layout.BundleKey(sha0, "1"), layout.BundleKey(sha0, "11"), layout.BundleKey(sha1, "1"), layout.ManifestKey(sha0, "1"),
		layout.BinaryKey(sha0, "app", "1.0"), layout.BinaryKey(sha0, "app", "1.0%2e"), layout.BinaryKey(sha0, "app", "1+0 ü"),
	}
	gone := []string{layout.BundleKey(sha0, "10"), layout.BinaryKey(sha0, "app", "1"), layout.BinaryKey(sha0, "app", "1 0 <&>ü")}
	for _, key := range append(gone, stay...) {
		d.put(t, key, []byte(key))
	}
	d.delete(t, gone...)
	wantKeys(t, "List after Delete", d.keys(t, ""), stay)
}

func (d deletes) none(t *testing.T) {
	d.put(t, layout.IndexKey, []byte("x"))
	d.delete(t)
	wantKeys(t, "List after Delete of nothing", d.keys(t, ""), []string{layout.IndexKey})
}

// A removed object can be written again, as if it had never been.
func (d deletes) again(t *testing.T) {
	key := layout.BundleKey(sha0, "1")
	for _, content := range []string{"first", "second"} {
		info, err := d.Put(t.Context(), key, body([]byte(content)), builder.PutOptions{IfAbsent: true})
		if err != nil {
			t.Fatal(err)
		}
		d.want(t, key, []byte(content), info.ETag)
		d.delete(t, key)
		if _, err := d.Put(t.Context(), key, body([]byte("x")), builder.PutOptions{IfMatch: info.ETag}); !errors.Is(err, builder.ErrPrecondition) {
			t.Errorf("Put if what was removed matches = %v", err)
		}
	}
}

func (d deletes) foreign(t *testing.T) {
	d.put(t, layout.IndexKey, []byte("x"))
	for _, key := range []string{"", "../index", "other", "bundles/", "bundles/" + sha0} {
		if err := d.d.Delete(t.Context(), key); err == nil {
			t.Errorf("Delete accepted the key %q", key)
		}
	}
	wantKeys(t, "List", d.keys(t, ""), []string{layout.IndexKey})
}

func (d deletes) cancelled(t *testing.T) {
	d.put(t, layout.IndexKey, []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.d.Delete(ctx, layout.IndexKey); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete with an ended context = %v", err)
	}
	wantKeys(t, "List", d.keys(t, ""), []string{layout.IndexKey})
}

// many needs more than one request to S3, which takes 1000 keys.
func (d deletes) many(t *testing.T) {
	const n = 1050
	var keys []string
	for i := range n {
		keys = append(keys, layout.PlanKey(uint64(i)))
	}
	together(10, func(w int) {
		for i := w; i < n; i += 10 {
			if _, err := d.Put(t.Context(), keys[i], body(nil), builder.PutOptions{IfAbsent: true}); err != nil {
				t.Errorf("Put: %v", err)
				return
			}
		}
	})
	d.delete(t, append([]string{fmt.Sprint(layout.PlanKey(5000))}, keys[:n-1]...)...)
	wantKeys(t, "List", d.keys(t, layout.PlanPrefix), keys[n-1:])
}
