package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/precast-ota/precast/internal/run/settings"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"precast": main})
}

func TestScripts(t *testing.T) { runScripts(t, "testdata", "", nil) }

// Commands do and say the same wherever the pipeline runs.
func TestCommandsInEveryHost(t *testing.T) {
	t.Run("process", func(t *testing.T) {
		runScripts(t, "testdata/hosts", "process", map[string]string{"NEXT": "Run precast build or precast serve to publish it."})
	})
	t.Run("served", func(t *testing.T) {
		runScripts(t, "testdata/hosts", "served", map[string]string{"NEXT": "The server at http://127.0.0.1:[0-9]+ builds it now."})
	})
	t.Run("C22 remote", func(t *testing.T) {
		runScripts(t, "testdata/hosts", "remote", map[string]string{"NEXT": "The server at http://127.0.0.1:[0-9]+ builds it now."})
	})
}

// Only data.go knows which hosts there are.
func TestCommandsDoNotAskForTheirHost(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok || id.Name != "thisProcess" && id.Name != "runningServer" {
				return true
			}
			if found++; name != "data.go" {
				t.Errorf("%s: it asks for %s", name, id.Name)
			}
			return true
		})
	}
	if found < 4 {
		t.Errorf("the hosts are named %d times: have they other names now?", found)
	}
}

// runScripts runs the scripts of a folder, and files. [process], [served], [remote] and [aws] in them are for that host
// only; a remote one is served too.
func runScripts(t *testing.T, dir, host string, env map[string]string, files ...string) {
	testscript.Run(t, testscript.Params{
		Dir:   dir,
		Files: files,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"serve": scriptServe,
			"stop":  scriptStop,
			"fill":  scriptFill,
		},
		Condition: func(cond string) (bool, error) {
			if !slices.Contains([]string{"process", "served", "remote", "aws"}, cond) {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return host == cond || cond == "served" && host == "remote", nil
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("PRECAST_DATA", e.WorkDir+"/data")
			e.Setenv("TMPDIR", e.WorkDir+"/tmp")
			e.Setenv("LONG", strings.Repeat("x", 301))
			for name, value := range env {
				e.Setenv(name, value)
			}
			if host == "remote" {
				const token = "of-a-test-of-twenty-and-more"
				for name, text := range map[string]string{"tokens": "# people\ntest admin " + token + " # all\n", "token": token + "\n"} {
					if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text), 0o600); err != nil {
						return err
					}
				}
				e.Setenv("TOKENS", e.WorkDir+"/tokens")
			}
			e.Values[serverOf] = new(*serving)
			return os.Mkdir(e.WorkDir+"/tmp", 0o755)
		},
	})
}

// serving is a precast serve that a test has started.
type serving struct {
	cmd    *exec.Cmd
	url    string
	admin  string // URL
	stderr *strings.Builder
}

// startServer starts precast serve and waits until it is ready.
func startServer(path, dir string, env []string, args ...string) (*serving, error) {
	cmd := exec.Command(path, append([]string{"serve", "--addr", "127.0.0.1:0", "--log-level", "warn"}, args...)...)
	cmd.Dir, cmd.Env = dir, env
	return started(cmd)
}

// started starts a precast serve and waits until it is ready.
func started(cmd *exec.Cmd) (*serving, error) {
	s := &serving{cmd: cmd, stderr: &strings.Builder{}}
	cmd.Stderr = s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if url, ok := strings.CutPrefix(line, "admin "); ok && err == nil {
		s.admin = strings.TrimSpace(url)
		line, err = lines.ReadString('\n')
	}
	if err != nil {
		_ = s.cmd.Wait()
		return nil, fmt.Errorf("the server did not get ready: %w: %s", err, s.stderr)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	var ok bool
	if s.url, ok = strings.CutPrefix(strings.TrimSpace(line), "ready "); !ok {
		return nil, fmt.Errorf("the server said %q, not ready and its URL", line)
	}
	return s, nil
}

// end sends a signal and waits; after SIGTERM the server must have ended well.
func (s *serving) end(sig syscall.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if sig == syscall.SIGKILL && errors.As(err, &exit) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the server ended with %w: %s", err, s.stderr)
	}
	return nil
}

// serve [FLAGS]: start a server, set $URL.
func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	path, err := exec.LookPath("precast")
	ts.Check(err)
	env := append(os.Environ(), "PRECAST_DATA="+ts.Getenv("PRECAST_DATA"), "TMPDIR="+ts.Getenv("TMPDIR"))
	tokens := ts.Getenv("TOKENS")
	if tokens != "" {
		args = append(args, "--admin-addr", "127.0.0.1:0", "--admin-tokens", tokens)
	}
	s, err := startServer(path, ts.MkAbs("."), env, args...)
	ts.Check(err)
	ts.Setenv("URL", s.url)
	if tokens != "" { // from now on, commands know nothing but the server
		ts.Setenv("PRECAST_SERVER", s.admin)
		ts.Setenv("PRECAST_TOKEN_FILE", ts.MkAbs("token"))
		ts.Setenv("PRECAST_DATA", ts.MkAbs("elsewhere"))
	}
	ts.Defer(func() { // a no more running process refuses the signal
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	*ts.Value(serverOf).(**serving) = s
}

// serverOf is the key of the server that a script has started last.
const serverOf = "server"

// stop [KILL]: end the server; server.log has what it said.
func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	s := *ts.Value(serverOf).(**serving)
	sig := syscall.SIGTERM
	if len(args) == 1 && args[0] == "KILL" {
		sig = syscall.SIGKILL
	}
	ts.Check(s.end(sig))
	ts.Check(os.WriteFile(ts.MkAbs("server.log"), []byte(s.stderr.String()), 0o644))
}

