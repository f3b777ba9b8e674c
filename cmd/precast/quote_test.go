//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// harmless tells what of a text would steer a terminal.
func harmless(text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%q is not UTF-8", text)
	}
	for _, r := range text {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return fmt.Errorf("%q has %U", text, r)
		}
	}
	return nil
}

// However a text is cut into writes: what comes out is harmless, nothing is lost, and JSON means the same.
func TestS10Quoted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte("\x1b[31m\xc2\x9b\xe2\x80\xae\r\n")))).Draw(t, "text"))
		encoded, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range []string{text, string(encoded)} {
			var out, whole bytes.Buffer
			q := newQuoted(&out)
			for rest := in; rest != ""; {
				n := rapid.IntRange(1, len(rest)).Draw(t, "n")
				if m, err := io.WriteString(q, rest[:n]); m != n || err != nil {
					t.Fatal(m, err)
				}
				rest = rest[n:]
			}
			at := newQuoted(&whole)
			if _, err := io.WriteString(at, in); err != nil {
				t.Fatal(err)
			}
			if err := at.end(); err != nil {
				t.Fatal(err)
			}
			if err := q.end(); err != nil {
				t.Fatal(err)
			}
			if out.String() != whole.String() {
				t.Fatalf("in parts %q, at once %q", out.String(), whole.String())
			}
			if err := harmless(out.String()); err != nil {
				t.Fatal(err)
			}
			if in != text {
				var back, want string
				if err := json.Unmarshal(out.Bytes(), &back); err != nil || json.Unmarshal(encoded, &want) != nil || back != want {
					t.Fatalf("%q became %q, error %v", want, back, err)
				}
			} else if harmless(in) == nil && !strings.ContainsAny(in, "\u2028\u2029") && out.String() != in {
				t.Fatalf("%q became %q", in, out.String())
			}
		}
	})
}

const escape = "\x1b]0;owned\x07\x1b[2J\u009b31m\u202egpj.exe\r"

// Whoever wrote it: nothing that a command prints steers the terminal.
func TestS10WordsOfOthers(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	item := func(app string) []byte {
		text, err := json.Marshal([]map[string]any{{"app": app, "env": "prod", "version": "1"}})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Precast-Selection", "evil")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, escape)
	}))
	defer server.Close()
	data := filepath.Join(dir, "data")
	for name, args := range map[string][]string{
		"app in a catalog":         {"catalog", "import", write("c.json", item(escape)), "-d", data},
		"app in a catalog as JSON": {"catalog", "import", filepath.Join(dir, "c.json"), "-d", data, "--json"},
		"app of an argument":       {"catalog", "rm", escape, "-d", data},
		"field of a catalog":       {"catalog", "import", write("f.json", []byte(`[{"`+strings.ReplaceAll(escape, "\x1b", `\u001b`)+`":1}]`)), "-d", data},
		"file that is not there":   {"inspect", filepath.Join(dir, escape)},
		"answer to inspect":        {"inspect", server.URL + "/package?cpuArch=x"},
		"answer to fsck":           {"fsck", server.URL},
		"answer to ask":            {"ask", "cpuArch=x", "--url", server.URL},
		"query of ask":             {"ask", "cpuArch=" + escape, "--url", server.URL},
		"wrong flag":               {"catalog", "list", "--" + escape},
	} {
		t.Run(name, func(t *testing.T) {
			_, stdout, stderr := command(t, args...)
			if err := harmless(stdout + stderr); err != nil {
				t.Error(err)
			}
			if stdout+stderr == "" {
				t.Error("nothing is said")
			}
		})
	}
	// A name cannot begin a line of its own either, and so speak for the program.
	_, _, stderr := command(t, "catalog", "import", write("l.json", item("x\nprecast: all is well")), "-d", data)
	if strings.Contains(stderr, "\nprecast: all") {
		t.Errorf("a name made a line: %s", stderr)
	}
}
