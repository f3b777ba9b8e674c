package statement_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
)

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
func TestMakerSignsOnceForAll(t *testing.T) {
	g := gated{key(1), make(chan struct{}, 100), make(chan error)}
	m, err := statement.NewMaker(g, statement.DefaultSchedule(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	d := decision(t)
	d.Epoch = m.Epoch()
	gone, goes := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := m.Make(gone, d)
		first <- err
	}()
	<-g.asked // the first is at it
	goes()    // and does not wait for it
	const n = 20
	var all sync.WaitGroup
	var good atomic.Int64
	began := make(chan struct{}, n)
	for range n {
		all.Go(func() {
			began <- struct{}{}
			if data, err := m.Make(t.Context(), d); err == nil && len(data) > 0 {
				good.Add(1)
			}
		})
	}
	for range n {
		<-began
	}
	g.let <- nil
	all.Wait()
	<-first // whether it got the statement or not
	if good.Load() != n || len(g.asked) != 0 {
		t.Errorf("%d of %d got it, %d more signatures", good.Load(), n, len(g.asked))
	}
	// One who comes later and is gone gets it or not; nobody signs.
	if _, err := m.Make(gone, d); err != nil && !errors.Is(err, context.Canceled) || len(g.asked) != 0 {
		t.Errorf("%v, %d more signatures", err, len(g.asked))
	}
}

// A signature that fails is asked for again.
func TestMakerForgetsFailures(t *testing.T) {
	g := gated{key(1), make(chan struct{}, 100), make(chan error, 2)}
	m, err := statement.NewMaker(g, statement.DefaultSchedule(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	d := decision(t)
	d.Epoch = m.Epoch()
	throttled := errors.New("throttled")
	g.let <- throttled
	g.let <- nil
	if _, err := m.Make(t.Context(), d); !errors.Is(err, throttled) {
		t.Errorf("%v", err)
	}
	if _, err := m.Make(t.Context(), d); err != nil {
		t.Error(err)
	}
	if _, err := m.Make(t.Context(), d); err != nil || len(g.asked) != 2 {
		t.Errorf("%v, %d signatures", err, len(g.asked))
	}
}

// Anybody can make up selections, each of which is another statement. Those that devices ask for stay.
func TestMakerUnderAFlood(t *testing.T) {
	var n atomic.Int64
	m, err := statement.NewMaker(counting{key(1), &n}, statement.DefaultSchedule(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	d := decision(t)
	d.Epoch = m.Epoch()
	want, err := m.Make(t.Context(), d)
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
		if _, err := m.Make(t.Context(), junk); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			if got, err := m.Make(t.Context(), d); err != nil || !bytes.Equal(got, want) {
				t.Fatal(err)
			}
		}
	}
	if n.Load() != flood+1 {
		t.Errorf("%d signatures for %d statements", n.Load(), flood+1)
	}
}
