package suite_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/test/faults/suite"
)

const root = "../../../.."

// functions are the names of the tests of a package's folder, whatever their build tags.
func functions(fsys fs.FS, dir string) ([]string, error) {
	names, err := fs.Glob(fsys, dir+"/*_test.go")
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("no tests in %s: %w", dir, err)
	}
	var all []string
	for _, name := range names {
		file, err := parse(fsys, name)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
				all = append(all, f.Name.Name)
			}
		}
	}
	return all, nil
}

func parse(fsys fs.FS, name string) (*ast.File, error) {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	return parser.ParseFile(token.NewFileSet(), name, text, 0)
}

// The attack suite: its tests, and the attacks that TestAttacks plays.
const (
	attackFile = suite.Client + "/attacks_test.go"
	casesFile  = suite.Client + "/attack_cases_test.go"
)

// attacks are the tests of the attack suite: its functions, and for TestAttacks each attack that it plays, by the
// field name of the literals in the functions whose name ends in Attacks.
func attacks(fsys fs.FS) ([]string, error) {
	file, err := parse(fsys, attackFile)
	if err != nil {
		return nil, err
	}
	cases, err := parse(fsys, casesFile)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, d := range slices.Concat(file.Decls, cases.Decls) {
		f, ok := d.(*ast.FuncDecl)
		switch {
		case !ok:
		case strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != suite.Attacks:
			all = append(all, f.Name.Name)
		case strings.HasSuffix(f.Name.Name, "Attacks"):
			ast.Inspect(f, func(n ast.Node) bool {
				field, ok := n.(*ast.KeyValueExpr)
				if !ok {
					return true
				}
				key, ok := field.Key.(*ast.Ident)
				value, isText := field.Value.(*ast.BasicLit)
				if ok && isText && key.Name == "name" {
					name, _ := strconv.Unquote(value.Value) // it has been parsed
					all = append(all, suite.Attacks+"/"+name)
				}
				return true
			})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no attacks", attackFile)
	}
	return all, nil
}

// isScript tells whether a row's subtest is a script of its package.
func isScript(fsys fs.FS, r suite.Row) bool {
	for _, folder := range []string{"testdata", "testdata/hosts"} {
		if _, err := fs.Stat(fsys, path.Join(r.Package, folder, path.Base(r.Test)+".txtar")); err == nil {
			return true
		}
	}
	return false
}

// named are the tests and scripts of the whole source whose name has a case: functions with their package, scripts as
// subtests are named.
func named(fsys fs.FS) ([]string, error) {
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	var all []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		base, folder := path.Base(name), path.Dir(name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(base, ".") || base == "node_modules" || base == "dist"):
			return fs.SkipDir
		case strings.HasSuffix(base, ".txtar"):
			if script := strings.TrimSuffix(base, ".txtar"); suite.CaseOf(script) != "" {
				all = append(all, "/"+script)
			}
		case strings.HasSuffix(base, "_test.go"):
			text, err := fs.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
				if suite.CaseOf(m[1]) != "" {
					all = append(all, folder+"."+m[1])
				}
			}
		}
		return nil
	})
	return all, err
}

// uncovered are the cases of the list that no row tests under their number, rows that have another case's test, and
// tests named with a case that have no row.
func uncovered(fsys fs.FS, rows []suite.Row) ([]string, error) {
	var problems []string
	tested := make(map[string]bool)
	for _, r := range rows {
		switch c := suite.CaseOf(r.Test); {
		case c == "":
		case c != r.Of:
			problems = append(problems, r.Name()+" is a test of "+c+", and listed as one of "+r.Of)
		default:
			tested[c] = true
		}
	}
	for _, c := range suite.CaseList() {
		if !tested[c] {
			problems = append(problems, c+" has no row of a test with its number")
		}
	}
	tests, err := named(fsys)
	for _, name := range tests {
		if !slices.ContainsFunc(rows, func(r suite.Row) bool { return r.Name() == name || strings.HasSuffix(r.Test, name) }) {
			problems = append(problems, name+" has a case in its name, and is not listed")
		}
	}
	return problems, err
}

