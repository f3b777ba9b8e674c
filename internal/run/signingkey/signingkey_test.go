package signingkey_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/run/signingkey"
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
