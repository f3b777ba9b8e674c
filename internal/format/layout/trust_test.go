package layout_test

import (
	"testing"

	"github.com/precast-ota/precast/internal/format/layout"

	"pgregory.net/rapid"
)

func TestTrustKeys(t *testing.T) {
	for _, c := range []struct {
		got, want string
		kind      layout.Kind
	}{
		{layout.StatementKey(7, 20500, sum), "statements/00000000000000000007/20500/" + sum, layout.Statement},
		{layout.KeyringKey, "keyring", layout.Keyring},
		{layout.KeyringVersionKey(3), "keyring.d/00000000000000000003", layout.KeyringHistory},
	} {
		if c.got != c.want {
			t.Errorf("key %s, want %s", c.got, c.want)
		}
		if kind, err := layout.KindOf(c.got); err != nil || kind != c.kind {
			t.Errorf("%s is of kind %d, error %v; want %d", c.got, kind, err, c.kind)
		}
		if h := layout.HeadersOf(c.kind); h.ContentType != "text/plain; charset=utf-8" || h.ContentDisposition != "" {
			t.Errorf("%s: %+v", c.got, h)
		}
	}
	// Revocations must get through, and statements change with the signing key.
	for _, k := range []layout.Kind{layout.Keyring, layout.Statement} {
		if h := layout.HeadersOf(k); h.CacheControl == layout.HeadersOf(layout.KeyringHistory).CacheControl {
			t.Errorf("kind %d is cached for a year", k)
		}
	}
}

func TestStatementKeysComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, e := rapid.Uint64().Draw(t, "generation"), rapid.Uint64().Draw(t, "epoch")
		id := rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "selection")
		g2, e2, id2, err := layout.ParseStatementKey(layout.StatementKey(g, e, id))
		if err != nil || g2 != g || e2 != e || id2 != id {
			t.Fatalf("%d %d %s comes back as %d %d %s, error %v", g, e, id, g2, e2, id2, err)
		}
	})
}

func TestHostileTrustKeys(t *testing.T) {
	const n = "00000000000000000001"
	for _, key := range []string{
		"statements/" + n + "/1/" + sum + "/x", "statements/" + n + "/01/" + sum, "statements/" + n + "/-1/" + sum, "statements/" + n + "/+1/" + sum,
		"statements/" + n + "//" + sum, "statements/1/1/" + sum, "statements/" + n + "/1/" + sum[1:], "statements/" + n + "/18446744073709551616/" + sum,
		"statements/" + n + "/1", "statements/", "Keyring", "keyring/", "keyring.d", "keyring.d/1", "keyring.d/" + n + "/x", "keyring.d/../keyring",
	} {
		if kind, err := layout.KindOf(key); err == nil || kind != layout.Unknown {
			t.Errorf("%q is of kind %d", key, kind)
		}
	}
}
