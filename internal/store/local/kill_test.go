package local

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
)

// playWorker does everything that a store can do, and prints what was acknowledged, until it is
// killed. arg is the number that its counts go on from.
func playWorker(dir, arg string) error {
	from, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	s, err := Open(dir, Options{MaxReceives: 1000, NewCatalog: true})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	errs := make(chan error)
	for _, work := range []func(s *Store, n int, say func(string, ...any)) error{workObjects, workIndex, workDatabase} {
		go func() {
			for n := from; ; n++ {
				if err := work(s, n, say); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

func workObjects(s *Store, n int, say func(string, ...any)) error {
	key := layout.PlanKey(uint64(n))
	if _, err := s.Objects().Put(noContext, key, bodyOf(contentOf(n)), builder.PutOptions{IfAbsent: true}); err != nil {
		return err
	}
	say("object %d", n)
	return nil
}

func workIndex(s *Store, n int, say func(string, ...any)) error {
	opt := builder.PutOptions{Meta: map[string]string{"version": strconv.Itoa(n)}}
	if _, err := s.Objects().Put(noContext, layout.IndexKey, bodyOf(contentOf(n)), opt); err != nil {
		return err
	}
	say("index %d", n)
	return nil
}

func workDatabase(s *Store, n int, say func(string, ...any)) error {
	if err := s.Catalog().Apply(noContext, catalog.Edit{Changes: itemsOf(n)}); err != nil {
		return err
	}
	say("catalog %d", n)
	if err := s.Queue().Send(noContext, []byte(strconv.Itoa(n))); err != nil {
		return err
	}
	say("sent %d", n)
	msgs, err := s.Queue().Receive(noContext, 1, time.Hour, 0)
	if err != nil {
		return err
	}
	if len(msgs) == 0 {
		return fmt.Errorf("receive: nothing after %d was sent", n)
	}
	say("received %s %d", msgs[0].Body, msgs[0].Receives)
	if n%3 != 0 {
		say("deleting %s", msgs[0].Body)
		if err := s.Queue().Delete(noContext, msgs[0].Receipt); err != nil {
			return err
		}
		say("deleted %s", msgs[0].Body)
	}
	next, err := s.Ledger().Next(noContext)
	if err != nil {
		return err
	}
	say("next %d", next)
	return nil
}

// contentOf is the content of version n: neighbours differ in size, and in every byte.
func contentOf(n int) string {
	return strings.Repeat(strconv.Itoa(n%10), 1000+n%7*40_000)
}

// itemsOf is a change of catalog that must happen whole.
func itemsOf(n int) []catalog.Change {
	var changes []catalog.Change
	for _, app := range []string{"a", "b", "c"} {
		changes = append(changes, catalog.Put(catalog.Item{App: app, Track: "prod", Version: strconv.Itoa(n)}))
	}
	return changes
}

// acked is what killed workers have acknowledged.
type acked struct {
	t                       *testing.T
	objects                 map[int]bool
	index, catalog          int // highest version
	next                    uint64
	sent, deleting, deleted map[string]bool
	receives                map[string]int
	highest                 int // number of any kind
	before                  int // where the latest worker went on from
	count                   int
}

func (a *acked) hear(line string) {
	a.count++
	var kind, what string
	var n int
	if c, err := fmt.Sscan(line, &kind, &what, &n); c < 2 {
		a.t.Fatalf("worker printed %q: %v", line, err)
	}
	num, err := strconv.Atoi(what)
	if err != nil {
		a.t.Fatalf("worker printed %q: %v", line, err)
	}
	switch kind {
	case "object":
		a.objects[num] = true
	case "index":
		a.index = num
	case "catalog":
		a.catalog = num
	case "sent":
		a.sent[what] = true
	case "received":
		a.receives[what] = n
	case "deleting":
		a.deleting[what] = true
	case "deleted":
		a.deleted[what] = true
	case "next":
		a.next = uint64(num)
		return
	}
	a.highest = max(a.highest, num)
}

// TestKilled kills a worker again and again, at random instants, and checks each time that what it
// acknowledged is there, and that nothing is torn.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := &acked{
		t: t, index: -1, catalog: -1, objects: map[int]bool{}, sent: map[string]bool{},
		deleting: map[string]bool{}, deleted: map[string]bool{}, receives: map[string]int{},
	}
	rounds, end := 0, time.Now().Add(4*time.Second)
	for ; time.Now().Before(end); rounds++ {
		a.before = a.highest + 10 // beyond what was written, but not acknowledged
		c := start(t, "worker", dir, strconv.Itoa(a.before))
		first, ok := c.line()
		if !ok {
			c.cmd.Wait()
			t.Fatalf("worker: %s", c.stderr)
		}
		a.hear(first)
		kill := time.AfterFunc(rand.N(30*time.Millisecond), func() { c.cmd.Process.Kill() })
		for line, ok := c.line(); ok; line, ok = c.line() {
			a.hear(line)
		}
		c.wantKilled(t)
		kill.Stop()
		a.check(dir)
		if t.Failed() {
			t.Fatalf("in round %d", rounds)
		}
	}
	t.Logf("%d kills, %d acknowledgements, %d objects", rounds, a.count, len(a.objects))
	if rounds < 5 || len(a.objects) < rounds/2 {
		t.Logf("the machine is too slow for this test to mean much")
	}
}

func (a *acked) check(dir string) {
	t := a.t
	t.Helper()
	s, err := Open(dir, Options{MaxReceives: 1000, NewCatalog: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if names := tempNames(t, dir); len(names) != 0 {
		t.Errorf("temporary files are left: %q", names)
	}
	a.checkObjects(s.Objects())
	a.checkIndex(s.Objects())
	a.checkCatalog(s.Catalog())
	a.checkQueue(s)
	if n, err := s.Ledger().Next(t.Context()); err != nil || n <= a.next {
		t.Errorf("Next = %d, %v after %d", n, err, a.next)
	} else {
		a.next = n
	}
}

func (a *acked) checkObjects(o *Objects) {
	listed := make(map[string]builder.ObjectInfo)
	err := o.List(noContext, layout.PlanPrefix, func(i builder.ObjectInfo) error {
		listed[i.Key] = i
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
	for n := range a.objects {
		if _, ok := listed[layout.PlanKey(uint64(n))]; !ok {
			a.t.Errorf("object %d was acknowledged, but is not there", n)
		}
	}
	for key, info := range listed {
		n, err := strconv.Atoi(strings.TrimPrefix(key, layout.PlanPrefix))
		if err != nil {
			a.t.Fatal(err)
		}
		if n < a.before && a.objects[n] {
			continue // seen in an earlier round
		}
		got, i, err := readObject(o, key)
		if err != nil || got != contentOf(n) || i.ETag != info.ETag || i.Size != info.Size {
			a.t.Errorf("object %d is %.20q, %d bytes: %v; listed as %+v", n, got, len(got), err, info)
		}
	}
}

func (a *acked) checkIndex(o *Objects) {
	got, info, err := readObject(o, layout.IndexKey)
	if err != nil {
		if a.index >= 0 {
			a.t.Errorf("index %d was acknowledged: %v", a.index, err)
		}
		return
	}
	n, err := strconv.Atoi(info.Meta["version"])
	if err != nil {
		a.t.Fatal(err)
	}
	if got != contentOf(n) || n < a.index || a.index >= a.before && n > a.index+1 {
		a.t.Errorf("the index is %.20q, %d bytes, of version %d; acknowledged was %d", got, len(got), n, a.index)
	}
	a.index = n
}

func (a *acked) checkCatalog(c *Catalog) {
	items, err := c.Snapshot(noContext)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.catalog < 0 && len(items) == 0 {
		return
	}
	n, err := strconv.Atoi(items[0].Version)
	if err != nil {
		a.t.Fatal(err)
	}
	if want := catalog.Apply(nil, itemsOf(n)); !reflect.DeepEqual(items, want) || n < a.catalog {
		a.t.Errorf("the catalog is %v; acknowledged was version %d", items, a.catalog)
	}
	a.catalog = n
	// The change log leads to the same catalog, and has no gap.
	changes, err := c.Changes(noContext, 0, 1<<30, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	var replayed []catalog.Item
	for i, ch := range changes {
		if ch.Seq != uint64(i+1) {
			a.t.Fatalf("change %d has sequence number %d", i+1, ch.Seq)
		}
		replayed = catalog.Apply(replayed, []catalog.Change{ch.Change})
	}
	if !reflect.DeepEqual(items, replayed) {
		a.t.Errorf("the change log leads to %v, not to %v", replayed, items)
	}
}

func (a *acked) checkQueue(s *Store) {
	receives := checkBuckets(a.t, s.db)
	for body := range a.sent {
		n, there := receives[body]
		switch {
		case a.deleted[body] && there:
			a.t.Errorf("message %s was deleted, but is there", body)
		case !a.deleting[body] && !there:
			a.t.Errorf("message %s was sent, but is not there", body)
		case there && n < a.receives[body]:
			a.t.Errorf("message %s was received %d times, but has %d", body, a.receives[body], n)
		}
	}
	waiting, inFlight, dead, err := s.Queue().Depth(noContext)
	if err != nil || waiting != len(receives) || inFlight != 0 || dead != 0 {
		a.t.Errorf("of %d messages %d wait, %d are in flight, %d dead, %v", len(receives), waiting, inFlight, dead, err)
	}
}

// checkBuckets checks that the queue's buckets agree, and returns the receive count of each body.
func checkBuckets(t *testing.T, db *bbolt.DB) map[string]int {
	t.Helper()
	receives := make(map[string]int)
	err := db.View(func(tx *bbolt.Tx) error {
		var states, bodies, visible, dead []uint64
		err := tx.Bucket(bucketStates).ForEach(func(k, v []byte) error {
			id := binary.BigEndian.Uint64(k)
			s, err := decodeState(v)
			if err != nil {
				return err
			}
			states = append(states, id)
			receives[string(tx.Bucket(bucketBodies).Get(k))] = int(s.receives)
			if s.dead != 0 {
				dead = append(dead, id)
			} else if tx.Bucket(bucketVisible).Get(visibleKey(s.visible, id)) == nil {
				t.Errorf("message %d is not in the index", id)
			}
			return nil
		})
		if err != nil {
			return err
		}
		tx.Bucket(bucketBodies).ForEach(func(k, _ []byte) error {
			bodies = append(bodies, binary.BigEndian.Uint64(k))
			return nil
		})
		tx.Bucket(bucketVisible).ForEach(func(k, _ []byte) error {
			_, id := splitVisibleKey(k)
			visible = append(visible, id)
			return nil
		})
		buried := 0
		tx.Bucket(bucketDead).ForEach(func(_, v []byte) error {
			buried++
			if !slices.Contains(dead, binary.BigEndian.Uint64(v)) {
				t.Errorf("message %x is buried, but not dead", v)
			}
			return nil
		})
		if !slices.Equal(states, bodies) || len(visible)+len(dead) != len(states) || buried != len(dead) {
			t.Errorf("%d states, %d bodies, %d visible, %d dead, %d buried", len(states), len(bodies), len(visible), len(dead), buried)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return receives
}

// A database that is cut or overwritten is refused; it does not come up empty.
func TestDamagedDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	path := filepath.Join(dir, dbName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[:2*os.Getpagesize()]) // both meta pages
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir, Options{}); err == nil {
		s.Close()
		t.Error("Open accepted a damaged database")
	}
}
