package catalog_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/format/catalog"
)

var logTime = time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600))

// history is a log of puts of one item, and the items that each of them wrote.
func history(t *testing.T, items ...catalog.Item) []catalog.LogEntry {
	t.Helper()
	var log []catalog.LogEntry
	head, now := catalog.NewHead(), (*catalog.Item)(nil)
	for i := range items {
		edit := catalog.Edit{Changes: []catalog.Change{catalog.Put(items[i])}, By: catalog.Author{Claim: "eve", Message: "<why> \xff\u2028"}}
		e, err := edit.Entry(head, func(catalog.Key) *catalog.Item { return now }, logTime)
		if err != nil {
			t.Fatal(err)
		}
		log, head, now = append(log, e), e.Head(), &items[i]
	}
	return log
}

func app(version string) catalog.Item { return catalog.Item{App: "a", Track: "prod", Version: version} }

// The digest is that of the line without its last field: with sha256sum alone, the log can be verified. Formats of
// what others have kept do not change.
func TestLogEntryGolden(t *testing.T) {
	line, err := json.Marshal(history(t, app("1"))[0])
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"number":1,"time":"2026-01-02T02:04:05.678Z","by":{"claim":"eve","message":"\u003cwhy\u003e �\u2028"},"changes":[{"key":{"app":"a","env":"prod"},"now":{"version":"1","item":"22a59b4777881e8e056682580728e2759851f2f589360241f5a24113ff2ef11c"}}],"prev":"d71a436aaaf1e82beef6a5dedb449553cd5c8ecd79782608b1a8732e3d898a93","digest":"8d8fa0ac2c17c25919be9c75619f132fd33a801762807c3c681fb3bcaf13c4b6"}`
	if string(line) != want {
		t.Errorf("the entry is\n%s\nwant\n%s", line, want)
	}
	body, digest, ok := strings.Cut(string(line), `,"digest":"`)
	if sum := sha256Hex(body + "}"); !ok || digest != sum+`"}` {
		t.Errorf("the digest is %s, and %s without it has %s", digest, body, sum)
	}
}

// Whatever is changed in an entry, or however entries are moved, following the log finds it.
func TestChangedLogIsFound(t *testing.T) {
	follow := func(log []catalog.LogEntry) error {
		head := catalog.NewHead()
		for _, e := range log {
			if err := e.Follow(head); err != nil {
				return err
			}
			head = e.Head()
		}
		return nil
	}
	log := history(t, app("1"), app("2"), app("3"))
	// As they are kept: each read from its JSON.
	var kept []catalog.LogEntry
	for _, e := range log {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back catalog.LogEntry
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, back)
	}
	if err := follow(kept); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(e []catalog.LogEntry) []catalog.LogEntry{
		"author":  func(e []catalog.LogEntry) []catalog.LogEntry { e[1].By.Claim = "bob"; return e },
		"message": func(e []catalog.LogEntry) []catalog.LogEntry { e[1].By.Message = ""; return e },
		"time":    func(e []catalog.LogEntry) []catalog.LogEntry { e[1].Time = e[1].Time.Add(time.Second); return e },
		"change":  func(e []catalog.LogEntry) []catalog.LogEntry { e[1].Changes[0].Now.Version = "2.1"; return e },
		"act":     func(e []catalog.LogEntry) []catalog.LogEntry { e[1].Act = &catalog.Act{What: "pin"}; return e },
		"removed": func(e []catalog.LogEntry) []catalog.LogEntry { return slices.Delete(e, 1, 2) },
		"first":   func(e []catalog.LogEntry) []catalog.LogEntry { return e[1:] },
		"twice":   func(e []catalog.LogEntry) []catalog.LogEntry { return slices.Insert(e, 1, e[1]) },
		"swapped": func(e []catalog.LogEntry) []catalog.LogEntry { e[0], e[1] = e[1], e[0]; return e },
		"renumbered": func(e []catalog.LogEntry) []catalog.LogEntry {
			e = slices.Delete(e, 1, 2)
			e[1].Number = 2
			return e
		},
	} {
		if err := follow(change(history(t, app("1"), app("2"), app("3")))); err == nil {
			t.Errorf("%s: nobody notices", name)
		}
	}
}

func TestSummaryOfHugeItems(t *testing.T) {
	it := app(strings.Repeat("ä", 100_000))
	it.DeviceAttr = make(map[string]bool)
	for i := range 4000 {
		it.DeviceAttr[fmt.Sprint(strings.Repeat("x", 200), i)] = true
	}
	other := it.Clone()
	other.Ident = "other"
	log := history(t, it, other)
	for _, e := range log {
		line, err := json.Marshal(e)
		if err != nil || len(line) > 256<<10 {
			t.Errorf("the entry has %d bytes, %v", len(line), err)
		}
	}
	if c := log[1].Changes[0]; !c.Now.Short || c.Was.Item == c.Now.Item {
		t.Errorf("the change is %+v to %+v", c.Was, c.Now)
	}
}

// What others write into the table is seen in the entry after it, and by who compares the table.
func TestHands(t *testing.T) {
	hands := make(catalog.Hands)
	log := history(t, app("1"), app("2"))
	log = append(log, history(t, app("by hand"), app("3"))[1])
	var found [][]catalog.Key
	for _, e := range log {
		found = append(found, hands.Next(e))
	}
	if want := [][]catalog.Key{nil, nil, {{App: "a", Track: "prod"}}}; !reflect.DeepEqual(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
	changed := app("3")
	changed.Changed = logTime
	other := catalog.Item{App: "b", Track: "prod"}
	if now := hands.Since([]catalog.Item{changed, other}); len(now) > 0 {
		t.Errorf("found %v where nothing was changed", now)
	}
	for _, items := range [][]catalog.Item{nil, {app("4")}} {
		if now := hands.Since(items); !reflect.DeepEqual(now, []catalog.Key{{App: "a", Track: "prod"}}) {
			t.Errorf("found %v", now)
		}
	}
}

func TestEntryNeedsItsBase(t *testing.T) {
	a := app("1")
	edit := catalog.Edit{Changes: []catalog.Change{catalog.Put(app("2"))}}
	now := func(catalog.Key) *catalog.Item { return &a }
	if _, err := edit.On(catalog.NewHead(), nil).Entry(catalog.NewHead(), now, logTime); !errors.Is(err, catalog.ErrBase) {
		t.Errorf("Entry = %v where there was nothing", err)
	}
	if len(edit.Changes) != 1 || edit.Changes[0].Was != nil {
		t.Error("On has changed the edit itself")
	}
}

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