// disagreements compares the tests of the source, the list of rows and a document with each other.
func disagreements(fsys fs.FS, rows []suite.Row, doc string) ([]string, error) {
	var problems []string
	source := make(map[string]bool) // tests that must have a row
	faults, err := functions(fsys, suite.Faults)
	if err != nil {
		return nil, err
	}
	for _, name := range faults {
		source[suite.Faults+"."+name] = true
	}
	played, err := attacks(fsys)
	if err != nil {
		return nil, err
	}
	for _, name := range played {
		source[suite.Client+"."+name] = true
	}
	documented, err := suite.Documented(doc)
	if err != nil {
		return nil, err
	}
	for name := range source {
		if !slices.Contains(documented, name) {
			problems = append(problems, name+" is in no row of the document")
		}
	}
	listed := make(map[string]bool)
	for _, r := range rows {
		if listed[r.Name()] {
			problems = append(problems, r.Name()+" is listed twice")
		}
		listed[r.Name()] = true
		if !slices.Contains(documented, r.Name()) {
			problems = append(problems, r.Name()+" is listed, and in no row of the document")
		}
		if r.Does == "" || r.Holds == "" || r.Of == "" {
			problems = append(problems, r.Name()+" does not say what it does")
		}
		if source[r.Name()] {
			continue
		}
		others, err := functions(fsys, r.Package)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(others, r.Function()) || strings.Contains(r.Test, "/") && !isScript(fsys, r) {
			problems = append(problems, r.Name()+" is listed, and no test")
		}
	}
	for i, name := range documented {
		if !listed[name] || slices.Contains(documented[:i], name) {
			problems = append(problems, name+" is a row of the document, and not listed, or twice")
		}
	}
	cases, err := uncovered(fsys, rows)
	if err != nil {
		return nil, err
	}
	problems = append(problems, cases...)
	slices.Sort(problems)
	return problems, nil
}

