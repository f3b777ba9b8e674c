package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Objects checks a driver of builder.Objects. Each call of open returns an empty store.
func Objects(t *testing.T, open func(t *testing.T) builder.Objects) {
	for _, test := range []struct {
		name string
		run  func(objects, *testing.T)
	}{
		{"Absent", objects.absent},
		{"RoundTrip", objects.roundTrip},
		{"ETag", objects.etag},
		{"Meta", objects.meta},
		{"BadMeta", objects.badMeta},
		{"BothConditions", objects.bothConditions},
		{"Replace", objects.replace},
		{"ReadWhileReplaced", objects.readWhileReplaced},
		{"IfAbsent", objects.ifAbsent},
		{"IfMatch", objects.ifMatch},
		{"BadBody", objects.badBody},
		{"BodyFromStart", objects.bodyFromStart},
		{"Range", objects.ranges},
		{"RefusedKeys", objects.refusedKeys},
		{"OddNames", objects.oddNames},
		{"Cancelled", objects.cancelled},
		{"ConcurrentIfAbsent", objects.concurrentIfAbsent},
		{"ConcurrentEqualIfAbsent", objects.concurrentEqualIfAbsent},
		{"ConcurrentIfMatch", objects.concurrentIfMatch},
		{"ConcurrentReads", objects.concurrentReads},
		{"Modified", objects.modified},
		{"Headers", objects.headers},
		{"List", objects.list},
		{"ListStops", objects.listStops},
		{"ListReenters", objects.listReenters},
		{"ListMany", objects.listMany},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(objects{open(t)}, t) })
	}
}

type objects struct{ builder.Objects }

// Some keys, of all kinds.
var (
	sha0 = strings.Repeat("0", 64)
	sha1 = strings.Repeat("1", 64)
	shaF = strings.Repeat("f", 64)
)

func anyKeys() []string {
	return []string{
		layout.BinaryKey(sha0, "app", "1.0"),
		layout.BundleKey(sha1, "2f"),
		layout.IndexKey,
		layout.HistoryKey(7),
		layout.ManifestKey(shaF, "0"),
		layout.PieceKey(sha0, "deflate9"),
		layout.PlanKey(8),
		layout.RejectKey(sha1),
		layout.SweepKey,
	}
}

func body(b []byte) builder.Body { return builder.BytesBody(b) }

func checkedBody(b []byte) builder.Body {
	checked := body(b)
	checked.CRC64NVME, checked.Checked = crc64nvme.Checksum(b), true
	return checked
}

// content is n bytes that no other seed gives.
func content(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(b)
	return b
}

func (o objects) put(t *testing.T, key string, b []byte) builder.ObjectInfo {
	t.Helper()
	info, err := o.Put(t.Context(), key, body(b), builder.PutOptions{})
	if err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
	return info
}

func (o objects) get(ctx context.Context, key string) ([]byte, builder.ObjectInfo, error) {
	return o.getRange(ctx, key, 0, -1)
}

func (o objects) getRange(ctx context.Context, key string, off, n int64) ([]byte, builder.ObjectInfo, error) {
	r, info, err := o.Get(ctx, key, off, n)
	if err != nil {
		return nil, info, err
	}
	b, err := io.ReadAll(r)
	return b, info, errors.Join(err, r.Close())
}

// want checks that key holds b, as every way of reading sees it.
func (o objects) want(t *testing.T, key string, b []byte, etag string) {
	t.Helper()
	stat, err := o.Stat(t.Context(), key)
	if err != nil {
		t.Fatalf("Stat(%q): %v", key, err)
	}
	got, info, err := o.get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	if !bytes.Equal(got, b) {
		t.Errorf("Get(%q) read %s, want %s", key, brief(got), brief(b))
	}
	for _, i := range []builder.ObjectInfo{stat, info} {
		if i.Key != key || i.Size != int64(len(b)) || i.ETag != etag || i.ETag == "" {
			t.Errorf("%q is described as %+v, want size %d, ETag %q", key, i, len(b), etag)
		}
	}
}

func (o objects) wantAbsent(t *testing.T, key string) {
	t.Helper()
	if info, err := o.Stat(t.Context(), key); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("Stat(%q) = %+v, %v, want ErrNotExist", key, info, err)
	}
	if _, _, err := o.get(t.Context(), key); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("Get(%q) = %v, want ErrNotExist", key, err)
	}
	for _, k := range o.keys(t, "") {
		if k == key {
			t.Errorf("List has %q, which is absent", key)
		}
	}
}

func (o objects) keys(t *testing.T, prefix string) []string {
	t.Helper()
	var keys []string
	err := o.List(t.Context(), prefix, func(info builder.ObjectInfo) error {
		keys = append(keys, info.Key)
		return nil
	})
	if err != nil {
		t.Fatalf("List(%q): %v", prefix, err)
	}
	return keys
}

func brief(b []byte) string {
	if len(b) > 20 {
		return fmt.Sprintf("%d bytes %.8x...", len(b), b)
	}
	return fmt.Sprintf("%q", b)
}

func (o objects) absent(t *testing.T) {
	for _, key := range anyKeys() {
		o.wantAbsent(t, key)
		if _, _, err := o.getRange(t.Context(), key, 3, 5); !errors.Is(err, builder.ErrNotExist) {
			t.Errorf("Get(%q) of a range = %v, want ErrNotExist", key, err)
		}
	}
	if keys := o.keys(t, ""); len(keys) != 0 {
		t.Errorf("an empty store lists %q", keys)
	}
}

