package storetest

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

func (o objects) meta(t *testing.T) {
	for i, meta := range []map[string]string{
		nil,
		{"a": "1"},
		{"generation": "42", "long-name-with-dashes": `printable ~!@#$%^&*()_+{}|:"<>?`, "long": strings.Repeat("x", 1800)},
		{"!#$%&'*+-.^_`|~09az": "x y", "empty": ""},
		{"a": strings.Repeat("x", 2046)},
	} {
		key := layout.PlanKey(uint64(i))
		mine := maps.Clone(meta)
		info, err := o.Put(t.Context(), key, body([]byte("x")), builder.PutOptions{Meta: mine})
		if err != nil {
			t.Fatalf("Put with meta %q: %v", meta, err)
		}
		if mine != nil {
			mine["a"] = "changed afterwards"
		}
		stat, err := o.Stat(t.Context(), key)
		if err != nil {
			t.Fatalf("Stat(%q): %v", key, err)
		}
		_, got, err := o.get(t.Context(), key)
		if err != nil {
			t.Fatalf("Get(%q): %v", key, err)
		}
		for way, got := range map[string]map[string]string{"Put": info.Meta, "Stat": stat.Meta, "Get": got.Meta} {
			if !maps.Equal(got, meta) {
				t.Errorf("%s returned meta %q, want %q", way, got, meta)
			}
		}
	}
	// A replacement replaces the metadata too, and its absence is a value.
	o.put(t, layout.PlanKey(1), []byte("x"))
	if info, err := o.Stat(t.Context(), layout.PlanKey(1)); err != nil || len(info.Meta) != 0 {
		t.Errorf("after a Put without meta Stat = %+v, %v", info, err)
	}
}

// badMetas are what builder.PutOptions.Check refuses. Some store could not keep them, or not as they are.
func badMetas() []map[string]string {
	return []map[string]string{
		{"Upper": "x"}, {"ünï": "x"}, {"": "x"}, {"two words": "x"}, {"a:b": "x"}, {"a/b": "x"}, {"a(b)": "x"}, {"a\x00": "x"},
		{"a": "ünï"}, {"a": "line\nbreak"}, {"a": "\x7f"}, {"a": " before"}, {"a": "after "}, {"a": " "},
		{"a": strings.Repeat("x", 3000)}, {"a": strings.Repeat("x", 2047)}, {"a": strings.Repeat("x", 1023), "b": strings.Repeat("x", 1023)},
	}
}

func (o objects) badMeta(t *testing.T) {
	for _, meta := range badMetas() {
		if _, err := o.Put(t.Context(), layout.IndexKey, body([]byte("x")), builder.PutOptions{Meta: meta}); err == nil {
			t.Errorf("Put accepted meta %.40q", meta)
		}
	}
	o.wantAbsent(t, layout.IndexKey)
}

// An object knows when it was written, to the second.
func (o objects) modified(t *testing.T) {
	const slack = 2 * time.Second // a remote store has a clock of its own, and some round
	check := func(key string, since time.Time) time.Time {
		t.Helper()
		stat, err := o.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		_, got, err := o.get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		var listed builder.ObjectInfo
		if err := o.List(t.Context(), key, func(i builder.ObjectInfo) error { listed = i; return nil }); err != nil {
			t.Fatal(err)
		}
		for way, at := range map[string]time.Time{"Stat": stat.Modified, "Get": got.Modified, "List": listed.Modified} {
			if at.Before(since.Add(-slack)) || at.After(time.Now().Add(slack)) {
				t.Errorf("%s says that %s was written at %s; it was after %s", way, key, at, since)
			}
			if d := at.Sub(stat.Modified); d.Abs() >= time.Second {
				t.Errorf("%s says that %s was written at %s, Stat at %s", way, key, at, stat.Modified)
			}
		}
		return stat.Modified
	}
	start := time.Now()
	o.put(t, layout.IndexKey, []byte("first"))
	o.put(t, layout.PlanKey(1), nil)
	first := check(layout.IndexKey, start)
	check(layout.PlanKey(1), start)
	o.put(t, layout.IndexKey, []byte("second"))
	if second := check(layout.IndexKey, start); second.Before(first) {
		t.Errorf("written again, an object went from %s to %s", first, second)
	}
}

// Headers follow from the kind of a key.
func (o objects) headers(t *testing.T) {
	for _, key := range anyKeys() {
		o.put(t, key, []byte(key))
		kind, err := layout.KindOf(key)
		if err != nil {
			t.Fatal(err)
		}
		stat, err := o.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		_, got, err := o.get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if want := layout.HeadersOf(kind); stat.Headers != want || got.Headers != want {
			t.Errorf("%s is kept with %+v and %+v, want %+v", key, stat.Headers, got.Headers, want)
		}
	}
}
