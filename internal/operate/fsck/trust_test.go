package fsck_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/operate/fsck"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// Keyrings and statements belong here: a check takes none of them for a stranger, and counts them for nothing else.
func TestKeyringsAreNoStrangers(t *testing.T) {
	w := newWorld(t)
	for _, deep := range []bool{false, true} {
		before := w.check(fsck.Options{Deep: deep})
		for _, key := range []string{
			layout.KeyringKey, layout.KeyringVersionKey(1), layout.KeyringVersionKey(2), layout.StatementKey(1, 20000, strings.Repeat("ab", 32)),
		} {
			w.write(key, "of "+key, nil)
		}
		after := w.check(fsck.Options{Deep: deep})
		if !after.Complete() || len(after.Problems) > 0 || after.Objects != before.Objects {
			t.Errorf("deep=%v: %d objects, then %d with %+v", deep, before.Objects, after.Objects, after.Problems)
		}
	}
}

// A server that signs what devices do not believe is found.
func TestStatementsAreVerified(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	key := func(seed byte) signing.PrivateKey {
		k, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
		must(t, err)
		return k
	}
	root, signer := key(1), key(2)
	serve := func(middle func(http.Handler) http.Handler) string {
		m, err := issuer.New(signer, issuer.DefaultSchedule(), func() time.Time { return now })
		must(t, err)
		log := slog.New(slog.DiscardHandler)
		published := server.NewPublished(w.memory.Objects, log)
		must(t, published.Refresh(t.Context()))
		srv := server.New(w.memory.Objects, published, server.NewMetrics(), log)
		srv.Statements(m)
		h := srv.Handler()
		if middle != nil {
			h = middle(h)
		}
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	type change func(k *keyring.Keyring)
	isStatement := func(r *http.Request) bool { return strings.Contains(r.URL.RawQuery, "payloadtype=statement") }
	for _, c := range []struct {
		why    string
		ring   change // nil: there is none
		after  time.Duration
		middle func(http.Handler) http.Handler
		want   string // "": nothing is wrong
	}{
		{"no keyring", nil, 0, nil, "devices find no keyring"},
		{"all is well", func(*keyring.Keyring) {}, 0, nil, ""},
		{"a revoked key", func(k *keyring.Keyring) { k.Signing, k.Revoked = nil, []string{signer.Public().ID()} }, 0, nil, "key has been revoked"},
		{"an unknown key", func(k *keyring.Keyring) { k.Signing = []signing.PublicKey{key(3).Public()} }, 0, nil, "key is not in the keyring"},
		{"a keyring that expires soon", func(*keyring.Keyring) {}, 90 * 24 * time.Hour, nil, "expires soon"},
		{"a keyring that has expired", func(*keyring.Keyring) {}, 100 * 24 * time.Hour, nil, "keyring has expired"},
		{"a statement that has expired", func(*keyring.Keyring) {}, 8 * 24 * time.Hour, nil, "statement has expired"},
		{"the statement of another selection", func(*keyring.Keyring) {}, 0, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if isStatement(r) {
					r.URL.RawQuery = "cpuArch=a&attrGamer=prod&payloadType=statement"
				}
				next.ServeHTTP(rw, r)
			})
		}, "it is of the set"},
		{"a damaged statement", func(*keyring.Keyring) {}, 0, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if isStatement(r) {
					_, _ = io.WriteString(rw, "precast statement 1\n")
					return
				}
				next.ServeHTTP(rw, r)
			})
		}, "statement is malformed"},
		{"statements that cannot be had", func(*keyring.Keyring) {}, 0, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if isStatement(r) {
					http.Error(rw, edge.ErrNotAvailable, http.StatusServiceUnavailable)
					return
				}
				next.ServeHTTP(rw, r)
			})
		}, "status 503"},
	} {
		if c.ring != nil {
			k := keyring.Keyring{Version: 1, Expires: now.Add(100 * 24 * time.Hour).Truncate(time.Second), Roots: []signing.PublicKey{root.Public()}, Signing: []signing.PublicKey{signer.Public()}}
			c.ring(&k)
			signed, err := k.Sign(t.Context(), root)
			must(t, err)
			w.write(layout.KeyringKey, string(signed.Encode()), nil)
		}
		d := fsck.Device{URL: serve(c.middle), Now: func() time.Time { return now.Add(c.after) }}
		rep, err := d.Check(t.Context(), w.index(), fsck.Options{})
		must(t, err)
		if c.want == "" && !rep.Complete() || c.want != "" && (len(rep.Problems) != 1 || !strings.Contains(rep.Problems[0].Detail, c.want)) {
			t.Errorf("%s: %+v", c.why, rep.Problems)
		}
	}
}
