package rig_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Whatever is asked, S3 is never sent a query or a key that is none of the layout's, nobody sees what is
// not public, and no other device's answer changes.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t, few())
	md5s, _ := s.digests("cpuArch=armv8&attrGamer=prod")
	var many []string
	for i := range 500 {
		many = append(many, fmt.Sprintf("%032x", i))
	}
	arch := "/package?cpuArch=armv8"
	it := edge.Decide(s.index(), "cpuArch=armv8", "").Set.Item(0)
	binary := "/" + layout.BinaryKey(edge.Hex(it.SHA256[:]), it.App, it.Version)
	var digests []string // of nothing; as long as they can be
	for i := range 64 {
		digests = append(digests, fmt.Sprintf("%064x", i))
	}
	long := ""
	for i := range 40 {
		long += fmt.Sprintf("&k%02d=%s", i, strings.Repeat("x", 240))
	}
	for _, c := range []struct {
		name, method, target string
		header               []string
		status               int
	}{
		{"a megabyte of query", "GET", arch + "&x=" + strings.Repeat("a", 1<<20), nil, 413},
		{"the longest URL", "GET", arch + "&x=" + strings.Repeat("a", 8000), nil, 400},
		{"7,000 empty parameters", "GET", arch + strings.Repeat("&", 7000), nil, 200},
		{"2,000 parameters with a value", "GET", arch + strings.Repeat("&a=b", 1900), nil, 400},
		{"500 tags", "GET", arch, held(many), 400},
		{"10,000 tags", "GET", arch, held(append(many, strings.Split(strings.Repeat("0123456789abcdef0123456789abcdef ", 9500), " ")...)), 413},
		{"a megabyte of header", "GET", arch, []string{"X-A", strings.Repeat("a", 1<<20)}, 413},
		{"100 header lines", "GET", arch, strings.Split(strings.Repeat("If-None-Match,x,", 99)+"If-None-Match,y", ","), 200},
		{"a query of 8,000 bytes", "GET", arch + long[:8000-len("cpuArch=armv8")], nil, 200},
		{"64 digests", "GET", arch, held(digests[:64]), 200},
		{"64 digests, one of them right", "GET", gamer, held(append(digests[:63:63], md5s[0])), 200},
		{"more than S3 takes, together", "GET", arch + long[:4000], held(digests[:64]), 200},
		{"more than S3 takes, together, for the composer", "GET", gamer + long[:4000], held(append(digests[:63:63], md5s[0])), 200},
		{"a range that is longer than S3 takes", "GET", arch, []string{"Range", "bytes=" + strings.Repeat("0-0,", 3000) + "0-0"}, 200},
		{"a condition that is longer than S3 takes", "GET", arch, []string{"If-None-Match", strings.Repeat("x", 9000)}, 200},
		{"a range on a condition that is longer than S3 takes", "GET", arch, []string{"Range", "bytes=0-9", "If-Range", `"` + strings.Repeat("x", 9000) + `"`}, 200},
		{"a range of a binary that is longer than S3 takes", "GET", binary, []string{"Range", "bytes=" + strings.Repeat("0-0,", 3000) + "0-0"}, 200},
		{"a condition on a binary that is longer than S3 takes", "GET", binary, []string{"If-None-Match", strings.Repeat("x", 9000)}, 200},
		{"another's held list", "GET", arch, []string{"X-Precast-Held", strings.Join(md5s, ",")}, 200},
		{"another's held list, spelled otherwise", "GET", arch, []string{"x-PRECAST-held", "nonsense"}, 200},
		{"a held list twice", "GET", arch, []string{"X-Precast-Held", md5s[0], "X-Precast-Held", md5s[1]}, 200},
		{"another's selection", "GET", arch, []string{"X-Precast-Selection", "cpuarch=armv7"}, 200},
		{"the bucket's headers", "GET", arch, []string{"X-Precast-Bucket", "evil", "X-Precast-Region", "evil"}, 200},
		{"S3's parameters", "GET", arch + "&response-content-type=text/html&acl&versionId=1&partNumber=1&uploads&x-amz-signature=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&list-type=2", nil, 200},
		{"S3's parameters and no selection", "GET", "/package?acl", nil, 400},
		{"proto", "GET", arch + "&__proto__=prod&constructor=prod&toString=prod&hasOwnProperty=prod", nil, 200},
		{"an attribute of no name", "GET", arch + "&attr=prod&attr__proto__=prod", nil, 200},
		{"NUL", "GET", arch + "%00", nil, 400},
		{"a line break", "GET", arch + "%0d%0aX-Cache:+Hit", nil, 400},
		{"not UTF-8", "GET", arch + "%ff%fe", nil, 400},
		{"half a character", "GET", arch + "&x=%f0%9f", nil, 400},
		{"a surrogate", "GET", arch + "&x=%ed%a0%80", nil, 400},
		{"a fragment", "GET", arch + "%23x", nil, 404},
		{"a broken escape", "GET", arch + "%z1", nil, 400},
		{"raw bytes above ASCII", "GET", arch + "&x=\xff\xfe", nil, 0},
		{"an odd condition", "GET", arch, []string{"If-None-Match", `W/"a"b", ,,"`}, 200},
		{"a condition of another kind", "GET", arch, []string{"If-Match", `"x"`, "If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT", "If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"}, 200},
		{"an odd range", "GET", arch, []string{"Range", "bytes=9-1"}, 416},
		{"another unit", "GET", arch, []string{"Range", "lines=1-2"}, 416},
		{"many ranges", "GET", arch, []string{"Range", "bytes=" + strings.Repeat("0-,", 1000) + "0-"}, 200},
		{"POST", "POST", arch, nil, 403},
		{"DELETE", "DELETE", arch, nil, 403},
		{"OPTIONS", "OPTIONS", arch, nil, 403},
		{"TRACE", "TRACE", arch, nil, 403},
		{"the index", "GET", "/index", nil, 404},
		{"history", "GET", "/" + layout.HistoryKey(1), nil, 404},
		{"a piece", "GET", "/" + layout.PieceKey(strings.Repeat("a", 64), "e"), nil, 404},
		{"a bundle", "GET", "/" + layout.BundleKey(strings.Repeat("a", 64), "0"), nil, 404},
		{"the root", "GET", "/", nil, 404},
		{"a package below", "GET", "/package/", nil, 404},
		{"another case", "GET", "/Package?cpuArch=armv8", nil, 404},
		{"escaped", "GET", "/%70ackage?cpuArch=armv8", nil, 404},
		{"traversal", "GET", "/binaries/../index", nil, 404},
		{"escaped traversal", "GET", "/binaries/%2e%2e/index", nil, 404},
		{"half escaped traversal", "GET", "/binaries/..%2findex", nil, 404},
		{"traversal to the package", "GET", "/x/../package?cpuArch=armv8", nil, 404},
		{"traversal below a digest", "GET", "/binaries/" + strings.Repeat("a", 64) + "/..", nil, 404},
		{"slashes", "GET", "//package?cpuArch=armv8", nil, 404},
		{"a binary that is none", "GET", "/binaries/" + strings.Repeat("a", 64) + "/x_1?acl&versionId=1", nil, 403},
		{"a binary by another method", "PUT", "/binaries/" + strings.Repeat("a", 64) + "/x_1", nil, 403},
		{"an absolute target", "GET", "http://evil.example" + arch, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := try(s.Rig, c.method, c.target, c.header...)
			if err != nil && c.status != 413 { // the server may close before it has read a megabyte
				t.Fatal(err)
			}
			if err == nil && c.status != 0 && a.status != c.status {
				t.Errorf("%v %v, want %d", a, a.trace.Broken, c.status)
			}
			if a.trace.Broken != nil && a.status >= 500 {
				t.Errorf("an edge function broke a rule: %v", a.trace.Broken)
			}
			// The other devices.
			for _, header := range [][]string{nil, held(md5s[:1]), held(md5s)} {
				for _, q := range []string{arch, gamer} {
					s.expect(s.get(q, header...), q, header...)
				}
			}
		})
	}
	for _, r := range s.S3.Requests() {
		if r.Status == http.StatusBadRequest {
			t.Errorf("S3 was sent what it refuses: %+v", r)
		}
		if _, err := layout.KindOf(r.Key); err != nil || r.Query != "" || r.By == "" || r.Method != "GET" && r.Method != "HEAD" {
			t.Errorf("S3 was asked for %+v", r)
		}
		if r.By == "AKIACLOUDFRONT" && !strings.HasPrefix(r.Key, layout.BundlePrefix) && !strings.HasPrefix(r.Key, layout.ManifestPrefix) && !strings.HasPrefix(r.Key, layout.BinaryPrefix) {
			t.Errorf("CloudFront was made to ask for %s", r.Key)
		}
	}
	for _, r := range s.Composer.Requests() {
		if r.URL.RawQuery != "" {
			t.Errorf("the composer was asked for %s", r.URL)
		}
	}
}