func document(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// Every test of a fault or an attack has a row in docs/reliability.md, and every row has its test.
func TestDocument(t *testing.T) {
	problems, err := disagreements(os.DirFS(root), suite.Rows(), document(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p + "; list it in internal/test/faults/suite, then: make reliability")
	}
}

// The rows of the document say what the list says; only results and cases come from a run.
func TestDocumentIsCurrent(t *testing.T) {
	doc := document(t)
	for _, line := range strings.Split(make(suite.Run).Table(), "\n") {
		static, _, isRow := strings.Cut(line, " **not run** |")
		if isRow && !strings.Contains(doc, static) {
			t.Errorf("make reliability, as this is not in docs/reliability.md: %s", static)
		}
	}
	for _, bad := range []string{"**FAIL**", "**not run**", "**skipped**"} {
		if strings.Contains(doc, bad) {
			t.Errorf("docs/reliability.md has a row with %s", bad)
		}
	}
}

// What TestDocument finds.
func TestDisagreements(t *testing.T) {
	doc, rows := document(t), suite.Rows()
	line := func(name string) string {
		for l := range strings.Lines(doc) {
			if strings.Contains(l, "`"+name+"`") {
				return l
			}
		}
		t.Fatalf("no row of %s", name)
		return ""
	}
	without := func(name string) []suite.Row {
		return slices.DeleteFunc(suite.Rows(), func(r suite.Row) bool { return r.Name() == name })
	}
	const fault, attack, elsewhere = "internal/test/faults.TestThrottlingAWS", "client.TestAttacks/rollback: the answers of the generation before", "internal/test/soak.TestSoak"
	moved := suite.Rows()
	moved[slices.IndexFunc(moved, func(r suite.Row) bool { return r.Test == "TestMethodsS14" })].Of = "S13"
	withoutCase := slices.DeleteFunc(suite.Rows(), func(r suite.Row) bool { return r.Of == "C23" })
	const ofCase, ofScript = "internal/run/server.TestProbesC21", "cmd/precast.TestScripts/S12"
	ghost := suite.Row{Of: "x", Package: "internal/test/soak", Test: "TestNobody", Does: "x", Holds: "x"}
	for name, c := range map[string]struct {
		rows []suite.Row
		doc  string
		fs   fs.FS
		want string
	}{
		"a fault test without a row":          {rows, strings.Replace(doc, line(fault), "", 1), nil, fault + " is in no row of the document"},
		"an attack without a row":             {rows, strings.Replace(doc, line(attack), "", 1), nil, attack + " is in no row of the document"},
		"a test of elsewhere without a row":   {rows, strings.Replace(doc, line(elsewhere), "", 1), nil, elsewhere + " is listed, and in no row of the document"},
		"a row that is not listed":            {without(fault), doc, nil, fault + " is a row of the document, and not listed, or twice"},
		"a row twice":                         {rows, strings.Replace(doc, line(fault), line(fault)+line(fault), 1), nil, fault + " is a row of the document, and not listed, or twice"},
		"a row whose test is gone":            {append(rows[:len(rows):len(rows)], ghost), strings.Replace(doc, line(fault), line(fault)+"| x | `"+ghost.Name()+"` | x |\n", 1), nil, ghost.Name() + " is listed, and no test"},
		"a fault test that was taken out":     {rows, doc, changed{os.DirFS(root), suite.Faults + "/aws_throttling_test.go", "func TestThrottlingAWS(", "func Throttling("}, fault + " is listed, and no test"},
		"an attack that was given a new name": {rows, doc, changed{os.DirFS(root), casesFile, "rollback: the answers of", "rollback: answers of"}, attack + " is listed, and no test"},
		"a case without a row":                {withoutCase, doc, nil, "C23 has no row of a test with its number"},
		"a case's test without a row":         {without(ofCase), doc, nil, ofCase + " has a case in its name, and is not listed"},
		"a case's script without a row":       {without(ofScript), doc, nil, "/S12 has a case in its name, and is not listed"},
		"a test under another case":           {moved, doc, nil, "internal/run/server.TestMethodsS14 is a test of S14, and listed as one of S13"},
		"a case's test that was taken out":    {rows, doc, changed{os.DirFS(root), "internal/run/server/server_test.go", "func TestProbesC21(", "func TestProbes("}, ofCase + " is listed, and no test"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.fs == nil {
				c.fs = os.DirFS(root)
			}
			problems, err := disagreements(c.fs, c.rows, c.doc)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(problems, c.want) {
				t.Errorf("found %q, want %q", problems, c.want)
			}
		})
	}
	if _, err := disagreements(os.DirFS(root), rows, "no table"); err == nil {
		t.Error("a document without a table is accepted")
	}
}

// changed is a source tree in which one file says something else.
type changed struct {
	fs.FS
	name, old, new string
}

func (c changed) ReadFile(name string) ([]byte, error) {
	text, err := fs.ReadFile(c.FS, name)
	if name == c.name {
		if !strings.Contains(string(text), c.old) {
			return nil, fmt.Errorf("%s has no %q", name, c.old)
		}
		return []byte(strings.Replace(string(text), c.old, c.new, 1)), err
	}
	return text, err
}

// Every fault of the list is tested over every driver that can have it, and every attack of the list is played.
func TestListsAreCovered(t *testing.T) {
	for fault, drivers := range suite.FaultList() {
		for _, driver := range drivers {
			if !slices.ContainsFunc(suite.FaultRows(), func(r suite.Row) bool {
				return r.Of == fault && r.Driver == driver && r.Package == suite.Faults
			}) {
				t.Errorf("%s is not tested over %s", fault, driver)
			}
		}
	}
	for _, attack := range suite.AttackList() {
		if !slices.ContainsFunc(suite.AttackRows(), func(r suite.Row) bool {
			return r.Of == attack && strings.HasPrefix(r.Test, suite.Attacks+"/")
		}) {
			t.Errorf("%s is not played", attack)
		}
	}
}

