package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"sync"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

func (o objects) wantRefused(t *testing.T, key string, b []byte, opt builder.PutOptions) {
	t.Helper()
	opt.Meta = map[string]string{"from": "a refused write"}
	if info, err := o.Put(t.Context(), key, body(b), opt); !errors.Is(err, builder.ErrPrecondition) {
		t.Errorf("Put(%q, %+v) = %+v, %v, want ErrPrecondition", key, opt, info, err)
	}
}

func (o objects) ifAbsent(t *testing.T) {
	for _, key := range anyKeys() {
		meta := map[string]string{"from": "the first"}
		info, err := o.Put(t.Context(), key, body([]byte("first")), builder.PutOptions{IfAbsent: true, Meta: meta})
		if err != nil {
			t.Fatalf("Put(%q) if absent: %v", key, err)
		}
		o.wantRefused(t, key, []byte("second"), builder.PutOptions{IfAbsent: true})
		o.wantRefused(t, key, []byte("first"), builder.PutOptions{IfAbsent: true})
		o.want(t, key, []byte("first"), info.ETag)
		if stat, err := o.Stat(t.Context(), key); err != nil || !maps.Equal(stat.Meta, meta) {
			t.Errorf("a refused Put left %+v, %v, want meta %q", stat, err, meta)
		}
	}
	// An empty object is an object.
	info := o.put(t, layout.PlanKey(99), nil)
	o.wantRefused(t, layout.PlanKey(99), []byte("x"), builder.PutOptions{IfAbsent: true})
	o.want(t, layout.PlanKey(99), nil, info.ETag)
}

// Two conditions at once are a mistake of the caller, not a condition that does not hold.
func (o objects) bothConditions(t *testing.T) {
	first := o.put(t, layout.IndexKey, []byte("first"))
	for _, key := range []string{layout.IndexKey, layout.PlanKey(1)} {
		_, err := o.Put(t.Context(), key, body([]byte("second")), builder.PutOptions{IfAbsent: true, IfMatch: first.ETag})
		if err == nil || errors.Is(err, builder.ErrPrecondition) {
			t.Errorf("Put(%q) with both conditions = %v", key, err)
		}
	}
	o.want(t, layout.IndexKey, []byte("first"), first.ETag)
	o.wantAbsent(t, layout.PlanKey(1))
}

func (o objects) ifMatch(t *testing.T) {
	key := layout.IndexKey
	other := o.put(t, layout.PlanKey(1), []byte("other"))
	o.wantRefused(t, key, []byte("x"), builder.PutOptions{IfMatch: other.ETag})
	o.wantAbsent(t, key)

	first := o.put(t, key, []byte("first"))
	o.wantRefused(t, key, []byte("x"), builder.PutOptions{IfMatch: other.ETag})
	o.wantRefused(t, key, []byte("x"), builder.PutOptions{IfMatch: "no-such-etag"})
	o.want(t, key, []byte("first"), first.ETag)

	second, err := o.Put(t.Context(), key, body([]byte("second")), builder.PutOptions{IfMatch: first.ETag})
	if err != nil {
		t.Fatalf("Put if match: %v", err)
	}
	o.want(t, key, []byte("second"), second.ETag)
	o.wantRefused(t, key, []byte("third"), builder.PutOptions{IfMatch: first.ETag})
	o.want(t, key, []byte("second"), second.ETag)
}

func (o objects) badBody(t *testing.T) {
	b := []byte("the real body")
	wrong := checkedBody(b)
	wrong.CRC64NVME++
	wrongEmpty := checkedBody(nil)
	wrongEmpty.CRC64NVME = 1
	short, long := body(b), body(b)
	short.Size++
	long.Size--
	broken := body(b)
	broken.Reader = failingReader{bytes.NewReader(b)}
	bodies := map[string]builder.Body{
		"of a wrong checksum": wrong, "of no bytes and a wrong checksum": wrongEmpty,
		"shorter than its size": short, "longer than its size": long, "that cannot be read": broken,
	}
	for what, b := range bodies {
		for _, opt := range []builder.PutOptions{{}, {IfAbsent: true}} {
			if _, err := o.Put(t.Context(), layout.IndexKey, b, opt); err == nil || errors.Is(err, builder.ErrPrecondition) {
				t.Errorf("Put of a body %s = %v, want another error", what, err)
			}
			o.wantAbsent(t, layout.IndexKey)
		}
	}
	info := o.put(t, layout.IndexKey, []byte("old"))
	for what, b := range bodies {
		for _, opt := range []builder.PutOptions{{}, {IfMatch: info.ETag}} {
			if _, err := o.Put(t.Context(), layout.IndexKey, b, opt); err == nil || errors.Is(err, builder.ErrPrecondition) {
				t.Errorf("Put of a body %s = %v, want another error", what, err)
			}
			o.want(t, layout.IndexKey, []byte("old"), info.ETag)
		}
	}
}

