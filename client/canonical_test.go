package client_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// plainQuery is what the client in sh brings to its canonical form itself. Whatever needs an escape must be written in
// it: docs/trust.md.
var plainQuery = regexp.MustCompile(`^([A-Za-z0-9._~-]*(=[A-Za-z0-9._~-]*)?(&|$))*$`)

// The canonical form of a selection in sh is that of the server.
func TestCanonicalInShell(t *testing.T) {
	script, err := os.ReadFile("precast-device.sh")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(script), "\ncanonical() {\n")
	body, _, ended := strings.Cut(rest, "\n}\n")
	if !ok || !ended {
		t.Fatal("the script has no function canonical")
	}
	data, err := os.ReadFile("../testdata/canonical/selection.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ Why, Query, Canonical, Error string }
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	for kind, sh := range shells(t) {
		held := 0
		for _, v := range vectors {
			if v.Error != "" || v.Canonical == "" || strings.Contains(v.Canonical, "payloadtype=") {
				continue // a device's selection has none
			}
			query := v.Query
			if !plainQuery.MatchString(query) {
				query = v.Canonical // as it must be written
			}
			cmd := exec.Command(sh.shell[0], append(sh.shell[1:], "-c", "LC_ALL=C\ncanonical() {\n"+body+"\n}\ncanonical \"$1\"", "sh", query)...)
			cmd.Env = sh.env
			out, err := cmd.CombinedOutput()
			if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != v.Canonical {
				t.Errorf("%s, %s: %.200q is %.200q, want %.200q: %v", kind, v.Why, query, got, v.Canonical, err)
			}
			held++
		}
		if held < 20 {
			t.Errorf("%s: only %d vectors", kind, held)
		}
	}
}
