package edge_test

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"

	"pgregory.net/rapid"
)

// Every spelling of one set of digests is read as that set.
func TestTagSpellings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []string
		for _, seed := range rapid.SliceOfNDistinct(rapid.Uint16(), 0, edge.MaxTags, rapid.ID).Draw(t, "digests") {
			content := []byte{byte(seed), byte(seed >> 8)}
			if seed%2 == 0 {
				sum := md5.Sum(content)
				want = append(want, hex.EncodeToString(sum[:]))
			} else {
				sum := sha256.Sum256(content)
				want = append(want, hex.EncodeToString(sum[:]))
			}
		}
		header := spellTags(t, want)
		if len(header) > edge.MaxTagHeader || strings.Count(header, ",") >= edge.MaxTagList {
			t.Skip("too long for a header")
		}
		slices.Sort(want)
		got, err := edge.ParseTags(header)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q is read as %q, error %v; want %q", header, got, err, want)
		}
		again, err := edge.ParseTags(got.String())
		if err != nil || !slices.Equal(again, got) {
			t.Fatalf("the canonical header %q is read as %q, error %v", got, again, err)
		}
	})
}

func TestSingleTag(t *testing.T) {
	for _, c := range []struct {
		header, tag string
		ok          bool
	}{
		{"", "", false},
		{",,", "", false},
		{`"bundles-x"`, "bundles-x", true},
		{`W/"bundles-x"`, "bundles-x", true},
		{` bundles-x ,`, "bundles-x", true},
		{`, "bundles-x"`, "bundles-x", true},
		{`"a","b"`, "", false},
		{`"a","a"`, "", false},
		{`"a",*`, "", false},
		{"*", "*", true},
		{`"`, "", false},
		{`W/`, "", false},
		{`"A"`, "A", true}, // the tag of an answer is compared as it is
	} {
		if tag, ok := edge.SingleTag(c.header); tag != c.tag || ok != c.ok {
			t.Errorf("%q: %q %t, want %q %t", c.header, tag, ok, c.tag, c.ok)
		}
	}
}

func TestTagsString(t *testing.T) {
	a, b := strings.Repeat("a", 32), strings.Repeat("B", 64)
	tags, err := edge.ParseTags(`W/"` + b + `", ` + a + "," + b)
	if want := a + "," + strings.ToLower(b); err != nil || tags.String() != want {
		t.Errorf("%q, error %v; want %q", tags, err, want)
	}
}
