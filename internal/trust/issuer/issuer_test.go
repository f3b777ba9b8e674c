package issuer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
)

func key(seed byte) signing.PrivateKey {
	k, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// gated signs when it is let.
type gated struct {
	signing.PrivateKey
	asked chan struct{} // gets one for every signature asked for
	let   chan error    // what each ends with
}

func (g gated) Sign(ctx context.Context, message []byte) ([]byte, error) {
	g.asked <- struct{}{}
	if err := <-g.let; err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return g.PrivateKey.Sign(ctx, message)
}

// However many ask for one statement at once, it is signed once: a signature in KMS is paid for.
func TestIssuerSignsOnceForAll(t *testing.T) {
	g := gated{key(1), make(chan struct{}, 100), make(chan error)}
	m, err := issuer.New(g, issuer.DefaultSchedule(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	d := decision(t)
	d.Epoch = m.Epoch()
	gone, goes := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := m.Issue(gone, d)
		first <- err
	}()
	<-g.asked // the first is at it
	goes()    // and does not wait for it
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first, who has gone: %v", err)
	}
	const n = 20
	var all sync.WaitGroup
	var good atomic.Int64
	began := make(chan struct{}, n)
	for range n {
		all.Go(func() {
			began <- struct{}{}
			if data, err := m.Issue(t.Context(), d); err == nil && len(data) > 0 {
				good.Add(1)
			}
		})
	}
	for range n {
		<-began
	}
	g.let <- nil
	all.Wait()
	if good.Load() != n || len(g.asked) != 0 {
		t.Errorf("%d of %d got it, %d more signatures", good.Load(), n, len(g.asked))
	}
	// One who comes later and is gone gets it or not; nobody signs.
	if _, err := m.Issue(gone, d); err != nil && !errors.Is(err, context.Canceled) || len(g.asked) != 0 {
		t.Errorf("%v, %d more signatures", err, len(g.asked))
	}
}

// A signature that fails is asked for again.
func TestIssuerForgetsFailures(t *testing.T) {
	g := gated{key(1), make(chan struct{}, 100), make(chan error, 2)}
	m, err := issuer.New(g, issuer.DefaultSchedule(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	d := decision(t)
	d.Epoch = m.Epoch()
	throttled := errors.New("throttled")
	g.let <- throttled
	g.let <- nil
	if _, err := m.Issue(t.Context(), d); !errors.Is(err, throttled) {
		t.Errorf("%v", err)
	}
	if _, err := m.Issue(t.Context(), d); err != nil {
		t.Error(err)
	}
	if _, err := m.Issue(t.Context(), d); err != nil || len(g.asked) != 2 {
		t.Errorf("%v, %d signatures", err, len(g.asked))
	}
}

// Anybody can make up selections, each of which is another statement. Those that devices ask for stay.
func TestIssuerUnderAFlood(t *testing.T) {
	var n atomic.Int64
	m, err := issuer.New(counting{key(1), &n}, issuer.DefaultSchedule(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	d := decision(t)
	d.Epoch = m.Epoch()
	want, err := m.Issue(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	const flood = 10_000 // more than twice as many as are kept
	for i := range flood {
		junk := d
		if junk.Selection, err = edge.ParseSelection(fmt.Sprintf("cpuArch=x&junk%d=1", i)); err != nil {
			t.Fatal(err)
		}
		junk.Selection.Payload = d.Selection.Payload
		if _, err := m.Issue(t.Context(), junk); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			if got, err := m.Issue(t.Context(), d); err != nil || !bytes.Equal(got, want) {
				t.Fatal(err)
			}
		}
	}
	if n.Load() != flood+1 {
		t.Errorf("%d signatures for %d statements", n.Load(), flood+1)
	}
	// What nobody has asked for again is forgotten: memory is bounded.
	junk := d
	if junk.Selection, err = edge.ParseSelection("cpuArch=x&junk0=1"); err != nil {
		t.Fatal(err)
	}
	junk.Selection.Payload = d.Selection.Payload
	if _, err := m.Issue(t.Context(), junk); err != nil || n.Load() != flood+2 {
		t.Errorf("%v, %d signatures, want %d", err, n.Load(), flood+2)
	}
}

// counting counts what it is asked to sign.
type counting struct {
	signing.PrivateKey
	n *atomic.Int64
}

func (c counting) Sign(ctx context.Context, m []byte) ([]byte, error) {
	c.n.Add(1)
	return c.PrivateKey.Sign(ctx, m)
}

func decision(t testing.TB) edge.Decision {
	t.Helper()
	ix := index.New(index.Index{Generation: 7, Format: "f", Items: []index.Item{{App: "os_x", Track: "prod", Version: "1", Size: 5}}})
	d := edge.Decide(ix, "cpuArch=x&payloadType=statement", "")
	if d.Status != edge.StatusOK {
		t.Fatal(d.Error)
	}
	return d
}

func TestIssuer(t *testing.T) {
	var n atomic.Int64
	clock := now
	m, err := issuer.New(counting{key(1), &n}, issuer.DefaultSchedule(), func() time.Time { return clock })
	if err != nil {
		t.Fatal(err)
	}
	d := decision(t)
	d.Epoch = m.Epoch()
	first, err := m.Issue(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	s, err := statement.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC); !s.Expires.Equal(want) || s.Generation != 7 || s.Selection != "cpuarch=x" || s.Set != d.Set.ID() {
		t.Errorf("%s", first)
	}
	// The same bytes all day, and from another holder of the key; signed once here.
	clock = now.Add(11 * time.Hour)
	other, _ := issuer.New(key(1), issuer.DefaultSchedule(), func() time.Time { return clock })
	for _, m := range []*issuer.Issuer{m, other} {
		if again, err := m.Issue(t.Context(), d); err != nil || !bytes.Equal(again, first) {
			t.Errorf("%v\n%s", err, again)
		}
	}
	if n.Load() != 1 {
		t.Errorf("signed %d times", n.Load())
	}
	// The next day.
	clock = now.Add(13 * time.Hour)
	if m.Epoch() != d.Epoch+1 {
		t.Errorf("epoch %d after %d", m.Epoch(), d.Epoch)
	}
	for off, want := range map[int]bool{-2: false, -1: true, 0: true, 1: true, 2: false, 1000: false} {
		d.Epoch = m.Epoch() + uint64(off)
		if _, err := m.Issue(t.Context(), d); (err == nil) != want || err != nil && !errors.Is(err, issuer.ErrEpoch) {
			t.Errorf("epoch off by %d: %v", off, err)
		}
	}
	// Another key: another entity tag for the same path.
	moved, _ := issuer.New(key(2), issuer.DefaultSchedule(), func() time.Time { return clock })
	_, path := d.Object()
	if m.ETag(path) == moved.ETag(path) || !strings.HasPrefix(m.ETag(path), layout.ETag(path)) {
		t.Errorf("entity tags %s and %s", m.ETag(path), moved.ETag(path))
	}
}

func TestSchedules(t *testing.T) {
	day := 24 * time.Hour
	for _, s := range []issuer.Schedule{{}, {day, day}, {0, day}, {-day, day}, {time.Millisecond, day}, {day, 2*day + 1}} {
		if _, err := issuer.New(key(1), s, time.Now); err == nil {
			t.Errorf("%+v is a schedule", s)
		}
	}
	if err := issuer.DefaultSchedule().Check(); err != nil {
		t.Error(err)
	}
}
