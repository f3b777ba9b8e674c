package main

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/seed"
)

// block is a fenced code block of a document.
type block struct{ section, language, text string }

func blocks(t *testing.T, file string) []block {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	var section string
	var open *block
	for line := range strings.Lines(string(data)) {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{section: section, language: strings.TrimSpace(fence)}
		case isFence:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += line
		case strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	return all
}

// The commands of README.md do what it says, in the order in which it says it: those that build are left
// to make, the rest runs here, with another folder and port.
func TestReadmeIsTrue(t *testing.T) {
	work := t.TempDir()
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(work, "precast-try")
	var s *serving
	sh := func(command string) string {
		t.Helper()
		command = strings.NewReplacer("bin/precast", path, "/tmp/", work+"/").Replace(command)
		if s != nil {
			command = strings.ReplaceAll(command, "http://127.0.0.1:8080", s.url)
		}
		cmd := exec.Command("sh", "-euc", command)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "PRECAST_DATA="+data)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v\n%s", command, err, out)
		}
		return string(out)
	}
	shows := map[string]string{ // of commands that could come too early, what their comments promise
		"precast status": "it is what the catalog says", "precast diff": "scoreboard/prod 1.0.0 -> 1.0.1",
		"precast plan": "to build: 1 binary to compress", "precast inspect": "os_armv8_1.1.0", "precast ask": "os_armv8/prod", "precast fsck": "it is complete",
	}
	ran := 0
	for _, b := range blocks(t, "../../README.md") {
		if !slices.Contains([]string{"Try it", "A request and its answer", "Releasing"}, b.section) {
			continue
		}
		switch b.language {
		case "sh":
			for line := range strings.Lines(strings.ReplaceAll(b.text, ",\n  ", ", ")) { // a command over two lines
				line = strings.TrimSpace(line)
				switch {
				case line == "" || strings.HasPrefix(line, "make "):
				case strings.Contains(line, " serve "):
					if s, err = startServer(path, work, os.Environ(), "--data", data); err != nil {
						t.Fatal(err)
					}
					defer s.cmd.Process.Kill()
				default:
					out := sh(line)
					for command, want := range shows {
						if strings.Contains(line, command) && !strings.Contains(out, want) {
							t.Errorf("%s\nprinted\n%s\nwithout %q", line, out, want)
						}
					}
					ran++
				}
			}
		case "console":
			for _, step := range strings.Split("\n"+b.text, "\n$ ")[1:] {
				command, want, _ := strings.Cut(step, "\n")
				got := sh(command)
				pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), `\.\.\.`, `[0-9a-f]*`)
				if !regexp.MustCompile(`^\s*` + pattern + `\s*$`).MatchString(got) {
					t.Errorf("%s\nprinted\n%s\nREADME says\n%s", command, got, want)
				}
				ran++
			}
		}
	}
	if ran < 16 {
		t.Fatalf("only %d commands were found in README.md", ran)
	}
}

// The commands of docs/rollouts.md print what it says.
func TestRolloutsIsTrue(t *testing.T) {
	work := t.TempDir()
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.0", "2.0", "3.0"} {
		if err := os.WriteFile(filepath.Join(work, "os-"+version+".img"), []byte(version), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ran := 0
	for _, b := range blocks(t, "../../docs/rollouts.md") {
		if b.language != "console" {
			continue
		}
		for _, step := range strings.Split("\n"+b.text, "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			cmd := exec.Command("sh", "-euc", command)
			cmd.Dir, cmd.Env = work, append(os.Environ(), "PRECAST_DATA="+filepath.Join(work, "data"), "PATH="+filepath.Dir(path)+":"+os.Getenv("PATH"))
			got, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), `\.\.\.`, `(?s:.*?)`)
			if !regexp.MustCompile(`^\s*` + pattern + `\s*$`).MatchString(string(got)) {
				t.Errorf("%s\nprinted\n%s\ndocs/rollouts.md says\n%s", command, got, want)
			}
			ran++
		}
	}
	if ran < 7 {
		t.Fatalf("only %d commands were found in docs/rollouts.md", ran)
	}
}

