package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

func bodyOf(s string) builder.Body {
	return builder.Body{Reader: strings.NewReader(s), Size: int64(len(s)), CRC64NVME: crc64nvme.Checksum([]byte(s)), Checked: true}
}

func put(t *testing.T, o *Objects, key, s string, opt builder.PutOptions) builder.ObjectInfo {
	t.Helper()
	info, err := o.Put(t.Context(), key, bodyOf(s), opt)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// readObject reads an object and checks that its parts fit.
func readObject(o *Objects, key string) (string, builder.ObjectInfo, error) {
	r, info, err := o.Get(noContext, key, 0, -1)
	if err != nil {
		return "", info, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return "", info, err
	}
	if want := (record{Size: int64(len(b)), CRC: checksum(crc64nvme.Checksum(b))}); info.Size != want.Size || info.ETag != want.etag() {
		return "", info, fmt.Errorf("object %q is torn: %d bytes of ETag %s are described as %+v", key, len(b), want.etag(), info)
	}
	return string(b), info, nil
}

func wantObject(t *testing.T, o *Objects, key, want string) {
	t.Helper()
	if got, _, err := readObject(o, key); err != nil || got != want {
		t.Errorf("object %q is %.40q, %v, want %.40q", key, got, err, want)
	}
}

func wantAbsent(t *testing.T, o *Objects, key string) {
	t.Helper()
	if _, err := o.Stat(t.Context(), key); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("Stat(%q) = %v, want ErrNotExist", key, err)
	}
	if slices.Contains(listKeys(t, o), key) {
		t.Errorf("List has %q", key)
	}
}