// Every promise of docs/security.md has a test in the suites, and every attack on the program has a promise.
func TestPromises(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "| promise | held by |\n| --- | --- |\n")
	table, _, ended := strings.Cut(table, "\n\n")
	if !ok || !ended {
		t.Fatal("docs/security.md has no table of promises")
	}
	quoted, kept := regexp.MustCompile("`([^`]+)`"), make(map[string]bool)
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		tests := quoted.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(cells) != 2 || len(tests) == 0 {
			t.Errorf("no promise with a test: %s", line)
		}
		for _, m := range tests {
			i := slices.IndexFunc(suite.Rows(), func(r suite.Row) bool { return r.Name() == m[1] })
			if i < 0 {
				t.Errorf("%s is not in internal/test/faults/suite: %s", m[1], line)
				continue
			}
			kept[suite.Rows()[i].Of] = true
		}
	}
	for _, c := range suite.CaseList() {
		if strings.HasPrefix(c, "S") && !kept[c] {
			t.Errorf("docs/security.md promises nothing that a test of %s holds", c)
		}
	}
}

// What is written comes from the run.
func TestTable(t *testing.T) {
	run := make(suite.Run)
	const events = `# something that the go command says
{"Action":"run","Package":"github.com/precast-ota/precast/internal/test/faults","Test":"TestThrottlingAWS"}
{"Action":"attr","Package":"github.com/precast-ota/precast/internal/test/faults","Test":"TestThrottlingAWS","Key":"cases","Value":"7 | 8"}
{"Action":"attr","Package":"github.com/precast-ota/precast/internal/test/faults","Test":"TestThrottlingAWS","Key":"other","Value":"9"}
{"Action":"pass","Package":"github.com/precast-ota/precast/internal/test/faults","Test":"TestThrottlingAWS","Elapsed":1.5}
{"Action":"fail","Package":"github.com/precast-ota/precast/client","Test":"TestAttacks/rollback:_the_answers_of_the_generation_before","Elapsed":1}
{"Action":"skip","Package":"github.com/precast-ota/precast/internal/test/soak","Test":"TestSoak"}
{"Action":"pass","Package":"github.com/precast-ota/precast/internal/test/soak"}
`
	if err := run.Read("github.com/precast-ota/precast", strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	doc, err := suite.Replace("before\n<!-- table: begin -->\nwhat was there\n<!-- table: end -->\nafter\n", run.Table())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n", "\nafter\n", rowOf(suite.Rows(), "TestThrottlingAWS") + ` | pass | 7 \| 8 |`,
		rowOf(suite.Rows(), "TestAttacks/rollback: the answers of the generation before") + " | **FAIL** |  |",
		rowOf(suite.Rows(), "TestSoak") + " | **skipped** |  |", rowOf(suite.Rows(), "TestDiskFull") + " | **not run** |  |"} {
		if !strings.Contains(doc, want) {
			t.Errorf("%q is not in\n%s", want, doc)
		}
	}
	if strings.Contains(doc, "what was there") || strings.Contains(doc, "1.5") {
		t.Errorf("what was there, or a time, is in\n%s", doc)
	}
	if failed := run.Failed(suite.Rows()); len(failed) != len(suite.Rows())-1 || slices.Contains(failed, "internal/test/faults.TestThrottlingAWS") {
		t.Errorf("%d of %d failed", len(failed), len(suite.Rows()))
	}
	if again, err := suite.Replace(doc, run.Table()); err != nil || again != doc {
		t.Errorf("written again, it differs: %v", err)
	}
	for _, bad := range []string{"", "<!-- table: end --><!-- table: begin -->"} {
		if _, err := suite.Replace(bad, ""); err == nil {
			t.Errorf("%q has no place for a table", bad)
		}
	}
	if err := run.Read("github.com/precast-ota/precast", strings.NewReader("{broken\n")); err == nil {
		t.Error("no error of a broken run")
	}
}

// rowOf is how the row of a test ends, before its result.
func rowOf(rows []suite.Row, test string) string {
	i := slices.IndexFunc(rows, func(r suite.Row) bool { return r.Test == test })
	return "| " + rows[i].Does + " | " + rows[i].Holds
}