// The commands of docs/migrating.md bring in the sample's own items, which then answer as the sample does.
func TestC17MigratingIsTrue(t *testing.T) {
	work := t.TempDir()
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	for i, it := range seed.SampleItems() {
		file := filepath.Join(work, fmt.Sprint("binary-", i))
		content, err := io.ReadAll(seed.Content(1, it, 3000))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		attrs := make(map[string]any)
		for name, on := range it.DeviceAttr {
			attrs[name] = map[string]any{"BOOL": on}
		}
		row := map[string]any{"deviceAttr": map[string]any{"M": attrs}}
		for name, text := range map[string]string{"app": it.App, "env": it.Track, "version": it.Version, "ident": it.Ident, "url": "file://" + file, "md5": fmt.Sprintf("%x", md5.Sum(content))} {
			row[name] = map[string]any{"S": text}
		}
		rows = append(rows, row)
	}
	text, err := json.Marshal(map[string]any{"Items": rows, "Count": len(rows)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "sample.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PRECAST_DATA="+filepath.Join(work, "data"), "PATH="+filepath.Dir(path)+":"+os.Getenv("PATH"))
	url, out, ran := "http://127.0.0.1:8080", "", 0
	for _, b := range blocks(t, "../../docs/migrating.md") {
		for line := range strings.Lines(b.text) {
			line = strings.TrimSpace(line)
			if ran++; strings.HasPrefix(line, "precast serve ") {
				s, err := startServer(path, work, env)
				if err != nil {
					t.Fatal(err)
				}
				defer s.cmd.Process.Kill()
				url = s.url
				continue
			}
			cmd := exec.Command("sh", "-euc", strings.ReplaceAll(line, "http://127.0.0.1:8080", url))
			cmd.Dir, cmd.Env = work, env
			said, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s\n%v\n%s", line, err, said)
			}
			out += string(said)
		}
	}
	if ran != 5 || !strings.Contains(out, "9 items in the catalog") || !strings.Contains(out, "generation 1 is published") {
		t.Errorf("%d commands said\n%s", ran, out)
	}
	for query, want := range map[string]string{ // what the sample is known to answer
		"cpuArch=armv8":                                  "os_armv8 1.1.0",
		"cpuArch=armv8&os=beta":                          "os_armv8 2.0.0",
		"cpuArch=armv8&attrGamer=prod":                   "os_armv8 1.1.0, scoreboard 1.0.0, videoStreamer 0.0.1",
		"cpuArch=armv8&attrGamer=prod&attrCellular=prod": "modemFW 1.0, os_armv8 1.1.0, scoreboard 1.0.0, videoStreamer 0.0.1",
		"cpuArch=armv8&attrGamer=beta":                   "os_armv8 1.1.0, scoreboard 2.0.0",
	} {
		resp, err := http.Get(url + "/package?payloadType=metadataOnly&" + query)
		if err != nil {
			t.Fatal(err)
		}
		var listed map[string]struct {
			LatestVersion string `json:"latestVersion"`
		}
		err = json.NewDecoder(resp.Body).Decode(&listed)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(query, err)
		}
		var got []string
		for app, entry := range listed {
			got = append(got, app+" "+entry.LatestVersion)
		}
		slices.Sort(got)
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

// The commands of docs/operations.md do what it says, on another folder and port, and with another generation.
func TestOperationsIsTrue(t *testing.T) {
	work := t.TempDir()
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(work, "data")
	env := append(os.Environ(), "PRECAST_DATA="+data, "PATH="+filepath.Dir(path)+":"+os.Getenv("PATH"))
	real := strings.NewReplacer("/mnt/backup/precast --data /var/lib/precast", filepath.Join(work, "precast")+" --data "+filepath.Join(work, "restored"), // the server has the other one
		"/var/lib/precast", data, "/mnt/backup", work, " 11 ", " 1 ", " --addr :8080", "").Replace
	url := "http://127.0.0.1:8080"
	sh := func(command string) string {
		t.Helper()
		cmd := exec.Command("sh", "-euc", strings.ReplaceAll(real(command+" "), "http://127.0.0.1:8080", url))
		cmd.Dir, cmd.Env = work, env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v\n%s", command, err, out)
		}
		return string(out)
	}
	sh("precast seed --size 2KiB && precast build && echo new >scoreboard && echo new >firmware.img && precast catalog put scoreboard scoreboard --version 2.0 --attr gamer && precast build")
	wants := map[string]string{ // of each command, something that it says
		"cost": "Lambda", "history": "scoreboard/prod 1.0.0 -> 2.0", "diff": "scoreboard/prod 2.0 -> 1.0.0",
		"ask": "scoreboard", "catalog put": "1.4.0 is for 10 %", "catalog rollout": "1.4.0 is for 50 %", "catalog log": "",
		"backup": "generation 2, 9 items", "restore": "is restored: generation 2, 9 items",
		"rollback": "generation 3 is published, with the content of generation 1, in place of 2: one conditional write",
	}
	done := make(map[string]bool)
	for _, b := range blocks(t, "../../docs/operations.md") {
		if b.language != "sh" {
			continue
		}
		for line := range strings.Lines(b.text) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
			verb := strings.Fields(line)[1]
			if verb == "catalog" {
				verb += " " + strings.Fields(line)[2]
			}
			if verb == "serve" {
				s, err := startServer(path, work, env, strings.Fields(real(line + " "))[2:]...)
				if err != nil {
					t.Fatal(err)
				}
				defer s.cmd.Process.Kill()
				url = s.url
				continue
			}
			want, ok := wants[verb]
			if out := sh(line); !ok || !strings.Contains(out, want) {
				t.Errorf("%s\nsaid\n%s", line, out)
			}
			done[verb] = true
		}
	}
	if len(done) != len(wants) {
		t.Errorf("docs/operations.md has commands for %v, not for all of %v", done, wants)
	}
}