func listKeys(t *testing.T, o *Objects) []string {
	t.Helper()
	var keys []string
	err := o.List(t.Context(), "", func(i builder.ObjectInfo) error {
		keys = append(keys, i.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func openTempObjects(t *testing.T) (o *Objects, dir string) {
	t.Helper()
	dir = t.TempDir()
	o, err := OpenObjects(dir)
	if err != nil {
		t.Fatal(err)
	}
	return o, dir
}

// Objects are files that other programs can use: this is a promise.
func TestObjectsAreFiles(t *testing.T) {
	t.Parallel()
	o, dir := openTempObjects(t)
	key := layout.BundleKey(strings.Repeat("a", 64), "0")
	info := put(t, o, key, "bundle", builder.PutOptions{})
	b, err := os.ReadFile(filepath.Join(dir, "objects", "bundles", strings.Repeat("a", 64), "0.tar.gz"))
	if err != nil || string(b) != "bundle" {
		t.Errorf("the object's file holds %q, %v", b, err)
	}
	if want := fmt.Sprintf("%016x-6", crc64nvme.Checksum(b)); info.ETag != want {
		t.Errorf("ETag is %s, want %s", info.ETag, want)
	}
	r, _, err := o.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, ok := r.(*os.File); !ok {
		t.Errorf("a whole object's body is a %T, want *os.File", r)
	}
	part, _, err := o.Get(t.Context(), key, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	if s, ok := part.(io.ReadSeeker); !ok {
		t.Errorf("a range's body is a %T, which cannot seek", part)
	} else if n, err := s.Seek(0, io.SeekEnd); n != 3 || err != nil {
		t.Errorf("a range of 3 ends at %d, %v", n, err)
	}
	if _, _, err := o.Get(t.Context(), key, -1, 3); err == nil {
		t.Error("Get accepted a negative offset")
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	o, dir := openTempObjects(t)
	kept := layout.BundleKey(strings.Repeat("a", 64), "1")
	put(t, o, kept, "kept", builder.PutOptions{})
	for _, key := range []string{layout.IndexKey, layout.BundleKey(strings.Repeat("a", 64), "0"), layout.BundleKey(strings.Repeat("b", 64), "0")} {
		put(t, o, key, "x", builder.PutOptions{})
		for range 2 {
			if err := o.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			wantAbsent(t, o, key)
		}
		put(t, o, key, "y", builder.PutOptions{IfAbsent: true})
		wantObject(t, o, key, "y")
		if err := o.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	wantObject(t, o, kept, "kept")
	if err := o.Delete(t.Context(), "../x"); err == nil {
		t.Error("Delete accepted a key of another layout")
	}
	// Nothing is left of them, folders included.
	var left []string
	for _, sub := range []string{"objects", "meta"} {
		paths, err := filepath.Glob(filepath.Join(dir, sub, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, paths...)
	}
	if len(left) != 2 {
		t.Errorf("left behind: %q", left)
	}
}

// Puts and deletes of neighbours: the folder that one needs is the one that the other removes.
func TestDeleteRacesPut(t *testing.T) {
	t.Parallel()
	o, _ := openTempObjects(t)
	id := strings.Repeat("a", 64)
	errs := make(chan error)
	for w := range 4 {
		go func() {
			key := layout.BundleKey(id, strconv.Itoa(w+1))
			for range 100 {
				if _, err := o.Put(t.Context(), key, bodyOf(key), builder.PutOptions{IfAbsent: true}); err != nil {
					errs <- err
					return
				}
				if _, _, err := readObject(o, key); err != nil {
					errs <- err
					return
				}
				if err := o.Delete(t.Context(), key); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// A file that came without a sidecar is not an object, and does not stand in the way of one.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	o, dir := openTempObjects(t)
	for _, name := range []string{"index", ".DS_Store", "plans/notes.txt", "plans/00000000000000000001"} {
		path := filepath.Join(dir, "objects", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("foreign"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if keys := listKeys(t, o); len(keys) != 0 {
		t.Errorf("List has %q", keys)
	}
	wantAbsent(t, o, layout.IndexKey)
	put(t, o, layout.IndexKey, "ours", builder.PutOptions{IfAbsent: true})
	wantObject(t, o, layout.IndexKey, "ours")
	if keys := listKeys(t, o); !slices.Equal(keys, []string{layout.IndexKey}) {
		t.Errorf("List has %q", keys)
	}
	// Nor is a sidecar without its file.
	put(t, o, layout.PlanKey(2), "gone", builder.PutOptions{})
	if err := os.Remove(filepath.Join(dir, "objects", layout.PlanKey(2))); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, o, layout.PlanKey(2))
	put(t, o, layout.PlanKey(2), "back", builder.PutOptions{IfAbsent: true})
	wantObject(t, o, layout.PlanKey(2), "back")
}

// An object that something else wrote to is an error, not an absence and not an answer; it can be
// replaced or deleted.
func TestBrokenObject(t *testing.T) {
	t.Parallel()
	o, dir := openTempObjects(t)
	path := filepath.Join(dir, "objects", layout.IndexKey)
	breakIt := func() builder.ObjectInfo {
		t.Helper()
		info := put(t, o, layout.IndexKey, "whole", builder.PutOptions{})
		if err := os.WriteFile(path, []byte("tampered with"), 0o644); err != nil {
			t.Fatal(err)
		}
		return info
	}
	info := breakIt()
	if _, err := o.Stat(t.Context(), layout.IndexKey); !errors.Is(err, errMismatch) {
		t.Errorf("Stat = %v", err)
	}
	if err := o.List(t.Context(), "", func(builder.ObjectInfo) error { return nil }); !errors.Is(err, errMismatch) {
		t.Errorf("List = %v", err)
	}
	for _, opt := range []builder.PutOptions{{IfAbsent: true}, {IfMatch: info.ETag}} {
		_, err := o.Put(t.Context(), layout.IndexKey, bodyOf("new"), opt)
		if !errors.Is(err, errMismatch) || errors.Is(err, builder.ErrPrecondition) {
			t.Errorf("Put(%+v) = %v", opt, err)
		}
	}
	put(t, o, layout.IndexKey, "new", builder.PutOptions{})
	wantObject(t, o, layout.IndexKey, "new")
	breakIt()
	if err := o.Delete(t.Context(), layout.IndexKey); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, o, layout.IndexKey)
}

func TestLongNames(t *testing.T) {
	t.Parallel()
	o, _ := openTempObjects(t)
	digest := strings.Repeat("0", 64)
	for _, n := range []int{255, 256} {
		key := layout.PieceKey(digest, strings.Repeat("x", n))
		_, err := o.Put(t.Context(), key, bodyOf("x"), builder.PutOptions{})
		if n <= maxName {
			if err != nil {
				t.Errorf("Put with a name of %d bytes: %v", n, err)
			}
			wantObject(t, o, key, "x")
		} else if err == nil || !strings.Contains(err.Error(), "longer than 255") {
			t.Errorf("Put with a name of %d bytes: %v", n, err)
		}
	}
}

func TestBothConditions(t *testing.T) {
	t.Parallel()
	o, _ := openTempObjects(t)
	if _, err := o.Put(t.Context(), layout.IndexKey, bodyOf("x"), builder.PutOptions{IfAbsent: true, IfMatch: "x"}); err == nil {
		t.Error("Put accepted two conditions")
	}
}

// No key may see another's writes held up for good: a stripe is shared by many keys, and a write may
// nest in a listing, but never in another write.
func TestManyKeysPerStripe(t *testing.T) {
	t.Parallel()
	o, _ := openTempObjects(t)
	done := make(chan error)
	for w := range uint64(8) {
		go func() {
			for i := range uint64(40) {
				key := layout.PlanKey(w*1000 + i)
				if _, err := o.Put(t.Context(), key, bodyOf(key), builder.PutOptions{IfAbsent: true}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if keys := listKeys(t, o); len(keys) != 8*40 {
		t.Errorf("List has %d keys", len(keys))
	}
}
