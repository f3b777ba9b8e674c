package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/precast-ota/precast/internal/format/catalog"

	"pgregory.net/rapid"
)

func TestEncode(t *testing.T) {
	items := []catalog.Item{
		{App: "scoreboard", Track: "prod", Version: "1.0.0", Ident: "R&D <1>", URL: "s3://b/k", MD5: someMD5, SHA256: someSHA256, Size: 5, DeviceAttr: map[string]bool{"gamer": true}},
		{App: "os_armv8", Track: "prod", Version: "1.1.0", CPUArch: "armv8"},
	}
	const want = `[
  {"app":"os_armv8","env":"prod","version":"1.1.0","size":0,"cpuArch":"armv8","deviceAttr":{},"floors":[]},
  {"app":"scoreboard","env":"prod","version":"1.0.0","ident":"R\u0026D \u003c1\u003e","url":"s3://b/k","md5":"a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","sha256":"b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2","size":5,"deviceAttr":{"gamer":true},"floors":[]}
]
`
	var b bytes.Buffer
	if err := catalog.Encode(&b, items); err != nil || b.String() != want {
		t.Errorf("error %v, got %s\nwant %s", err, b.String(), want)
	}
	if items[0].App != "scoreboard" {
		t.Error("Encode sorts the caller's items")
	}
	b.Reset()
	if err := catalog.Encode(&b, nil); err != nil || b.String() != "[\n]\n" {
		t.Errorf("no items: error %v, %q", err, b.String())
	}
	if err := catalog.Encode(failingWriter{}, items); !errors.Is(err, errFull) {
		t.Errorf("to a full disk: %v", err)
	}
}

var errFull = errors.New("full")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

