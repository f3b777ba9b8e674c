package precast_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/precast-ota/precast"

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath                         string
	Name                               string
	Doc                                string
	Deps                               []string
	Imports, TestImports, XTestImports []string
	GoFiles                            []string
}

// list runs go list, for the platform of this machine or for the one that env names.
func list(t *testing.T, env []string, patterns ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Doc,Deps,Imports,TestImports,XTestImports,GoFiles"}, patterns...)...)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("run go list: %v", err)
	}
	var all []goPackage
	for dec := json.NewDecoder(out); ; {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil || len(all) == 0 {
		t.Fatalf("go list %s: %d packages, %v\n%s", patterns, len(all), err, stderr.String())
	}
	return all
}

// below tells whether a package is the one at root, or below it.
func below(pkg, root string) bool { return pkg == root || strings.HasPrefix(pkg, root+"/") }

// The core knows no cloud and no driver: those know the core.
func TestCoreKnowsNoDriver(t *testing.T) {
	core := []string{"builder", "client", "edge", "internal/trust/issuer", "internal/trust/keyring", "internal/trust/signing", "internal/trust/statement", "internal/format/bundle", "internal/format/catalog", "internal/format/index", "internal/format/layout", "internal/format/manifest",
		"internal/operate/ask", "internal/operate/history", "internal/operate/fsck", "internal/operate/gc"}
	var patterns []string
	for _, p := range core {
		patterns = append(patterns, module+"/"+p)
	}
	found := list(t, nil, patterns...)
	if len(found) != len(core) {
		t.Errorf("%d packages, want %d", len(found), len(core))
	}
	for _, p := range found {
		for _, dep := range p.Deps {
			for _, forbidden := range []string{
				"github.com/aws", module + "/internal/store", module + "/internal/run", "go.etcd.io/bbolt",
			} {
				if below(dep, forbidden) {
					t.Errorf("%s depends on %s", p.ImportPath, dep)
				}
			}
		}
	}
}

// arrows are all imports that may cross from one room to another, tests aside. A package belongs to the longest row
// that it is below. docs/architecture.md has the same table, and each room's doc.go its own row.
var arrows = map[string][]string{
	"builder":          {"edge", "internal/format"},
	"builder/cmd":      {"builder", "internal/run", "internal/store"},
	"client":           {"edge", "internal/format", "internal/trust"},
	"cmd/precast":      {"builder", "client", "edge", "internal/files", "internal/format", "internal/operate", "internal/run", "internal/store", "internal/test/story", "internal/trust", "seed", "terraform"},
	"edge":             {"internal/format/index", "internal/format/layout"},
	"edge/cmd":         {"edge/function", "internal/run"},
	"edge/function":    {},
	"edge/rig":         {"builder", "edge", "edge/function", "internal/format", "internal/run"},
	"edge/rig/cmd":     {"builder", "edge/rig", "internal/format", "internal/operate", "internal/run", "internal/store", "internal/test/story", "seed"},
	"internal/files":   {},
	"internal/format":  {"edge"},
	"internal/operate": {"builder", "edge", "internal/files", "internal/format", "internal/trust"},
	"internal/run":     {"builder", "edge", "internal/files", "internal/format", "internal/operate", "internal/store", "internal/trust"},
	"internal/store":   {"builder", "internal/files", "internal/format"},
	"internal/test":    {"internal/format", "internal/operate", "seed"},
	"internal/trust":   {"builder", "edge", "internal/files", "internal/format"},
	"seed":             {"internal/format", "internal/operate"},
	"terraform":        {"internal/files", "internal/operate"},
}

// roomOf returns the row that a package belongs to.
func roomOf(pkg string) string {
	longest := ""
	for room := range arrows {
		if below(pkg, module+"/"+room) && len(room) > len(longest) {
			longest = room
		}
	}
	return longest
}

// Every import that crosses from one room to another is in the table, and the table has no other.
func TestArrows(t *testing.T) {
	used := make(map[[2]string]bool)
	for _, p := range list(t, nil, "./...") {
		room := roomOf(p.ImportPath)
		if room == "" && p.ImportPath != module {
			t.Errorf("%s is in no room of the table", p.ImportPath)
		}
		for _, imported := range p.Imports {
			if !below(imported, module) || roomOf(imported) == room {
				continue
			}
			i := slices.IndexFunc(arrows[room], func(to string) bool {
				return below(imported, module+"/"+to) && roomOf(imported) == roomOf(module+"/"+to)
			})
			if i < 0 {
				t.Errorf("%s imports %s: room %s may not", p.ImportPath, imported, room)
				continue
			}
			used[[2]string{room, arrows[room][i]}] = true
		}
	}
	for room, targets := range arrows {
		for _, to := range targets {
			if !used[[2]string{room, to}] {
				t.Errorf("no package of %s imports %s: take it off the table", room, to)
			}
		}
	}
}

// No row leads back to itself. An arrow to a single package of a room is not followed: edge needs two packages of
// internal/format, whose catalog and manifest need edge.
func TestArrowsPointOneWay(t *testing.T) {
	var follow func(path []string, room string)
	follow = func(path []string, room string) {
		if slices.Contains(path, room) {
			t.Fatalf("%s leads back to %s", strings.Join(path, " -> "), room)
		}
		for _, to := range arrows[room] {
			follow(append(path, room), to)
		}
	}
	for room := range arrows {
		follow(nil, room)
	}
}

