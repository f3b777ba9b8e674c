package rig_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/lambdas"
)

const gamer = "/package?cpuArch=armv8&attrGamer=prod"

// selections are all that the sample's devices can ask for.
func selections() []string {
	var all []string
	for _, arch := range []string{"armv8", "armv7", "sparc"} {
		for _, os := range []string{"", "&os=prod", "&os=beta"} {
			for _, gamer := range []string{"", "&attrGamer=prod", "&attrGamer=beta"} {
				for _, camera := range []string{"", "&attrCamera=prod", "&attrCamera=beta"} {
					for _, cellular := range []string{"", "&attrCellular=prod"} {
						for _, payload := range []string{"", "&payloadType=metadataOnly"} {
							all = append(all, "cpuArch="+arch+os+gamer+camera+cellular+payload)
						}
					}
				}
			}
		}
	}
	return all
}

// Headers in which the edge differs from the server, and why.
func comparable(a answer, throughTheEdge bool) http.Header {
	h := a.header.Clone()
	for _, name := range []string{
		"Date", "Connection",
		"Etag",                                          // S3's is the MD5, the server's and the composer's the key
		"Last-Modified", "X-Amz-Server-Side-Encryption", // S3's; the server has none
		"Server", "Via", "Age", "X-Cache", "X-Amz-Cf-Id", "X-Amz-Cf-Pop", // CloudFront's and S3's
	} {
		h.Del(name)
	}
	if a.status == http.StatusNotModified {
		h.Del("Accept-Ranges") // to the cache, it was a 200
	}
	if !throughTheEdge {
		h.Set("X-Content-Type-Options", "nosniff") // the distribution's policy adds it to every answer
	}
	return h
}

// Every selection of the sample, whatever the device holds, gets through the edge what the server answers.
func TestTheEdgeAnswersAsTheServer(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]builder.Options{"prebuilt": {}, "composed": nothingPrebuilt()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, opt)
			queries := append(selections(), "", "cpuArch=", "cpuArch=armv8&payloadType=all", "cpuArch=%zz", "cpuArch=%ff", "cpuArch=armv8&scoreboard=beta&modemFW=prod&videostreamer=prod")
			if name == "composed" { // the decisions are the same
				queries = slices.DeleteFunc(queries, func(q string) bool { return !strings.Contains(q, "attrGamer=prod") })
			}
			statuses := make(map[int]int)
			for _, q := range queries {
				md5s, sha256s := s.digests(q)
				lists := [][]string{nil}
				if len(md5s) > 0 {
					lists = append(lists, md5s[:1], md5s, sha256s[:len(sha256s)/2+1])
				}
				for _, list := range lists {
					header := held(list)
					a, want := s.get("/package?"+q, header...), s.ask(http.MethodGet, "/package?"+q, header...)
					statuses[want.status]++
					if a.status != want.status || !bytes.Equal(a.body, want.body) {
						t.Fatalf("%s %v: %v, want %d %.200q", q, header, a, want.status, want.body)
					}
					if got, want := comparable(a, true), comparable(want, false); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Fatalf("%s %v: %d: headers\n%v, want\n%v", q, header, a.status, got, want)
					}
				}
			}
			for _, status := range []int{200, 304, 400, 404} {
				if statuses[status] == 0 && name == "prebuilt" {
					t.Errorf("no answer was %d: %v", status, statuses)
				}
			}
			t.Logf("%v answers by status; %d of S3, %d composed", statuses, len(s.fetched()), len(s.Composer.Requests()))
		})
	}
}

