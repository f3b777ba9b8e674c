package rig_test

import (
	"encoding/json"
	"io"
	"testing"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/format/layout"
)

func decode(t testing.TB, body []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("%v: %.200q", err, body)
	}
}

// whole reads an object.
func (s *site) whole(key string) []byte {
	s.t.Helper()
	body, _, err := s.store.Objects().Get(s.t.Context(), key, 0, -1)
	if err != nil {
		s.t.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

const other = "/package?cpuArch=armv7&attrCellular=prod"

// comeAgain fails unless an answer is the 503 that every device understands.
func comeAgain(t *testing.T, a answer) {
	t.Helper()
	var e struct{ Error string }
	if a.status != 503 || a.header.Get("Retry-After") == "" || a.header.Get("Cache-Control") != layout.UnavailableCacheControl || json.Unmarshal(a.body, &e) != nil || e.Error == "" {
		t.Fatalf("%v %v: want 503 with Retry-After", a, a.header)
	}
}

// While S3 is in trouble devices get the last answer that there is, or are told when to come again.
// Afterwards everything is as it was, by itself.
func TestBucketInTrouble(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct{ begin, end func(s *site) }{
		"down":      {func(s *site) { s.S3.SetDown(true) }, func(s *site) { s.S3.SetDown(false) }},
		"slow down": {func(s *site) { s.S3.SetSlowDown(true) }, func(s *site) { s.S3.SetSlowDown(false) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, few())
			s.get(gamer)
			s.Advance(time.Hour)
			f.begin(s)
			if a := s.get(gamer); !a.trace.Stale {
				t.Fatal(a)
			} else {
				s.expect(a, gamer)
			}
			comeAgain(t, s.get(other))
			// What needs no object is answered from the index in memory.
			s.expect(s.get("/package?cpuArch=none"), "/package?cpuArch=none")
			f.end(s)
			s.Advance(edge.RetryAfter * time.Second)
			for _, q := range []string{gamer, other} {
				a := s.get(q)
				s.expect(a, q)
				if a.trace.Stale {
					t.Fatal(a)
				}
			}
		})
		t.Run(name+" from the start", func(t *testing.T) {
			t.Parallel()
			s := newSite(t, few())
			f.begin(s)
			comeAgain(t, s.get(gamer))
			f.end(s)
			s.Advance(edge.RetryAfter * time.Second)
			s.expect(s.get(gamer), gamer)
		})
	}
}

// An index that is not good is not used; the last good one is.
func TestABadIndex(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ bad func(s *site) []byte }{
		"corrupt": {func(s *site) []byte { b := s.whole(layout.IndexKey); b[len(b)/2] ^= 1; return b }},
		"cut off": {func(s *site) []byte { b := s.whole(layout.IndexKey); return b[:len(b)/2] }},
		"empty":   {func(*site) []byte { return []byte{} }},
		"older":   {func(s *site) []byte { return s.whole(layout.HistoryKey(1)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, few())
			s.release("1.0.1")
			s.get(gamer)
			s.S3.Replace(layout.IndexKey, c.bad(s))
			for range 3 {
				s.Advance(time.Hour)
				a := s.get(gamer)
				s.expect(a, gamer)
				s.expect(s.get(other), other)
			}
			s.S3.Replace(layout.IndexKey, nil)
			s.release("1.0.2")
			s.expect(s.get(gamer), gamer)
		})
	}
	t.Run("corrupt from the start", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, few())
		s.S3.Replace(layout.IndexKey, []byte("nonsense"))
		comeAgain(t, s.get(gamer))
		s.S3.Replace(layout.IndexKey, nil)
		s.Advance(edge.RetryAfter * time.Second)
		s.expect(s.get(gamer), gamer)
	})
}

// An origin that hangs is not waited for longer than CloudFront does.
func TestASlowOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, few(), func(o *rig.Options) {
		o.FirstByte = 100 * time.Millisecond
		o.Change = func(d *rig.Distribution) { d.Limits.Origin = 500 * time.Millisecond }
	})
	s.get(gamer)
	s.Advance(2 * time.Minute)
	// The index is looked at before, so that the function does not wait for it.
	s.get("/package?cpuArch=none")
	release := s.S3.Hold()
	defer release()
	a := s.get(gamer)
	s.expect(a, gamer)
	if !a.trace.Stale {
		t.Fatal(a)
	}
	// The composer hangs with S3, and gives up before CloudFront does.
	comeAgain(t, s.get(other))
	release()
	s.Advance(edge.RetryAfter * time.Second)
	for _, q := range []string{gamer, other} {
		s.expect(s.get(q), q)
	}
}

// An index that hangs is waited for as long as the function's settings say, once.
func TestAHangingIndex(t *testing.T) {
	t.Parallel()
	s := newSite(t, few(), func(o *rig.Options) {
		o.Change = func(d *rig.Distribution) { d.Limits.Origin = 200 * time.Millisecond }
	})
	release := s.S3.Hold()
	defer func() { release() }()
	comeAgain(t, s.get(gamer))
	comeAgain(t, s.get(other))
	release()
	s.Advance(edge.RetryAfter * time.Second)
	s.expect(s.get(gamer), gamer)
	s.Advance(time.Hour)
	release = s.S3.Hold()
	if a := s.get(gamer); !a.trace.Stale {
		t.Fatal(a)
	} else {
		s.expect(a, gamer)
	}
	release()
	s.Advance(edge.RetryAfter * time.Second)
	s.expect(s.get(other), other)
}

// A bundle with other bytes is what S3's checksums are against; the edge passes it on. It is not cached
// beyond its time.
func TestACorruptBundle(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	s.get(gamer)
	key := s.fetched()[0]
	s.S3.Replace(key, []byte("corrupt"))
	s.Invalidate("/*")
	if a := s.get(gamer); string(a.body) != "corrupt" {
		t.Fatal(a)
	}
	s.S3.Replace(key, nil)
	s.Advance(2 * time.Minute)
	s.expect(s.get(gamer), gamer)
}