// What only tests need is linked into no program but the two that play the story.
func TestTestsOnly(t *testing.T) {
	for _, p := range list(t, nil, "./...") {
		mayPlay := p.ImportPath == module+"/cmd/precast" || p.ImportPath == module+"/edge/rig/cmd/demo"
		if p.Name != "main" || below(p.ImportPath, module+"/internal/test") {
			continue
		}
		for _, dep := range p.Deps {
			test := below(dep, module+"/internal/test") || below(dep, module+"/internal/store/storetest") || dep == "testing"
			if test && !(mayPlay && dep == module+"/internal/test/story") {
				t.Errorf("%s links %s, which is for tests", p.ImportPath, dep)
			}
		}
	}
}

// The table in the documentation and the rows in the rooms' doc.go are the table above.
func TestArrowsDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("<!-- arrows -->\n\n| from | may import |\n| --- | --- |\n")
	for _, room := range slices.Sorted(maps.Keys(arrows)) {
		targets := "nothing"
		if len(arrows[room]) > 0 {
			targets = "`" + strings.Join(arrows[room], "`, `") + "`"
		}
		fmt.Fprintf(&want, "| `%s` | %s |\n", room, targets)
	}
	want.WriteString("\n<!-- /arrows -->")
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/architecture.md does not have this table:\n%s", want.String())
	}
	for room, targets := range arrows {
		if !strings.HasPrefix(room, "internal/") {
			continue
		}
		doc, err := os.ReadFile(room + "/doc.go")
		if err != nil {
			t.Fatal(err)
		}
		if len(targets) == 0 {
			targets = []string{"nothing"}
		}
		if want := "\n// It may import: " + strings.Join(targets, ", ") + ".\npackage "; !strings.Contains(string(doc), want) {
			t.Errorf("%s/doc.go does not say: %s", room, want)
		}
	}
}

// What the edge is made of, as WebAssembly. Every package more is paid for in each cold start: fmt,
// net/url, encoding/json, time, reflect and os cost hundreds of kilobytes.
func TestEdgeStaysSmall(t *testing.T) {
	allowed := []string{
		"cmp", "errors", "hash", "hash/crc32", "io", "iter", "math/bits", "runtime", "slices", "strconv", "strings",
		"structs", "sync", "sync/atomic", "unicode", "unicode/utf8", "unsafe",
		module + "/edge", module + "/edge/sha256", module + "/internal/format/index", module + "/internal/format/layout",
	}
	forbidden := []string{"fmt", "net/url", "encoding/json", "time", "reflect", "os", "crypto"}
	p := list(t, []string{"GOOS=wasip1", "GOARCH=wasm"}, module+"/edge")[0]
	for _, dep := range p.Deps {
		// The runtime's own parts come with the runtime.
		if !slices.Contains(allowed, dep) && !below(dep, "internal") {
			t.Errorf("the edge depends on %s", dep)
		}
		for _, f := range forbidden {
			if below(dep, f) {
				t.Errorf("the edge depends on %s, which is heavy", dep)
			}
		}
	}
	if !slices.Contains(p.Deps, module+"/edge/sha256") {
		t.Error("the edge does not use the small SHA-256")
	}
}

// Device makers import the client: it brings nothing but this module and the standard library.
func TestClientStandsAlone(t *testing.T) {
	for _, dep := range list(t, nil, module+"/client")[0].Deps {
		if host, _, _ := strings.Cut(dep, "/"); strings.Contains(host, ".") && !below(dep, module) {
			t.Errorf("the client depends on %s", dep)
		}
	}
}

// Commands are at the top: nothing but a command imports what is below a cmd folder.
func TestNothingImportsCommands(t *testing.T) {
	for _, p := range list(t, nil, "./...") {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			before, _, isCommand := strings.Cut(imported+"/", "/cmd/")
			if isCommand && below(imported, module) && !below(p.ImportPath, before+"/cmd") {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
		if below(p.ImportPath, module+"/cmd") && p.Name != "main" {
			t.Errorf("%s is below cmd and is no command", p.ImportPath)
		}
	}
}

// Packages are named for what they provide.
func TestPackageNames(t *testing.T) {
	vague := []string{"util", "utils", "helper", "helpers", "common", "manager"}
	for _, p := range list(t, nil, "./...") {
		for _, name := range append(slices.Concat(p.Imports, p.TestImports, p.XTestImports), p.ImportPath) {
			if slices.Contains(vague, path.Base(name)) {
				t.Errorf("%s imports %s: its name says nothing", p.ImportPath, name)
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range list(t, nil, "./...") {
		if len(p.GoFiles) == 0 {
			continue // tests only
		}
		if p.Doc == "" || p.Name != "main" && !strings.HasPrefix(p.Doc, "Package "+p.Name+" ") {
			t.Errorf("%s: the package comment begins %q", p.ImportPath, p.Doc)
		}
	}
}