// failingReader fails before its end.
type failingReader struct{ io.ReadSeeker }

func (r failingReader) Read(b []byte) (int, error) {
	n, err := r.ReadSeeker.Read(b[:min(len(b), 5)])
	if err == nil {
		err = errors.New("the body fails")
	}
	return n, err
}

// together runs f(0) ... f(n-1) at once.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() { <-start; f(i) })
	}
	close(start)
	wg.Wait()
}

func (o objects) concurrentIfAbsent(t *testing.T) {
	for round := range 5 {
		key := layout.PlanKey(uint64(round))
		var mu sync.Mutex
		var winners []builder.ObjectInfo
		var won []byte
		together(8, func(i int) {
			b := content(100+i, uint64(i))
			info, err := o.Put(t.Context(), key, body(b), builder.PutOptions{IfAbsent: true})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				winners, won = append(winners, info), b
			} else if !errors.Is(err, builder.ErrPrecondition) {
				t.Errorf("Put if absent: %v", err)
			}
		})
		if len(winners) != 1 {
			t.Fatalf("%d of 8 writers wrote one key that was absent", len(winners))
		}
		o.want(t, key, won, winners[0].ETag)
	}
}

// A caller that is refused may rely on the object being there.
func (o objects) concurrentEqualIfAbsent(t *testing.T) {
	key, b := layout.BundleKey(sha0, "1"), content(300_000, 1)
	together(8, func(int) {
		_, err := o.Put(t.Context(), key, checkedBody(b), builder.PutOptions{IfAbsent: true})
		if err != nil && !errors.Is(err, builder.ErrPrecondition) {
			t.Errorf("Put if absent: %v", err)
		}
		if got, _, err := o.get(t.Context(), key); err != nil || !bytes.Equal(got, b) {
			t.Errorf("Get after a Put if absent = %s, %v", brief(got), err)
		}
	})
}

func (o objects) concurrentIfMatch(t *testing.T) {
	const writers, each = 6, 5
	o.put(t, layout.IndexKey, []byte("0"))
	increment := func(ctx context.Context) error {
		for {
			b, info, err := o.get(ctx, layout.IndexKey)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(b))
			if err != nil {
				return err
			}
			_, err = o.Put(ctx, layout.IndexKey, body(fmt.Append(nil, n+1)), builder.PutOptions{IfMatch: info.ETag})
			if !errors.Is(err, builder.ErrPrecondition) {
				return err
			}
		}
	}
	together(writers, func(int) {
		for range each {
			if err := increment(t.Context()); err != nil {
				t.Errorf("increment: %v", err)
				return
			}
		}
	})
	if b, _, err := o.get(t.Context(), layout.IndexKey); err != nil || string(b) != fmt.Sprint(writers*each) {
		t.Errorf("after %d increments the counter is %q, %v", writers*each, b, err)
	}
}

// concurrentReads reads an object that is being replaced: bytes, size, ETag and metadata must belong
// together.
func (o objects) concurrentReads(t *testing.T) {
	const versions = 40
	version := func(i int) []byte { return bytes.Repeat([]byte{byte('0' + i%10)}, 50_000+i%3) }
	put := func(i int) (builder.ObjectInfo, error) {
		meta := map[string]string{"version": strconv.Itoa(i % 30)}
		return o.Put(t.Context(), layout.IndexKey, body(version(i%30)), builder.PutOptions{Meta: meta})
	}
	etags := make(map[string]string) // by content
	for i := range 30 {
		info, err := put(i)
		if err != nil {
			t.Fatalf("Put: %v", err)
		}
		etags[string(version(i))] = info.ETag
	}
	check := func() error {
		b, info, err := o.get(t.Context(), layout.IndexKey)
		if err != nil {
			return err
		}
		i, err := strconv.Atoi(info.Meta["version"])
		if err != nil {
			return err
		}
		if !bytes.Equal(b, version(i)) || info.Size != int64(len(b)) || info.ETag != etags[string(b)] {
			return fmt.Errorf("read %s with %+v of another version", brief(b), info)
		}
		stat, err := o.Stat(t.Context(), layout.IndexKey)
		if err != nil {
			return err
		}
		i, err = strconv.Atoi(stat.Meta["version"])
		if err != nil {
			return err
		}
		if v := version(i); stat.ETag != etags[string(v)] || stat.Size != int64(len(v)) {
			return fmt.Errorf("stat of two versions mixed: %+v", stat)
		}
		return nil
	}
	done := make(chan struct{})
	together(4, func(reader int) {
		if reader == 0 {
			defer close(done)
			for i := range versions {
				if _, err := put(i); err != nil {
					t.Errorf("Put: %v", err)
					return
				}
			}
			return
		}
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := check(); err != nil {
				t.Errorf("read while replaced: %v", err)
				return
			}
		}
	})
}
