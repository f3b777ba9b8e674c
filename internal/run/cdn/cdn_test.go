package cdn_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/run/cdn"
)

// watched is a CDN over a world and a client, and what it logs.
func (w *world) watched(c *client) (*cdn.CDN, *strings.Builder) {
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, nil))
	o := &cdn.CDN{Rollouts: w.rollouts(), Invalidator: &cdn.Invalidator{Client: c, Distribution: "D", Log: log, Wait: passed}}
	o.Rollouts.Log = log
	return o, &text
}

// A device whose cohort is told by the old table must not get a new answer cached under it for long: the
// table comes first.
func TestTheTableIsWrittenBeforeTheInvalidation(t *testing.T) {
	w := newWorld(t)
	c := &client{on: func() { w.has("a\n") }}
	o, log := w.watched(c)
	w.publish(1, "a\n")
	o.Published(t.Context(), builder.Published{Generation: 1, Sequence: 1, Changed: true})
	if len(c.got) != 1 || strings.Contains(log.String(), "level=ERROR") {
		t.Fatalf("%d invalidations; %s", len(c.got), log)
	}
}

// A plan that changes nothing mends the table, and invalidates nothing.
func TestAPlanThatChangesNothingMendsTheTable(t *testing.T) {
	w := newWorld(t)
	c := &client{}
	o, log := w.watched(c)
	w.publish(1, "a\n")
	w.before = func(int) error { return errStore }
	o.Published(t.Context(), builder.Published{Generation: 1, Sequence: 1, Changed: true})
	if !strings.Contains(log.String(), "RequestID: 7f2c") || !strings.Contains(log.String(), storeARN) {
		t.Fatalf("the log does not say which request failed: %s", log)
	}
	if len(c.got) != 1 {
		t.Fatal("without the table, answers stay stale")
	}
	w.before = nil
	o.Published(t.Context(), builder.Published{Generation: 1, Sequence: 2})
	w.has("a\n")
	if len(c.got) != 1 {
		t.Fatal("nothing changed, and was invalidated")
	}
}

// What is published when a function's time is up is told to the CDN all the same.
func TestWithoutTimeTheCDNIsToldAtOnce(t *testing.T) {
	w := newWorld(t)
	c := &client{on: func() { w.has("a\n") }}
	o, log := w.watched(c)
	o.Invalidator.Wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	w.publish(1, "a\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.Published(ctx, builder.Published{Generation: 1, Sequence: 1, Changed: true})
	if len(c.got) != 1 || strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "before the edge had settled") {
		t.Fatalf("%d invalidations; %s", len(c.got), log)
	}
}

// Whoever has no rollouts pays for no looks: what is left of a table goes with the next change.
func TestWithoutRolloutsPlansDoNotLook(t *testing.T) {
	w := newWorld(t)
	c := &client{}
	o, _ := w.watched(c)
	w.items["rollouts.0"] = "left behind\n"
	w.publish(1)
	o.Planned(t.Context(), builder.Report{Generation: 1})
	o.Published(t.Context(), builder.Published{Generation: 1, Sequence: 2})
	if len(w.calls) != 0 {
		t.Fatalf("calls %v", w.calls)
	}
	w.publish(2)
	o.Published(t.Context(), builder.Published{Generation: 2, Sequence: 3, Changed: true})
	w.has()
}

// While a generation is pinned nothing is published, and plans go on being made: they mend the table that a
// rollback could not write.
func TestAPlanUnderAPinMendsTheTable(t *testing.T) {
	w := newWorld(t)
	c := &client{}
	o, _ := w.watched(c)
	w.publish(3, "a\n")
	o.Planned(t.Context(), builder.Report{Generation: 3, Changed: true})
	w.has("a\n")
	if len(c.got) != 0 {
		t.Fatal("a plan was invalidated")
	}
	o.Planned(t.Context(), builder.Report{}) // nothing was ever published
}

func TestWhatFailsIsLogged(t *testing.T) {
	w := newWorld(t)
	c := &client{err: errors.New("throttled")}
	o, log := w.watched(c)
	o.Rollouts.Table = func(*index.Index) []string { return []string{"a\n"} }
	w.publish(1)
	o.Published(t.Context(), builder.Published{Generation: 1, Sequence: 1, Changed: true})
	for _, want := range []string{"throttled", "distribution=D", "level=ERROR"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is not in the log: %s", want, log)
		}
	}
}

// The SDK's client signs as the service demands, for all regions, and reaches an endpoint that is an address.
func TestRequestsAreSignedForEveryRegion(t *testing.T) {
	var paths []string
	items := `{"Items": [], "NextToken": ""}`
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.Path)
		if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-ECDSA-P256-SHA256 ") || r.Header.Get("X-Amz-Region-Set") != "*" ||
			!strings.Contains(r.Header.Get("Authorization"), "/cloudfront-keyvaluestore/aws4_request") {
			t.Errorf("%s is signed %q for %q", r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("X-Amz-Region-Set"))
		}
		rw.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method == http.MethodPost:
			if r.Header.Get("If-Match") != "v1" {
				t.Errorf("If-Match %q", r.Header.Get("If-Match"))
			}
			var in struct{ Puts []struct{ Key, Value string } }
			if data, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(data, &in) != nil || len(in.Puts) != 1 || in.Puts[0].Value != "a\n" {
				t.Errorf("%s, %v", data, err)
			}
			rw.Header().Set("ETag", "v2")
			_, _ = io.WriteString(rw, `{"ItemCount": 1, "TotalSizeInBytes": 12}`)
		case strings.HasSuffix(r.URL.Path, "/keys"):
			_, _ = io.WriteString(rw, items)
		default:
			rw.Header().Set("ETag", "v1")
			_, _ = io.WriteString(rw, `{"Created": 1, "ItemCount": 0, "KvsARN": "x", "TotalSizeInBytes": 0}`)
		}
	}))
	defer server.Close()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CA_BUNDLE": "",
	} {
		t.Setenv(name, value)
	}
	os.Unsetenv("AWS_CA_BUNDLE")
	w := newWorld(t)
	w.publish(1, "a\n")
	var log strings.Builder
	o, err := cdn.Connect(t.Context(), cdn.Resources{KeyValueStore: storeARN}, w.objects, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	o.Rollouts.Table = func(*index.Index) []string { return []string{"a\n"} }
	o.Published(t.Context(), builder.Published{Generation: 1, Sequence: 1, Changed: true})
	at := "/key-value-stores/" + storeARN
	if got, want := strings.Join(paths, ", "), "GET "+at+"/keys, GET "+at+", GET "+at+"/keys, POST "+at+"/keys"; got != want || !strings.Contains(log.String(), "table of rollouts written") {
		t.Fatalf("calls %s, want %s\n%s", got, want, &log)
	}
}
