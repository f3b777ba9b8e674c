package main

import (
	"encoding/json"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

func TestVersionOf(t *testing.T) {
	rest := ", format " + builder.FormatID + ", store " + strconv.Itoa(catalog.Version) + ", " + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH
	commit := []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.time", Value: "2026-03-01T12:00:00Z"}, {Key: "vcs.modified", Value: "false"},
	}
	changed := append(commit[:2:2], debug.BuildSetting{Key: "vcs.modified", Value: "true"})
	of := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	for name, c := range map[string]struct {
		linked string
		info   *debug.BuildInfo
		want   string
	}{
		"nothing is known":          {"", nil, "precast devel"},
		"no checkout":               {"", of("(devel)"), "precast devel"},
		"go test":                   {"", of(""), "precast devel"},
		"go install":                {"", of("v1.2.3"), "precast v1.2.3"},
		"a checkout":                {"", of("v1.2.4-0.20260301120000-0123456789ab", commit...), "precast v1.2.4-0.20260301120000-0123456789ab, commit 0123456789ab of 2026-03-01T12:00:00Z"},
		"a checkout with changes":   {"", of("(devel)", changed...), "precast devel, commit 0123456789ab of 2026-03-01T12:00:00Z with changes"},
		"the linker knows":          {"v1.2.3", nil, "precast v1.2.3"},
		"the linker knows better":   {"v1.2.3", of("v1.2.4-0.2026", commit...), "precast v1.2.3, commit 0123456789ab of 2026-03-01T12:00:00Z"},
		"a short revision, no time": {"", of("(devel)", debug.BuildSetting{Key: "vcs.revision", Value: "0123"}), "precast devel, commit 0123"},
	} {
		if got := versionOf(c.linked, c.info).String(); got != c.want+rest {
			t.Errorf("%s: %q, want %q", name, got, c.want+rest)
		}
	}
	data, err := json.Marshal(versionOf("v1.2.3", of("", changed...)))
	want := `{"version":"v1.2.3","revision":"0123456789abcdef0123","time":"2026-03-01T12:00:00Z","modified":true,"format":"` + builder.FormatID +
		`","store":` + strconv.Itoa(catalog.Version) + `,"go":"` + runtime.Version() + `","platform":"` + runtime.GOOS + "/" + runtime.GOARCH + `"}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v, want %s", data, err, want)
	}
}

func TestVersionCommand(t *testing.T) {
	outputs := make(map[string]string)
	for _, line := range []string{"version", "--version", "version --json", "--version --json"} {
		var out, errs strings.Builder
		if code := run(t.Context(), strings.Fields(line), streams{out: &out, err: &errs}); code != exitOK {
			t.Fatalf("precast %s: exit code %d, %s", line, code, &errs)
		}
		outputs[line] = out.String()
	}
	if out := outputs["version"]; out != outputs["--version"] || !strings.HasPrefix(out, "precast ") || strings.Count(out, "\n") != 1 {
		t.Errorf("%q", outputs)
	}
	var v versionView
	if err := json.Unmarshal([]byte(outputs["version --json"]), &v); err != nil || v.String()+"\n" != outputs["version"] {
		t.Errorf("%q, %v", outputs, err)
	}
}