func TestTheSameDeviceTwice(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	for i, want := range []string{"Miss", "Hit", "Hit"} {
		if a := s.get(gamer); a.status != 200 || a.xcache() != want || len(s.fetched()) != 1 {
			t.Fatalf("request %d: %v, want %s", i+1, a, want)
		}
	}
	// A device that holds everything costs nothing but its first request.
	md5s, _ := s.digests("cpuArch=armv8&attrGamer=prod")
	for i, want := range []string{"Miss", "Hit"} {
		if a := s.get(gamer, held(md5s)...); a.status != 304 || len(a.body) != 0 || a.xcache() != want {
			t.Fatalf("request %d: %v, want %s", i+1, a, want)
		}
	}
	// A binary is not looked for again, for as long as its year.
	var list map[string]struct{ URL string }
	decode(t, s.get(gamer+"&payloadType=metadataOnly").body, &list)
	for _, want := range []string{"Miss", "Hit", "Hit"} {
		a := s.get(list["scoreboard"].URL)
		if a.status != 200 || len(a.body) != itemSize || a.xcache() != want {
			t.Fatalf("%v, want %s", a, want)
		}
		s.Advance(30 * 24 * time.Hour)
	}
}

// Every spelling of a request is one entry of the cache.
func TestSpellings(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	random := rand.New(rand.NewPCG(1, 2))
	pairs := [][2]string{{"cpuArch", "armv8"}, {"attrGamer", "prod"}, {"attrCellular", "prod"}, {"videoStreamer", "beta"}}
	md5s, _ := s.digests("cpuArch=armv8&attrGamer=prod")
	spell := func(text string) string {
		var b strings.Builder
		for _, c := range []byte(text) {
			switch random.IntN(4) {
			case 0:
				if c >= 'A' {
					c ^= 0x20
				}
			case 1:
				fmt.Fprintf(&b, "%%%02x", c)
				continue
			case 2:
				fmt.Fprintf(&b, "%%%02X", c)
				continue
			}
			b.WriteByte(c)
		}
		return b.String()
	}
	seen := make(map[string]bool)
	for range 50 {
		var parts []string
		for _, i := range random.Perm(len(pairs)) {
			parts = append(parts, spell(pairs[i][0])+"="+spell(pairs[i][1]))
		}
		query := strings.Join(parts, "&") + []string{"", "&os=prod", "&x=", "&&", "&payloadType=fullPayload", "&cpuArch=late"}[random.IntN(6)]
		var tags []string
		for _, i := range random.Perm(2) {
			tags = append(tags, fmt.Sprintf([]string{"%s", `"%s"`, `W/"%s"`, "%s, nonsense"}[random.IntN(4)], []string{md5s[i], strings.ToUpper(md5s[i])}[random.IntN(2)]))
		}
		seen[query] = true
		header := held(tags)
		s.expect(s.get("/package?"+query, header...), "/package?"+query, header...)
	}
	if s.Entries() != 1 || len(s.fetched()) != 1 || len(seen) < 45 {
		t.Fatalf("%d spellings made %d entries and %d fetches", len(seen), s.Entries(), len(s.fetched()))
	}
}

// After a publish and its invalidations devices get the new generation.
func TestAPublishReachesDevices(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	if brought, _ := files(t, s.get(gamer).body); !slices.Contains(brought, "scoreboard_1.0.0") {
		t.Fatal(brought)
	}
	for _, version := range []string{"1.0.1", "1.0.2"} {
		s.release(version)
		a := s.get(gamer)
		if brought, _ := files(t, a.body); !slices.Contains(brought, "scoreboard_"+version) {
			t.Fatalf("%v: after the release of %s", brought, version)
		}
		s.expect(a, gamer)
	}
	// Without any invalidation an answer is two minutes old at most: a minute in the cache, and an index
	// of ten seconds.
	s.opt.Observer = nil
	s.release("1.0.3")
	s.Advance(10 * time.Second)
	s.get(gamer)
	s.Advance(time.Minute)
	s.expect(s.get(gamer), gamer)
}

