package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// LogEntry is one entry of the catalog's log: who changed what, when and why. Each names the digest of the one before,
// so that nobody can change or remove an entry without all later ones saying so.
type LogEntry struct {
	Number uint64    `json:"number"` // the first is 1, without gaps
	Time   time.Time `json:"time"`   // to the millisecond, UTC
	By     Author    `json:"by,omitzero"`
	// Changes are those of the edit that changed something, by key in the order in which they were made.
	Changes []LogChange `json:"changes,omitempty"`
	Act     *Act        `json:"act,omitempty"`
	Prev    string      `json:"prev"` // digest of the entry before
	// Digest is the SHA-256 of the entry as JSON, without this field: 64 lower-case hex digits.
	Digest string `json:"digest,omitempty"`
}

// LogChange says in short what an item was and what it became.
type LogChange struct {
	Key Key      `json:"key"`
	Was *Summary `json:"was,omitempty"` // nil: it was not there
	Now *Summary `json:"now,omitempty"` // nil: it was removed
}

// Summary is an item in short.
type Summary struct {
	Version string   `json:"version"`
	SHA256  string   `json:"sha256,omitempty"`
	Attrs   []string `json:"attrs,omitempty"`
	Percent *float64 `json:"percent,omitempty"` // of the rollout; nil: it is for all devices
	Over    string   `json:"over,omitempty"`    // version that the others get
	Floors  []string `json:"floors,omitempty"`  // versions, the oldest first
	// Short: attributes and floors are left out, as the entry would be too long.
	Short bool `json:"short,omitempty"`
	// Item is the SHA-256 of the whole item as JSON, without the time when it was written.
	Item string `json:"item"`
}

// Head is where a log ends.
type Head struct {
	Number uint64 `json:"number"` // of the last entry; 0: there is none
	Digest string `json:"digest"` // of the last entry; without one: that of the entry before the first
}

// NewHead is the end of a log without entries.
func NewHead() Head { return Head{Digest: LogEntry{}.sum()} }

// Head is the end of a log whose last entry this is.
func (e LogEntry) Head() Head { return Head{e.Number, e.Digest} }

// sum computes the entry's digest.
func (e LogEntry) sum() string {
	e.Digest = ""
	return digest(e)
}

// digest is the SHA-256 of a value as JSON.
func digest(v any) string {
	data, err := json.Marshal(v)
	if err != nil { // a percentage that is no number: no driver reads one
		data = []byte(err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Follow fails unless the entry, as it is, comes right after the end of a log.
func (e LogEntry) Follow(head Head) error {
	switch {
	case e.Number != head.Number+1:
		return fmt.Errorf("entry %d comes after entry %d", e.Number, head.Number)
	case e.Prev != head.Digest:
		return fmt.Errorf("entry %d does not name the digest of the entry before", e.Number)
	case e.Digest != e.sum():
		return fmt.Errorf("entry %d does not have its digest: it was changed after it was written", e.Number)
	}
	return nil
}

// ErrBase: the catalog is not as it was when an edit was worked out.
var ErrBase = errors.New("the catalog has changed meanwhile")

// Check refuses an edit that no catalog can make.
func (e Edit) Check() error {
	for _, c := range e.Changes {
		switch {
		case c.Key.App == "" || c.Key.Track == "":
			return fmt.Errorf("change item %s: app or env is empty", c.Key)
		case c.Item != nil && c.Item.Key() != c.Key:
			return fmt.Errorf("change item %s: the item is of another key, %s", c.Key, c.Item.Key())
		}
	}
	return e.By.Check()
}

// Entry is what the edit adds to a log that ends at head, where now tells the item of a key in the catalog, nil if
// there is none. It fails with ErrBase if the edit has a base and was worked out from something else.
func (e Edit) Entry(head Head, now func(Key) *Item, at time.Time) (LogEntry, error) {
	entry := LogEntry{
		Number: head.Number + 1, Time: at.UTC().Truncate(time.Millisecond), By: e.By, Act: e.Act, Prev: head.Digest,
	}
	if e.Base != "" && e.Base != head.Digest {
		return entry, fmt.Errorf("%w: entry %d of its log has come in between", ErrBase, head.Number)
	}
	for _, c := range Final(e.Changes) {
		current := now(c.Key)
		was, is := Summarize(current), Summarize(c.Item)
		if e.Base != "" && !was.same(Summarize(c.Was)) {
			return entry, fmt.Errorf("%w: others than Precast have changed item %s", ErrBase, c.Key)
		}
		if !was.same(is) {
			entry.Changes = append(entry.Changes, LogChange{c.Key, was, is})
		}
	}
	entry.seal()
	return entry, nil
}

// maxEntry bounds the JSON of an entry in bytes: a DynamoDB item holds 400 KB
// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html). One transaction has at most
// 100 changes, and of each the texts are bounded.
const (
	maxEntry = 256 << 10
	maxText  = 300
)

// seal computes the digest of an entry. Text that is no UTF-8 is replaced before, as JSON does.
func (e *LogEntry) seal() {
	data, err := json.Marshal(*e)
	if err == nil && len(data) > maxEntry {
		for i := range e.Changes {
			e.Changes[i].Was.shorten()
			e.Changes[i].Now.shorten()
		}
		data, err = json.Marshal(*e)
	}
	if err == nil {
		var sound LogEntry
		if json.Unmarshal(data, &sound) == nil {
			*e = sound
		}
	}
	e.Digest = e.sum()
}

func (s *Summary) shorten() {
	if s != nil {
		s.Attrs, s.Floors, s.Short = nil, nil, true
	}
}

// Summarize describes an item in short, nil if there is none.
func Summarize(it *Item) *Summary {
	if it == nil {
		return nil
	}
	whole := *it
	whole.Changed = time.Time{}
	s := &Summary{Version: bounded(it.Version), SHA256: bounded(it.SHA256), Item: digest(whole)}
	for _, name := range it.Attrs() {
		s.Attrs = append(s.Attrs, bounded(name))
	}
	if it.Partial() {
		percent := it.Rollout.Percent
		s.Percent = &percent
		if it.Previous != nil {
			s.Over = bounded(it.Previous.Version)
		}
	}
	for _, f := range it.Floors {
		s.Floors = append(s.Floors, bounded(f.Version))
	}
	return s
}

// bounded cuts what others wrote into the catalog by hand.
func bounded(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}

func (s *Summary) same(other *Summary) bool {
	if s == nil || other == nil {
		return s == other
	}
	return s.Item == other.Item
}

// Hands follows a log, and knows of each item how its last entry left it.
type Hands map[Key]*Summary

// Next takes the next entry, and returns the keys of those items that were not as the log had left them: others than
// Precast had changed them.
func (h Hands) Next(e LogEntry) []Key {
	var others []Key
	for _, c := range e.Changes {
		if left, known := h[c.Key]; known && !left.same(c.Was) {
			others = append(others, c.Key)
		}
		h[c.Key] = c.Now
	}
	return others
}

// Since returns the keys of those items of the catalog that are not as the log has left them, sorted.
func (h Hands) Since(items []Item) []Key {
	now := make(map[Key]*Summary, len(items))
	for i := range items {
		now[items[i].Key()] = Summarize(&items[i])
	}
	var others []Key
	for key, left := range h {
		if !left.same(now[key]) {
			others = append(others, key)
		}
	}
	slices.SortFunc(others, func(a, b Key) int { return strings.Compare(a.String(), b.String()) })
	return others
}
