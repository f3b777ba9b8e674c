package suite

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Markers of the part of a document that is written by Replace.
const (
	beginMark = "<!-- table: begin -->"
	endMark   = "<!-- table: end -->"
)

// Cases is the name of the attribute in which a test says how much it has played. It must be the same in every run.
const Cases = "cases"

// Result is what a run says of a test.
type Result struct {
	Outcome string // pass, fail or skip; empty: it has not run
	Cases   string
}

// Run is the results of go test -json, by package (below the module) and the name that go test reports.
type Run map[string]Result

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Key, Value string
}

// Read adds what a run of module's tests has said.
func (run Run) Read(module string, r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), []byte("{")) {
			continue // of the go command itself
		}
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("read go test -json: %w", err)
		}
		name := strings.TrimPrefix(e.Package, module+"/") + "." + e.Test
		res := run[name]
		switch {
		case e.Test == "":
			continue
		case e.Action == "attr" && e.Key == Cases:
			res.Cases = e.Value
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			res.Outcome = e.Action
		default:
			continue
		}
		run[name] = res
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read go test -json: %w", err)
	}
	return nil
}

// of is the result of a row.
func (run Run) of(r Row) Result { return run[r.Package+"."+r.Reported()] }

// Failed are the rows that have not passed.
func (run Run) Failed(rows []Row) []string {
	var all []string
	for _, r := range rows {
		if run.of(r).Outcome != "pass" {
			all = append(all, r.Name())
		}
	}
	return all
}

// Table writes the tables of faults, attacks and cases.
func (run Run) Table() string {
	var b strings.Builder
	b.WriteString("### Faults\n\n| fault | driver | test | what it does | what must hold | result | cases |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range FaultRows() {
		res := run.of(r)
		row(&b, r.Of, r.Driver, "`"+r.Name()+"`", r.Does, r.Holds, outcome(res), res.Cases)
	}
	b.WriteString("\n### Attacks\n\n| attack | test | what it does | what must hold | result | cases |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range AttackRows() {
		res := run.of(r)
		row(&b, r.Of, "`"+r.Name()+"`", r.Does, r.Holds, outcome(res), res.Cases)
	}
	b.WriteString("\n### Cases from the field\n\nThe number of a case is in the name of its test, where the test has no other purpose.\n\n| case | test | what it does | what must hold | result | cases |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range CaseRows() {
		res := run.of(r)
		row(&b, r.Of, "`"+r.Name()+"`", r.Does, r.Holds, outcome(res), res.Cases)
	}
	return b.String()
}

func outcome(r Result) string {
	switch r.Outcome {
	case "pass":
		return "pass"
	case "":
		return "**not run**"
	case "skip":
		return "**skipped**"
	}
	return "**FAIL**"
}

func row(b *strings.Builder, cells ...string) {
	for _, c := range cells {
		b.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
	}
	b.WriteString("|\n")
}

var errMarks = errors.New("the document has no " + beginMark + " followed by " + endMark)

// Replace puts a table between a document's markers.
func Replace(doc, table string) (string, error) {
	before, rest, ok := strings.Cut(doc, beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", errMarks
	}
	return before + beginMark + "\n\n" + table + "\n" + endMark + after, nil
}

// Documented are the names of the rows of a document.
func Documented(doc string) ([]string, error) {
	_, rest, ok := strings.Cut(doc, beginMark)
	table, _, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return nil, errMarks
	}
	var all []string
	name := regexp.MustCompile("\\| `([^`]+\\.Test[^`]*)` \\|")
	for line := range strings.Lines(table) {
		if m := name.FindStringSubmatch(line); m != nil {
			all = append(all, m[1])
		}
	}
	return all, nil
}

// Arguments are those of go test for all rows: which tests, and the packages.
func Arguments() []string {
	var tests, packages []string
	for _, r := range Rows() {
		tests, packages = append(tests, r.Function()), append(packages, "./"+r.Package)
	}
	unique := func(all []string) []string { slices.Sort(all); return slices.Compact(all) }
	return append([]string{"-run", "^(" + strings.Join(unique(tests), "|") + ")$"}, unique(packages)...)
}
