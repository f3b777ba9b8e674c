package rig_test

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge/rig"
	"github.com/precast-ota/precast/internal/run/lambdazip"
)

// trapping stands in front of the packaged entry point: a device of the kind "trap" has the Go instance die
// first, in the way that it names.
const trapping = `import { handler as real } from './real.mjs';
const KINDS = ['panic', 'nilmap', 'deadlock', 'overflow'];
export async function handler(event, context) {
  const kind = KINDS.indexOf(/attrtrap=(\w+)/.exec(event.Records[0].cf.request.querystring)?.[1]);
  if (kind >= 0) {
    const go = real.instance();
    let died = false;
    try { go.call(go.exports.fault, kind); } catch { died = true; }
    if (!died) throw new Error('it did not die');
  }
  return real(event, context);
}
`

// packedToTrap packs the edge with faults in it, and trapping in front.
func packedToTrap(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "./edge/cmd/pack", "-tags", "faults", "-out", dir)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pack: %v\n%s", err, out)
	}
	name := filepath.Join(dir, "edge.zip")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	files := []lambdazip.File{{Name: "index.mjs", Mode: 0o644, Data: []byte(trapping)}}
	for _, f := range z.File {
		body, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name == "index.mjs" {
			f.Name = "real.mjs"
		}
		files = append(files, lambdazip.File{Name: f.Name, Mode: 0o644, Data: content})
	}
	if data, err = lambdazip.Encode(files...); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// However the WebAssembly instance dies, the very request that finds it dead is answered rightly, and so are
// all others.
func TestTheInstanceDies(t *testing.T) {
	t.Parallel()
	dir := packedToTrap(t)
	var logged []string
	s := newSite(t, few(), func(o *rig.Options) {
		o.Dist = dir
		o.OnLog = func(line string) { logged = append(logged, line) }
	})
	want := s.ask("GET", gamer).body
	for _, kind := range []string{"panic", "nilmap", "deadlock", "overflow", "panic"} {
		for _, target := range []string{gamer + "&attrTrap=" + kind + "&attrRound=" + kind, "/package?cpuArch=armv7&attrTrap=" + kind} {
			a := s.get(target)
			direct := s.ask("GET", target)
			if a.status != 200 || !bytes.Equal(a.body, direct.body) {
				t.Fatalf("%s: %v", target, a)
			}
		}
		s.Invalidate("/package*")
		if a := s.get(gamer); a.status != 200 || a.xcache() != "Miss" || !bytes.Equal(a.body, want) {
			t.Fatalf("after %s: %v", kind, a)
		}
	}
	if !slices.ContainsFunc(logged, func(line string) bool {
		return strings.Contains(line, `"msg":"decide"`) && strings.Contains(line, `"fault":true`)
	}) {
		t.Errorf("the deaths are not in the log: %q", logged)
	}
}
