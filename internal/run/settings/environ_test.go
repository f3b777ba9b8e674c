package settings_test

import (
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/run/settings"
)

func TestReader(t *testing.T) {
	vars := map[string]string{"A": "text", "N": "12", "B": "false", "D": "3s", "BAD": "twelve", "EMPTY": ""}
	r := settings.New(func(name string) (string, bool) { v, ok := vars[name]; return v, ok })
	if r.Need("A") != "text" || r.Text("X", "otherwise") != "otherwise" || r.Uint("N", 1) != 12 || r.Uint("EMPTY", 1) != 1 ||
		r.Bool("B", true) || r.Duration("D", 0) != 3*time.Second || r.Err() != nil {
		t.Fatalf("values are wrong, or an error: %v", r.Err())
	}
	r.Need("MISSING")
	r.Need("EMPTY")
	if r.Uint("BAD", 7) != 7 {
		t.Fatal("a bad number is not the default")
	}
	for _, want := range []string{"MISSING is not set", "EMPTY is not set", `BAD: "twelve" cannot be read`} {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