// While devices ask, releases are published. No answer is a mix of two.
func TestNoAnswerIsAMix(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	queries := []string{gamer, gamer + "&attrCellular=prod", gamer + "&videoStreamer=beta", "/package?cpuArch=armv7&os=beta&attrGamer=prod"}
	type seen struct {
		query string
		body  string
	}
	var (
		mu      sync.Mutex
		answers = make(map[seen]int)
		ending  = make(chan struct{})
		asked   atomic.Int32
		wg      sync.WaitGroup
	)
	for i := range 6 {
		wg.Go(func() {
			for n := i; ; n++ {
				select {
				case <-ending:
					return
				default:
				}
				q := queries[n%len(queries)]
				a, err := try(s.Rig, "GET", q)
				if err != nil || a.status != 200 {
					t.Errorf("%s: %v, %v", q, a, err)
					return
				}
				mu.Lock()
				answers[seen{q, string(a.body)}]++
				mu.Unlock()
				asked.Add(1)
			}
		})
	}
	allowed := make(map[seen]bool)
	remember := func() {
		for _, q := range queries {
			allowed[seen{q, string(s.ask("GET", q).body)}] = true
		}
	}
	remember()
	for n := range 5 {
		s.release(fmt.Sprintf("2.0.%d", n))
		remember()
		for before := asked.Load(); asked.Load() < before+20 && !t.Failed(); {
			s.get(queries[n%len(queries)])
			asked.Add(1)
		}
	}
	close(ending)
	wg.Wait()
	for a, n := range answers {
		brought, _ := files(t, []byte(a.body)) // its manifest agrees with its files
		if !allowed[a] {
			t.Errorf("%s was answered %d times with %v, which no generation says", a.query, n, brought)
		}
	}
	if len(answers) <= len(queries) {
		t.Errorf("%d different answers: no release was seen", len(answers))
	}
	t.Logf("%d answers, %d different, of %d that the generations say", asked.Load(), len(answers), len(allowed))
}

// storing has the composer store what it composes, or a store that takes nothing.
func storing(store bool) func(*rig.Options) {
	return func(o *rig.Options) {
		if !store {
			o.Compose = func(objects builder.Objects) http.Handler {
				return &lambdas.Composer{Objects: full{objects}, Composer: builder.NewComposer(objects), FirstByte: lambdas.FirstByte, Log: quiet()}
			}
		}
	}
}

type full struct{ builder.Objects }

func (full) Put(context.Context, string, builder.Body, builder.PutOptions) (builder.ObjectInfo, error) {
	return builder.ObjectInfo{}, errors.New("the store is full")
}

// What was not prebuilt is composed, with the same bytes.
func TestFailoverToTheComposer(t *testing.T) {
	t.Parallel()
	prebuilt := newSite(t, builder.Options{})
	for _, list := range []bool{false, true} {
		for _, store := range []bool{false, true} {
			s := newSite(t, nothingPrebuilt(), storing(store), func(o *rig.Options) { o.List = list })
			md5s, _ := s.digests("cpuArch=armv8&attrGamer=prod")
			for _, header := range [][]string{nil, held(md5s[:1]), held(md5s[1:])} {
				for _, q := range []string{gamer, gamer + "&payloadType=metadataOnly"} {
					a, want := s.get(q, header...), prebuilt.get(q, header...)
					if a.status != 200 || !bytes.Equal(a.body, want.body) || a.trace.Origin != "composer" || want.trace.Origin != "s3" {
						t.Fatalf("%s %v: composed %v, prebuilt %v", q, header, a, want)
					}
					if code := map[bool]int{false: 403, true: 404}[list]; a.trace.Failover != code || a.trace.HandlerRuns != 2 {
						t.Fatalf("%v: want failover on %d and two runs", a, code)
					}
					// Once it is stored, S3 has it.
					s.Invalidate("/package*")
					if again := s.get(q, header...); again.trace.Origin != map[bool]string{false: "composer", true: "s3"}[store] || !bytes.Equal(again.body, a.body) {
						t.Fatal(again)
					}
				}
			}
			a, want := s.get(gamer, "Range", "bytes=100-299"), prebuilt.get(gamer)
			if a.status != 206 || !bytes.Equal(a.body, want.body[100:300]) {
				t.Fatal(a)
			}
		}
	}
	s := newSite(t, nothingPrebuilt())
	s.Composer.SetDown(true)
	// CloudFront's own (docs/operations.md): nobody else is there to answer.
	if a := s.get(gamer); a.status != 502 {
		t.Fatalf("%v: without a composer", a)
	}
	s.Composer.SetDown(false)
	s.Advance(edge.RetryAfter * time.Second)
	s.expect(s.get(gamer), gamer)
}

