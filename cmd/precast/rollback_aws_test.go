//go:build aws

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

// Going back, proving and cleaning up against AWS's stand-in: the same words as with a data folder.
func TestRollbackFsckAndGCOnAWS(t *testing.T) {
	env, objects := onAWS(t)
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	// What a command prints, and what it says.
	command := func(want int, args ...string) (string, string) {
		t.Helper()
		cmd := exec.Command(path, args...)
		cmd.Dir, cmd.Env = work, env
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("precast %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, &out, &errs)
		}
		return out.String(), errs.String()
	}
	contains := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Fatalf("%q is not in\n%s", want, text)
		}
	}
	for version := 1; version <= 6; version++ {
		name := filepath.Join(work, "app")
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte(version)}, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
		command(exitOK, "catalog", "put", "app", name, "--version", string(rune('0'+version)), "--attr", "x")
		command(exitOK, "build")
	}
	out, _ := command(exitOK, "rollback", "--reason", "6 does not start", "--json")
	var res struct {
		Generation, Of uint64
		Writes         int
		Seconds        float64
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatal(err)
	}
	if res.Generation != 7 || res.Of != 5 || res.Writes != 1 {
		t.Fatalf("%+v", res)
	}
	t.Logf("rolled back in %.3f s, %d write", res.Seconds, res.Writes)
	out, _ = command(exitNo, "status")
	contains(out, "it is pinned: rolled back to generation 5: 6 does not start")
	contains(out, "what the catalog says is built; precast unpin publishes it")
	out, _ = command(exitOK, "catalog", "log")
	contains(out, "app/prod: 5 -> 6")
	contains(out, "rollback to generation 5, which is published as 7  6 does not start")
	contains(out, "  arn:aws:") // who the credentials belong to
	out, _ = command(exitOK, "catalog", "log", "--verify")
	contains(out, "7 entries, none of them changed")
	out, _ = command(exitOK, "history", "-n", "2")
	contains(out, "7 (published)")
	out, _ = command(exitOK, "diff", "current", "catalog")
	contains(out, "app 5 -> 6")
	out, _ = command(exitOK, "fsck", "--deep")
	contains(out, "it is complete")

	s, err := startServer(path, work, env)
	if err != nil {
		t.Fatal(err)
	}
	out, _ = command(exitOK, "fsck", s.url, "--deep")
	contains(out, "it is complete")
	// The stream brings a change; it is built, and the pin keeps it from being published.
	name := filepath.Join(work, "app")
	if err := os.WriteFile(name, []byte("release 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(exitOK, "catalog", "put", "app", name, "--version", "7", "--attr", "x")
	for start := time.Now(); ; {
		out, _ = command(exitNo, "status")
		contains(out, "generation 7 is published")
		contains(out, "it is pinned: rolled back to generation 5")
		if strings.Contains(out, "what the catalog says is built") {
			break
		}
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("the change is never built\n%s%s", out, s.stderr)
		}
	}
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	// Far back, past what no sweep gives up: announced by a plan.
	out, _ = command(exitOK, "rollback", "2", "--json")
	contains(out, `"of": 2`)
	command(exitOK, "unpin")
	out, _ = command(exitOK, "gc", "--keep", "3", "--grace", "0s")
	contains(out, "nothing was removed")
	out, _ = command(exitOK, "gc", "--keep", "3", "--grace", "0s", "--delete")
	contains(out, "index.d: ")
	contains(out, "binaries: ")
	f, _, err := builder.ReadFence(t.Context(), objects)
	if err != nil || f.Running || f.Epoch != 1 {
		t.Fatalf("the fence: %+v, %v", f, err)
	}
	out, _ = command(exitOK, "fsck", "--deep")
	contains(out, "it is complete")
	_, said := command(exitNo, "rollback", "1")
	contains(said, "there is no generation 1")

	// Lost and damaged objects come back.
	store := objects.(*awsstore.Objects)
	var lost []string
	if err := objects.List(t.Context(), layout.BundlePrefix, func(o builder.ObjectInfo) error { lost = append(lost, o.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), lost...); err != nil {
		t.Fatal(err)
	}
	out, _ = command(exitNo, "fsck", "--json")
	contains(out, `"kind": "missing"`)
	out, _ = command(exitOK, "fsck", "--repair")
	contains(out, "it is complete again")
	command(exitOK, "fsck", "--deep")
}
