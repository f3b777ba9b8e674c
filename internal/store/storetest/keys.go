package storetest

import (
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

func (o objects) refusedKeys(t *testing.T) {
	for _, key := range []string{
		"", "/", ".", "..", "index/", "/index", "other", "INDEX", "index.d/1", "index.d", "../index",
		"pieces", "pieces/", "pieces/../index", "pieces/" + sha0, "pieces/" + sha0 + "/", "pieces/" + sha0 + "/..",
		"pieces/" + sha0 + "/a/b", "pieces/" + sha0 + "/a\x00b", "pieces/" + sha0 + "/a\nb", `pieces/` + sha0 + `/a\b`,
		"pieces/" + strings.ToUpper(shaF) + "/x", "bundles/" + sha0 + "/01.tar.gz", "plans/../../etc/passwd",
		"binaries/" + sha0 + "/" + strings.Repeat("x", 2000),
	} {
		if _, err := o.Put(t.Context(), key, body([]byte("x")), builder.PutOptions{}); err == nil {
			t.Errorf("Put accepted the key %q", key)
		}
		if _, err := o.Stat(t.Context(), key); err == nil {
			t.Errorf("Stat found the key %q", key)
		}
		if _, _, err := o.get(t.Context(), key); err == nil {
			t.Errorf("Get found the key %q", key)
		}
	}
	if keys := o.keys(t, ""); len(keys) != 0 {
		t.Errorf("refused keys are listed: %q", keys)
	}
}

func (o objects) oddNames(t *testing.T) {
	var want []string
	for _, version := range []string{
		"1.0", "1.0 beta", "1.0+build", "1.0%2e%2e", "%", "a&b=c?d#e;f", "~-_.!*'()", "...", ".json", "ünï-日本語-🙂",
		strings.Repeat("x", 251), `"quoted"`, "<xml>&amp;", "[a-z]*?", "a:b", "1.0.tar.gz",
	} {
		key := layout.BinaryKey(sha0, "app", version)
		info := o.put(t, key, []byte(version))
		o.want(t, key, []byte(version), info.ETag)
		want = append(want, key)
	}
	wantKeys(t, "List of odd names", o.keys(t, layout.BinaryPrefix), want)
}