// A device that has, or has a part of, what was composed for it goes on with what S3 has of it since, and with what is
// composed again where nothing is stored. What it gets is never of something else.
func TestWhatWasComposedIsRevalidated(t *testing.T) {
	t.Parallel()
	for _, store := range []bool{false, true} {
		s := newSite(t, nothingPrebuilt(), storing(store))
		md5s, _ := s.digests("cpuArch=armv8&attrGamer=prod")
		first := s.get(gamer, held(md5s[:1])...)
		whole := s.get(gamer)
		etag := whole.header.Get("ETag")
		if whole.status != 200 || whole.trace.Origin != "composer" || etag == "" || etag == first.header.Get("ETag") {
			t.Fatal(whole, etag)
		}
		for _, when := range []string{"a copy", "none", "a copy again"} {
			if when == "none" {
				s.Invalidate("/package*")
			}
			// The composer does not say 304 (TestLive1).
			again := map[bool]int{false: 304, true: 200}[!store && when == "none"]
			if a := s.get(gamer, "If-None-Match", etag); a.status != again {
				t.Errorf("stored %v, %s: %v, want %d", store, when, a, again)
			}
			if a := s.get(gamer, "Range", "bytes=100-", "If-Range", etag); a.status != 206 || !bytes.Equal(a.body, whole.body[100:]) {
				t.Errorf("stored %v, %s: %v", store, when, a)
			}
			for _, header := range [][]string{
				{"If-None-Match", `"another"`}, {"If-None-Match", first.header.Get("ETag")},
				{"Range", "bytes=100-", "If-Range", `"another"`}, {"Range", "bytes=100-", "If-Range", first.header.Get("ETag")},
			} {
				if a := s.get(gamer, header...); a.status != 200 || !bytes.Equal(a.body, whole.body) {
					t.Errorf("stored %v, %s, %q: %v", store, when, header, a)
				}
			}
		}
		if want := map[bool]string{false: "composer", true: "s3"}[store]; s.get(gamer).trace.Origin != want {
			t.Errorf("stored %v: not from %s", store, want)
		}
	}
}

// An expired copy of yesterday's answer is not right for a device that holds everything today.
func TestRevalidationTrap(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	s.opt.Observer = nil // nobody invalidates
	md5s, _ := s.digests("cpuArch=armv8&attrGamer=prod")
	s.release("1.0.1")
	tomorrow, _ := s.digests("cpuArch=armv8&attrGamer=prod")
	// The device has taken everything of the next generation before the edge knows of it.
	rollback := newSite(t, few())
	rollback.opt.Observer = nil
	header := held(tomorrow)
	yesterday := rollback.get(gamer, header...)
	if brought, _ := files(t, yesterday.body); !slices.Equal(brought, []string{"scoreboard_1.0.0"}) || len(md5s) != len(tomorrow) {
		t.Fatalf("%v: the trap is not set", brought)
	}
	rollback.release("1.0.1")
	rollback.Advance(time.Hour)
	a := rollback.get(gamer, header...)
	switch {
	case a.status == 304:
	case a.status == 200 && !bytes.Equal(a.body, yesterday.body):
		if brought, held := files(t, a.body); len(brought) != 0 || len(held) != len(tomorrow) {
			t.Fatalf("brought %v, held %v: %v", brought, held, a)
		}
	default:
		t.Fatalf("%v: yesterday's bundle", a)
	}
	// And it stays so, on a hit and after the copy has expired once more.
	for range 2 {
		if again := rollback.get(gamer, header...); !bytes.Equal(again.body, a.body) {
			t.Fatal(again)
		}
		rollback.Advance(time.Hour)
	}
}

