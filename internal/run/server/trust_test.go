package server_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
)

func testKey(t testing.TB, seed byte) signing.PrivateKey {
	t.Helper()
	k, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signs serves the site a second time, with statements, and returns the address.
func (s *site) signs(signer signing.Signer, now func() time.Time) {
	s.t.Helper()
	m, err := issuer.New(signer, issuer.DefaultSchedule(), now)
	if err != nil {
		s.t.Fatal(err)
	}
	srv := server.New(s.store.Objects(), s.pub, server.NewMetrics(), slog.New(slog.DiscardHandler))
	srv.Statements(m)
	h := httptest.NewServer(srv.Handler())
	s.t.Cleanup(h.Close)
	s.url = h.URL
}

func TestStatementIsServed(t *testing.T) {
	s := newSite(t, builder.Options{Params: builder.DefaultParams()}, sample(1000))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s.signs(testKey(t, 1), func() time.Time { return now })
	const path = "/package?attrGamer=prod&cpuArch=ARMv8&payloadType=statement"
	a := s.get(path)
	if a.status != 200 || a.header.Get("Content-Type") != "text/plain; charset=utf-8" || a.header.Get("Cache-Control") != layout.PackageCacheControl || a.header.Get("ETag") == "" || a.header.Get("Vary") != "If-None-Match" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	st, err := statement.Parse(a.body)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Verify(testKey(t, 1).Public()); err != nil {
		t.Fatal(err)
	}
	if st.Selection != "attrgamer=prod&cpuarch=armv8" || st.Generation != s.pub.Index().Generation {
		t.Errorf("%s", a.body)
	}
	// It says what the bundle holds.
	files := s.files(s.get("/package?attrGamer=prod&cpuArch=armv8"))
	if len(files) != len(st.Items) {
		t.Errorf("%d files, %d items", len(files), len(st.Items))
	}
	var held []string
	for _, it := range st.Items {
		if _, ok := files[it.FileName()]; !ok {
			t.Errorf("%s is not in the bundle", it.FileName())
		}
		held = append(held, it.SHA256)
	}
	// What is held does not matter; the entity tag does.
	if b := s.get(path, "If-None-Match", strings.Join(held, ",")); b.status != 200 || !bytes.Equal(b.body, a.body) {
		t.Errorf("everything held: %d", b.status)
	}
	if b := s.get(path, "If-None-Match", a.header.Get("ETag")); b.status != 304 || len(b.body) != 0 {
		t.Errorf("entity tag: %d", b.status)
	}
	// Tomorrow it is another one, and so it is under another key.
	now = now.Add(24 * time.Hour)
	if b := s.get(path, "If-None-Match", a.header.Get("ETag")); b.status != 200 || bytes.Equal(b.body, a.body) {
		t.Errorf("tomorrow: %d", b.status)
	}
	now = now.Add(-24 * time.Hour)
	s.signs(testKey(t, 2), func() time.Time { return now })
	if b := s.get(path, "If-None-Match", a.header.Get("ETag")); b.status != 200 || bytes.Equal(b.body, a.body) {
		t.Errorf("another key: %d", b.status)
	}
	if b := s.get("/package?cpuArch=riscv&payloadType=statement"); b.status != 404 || !strings.Contains(string(b.body), "No deployment package found") {
		t.Errorf("nothing to state: %d %s", b.status, b.body)
	}
}

func TestNothingIsSigned(t *testing.T) {
	s := newSite(t, builder.Options{Params: builder.DefaultParams()}, sample(10))
	a := s.get("/package?cpuArch=armv8&payloadType=statement")
	if a.status != 404 || string(a.body) != `{"error":"Statements are not signed here"}`+"\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, path := range []string{"/keyring", "/keyring.d/00000000000000000001", "/keyring.d/1", "/keyring.d/"} {
		if a := s.get(path); a.status != 404 || string(a.body) != `{"error":"No such keyring"}`+"\n" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

func TestKeyringIsServed(t *testing.T) {
	s := newSite(t, builder.Options{}, nil)
	root := testKey(t, 1)
	k, err := keyring.Keyring{Version: 1, Expires: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Roots: []signing.PublicKey{root.Public()}}.Sign(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	data := k.Encode()
	for _, key := range []string{layout.KeyringKey, layout.KeyringVersionKey(1)} {
		_, err := s.store.Objects().Put(context.Background(), key, builder.Body{Reader: io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), Size: int64(len(data))}, builder.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, cache := range map[string]string{"/keyring": "public, max-age=60", "/keyring.d/00000000000000000001": "public, max-age=31536000, immutable"} {
		a := s.get(path)
		if a.status != 200 || !bytes.Equal(a.body, data) || a.header.Get("Cache-Control") != cache || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
		if b := s.get(path, "If-None-Match", a.header.Get("ETag")); b.status != 304 {
			t.Errorf("%s again: %d", path, b.status)
		}
		if b := s.do("POST", path); b.status != 405 {
			t.Errorf("POST %s: %d", path, b.status)
		}
	}
	// The history is not a way to other objects.
	if a := s.get("/keyring.d/..%2findex"); a.status == 200 {
		t.Error("something else is served")
	}
}

// A server that signs what no device believes says so, once, and again when it changes.
func TestKeyWatch(t *testing.T) {
	s := newSite(t, builder.Options{}, nil)
	root, key := testKey(t, 1), testKey(t, 2)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var log strings.Builder
	watch := &server.KeyWatch{Objects: s.store.Objects(), Key: key.Public().ID(), Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&log, nil))}
	version := uint64(0)
	publish := func(change func(k *keyring.Keyring)) func() {
		return func() {
			version++
			k := keyring.Keyring{Version: version, Expires: now.Add(100 * 24 * time.Hour), Roots: []signing.PublicKey{root.Public()}, Signing: []signing.PublicKey{key.Public()}}
			change(&k)
			signed, err := k.Sign(t.Context(), root)
			if err != nil {
				t.Fatal(err)
			}
			data := signed.Encode()
			if _, err := s.store.Objects().Put(t.Context(), layout.KeyringKey, builder.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}, builder.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, step := range []struct {
		why  string
		do   func()
		want string
	}{
		{"no keyring", func() {}, "no keyring is published"},
		{"a keyring with the key", publish(func(*keyring.Keyring) {}), "believe what is signed here again"},
		{"a revoked key", publish(func(k *keyring.Keyring) { k.Signing, k.Revoked = nil, []string{key.Public().ID()} }), "key has been revoked"},
		{"another key", publish(func(k *keyring.Keyring) { k.Signing = []signing.PublicKey{testKey(t, 3).Public()} }), "key is not in the keyring"},
		{"the key again", publish(func(*keyring.Keyring) {}), "believe what is signed here again"},
		{"almost expired", func() { now = now.Add(90 * 24 * time.Hour) }, "keyring expires soon"},
		{"expired", func() { now = now.Add(10 * 24 * time.Hour) }, "keyring has expired"},
	} {
		step.do()
		for want := range 2 { // the second look finds the same
			log.Reset()
			watch.Look(t.Context())
			if got := strings.Contains(log.String(), step.want); got != (want == 0) || want == 1 && log.Len() > 0 {
				t.Errorf("%s, look %d: %s", step.why, want+1, &log)
			}
		}
	}
}