func TestDecode(t *testing.T) {
	got, err := catalog.Decode(strings.NewReader(`[{"app":"a","env":"prod","version":"1","file":"a_1","deviceAttr":{"x":false}},
		{"app":"b","env":"beta","version":"2","url":"s3://b/k","md5":"m","sha256":"s","size":3,"cpuArch":"c","ident":"i"}]`))
	want := []catalog.Entry{
		{Item: catalog.Item{App: "a", Track: "prod", Version: "1", DeviceAttr: map[string]bool{"x": false}}, File: "a_1"},
		{Item: catalog.Item{App: "b", Track: "beta", Version: "2", URL: "s3://b/k", MD5: "m", SHA256: "s", Size: 3, CPUArch: "c", Ident: "i"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("error %v, got %+v", err, got)
	}
	if got, err := catalog.Decode(strings.NewReader(" [ ]\n")); err != nil || len(got) != 0 {
		t.Errorf("no items: error %v, %v", err, got)
	}
}

func TestDecodeErrors(t *testing.T) {
	for data, want := range map[string]string{
		``:     "read catalog: want a JSON array of items: EOF",
		`null`: "read catalog: want a JSON array of items: it is null",
		`{}`:   "read catalog: want a JSON array of items: it begins with {",
		`[`:    "read catalog: want a JSON array of items: EOF",
		`[] x`: "read catalog: something follows the array of items",
		`[][]`: "read catalog: something follows the array of items",
		`[]]`:  "read catalog: something follows the array of items",
		`[{"app":"a","env":"prod"},{"app":"b","env":"prod","verison":"1"}]`: `read catalog: item 2 (b/prod): json: unknown field "verison"`,
		`[{"app":"a","env":"prod","deviceAttr":{"gamer":"true"}}]`:          `read catalog: item 1 (a/prod): json: cannot unmarshal string into`,
		`[{"app":"a","env":"prod","size":1.5}]`:                             `read catalog: item 1 (a/prod): json: cannot unmarshal number 1.5 into`,
		`[7]`:                                                               "read catalog: item 1 (/): json: cannot unmarshal number into",
		`[{"app":"a","env":"b","key":"x"}]`:                                 `read catalog: item 1 (a/b): json: unknown field "key"`,
	} {
		got, err := catalog.Decode(strings.NewReader(data))
		if !strings.HasPrefix(fmt.Sprint(err), want) || got != nil { // package json words the rest
			t.Errorf("%s\ngot  %v\nwant %s...", data, err, want)
		}
	}
	broken := errors.New("broken")
	if _, err := catalog.Decode(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("from a broken reader: %v", err)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	text := rapid.String()
	rapid.Check(t, func(t *rapid.T) {
		type key = catalog.Key
		keys := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) key { return key{text.Draw(t, "app"), text.Draw(t, "env")} }), 0, 5, rapid.ID).Draw(t, "keys")
		var items []catalog.Item
		for _, k := range keys {
			it := catalog.Item{App: k.App, Track: k.Track, Version: text.Draw(t, "version"), Ident: text.Draw(t, "ident"), URL: text.Draw(t, "url"),
				MD5: text.Draw(t, "md5"), SHA256: text.Draw(t, "sha256"), Size: rapid.Int64().Draw(t, "size"), CPUArch: text.Draw(t, "arch")}
			if attrs := rapid.MapOf(text, rapid.Bool()).Draw(t, "attrs"); len(attrs) > 0 {
				it.DeviceAttr = attrs
			}
			items = append(items, it)
		}
		var b bytes.Buffer
		if err := catalog.Encode(&b, items); err != nil {
			t.Fatalf("encode: %v", err)
		}
		for i := range items { // what is empty is written out: an import takes away what an item had
			if items[i].DeviceAttr == nil {
				items[i].DeviceAttr = map[string]bool{}
			}
			items[i].Floors = []catalog.Item{}
		}
		entries, err := catalog.Decode(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		slices.SortFunc(items, catalog.Compare)
		if len(entries) != len(items) {
			t.Fatalf("%d entries of %d items", len(entries), len(items))
		}
		for i, e := range entries {
			if e.File != "" || !reflect.DeepEqual(e.Item, items[i]) {
				t.Fatalf("got  %+v\nwant %+v", e, items[i])
			}
		}
	})
}

// What is decoded is encoded and decoded to the same; and whatever it is, it can be checked.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`[{"app":"a","env":"prod","version":"1","file":"a_1","deviceAttr":{"x":true}}]`))
	f.Add([]byte(`[{"app":"../a","env":"\u0000","size":-1,"url":"store:%zz"},null,{"APP":"A"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[] []`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := catalog.Decode(bytes.NewReader(data))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "read catalog: ") {
				t.Fatalf("error %v", err)
			}
			return
		}
		items := make([]catalog.Item, len(entries))
		for i, e := range entries {
			items[i] = e.Item
		}
		for _, p := range catalog.Check(items) {
			if p.Field == "" || p.Reason == "" {
				t.Fatalf("%q: problem %+v", data, p)
			}
		}
		var once, twice bytes.Buffer
		if err := catalog.Encode(&once, items); err != nil {
			t.Fatalf("encode: %v", err)
		}
		again, err := catalog.Decode(bytes.NewReader(once.Bytes()))
		if err != nil || len(again) != len(items) {
			t.Fatalf("%s is decoded to %d items of %d, error %v", once.Bytes(), len(again), len(items), err)
		}
		for i := range again {
			items[i] = again[i].Item
		}
		if err := catalog.Encode(&twice, items); err != nil || !bytes.Equal(once.Bytes(), twice.Bytes()) {
			t.Fatalf("%s is encoded again as %s, error %v", once.Bytes(), twice.Bytes(), err)
		}
	})
}

// A catalog that compresses to nothing takes no memory to speak of either.
func TestS7EmptyItems(t *testing.T) {
	for data, want := range map[string]string{
		"[" + strings.Repeat("{},", 1<<18) + "{}]":                             "read catalog: there are more than 262144 items",
		`[{"app":"a","env":"b","ident":"` + strings.Repeat("x", 4<<20) + `"}]`: "read catalog: item 1 (/): it has 4194336 bytes, more than 4194304",
	} {
		if _, err := catalog.Decode(strings.NewReader(data)); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