// How long the edge gives an answer without asking again.
func TestHowLongAnswersLive(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	md5s, _ := s.digests("cpuArch=armv8&attrGamer=prod")
	for name, c := range map[string]struct {
		target  string
		header  []string
		seconds int // fresh
		stale   int // and then sent while it is looked at again
	}{
		"bundle":            {gamer, nil, 30, 30},
		"manifest":          {gamer + "&payloadType=metadataOnly", nil, 30, 30},
		"everything held":   {gamer, held(md5s), 30, 30},
		"nothing for it":    {"/package?cpuArch=none", nil, 10, 0},
		"binary that isn't": {"/binaries/" + strings.Repeat("a", 64) + "/x_1", nil, 0, 0},
	} {
		first := s.get(c.target, c.header...)
		fresh := func() bool {
			a := s.get(c.target, c.header...)
			return len(a.trace.Fetches) == 0 && !a.trace.Stale
		}
		if c.seconds > 0 {
			s.Advance(time.Duration(c.seconds-1) * time.Second)
			if !fresh() {
				t.Errorf("%s: not for %d seconds: %v", name, c.seconds, first)
			}
			s.Advance(time.Second)
		}
		a := s.get(c.target, c.header...)
		if a.trace.Stale != (c.stale > 0) || !a.trace.Stale && len(a.trace.Fetches) == 0 {
			t.Errorf("%s: after %d seconds: %v", name, c.seconds, a)
		}
		s.Wait()
	}
}

// The most common poll of all, of a device that holds everything, is answered by the cache: whether it holds one
// thing, whose digest could be the ETag of an answer, or several.
func TestUpToDateDevicesAreAnsweredByTheCache(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	for _, query := range []string{"cpuArch=armv8", "cpuArch=armv8&attrGamer=prod"} {
		md5s, sha256s := s.digests(query)
		for _, list := range [][]string{md5s, sha256s} {
			for _, want := range []string{"Miss", "Hit", "Hit"} {
				if a := s.get("/package?"+query, held(list)...); a.status != 304 || len(a.body) != 0 || a.xcache() != want {
					t.Fatalf("%s, %d held: %v, want 304 and a %s", query, len(list), a, want)
				}
			}
		}
	}
}

// HEAD and ranges, from the origins and from the cache.
func TestHeadAndRangeOfPackages(t *testing.T) {
	t.Parallel()
	for _, opt := range []builder.Options{{}, nothingPrebuilt()} {
		s := newSite(t, opt)
		whole := s.ask("GET", gamer).body
		for _, when := range []string{"miss", "hit"} {
			a := ask(t, s.Rig, "HEAD", gamer)
			if want := s.ask("HEAD", gamer); a.status != want.status || a.header.Get("Content-Length") != want.header.Get("Content-Length") || len(a.body) != 0 {
				t.Fatalf("HEAD, %s: %v %v, want %v", when, a, a.header, want.header)
			}
			for _, r := range []string{"bytes=0-99", "bytes=1000-", "bytes=-10", fmt.Sprintf("bytes=%d-", len(whole))} {
				a, want := s.get(gamer, "Range", r), s.ask("GET", gamer, "Range", r)
				if a.status != want.status || a.status == 206 && !bytes.Equal(a.body, want.body) || a.header.Get("Content-Range") != want.header.Get("Content-Range") {
					t.Fatalf("%s, %s: %v %v, want %d %v", r, when, a, a.header, want.status, want.header)
				}
			}
			// The answer's own ETag.
			etag := s.get(gamer).header.Get("ETag")
			if a := s.get(gamer, "If-None-Match", etag); a.status != 304 {
				t.Fatalf("If-None-Match: %s, %s: %v", etag, when, a)
			}
			if a := s.get(gamer, "Range", "bytes=0-9", "If-Range", etag); a.status != 206 {
				t.Fatalf("If-Range, %s: %v", when, a)
			}
			if a := s.get(gamer, "Range", "bytes=0-9", "If-Range", `"other"`); a.status != 200 || !bytes.Equal(a.body, whole) {
				t.Fatalf("If-Range of another, %s: %v", when, a)
			}
		}
	}
}

// Watch invalidates what another process has published.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	s.opt.Observer = nil
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Watch(ctx, time.Millisecond) })
	defer wg.Wait()
	defer cancel()
	s.get(gamer)
	s.release("1.0.1")
	for s.Entries() > 0 && t.Context().Err() == nil {
		runtime.Gosched()
	}
	s.Advance(cdn.Settled)
	s.expect(s.get(gamer), gamer)
}
