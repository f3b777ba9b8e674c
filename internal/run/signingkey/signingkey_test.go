package signingkey_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/run/settings"
	"github.com/precast-ota/precast/internal/run/signingkey"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/signing"
)

func TestOpen(t *testing.T) {
	key, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "signing.pem")
	if err := signing.WriteFile(name, key); err != nil {
		t.Fatal(err)
	}
	text, _ := key.PEM()
	look := func(name string) (string, bool) {
		v, ok := map[string]string{"KEY": string(text), "LINE": strings.ReplaceAll(string(text), "\n", `\n`), "EMPTY": "", "BAD": "secret"}[name]
		return v, ok
	}
	for _, source := range []string{"file:" + name, "env:KEY", "env:LINE"} {
		if got, err := signingkey.Open(t.Context(), source, look); err != nil || got.Public() != key.Public() {
			t.Errorf("%s: %v", source, err)
		}
	}
	for _, source := range []string{"", "file:", "file:" + name + "x", "env:", "env:NONE", "env:EMPTY", "env:BAD", name, "kms", "http://x"} {
		if _, err := signingkey.Open(t.Context(), source, look); err == nil {
			t.Errorf("%q is a key", source)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the key: %v", source, err)
		}
	}
}

// Statements are made as the issuer suggests unless a setting says otherwise, and only with a key.
func TestIssuer(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	s := settings.New(none, slog.New(slog.DiscardHandler)).Signing()
	if want := issuer.DefaultSchedule(); s.StatementPeriod != want.Period || s.StatementValidity != want.Validity {
		t.Errorf("the defaults are %v, the issuer's %+v", s, want)
	}
	if made, err := signingkey.Issuer(t.Context(), s, none); made != nil || err != nil {
		t.Errorf("without a key: %v, %v", made, err)
	}
	s.SigningKey = "env:MISSING"
	if _, err := signingkey.Issuer(t.Context(), s, none); err == nil || !strings.Contains(err.Error(), "MISSING is not set") {
		t.Errorf("with a missing key: %v", err)
	}
}