// What AWS's documentation leaves open makes no difference to devices.
func TestBothReadings(t *testing.T) {
	t.Parallel()
	for i := range 8 {
		assume := rig.Assumptions{GeneratedFailsOver: i&1 != 0, NotModifiedIsCached: i&2 != 0, EmptyHasNoRange: i&4 != 0}
		t.Run(fmt.Sprintf("%+v", assume), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, few(), func(o *rig.Options) {
				o.Change = func(d *rig.Distribution) { d.Assume = assume }
			})
			md5s, _ := s.digests("cpuArch=armv8&attrGamer=prod")
			for range 2 {
				for _, header := range [][]string{nil, held(md5s[:1]), held(md5s)} {
					for _, q := range []string{gamer, "/package?cpuArch=none", "/package?cpuArch="} {
						for range 2 {
							s.expect(s.get(q, header...), q, header...)
						}
					}
				}
				// A range of what a device lacks, when it lacks nothing: from the origin, then from the copy.
				s.Invalidate("/package*")
				for range 2 {
					a := s.get(gamer, append(held(md5s), "Range", "bytes=0-9")...)
					if want := map[bool]int{false: 304, true: 416}[assume.EmptyHasNoRange]; a.status != want || len(a.body) != 0 {
						t.Fatalf("a range of nothing: %v, want %d", a, want)
					}
					s.expect(s.get(gamer, held(md5s)...), gamer, held(md5s)...)
				}
				if a := s.get(gamer, append(held(md5s), "Range", "bytes=0-9", "If-Range", `"x"`)...); a.status != 304 {
					t.Fatalf("a range of nothing, if it is still the same: %v", a)
				}
				s.release("1.0.1")
				md5s, _ = s.digests("cpuArch=armv8&attrGamer=prod")
			}
			s.S3.SetDown(true)
			s.Invalidate("/*")
			comeAgain(t, s.get(gamer))
		})
	}
}
