package edge_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"
)

// Megabytes are in TestErrors: a fuzzer that mutates them does nothing else.

// Whatever a query is, it is refused in words, or has one canonical form.
func FuzzParseSelection(f *testing.F) {
	for _, q := range []string{
		"", "&", "=", "cpuArch=armv8", "cpuArch=armv8&os=beta&attrGamer=prod&videoStreamer=beta&payloadType=metadataOnly", "cpuArch=x&slot=007", "cpuArch=x&SLOT=10000",
		"cpuArch=%61%2b+%zz", "cpuArch=%", "cpuArch=a\x00b", "cpuArch=\xff", "cpuArch=%00", "cpuArch=é&attr=x&attrX=é",
		strings.Repeat("a=b&", 200) + "cpuArch=x", "cpuArch=" + strings.Repeat("é", 200), strings.Repeat("&", 8193),
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		s, err := edge.ParseSelection(query)
		_, accepted := referenceParams(query)
		if err != nil {
			if _, ok := err.(edge.BadRequest); !ok || err.Error() == "" {
				t.Fatalf("error %T %v", err, err)
			}
			if accepted && err != edge.ErrMissingArch && err != edge.ErrPayloadType {
				t.Fatalf("%q is refused: %v", query, err)
			}
			return
		}
		if !accepted {
			t.Fatalf("%q is accepted", query)
		}
		sameSelection(t, query)
		if s.Arch == "" || s.OS == "" || s.String() != lowerEscapes(s.String()) {
			t.Fatalf("%q is read as %+v, canonical %q", query, s, s)
		}
	})
}

// lowerEscapes lowers all letters but those of percent escapes.
func lowerEscapes(s string) string {
	parts := strings.Split(s, "%")
	for i, p := range parts {
		if i == 0 {
			parts[i] = lower(p)
		} else {
			parts[i] = p[:2] + lower(p[2:])
		}
	}
	return strings.Join(parts, "%")
}

// Whatever a header is, it is refused in words, or gives the digests that are in it.
func FuzzParseTags(f *testing.F) {
	md, sha := strings.Repeat("0aF", 11)[:32], strings.Repeat("b7", 32)
	for _, h := range []string{
		"", "*", ",", `"`, `W/"`, md, `"` + md + `"`, `W/"` + sha + `",` + md + ",", " \t" + md + "\t ,w/" + sha,
		md + "\x00", "\x00" + md, `""` + md + `""`, strings.Repeat(md+",", 60), manyDigests(65), manyDigests(64),
		strings.Repeat(",", 20_481),
	} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, header string) {
		want, accepted := referenceTags(header)
		got, err := edge.ParseTags(header)
		if (err == nil) != accepted {
			t.Fatalf("%.200q: error %v, want one: %t", header, err, !accepted)
		}
		if err != nil {
			if _, ok := err.(edge.BadRequest); !ok {
				t.Fatalf("error %T %v", err, err)
			}
			return
		}
		if !slices.IsSorted(got) || len(got) != len(want) {
			t.Fatalf("%q is read as %q, want %d digests", header, got, len(want))
		}
		for _, tag := range got {
			if !want[tag] {
				t.Fatalf("%q is read as %q: %s is not in it", header, got, tag)
			}
		}
		if again, err := edge.ParseTags(got.String()); err != nil || !slices.Equal(again, got) {
			t.Fatalf("canonical header %q is read as %q, error %v", got, again, err)
		}
		if tag, ok := edge.SingleTag(header); ok && (tag == "" || strings.Contains(tag, ",")) {
			t.Fatalf("%q has the single tag %q", header, tag)
		}
	})
}

// Whatever a device sends, the answer is that of the reference.
func FuzzDecide(f *testing.F) {
	video := md5Of("videoStreamer", "0.0.1")
	for _, c := range [][2]string{
		{"", ""},
		{"cpuArch=armv8&os=beta&attrGamer=prod&attrCamera=beta", video + `,W/"` + sha256Of("os_armv8", "2.0.0") + `"`},
		{"cpuArch=armv8", md5Of("os_armv8", "1.1.0")},
		{"cpuArch=armv8&app=beta&attrA=stage&attrB=prod", ""},
		{"cpuArch=x+86&gr%C3%B6%C3%9FE=%C3%9f&x%2by%3d1%262=prod", "*"},
		{"cpuArch=armv8%00", "\x00"},
		{"cpuArch=armv8&a=%%%", video + "," + video},
		{"CPUARCH=ARMV8&OS_ARMV8=BETA&MODEMFW=PROD&ATTRGAMER=PROD&PAYLOADTYPE=METADATAONLY", strings.ToUpper(video)},
		{"cpuArch=armv8" + strings.Repeat("&attrGamer=prod", 127), manyDigests(64)},
	} {
		f.Add(c[0], c[1])
	}
	items := append(sampleIndexItems(),
		item("os_x 86", "prod", "1"), item("größe", "ß", "1"), item("x+y=1&2", "prod", "50%"),
		item("app", "beta", "1"), item("app", "prod", "2", "b"), item("app", "stage", "1", "a"))
	f.Fuzz(func(t *testing.T, query, held string) { equalsReference(t, items, query, held) })
}