// Flags and variables in the table of docs/operations.md are those that the command has.
func TestOperationsTableIsTrue(t *testing.T) {
	data, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	variables := make(map[string]string)
	for _, node := range newParser(t).Model.Leaves(true) {
		for _, f := range node.Flags {
			if len(f.Envs) > 0 {
				variables["--"+f.Name] = f.Envs[0]
			}
		}
	}
	rows := regexp.MustCompile("(?m)^\\| `(--[a-z-]+)` \\| `([A-Z_]+)` \\|").FindAllStringSubmatch(string(data), -1)
	if len(rows) < 7 {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, row := range rows {
		if variables[row[1]] != row[2] {
			t.Errorf("%s: the table says %s, the command has %q", row[1], row[2], variables[row[1]])
		}
	}
}

// What the README says of make is what make lists.
func TestMakeTargetsAreThere(t *testing.T) {
	data, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"help", "build", "demo", "test", "test-race", "fuzz", "bench", "golden", "package", "test-aws", "fmt", "lint", "ci", "clean"} {
		if !regexp.MustCompile(`(?m)^` + target + `:.*## `).Match(data) {
			t.Errorf("the Makefile has no target %s with a description", target)
		}
	}
}

// The commands of docs/trust.md do what it says, with other addresses and the names of other keys.
func TestTrustIsTrue(t *testing.T) {
	for _, need := range []string{"sh", "curl", "openssl", "tar", "sha256sum"} {
		if _, err := exec.LookPath(need); err != nil && testing.Short() {
			t.Skip(err)
		}
	}
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	bin, data, device := filepath.Join(work, "bin"), filepath.Join(work, "data"), filepath.Join(work, "device")
	script, err := os.ReadFile("../../client/precast-device.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"precast-device.sh": string(script), "install-set": "#!/bin/sh\ncp -R \"$1\" installed\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), "PRECAST_DATA="+data, "PATH="+bin+":"+filepath.Dir(path)+":"+os.Getenv("PATH"))
	url := "https://packages.example.com"
	names := regexp.MustCompile(`keys/(root|signing)-[0-9a-f]+(\.pub)?\.pem`)
	real := func(command string) string {
		command = strings.NewReplacer("https://packages.example.com", url, "/var/lib/device", device).Replace(command)
		return names.ReplaceAllStringFunc(command, func(name string) string {
			m := names.FindStringSubmatch(name)
			found, _ := filepath.Glob(filepath.Join(work, "keys", m[1]+"-"+strings.Repeat("[0-9a-f]", 8)+m[2]+".pem"))
			if len(found) != 1 {
				t.Fatalf("%s is %v", name, found)
			}
			return found[0]
		})
	}
	sh := func(command string) string {
		t.Helper()
		cmd := exec.Command("sh", "-euc", real(command))
		cmd.Dir, cmd.Env = work, env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v\n%s", command, err, out)
		}
		return string(out)
	}
	sh("precast seed --size 2KiB && precast build")
	ran := make(map[string]int)
	for _, b := range blocks(t, "../../docs/trust.md") {
		if b.language != "sh" {
			continue
		}
		for line := range strings.Lines(b.text) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
			args, isServe := strings.CutPrefix(line, "precast serve ")
			if isServe {
				s, err := startServer(path, work, env, strings.Fields(real(args))...)
				if err != nil {
					t.Fatal(err)
				}
				defer s.cmd.Process.Kill()
				url = s.url
				sh("cp keys/root-00000000.pub.pem root.pem") // devices are made with it
			} else if out := sh(line); strings.Contains(line, " verify ") && !strings.Contains(out, "  verified\n") {
				t.Errorf("%s\nsaid\n%s", line, out)
			}
			ran[strings.Fields(line)[0]]++
		}
	}
	if ran["precast"] < 5 || ran["precast-device.sh"] < 1 || ran["curl"] < 3 {
		t.Errorf("only these commands were found in docs/trust.md: %v", ran)
	}
	// What the state of a client says that it holds is everything: of this one, and of one in Go.
	root, err := os.ReadFile(filepath.Join(work, "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	inGo, err := client.New(client.Options{URL: url, Selection: "cpuArch=armv8&attrGamer=prod", Roots: root, Dir: filepath.Join(work, "go"),
		Install: func(context.Context, client.Set) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inGo.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"/var/lib/device/state", "go/state.json"} {
		if out := sh("precast ask 'cpuArch=armv8&attrGamer=prod' --held @" + state); !strings.Contains(out, "304: it has everything") || !strings.Contains(out, "holding 3 files") {
			t.Errorf("precast ask, as a device with %s, said\n%s", state, out)
		}
	}
	// The device has what its selection gets, and finds nothing new.
	for _, name := range []string{"os_armv8_1.1.0", "scoreboard_1.0.0"} {
		if info, err := os.Stat(filepath.Join(work, "installed", name)); err != nil || info.Size() != 2<<10 {
			t.Errorf("installed: %v", err)
		}
	}
	if out := sh("precast-device.sh https://packages.example.com 'cpuArch=armv8&attrGamer=prod' root.pem /var/lib/device false"); !strings.Contains(out, "generation 1 is installed") {
		t.Errorf("again: %s", out)
	}
}