// fill FILE BYTES: write that many bytes, different for every file name.
func scriptFill(ts *testscript.TestScript, neg bool, args []string) {
	var n int
	_, err := fmt.Sscan(args[1], &n)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Repeat(args[0]+" ", n/(len(args[0])+1)+1)[:n]), 0o755))
}

// Every command explains itself with examples, and the examples are commands that parse.
func TestHelpHasExamplesThatParse(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"scoreboard", "firmware.img", "backend.tf"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := newParser(t)
	leaves := p.Model.Leaves(true)
	if len(leaves) < 12 {
		t.Fatalf("only %d commands", len(leaves))
	}
	for _, node := range leaves {
		_, examples, ok := strings.Cut(node.Detail, "Examples:\n")
		if !ok {
			t.Errorf("precast %s: its help has no examples", node.Path())
			continue
		}
		parsed := 0
		for line := range strings.Lines(examples) {
			line, _, _ = strings.Cut(line, "#")
			for command := range strings.SplitSeq(line, "&&") {
				command, _, _ = strings.Cut(command, "|")
				command, _, _ = strings.Cut(command, ">")
				args := words(command)
				if len(args) < 2 || args[0] != "precast" {
					continue
				}
				if _, err := newParser(t).Parse(args[1:]); err != nil {
					t.Errorf("example %q: %v", command, err)
				}
				parsed++
			}
		}
		if parsed == 0 {
			t.Errorf("precast %s: none of its examples is a command", node.Path())
		}
	}
}

func newParser(t *testing.T) *kong.Kong {
	t.Helper()
	p, err := kong.New(&commands{}, kong.Name("precast"), kong.Bind(streams{}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// words splits a simple shell command.
func words(s string) []string {
	var all []string
	var word strings.Builder
	quoted, any := false, false
	for _, r := range s {
		switch {
		case r == '\'':
			quoted, any = !quoted, true
		case (r == ' ' || r == '\n') && !quoted:
			if any {
				all = append(all, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(r)
			any = true
		}
	}
	if any {
		all = append(all, word.String())
	}
	return all
}

// The flags of the commands that build are the settings, of the same names, variables and defaults.
func TestBuildFlagsAreTheSettings(t *testing.T) {
	for _, command := range []string{"serve", "build", "plan", "status", "cost"} {
		parsed, err := newParser(t).Parse([]string{command})
		if err != nil {
			t.Fatal(err)
		}
		flags := make(map[string]*kong.Flag)
		for _, f := range parsed.Flags() {
			flags[f.Name] = f
		}
		for _, f := range reflect.VisibleFields(reflect.TypeFor[settings.Build]()) {
			env := f.Tag.Get("env")
			name := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(env, "PRECAST_")), "_", "-")
			got, ok := flags[name]
			if f.Tag.Get("kong") == "-" {
				if ok {
					t.Errorf("precast %s has --%s", command, name)
				}
				continue
			}
			if !ok || !slices.Equal(got.Envs, []string{env}) || got.Default != f.Tag.Get("default") || got.Help != f.Tag.Get("help") {
				t.Errorf("precast %s: --%s is %+v, want %s", command, name, got, f.Tag)
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--help"}, exitOK},
		{nil, exitOK},
		{[]string{"serve", "--help"}, exitOK},
		{[]string{"version"}, exitOK},
		{[]string{"frobnicate"}, exitUsage},
		{[]string{"seed", "--size", "many"}, exitUsage},
		{[]string{"catalog", "put", "a"}, exitUsage},
		{[]string{"status", "--data", "/nonexistent"}, exitError},
		{[]string{"inspect", "main_test.go"}, exitNo},
		{[]string{"inspect", "nonexistent"}, exitError},
	} {
		var out, errs strings.Builder
		if got := run(context.Background(), c.args, streams{out: &out, err: &errs}); got != c.want {
			t.Errorf("precast %s: exit code %d, want %d\n%s%s", strings.Join(c.args, " "), got, c.want, &out, &errs)
		}
		if c.want != exitOK && errs.Len() == 0 {
			t.Errorf("precast %s: failed without a word", strings.Join(c.args, " "))
		}
	}
}

// The flag of before names the seed too.
func TestSeedHasItsFormerName(t *testing.T) {
	for _, flag := range []string{"--seed", "--rng"} {
		var cmds commands
		p, err := kong.New(&cmds, kong.Name("precast"), kong.Bind(streams{}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Parse([]string{"seed", flag, "7"}); err != nil || cmds.Seed.Seed != 7 {
			t.Errorf("%s 7: seed %d, error %v", flag, cmds.Seed.Seed, err)
		}
		if _, err := p.Parse([]string{"demo", flag, "8"}); err != nil || cmds.Demo.Seed != 8 {
			t.Errorf("%s 8: seed %d, error %v", flag, cmds.Demo.Seed, err)
		}
	}
}

func TestCount(t *testing.T) {
	for want, got := range map[string]string{
		"1 item": count(1, "item"), "0 items": count(0, "item"), "2 binaries": count(uint64(2), "binary"), "1 binary": count(int64(1), "binary"),
		"1234567 different sets": count(1234567, "different set"), "1.5e+30 combinations": count(1.5e30, "combination"),
		"12345678901 bytes": count(int64(12345678901), "byte"), "9007199254740993 bytes": count(uint64(1<<53+1), "byte"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
