package rig_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/lambdas"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// What AWS may do to the composer, and what devices then get.

// An answer without a byte may never end. The composer gives none: not for HEAD, not when CloudFront asks whether its
// copy is still right.
func TestLive1NoAnswerIsEmpty(t *testing.T) {
	t.Parallel()
	key, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, nothingPrebuilt(), func(o *rig.Options) {
		o.Lambda.EmptyHangs = true
		o.Compose = func(objects builder.Objects) http.Handler {
			m, err := issuer.New(key, issuer.DefaultSchedule(), time.Now)
			if err != nil {
				t.Error(err)
			}
			return &lambdas.Composer{Objects: objects, Composer: builder.NewComposer(objects), Statements: m, Log: quiet()}
		}
		o.Change = func(d *rig.Distribution) { d.Behaviors[0].Secondary.ReadTimeout = 5 * time.Second }
	})
	for _, q := range []string{gamer, gamer + "&payloadType=metadataOnly", gamer + "&payloadType=statement"} {
		if a := ask(t, s.Rig, "HEAD", q); a.status != 200 || a.header.Get("Content-Length") == "0" || a.trace.Origin != "composer" {
			t.Errorf("HEAD %s: %v %v", q, a, a.header)
		}
	}
	statement := gamer + "&payloadType=statement"
	first := s.get(statement)
	if first.status != 200 || first.trace.Origin != "composer" {
		t.Fatal(first)
	}
	// CloudFront's copy has expired: it asks whether it is still right.
	s.Advance(35 * time.Second)
	s.Wait()
	for range 2 {
		s.Advance(time.Minute)
		if a := s.get(statement); a.status != 200 || !bytes.Equal(a.body, first.body) {
			t.Errorf("revalidated: %v", a)
		}
	}
	if a := s.get(statement, "If-None-Match", first.header.Get("ETag")); a.status != 304 {
		t.Errorf("a device that has it: %v", a)
	}
}

// An answer that breaks off looks like a whole one. The composer begins none before it has all of it.
func TestLive2NoAnswerBreaksOff(t *testing.T) {
	t.Parallel()
	t.Run("a damaged piece", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nothingPrebuilt())
		d := edge.Decide(s.index(), strings.ToLower(strings.TrimPrefix(gamer, "/package?")), "")
		last := builder.PieceKey(d.Set.Item(d.Set.Len() - 1))
		piece := s.whole(last)
		damaged := slices.Clone(piece)
		damaged[len(damaged)-1] ^= 1
		s.S3.Replace(last, damaged)
		for range 2 {
			comeAgain(t, s.get(gamer))
			s.Advance(edge.RetryAfter * time.Second)
		}
		s.S3.Replace(last, nil)
		s.expect(s.get(gamer), gamer)
	})
	t.Run("the function's time is over", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nothingPrebuilt(), func(o *rig.Options) {
			o.Lambda.Timeout = 200 * time.Millisecond
			o.Change = func(d *rig.Distribution) { d.Limits.Origin = 100 * time.Millisecond }
		})
		s.get("/package?cpuArch=none") // the edge has the index
		release := s.S3.Hold()
		if a := s.get(gamer); a.status < 500 {
			t.Error(a)
		}
		release()
		s.Advance(edge.RetryAfter * time.Second)
		s.expect(s.get(gamer), gamer)
	})
}

// What is large is not dripped through the composer: it is stored, and S3 has it the next time, with its ranges.
func TestLive4LargeBundlesAreStoredFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t, nothingPrebuilt(), func(o *rig.Options) {
		o.Compose = func(objects builder.Objects) http.Handler {
			return &lambdas.Composer{Objects: objects, Composer: builder.NewComposer(objects), MaxSent: 1000, Log: quiet()}
		}
	})
	whole := s.ask("GET", gamer).body
	for range 2 { // the second is CloudFront's copy of the first
		comeAgain(t, s.get(gamer))
	}
	s.Advance(edge.RetryAfter * time.Second)
	if a := s.get(gamer, "Range", "bytes=1000-1999"); a.status != 206 || !bytes.Equal(a.body, whole[1000:2000]) || a.trace.Origin != "s3" {
		t.Error(a)
	}
	if a := s.get(gamer); a.status != 200 || !bytes.Equal(a.body, whole) {
		t.Error(a)
	}
}

// Ranges may be ignored: a device then gets everything.
func TestLive4RangesMayBeIgnored(t *testing.T) {
	t.Parallel()
	s := newSite(t, nothingPrebuilt(), func(o *rig.Options) { o.Lambda.NoRanges = true })
	whole := s.ask("GET", gamer).body
	a := s.get(gamer, "Range", "bytes=100-199")
	if !(a.status == 206 && bytes.Equal(a.body, whole[100:200]) || a.status == 200 && bytes.Equal(a.body, whole)) {
		t.Error(a)
	}
}

// New accounts have 10 executions at once. Who is one too many comes again; nobody gets anything wrong, and nothing
// wrong is cached.
func TestLive7FewExecutionsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, nothingPrebuilt(), func(o *rig.Options) { o.Lambda.Concurrency = 2 })
	var wg sync.WaitGroup
	for _, q := range selections()[:20] {
		wg.Go(func() {
			for {
				a := s.get("/package?" + q)
				if a.status != http.StatusTooManyRequests {
					s.expect(a, "/package?"+q)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, key := range s.fetched() {
		if !strings.HasPrefix(key, layout.BundlePrefix) && !strings.HasPrefix(key, layout.ManifestPrefix) {
			t.Errorf("fetched %s", key)
		}
	}
}