func (o objects) roundTrip(t *testing.T) {
	for _, key := range anyKeys() {
		o.want(t, key, []byte(key), o.put(t, key, []byte(key)).ETag)
	}
	for _, n := range []int{0, 1, 1 << 16, 1<<20 - 1, 1 << 20, 1<<20 + 1, 9<<20 + 3} {
		for _, b := range []builder.Body{body(content(n, 1)), checkedBody(content(n, 1))} {
			key := layout.BinaryKey(sha0, "sized", fmt.Sprintf("%d-%v", n, b.Checked))
			info, err := o.Put(t.Context(), key, b, builder.PutOptions{})
			if err != nil {
				t.Fatalf("Put of %d bytes: %v", n, err)
			}
			if info.Key != key || info.Size != int64(n) {
				t.Errorf("Put of %d bytes to %q returned %+v", n, key, info)
			}
			o.want(t, key, content(n, 1), info.ETag)
		}
	}
}

func (o objects) etag(t *testing.T) {
	a := o.put(t, layout.PlanKey(1), []byte("same"))
	b := o.put(t, layout.PlanKey(2), []byte("same"))
	c := o.put(t, layout.PlanKey(3), []byte("Same"))
	if a.ETag != b.ETag {
		t.Errorf("equal contents have ETags %q and %q", a.ETag, b.ETag)
	}
	if a.ETag == c.ETag {
		t.Errorf("different contents have the ETag %q", a.ETag)
	}
	if strings.Contains(a.ETag, `"`) {
		t.Errorf("ETag %s has quotes", a.ETag)
	}
}

func (o objects) replace(t *testing.T) {
	for i, s := range []string{"first", "second, longer", "", "4th"} {
		info := o.put(t, layout.IndexKey, []byte(s))
		o.want(t, layout.IndexKey, []byte(s), info.ETag)
		if keys := o.keys(t, ""); len(keys) != 1 {
			t.Errorf("after write %d List has %q", i, keys)
		}
	}
}

// A reader that has begun with the old object continues with it.
func (o objects) readWhileReplaced(t *testing.T) {
	old := content(2<<20, 1)
	o.put(t, layout.IndexKey, old)
	r, _, err := o.Get(t.Context(), layout.IndexKey, 0, -1)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	defer r.Close()
	got := make([]byte, 100)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("read: %v", err)
	}
	info := o.put(t, layout.IndexKey, content(2<<20, 2))
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read on: %v", err)
	}
	if !bytes.Equal(append(got, rest...), old) {
		t.Error("a reader saw neither the old object nor the new one")
	}
	o.want(t, layout.IndexKey, content(2<<20, 2), info.ETag)
}

func (o objects) bodyFromStart(t *testing.T) {
	b := body([]byte("from the start"))
	if _, err := b.Reader.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	info, err := o.Put(t.Context(), layout.IndexKey, b, builder.PutOptions{})
	if err != nil {
		t.Fatalf("Put of a reader in mid-body: %v", err)
	}
	o.want(t, layout.IndexKey, []byte("from the start"), info.ETag)
}

func (o objects) ranges(t *testing.T) {
	all := []byte("0123456789")
	for _, key := range []string{layout.IndexKey, layout.PlanKey(1)} {
		if key != layout.IndexKey {
			all = nil
		}
		info := o.put(t, key, all)
		size := int64(len(all))
		for _, off := range []int64{0, 1, 5, 9, 10, 11, 1 << 40} {
			for _, n := range []int64{-1, 0, 1, 5, 10, 11, 1 << 62} {
				from := min(off, size)
				to := size
				if n >= 0 && n < size-from {
					to = from + n
				}
				got, i, err := o.getRange(t.Context(), key, off, n)
				if err != nil {
					t.Errorf("Get(%d, %d) of %d bytes: %v", off, n, size, err)
					continue
				}
				if want := all[from:to]; !bytes.Equal(got, want) {
					t.Errorf("Get(%d, %d) of %q read %q, want %q", off, n, all, got, want)
				}
				if i.Key != key || i.Size != size || i.ETag != info.ETag {
					t.Errorf("Get(%d, %d) described the object as %+v, want %+v", off, n, i, info)
				}
			}
		}
	}
	big := content(5<<20, 3)
	key := layout.BundleKey(sha0, "1")
	o.put(t, key, big)
	for _, r := range [][2]int64{{0, 1}, {1<<20 - 1, 2}, {3, 4 << 20}, {5<<20 - 1, -1}} {
		to := int64(len(big))
		if r[1] >= 0 {
			to = r[0] + r[1]
		}
		if got, _, err := o.getRange(t.Context(), key, r[0], r[1]); err != nil || !bytes.Equal(got, big[r[0]:to]) {
			t.Errorf("Get(%d, %d) of %d bytes read %s, %v", r[0], r[1], len(big), brief(got), err)
		}
	}
}

func (o objects) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.Put(ctx, layout.IndexKey, body([]byte("x")), builder.PutOptions{}); err == nil {
		t.Error("Put with an ended context succeeded")
	}
	o.wantAbsent(t, layout.IndexKey)
	info := o.put(t, layout.IndexKey, []byte("x"))
	if _, err := o.Put(ctx, layout.IndexKey, body([]byte("y")), builder.PutOptions{}); err == nil {
		t.Error("Put with an ended context succeeded")
	}
	if _, err := o.Stat(ctx, layout.IndexKey); !errors.Is(err, context.Canceled) {
		t.Errorf("Stat with an ended context = %v", err)
	}
	if _, _, err := o.get(ctx, layout.IndexKey); !errors.Is(err, context.Canceled) {
		t.Errorf("Get with an ended context = %v", err)
	}
	err := o.List(ctx, "", func(builder.ObjectInfo) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("List with an ended context = %v", err)
	}
	o.want(t, layout.IndexKey, []byte("x"), info.ETag)
}
