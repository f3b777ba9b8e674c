package edge_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"

	"pgregory.net/rapid"
)

func TestCanonicalQuery(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{"cpuArch=armv8", "cpuarch=armv8"},
		{"payloadType=metadataOnly&cpuArch=armv8&os=beta", "cpuarch=armv8&os=beta&payloadtype=metadataonly"},
		{"os=prod&cpuArch=ARMv8&payloadType=fullPayload", "cpuarch=armv8"},
		{"payloadType=Statement&cpuArch=armv8", "cpuarch=armv8&payloadtype=statement"},
		{"videoStreamer=beta&attrGamer=prod&cpuArch=armv8&attrCamera=Beta", "attrcamera=beta&attrgamer=prod&cpuarch=armv8&videostreamer=beta"},
		{"cpuArch=a+b%2Bc%2f%3D%26~", "cpuarch=a%20b%2Bc%2F%3D%26~"},
		{"cpuArch=gr%c3%b6ße", "cpuarch=gr%C3%B6%C3%9Fe"},
		{"cpuArch=Ä", "cpuarch=%C3%84"}, // only ASCII letters have two cases here
		{"z=1&cpuArch=x&a=2&a=3&A=4", "a=2&cpuarch=x&z=1"},
	} {
		if got := mustParse(t, c.query).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.query, got, c.want)
		}
	}
}

func sameSelection(t tb, query string) edge.Selection {
	t.Helper()
	s, err := edge.ParseSelection(query)
	if err != nil {
		t.Fatalf("parse %q: %v", query, err)
	}
	again, err := edge.ParseSelection(s.String())
	if err != nil {
		t.Fatalf("parse the canonical query %q: %v", s, err)
	}
	if !reflect.DeepEqual(again, s) || again.String() != s.String() {
		t.Fatalf("%q is read as %+v, and its canonical query %q as %+v", query, s, s, again)
	}
	return s
}

// Every spelling of one query gives one canonical query, which is read as the same selection.
func TestSpellings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		params := pairs().Draw(t, "params")
		one := sameSelection(t, spellQuery(t, params))
		other := sameSelection(t, spellQuery(t, params))
		if one.String() != other.String() {
			t.Fatalf("two canonical queries: %q, %q", one, other)
		}
		if _, err := edge.ParseSelection("cpuArch=x&" + spell(t, strings.Repeat("x", edge.MaxParam+1)) + "=y"); err == nil {
			t.Fatalf("a long key is accepted when it is escaped")
		}
	})
}

// Text of all kinds survives the canonical form.
func TestAnyText(t *testing.T) {
	text := rapid.StringN(1, 40, edge.MaxParam)
	rapid.Check(t, func(t *rapid.T) {
		key, value := text.Draw(t, "key"), text.Draw(t, "value")
		query := "cpuArch=" + spell(t, value) + "&" + spell(t, key) + "=" + spell(t, value)
		s, err := edge.ParseSelection(query)
		if (err == nil) != (plain(key) && plain(value) && (lower(key) != "payloadtype" || lower(value) == "fullpayload" || lower(value) == "metadataonly" || lower(value) == "statement")) {
			t.Fatalf("%q: error %v", query, err)
		}
		if err != nil {
			return
		}
		sameSelection(t, query)
		if s.Arch != lower(value) {
			t.Fatalf("%q is read as %q", query, s.Arch)
		}
	})
}

// A query of any length that is accepted has a canonical query that is accepted.
func TestCanonicalLength(t *testing.T) {
	value := strings.Repeat("é", 126)
	accepted := 0
	for n := range 20 {
		query := "cpuArch=armv8" + distinctParams(n, value)
		if _, err := edge.ParseSelection(query); err == nil {
			accepted++
			if s := sameSelection(t, query).String(); len(s) > edge.MaxQuery {
				t.Errorf("canonical query of %d bytes", len(s))
			}
		}
	}
	if accepted != 11 { // of 3*2*126+4 bytes each
		t.Errorf("%d parameters are accepted at most, want 10", accepted-1)
	}
}
