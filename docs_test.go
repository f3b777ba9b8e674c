package precast_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// documents returns the text of every Markdown file, by its path, without what is inside code fences.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != "." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "dist") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var text strings.Builder
		fenced := false
		for line := range strings.Lines(string(data)) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
			} else if !fenced {
				text.WriteString(line)
			}
		}
		all[filepath.ToSlash(path)] = text.String()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// anchors returns the names that links into a document may have after #, as GitHub makes them: of every heading, its
// letters, digits, hyphens and underscores in lower case, with a hyphen for each blank, and a number if it comes again;
// and of <a name="...">.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#{1,6} +(.*?) *$`).FindAllStringSubmatch(text, -1) {
		heading := regexp.MustCompile(`\]\([^)]*\)`).ReplaceAllString(m[1], "")
		base := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			default:
				return -1
			}
		}, heading)
		name := base
		for n := 1; all[name]; n++ {
			name = base + "-" + strconv.Itoa(n)
		}
		all[name] = true
	}
	for _, m := range regexp.MustCompile(`<a name="([^"]+)">`).FindAllStringSubmatch(text, -1) {
		all[m[1]] = true
	}
	return all
}

// Every relative link in a document leads to a file or folder of this repository, and to a heading that is there.
func TestLinksLeadSomewhere(t *testing.T) {
	all := documents(t)
	// A link's text may go over the end of a line.
	link := regexp.MustCompile(`\]\(\s*<?([^()\s>]+(?:\([^()\s]*\)[^()\s>]*)*)>?(?:\s+"[^"]*")?\s*\)`)
	checked := 0
	for doc, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			checked++
			target, anchor, hasAnchor := strings.Cut(strings.ReplaceAll(m[1], `\_`, "_"), "#") // as terraform-docs writes it
			path := doc
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(doc), target))
			}
			if strings.HasPrefix(path, "../") || strings.HasPrefix(target, "/") {
				t.Errorf("%s: the link %s leads out of the repository", doc, m[1])
				continue
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: the link %s leads nowhere: %v", doc, m[1], err)
				continue
			}
			if to, isDocument := all[path]; hasAnchor && (!isDocument || !anchors(to)[anchor]) {
				t.Errorf("%s: the link %s: %s has no such heading", doc, m[1], path)
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d links were found", checked)
	}
}

// Every test that a document names is in a file of tests, so that a test that is renamed is renamed there too.
func TestNamedTestsExist(t *testing.T) {
	tests := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
			tests[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for doc, text := range documents(t) {
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w*`).FindAllString(text, -1) {
			named++
			if !tests[name] {
				t.Errorf("%s names %s, which does not exist", doc, name)
			}
		}
	}
	if named < 50 {
		t.Errorf("only %d names of tests were found", named)
	}
}

// Every document in docs is in the README's list.
func TestReadmeListsEveryDocument(t *testing.T) {
	all := documents(t)
	overview := all["README.md"] + all["docs/architecture.md"]
	for doc := range all {
		if name, ok := strings.CutPrefix(doc, "docs/"); ok && !strings.Contains(overview, "("+doc+")") && !strings.Contains(overview, "("+name+")") {
			t.Errorf("neither README.md nor docs/architecture.md links to %s", doc)
		}
	}
}
