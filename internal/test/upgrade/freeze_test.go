//go:build aws

package upgrade

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var freezeCommit = flag.String("freeze", "", "freeze the installation that this commit makes, as COMMIT:NAME (testdata/upgrade/README.md)")

// TestFreeze makes a folder of testdata/upgrade: see the README there.
func TestFreeze(t *testing.T) {
	if *freezeCommit == "" {
		t.Skip("nothing is to be frozen: -freeze COMMIT:NAME")
	}
	commit, name, ok := strings.Cut(*freezeCommit, ":")
	if !ok {
		t.Fatal("-freeze is COMMIT:NAME")
	}
	into, err := filepath.Abs(filepath.Join(root, "testdata", "upgrade", name))
	if err != nil {
		t.Fatal(err)
	}
	f := newFreezer(t, commit, into)
	f.write("commit", []byte(command(t, f.checkout, nil, "git", "rev-parse", "HEAD")+command(t, f.checkout, nil, f.precast, "version")))
	f.sources()
	f.story()
	f.interrupted()
	f.tables()
}

// freezer is the program of a commit, and where what it makes is kept.
type freezer struct {
	t                        *testing.T
	checkout, precast, into  string
	device                   string // the program of a device
	work, data, keys         string
	goDevice, shDevice, root string
}

func newFreezer(t *testing.T, commit, into string) *freezer {
	t.Helper()
	if err := os.RemoveAll(into); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := &freezer{t: t, checkout: filepath.Join(dir, "checkout"), precast: filepath.Join(dir, "precast"), into: into, work: filepath.Join(dir, "work")}
	f.data, f.keys = filepath.Join(f.work, "data"), filepath.Join(f.work, "keys")
	f.goDevice, f.shDevice = filepath.Join(f.work, "device-go"), filepath.Join(f.work, "device-sh")
	command(t, root, nil, "git", "worktree", "add", "--detach", f.checkout, commit)
	t.Cleanup(func() { // the test's context has ended
		remove := exec.Command("git", "worktree", "remove", "--force", f.checkout)
		remove.Dir = root
		if out, err := remove.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	command(t, f.checkout, nil, "go", "build", "-o", f.precast, "./cmd/precast")
	f.device = filepath.Join(dir, "device")
	return f
}

func (f *freezer) write(name string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.into, name), data, 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// run runs a command of the program; refused: its answer is no.
func (f *freezer) run(refused bool, env []string, args ...string) {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), f.precast, args...)
	cmd.Dir, cmd.Env = f.work, append(os.Environ(), append([]string{"PRECAST_DATA=" + f.data, "PRECAST_KEYS=" + f.keys, "PRECAST_SUBSET_ITEMS=1"}, env...)...)
	out, err := cmd.CombinedOutput()
	if (err == nil) == refused || refused && cmd.ProcessState.ExitCode() != 3 {
		f.t.Fatalf("precast %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// sources keeps what the devices, the edge and a writer of the folder are made of, and makes a device of it.
func (f *freezer) sources() {
	f.t.Helper()
	var a txtar.Archive
	add := func(name string) {
		data, err := os.ReadFile(filepath.Join(f.checkout, name))
		if err != nil {
			f.t.Fatal(err)
		}
		a.Files = append(a.Files, txtar.File{Name: name, Data: data})
	}
	list := command(f.t, f.checkout, nil, "go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", "./client", "./internal/store/local") +
		command(f.t, f.checkout, []string{"GOOS=wasip1", "GOARCH=wasm"}, "go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", "./edge/wasm")
	dirs := strings.Fields(list)
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		local, err := filepath.Rel(f.checkout, dir)
		if err != nil {
			f.t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			f.t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				add(filepath.Join(local, filepath.Base(file)))
			}
		}
	}
	for _, name := range shimFiles() {
		add("edge/shim/" + name)
	}
	for name, text := range mains {
		a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(text)})
	}
	slices.SortFunc(a.Files, func(a, b txtar.File) int { return strings.Compare(a.Name, b.Name) })
	f.write("sources.txtar", txtar.Format(&a))
	script, err := os.ReadFile(filepath.Join(f.checkout, "client", "precast-device.sh"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("precast-device.sh", script)
	packed := f.t.TempDir()
	command(f.t, f.checkout, nil, "go", "run", "./edge/cmd/pack", "-out", packed)
	for _, name := range []string{"function.js", "response.js"} {
		data, err := os.ReadFile(filepath.Join(packed, name))
		if err != nil {
			f.t.Fatal(err)
		}
		f.write(name, data)
	}
	f.device = frozen{t: f.t, dir: f.into}.build("./cmd/device")
}

// file makes a binary and returns its name.
func (f *freezer) file(name string) string {
	f.t.Helper()
	path := filepath.Join(f.work, name)
	if err := os.WriteFile(path, bytes.Repeat([]byte(name+"\n"), 40), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// releases changes the catalog step by step. What env names is changed, the data folder if it is empty. After each step
// but the last, then is called.
func (f *freezer) releases(env []string, then func(step int)) {
	f.t.Helper()
	put := func(args ...string) { f.run(false, env, append([]string{"catalog", "put"}, args...)...) }
	f.run(false, env, "seed", "--size", "300B")
	then(1)
	put("scoreboard", f.file("scoreboard-1.1.0"), "--version", "1.1.0", "--attr", "gamer")
	then(2)
	put("os_armv8", f.file("os-1.2.0"), "--version", "1.2.0", "--floor", "1.1.0")
	put("os_armv8", f.file("os-1.3.0"), "--version", "1.3.0")
	put("os_armv8", f.file("os-2.1.0"), "--version", "2.1.0", "--rollout", "50", "--salt", "spring")
	put("modemFW", f.file("modem-1.1"), "--version", "1.1", "--attr", "cellular", "--rollout", "20", "--ident", "build 7", "--cpu-arch", "armv8")
	put("greeter", f.file("greeter-0.1"), "--version", "0.1", "--track", "beta", "--rollout", "5")
	then(3)
	put("scoreboard", f.file("scoreboard-1.2.0"), "--version", "1.2.0", "--attr", "gamer,camera")
}

// story makes the data folder, keys and devices, and notes what the server answers.
func (f *freezer) story() {
	f.t.Helper()
	if err := os.MkdirAll(f.work, 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.run(false, nil, "keys", "init", "--days", "36500")
	f.root = only(f.t, filepath.Join(f.keys, "root-*.pub.pem"))
	signer := []string{"PRECAST_SIGNING_KEY=file:" + only(f.t, filepath.Join(f.keys, "signing-*.pem"))}
	f.releases(nil, func(step int) {
		f.run(false, nil, "build")
		switch step {
		case 1:
			f.run(false, nil, "keys", "publish")
		case 2:
			s := serve(f.t, f.precast, f.data, signer...)
			command(f.t, f.work, nil, f.device, s.url, f.root, f.goDevice, deviceQuery)
			command(f.t, f.work, nil, "sh", filepath.Join(f.into, "precast-device.sh"), s.url, deviceQuery, f.root, f.shDevice)
			s.stop()
		case 3:
			f.run(false, nil, "rollback", "1", "--reason", "2.1.0 does not start")
			f.run(false, nil, "unpin")
			f.run(false, nil, "pin", "--reason", "a holiday")
		}
	})
	s := serve(f.t, f.precast, f.data, signer...)
	f.answers(s.url)
	for name, path := range map[string]string{
		"keyring": "/keyring", "statement": "/package?" + deviceQuery + "&payloadType=statement", "manifest.json": "/package?" + deviceQuery + "&payloadType=metadataOnly",
	} {
		_, body := get(f.t, s.url+path, "")
		f.write(name, body)
	}
	s.stop()
	ix, err := os.ReadFile(filepath.Join(f.data, "objects", "index"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("index", ix)
	f.archive("installation.tar.gz", "data", "keys", "device-go", "device-sh")
}

// interrupted makes a data folder whose server was killed while it built: jobs wait, and some are in flight.
func (f *freezer) interrupted() {
	f.t.Helper()
	data := filepath.Join(f.work, "building")
	for range 50 {
		if err := os.RemoveAll(data); err != nil {
			f.t.Fatal(err)
		}
		env := []string{"PRECAST_DATA=" + data}
		f.run(false, env, "seed", "--size", "300B")
		cmd := exec.CommandContext(f.t.Context(), f.precast, "serve", "--addr", "127.0.0.1:0", "--log-level", "error")
		cmd.Env = append(os.Environ(), append(env, "PRECAST_SUBSET_ITEMS=1")...)
		if err := cmd.Start(); err != nil {
			f.t.Fatal(err)
		}
		stored := func(what string) int {
			names, err := filepath.Glob(filepath.Join(data, "objects", what))
			if err != nil {
				f.t.Fatal(err)
			}
			return len(names)
		}
		for stored("bundles/*") < 5 && stored("index") == 0 { // it is at it
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if stored("index") == 0 {
			f.archive("interrupted.tar.gz", "building")
			return
		}
	}
	f.t.Fatal("every build was faster than its end")
}

// answers notes what the server answers.
func (f *freezer) answers(url string) {
	f.t.Helper()
	var out bytes.Buffer
	note := func(query, held string) []byte {
		status, body := get(f.t, url+"/package?"+query, held)
		line, err := json.Marshal(answer{Query: query, Held: held, Status: status, SHA256: digest(body)})
		if err != nil {
			f.t.Fatal(err)
		}
		out.Write(append(line, '\n'))
		return body
	}
	for _, q := range queries() {
		note(q, "")
		note(q+"&slot=7", "")
		note(q+"&slot=9999", "")
		var listed map[string]struct{ MD5 string }
		_ = json.Unmarshal(note(q+"&payloadType=metadataOnly", ""), &listed) // an error is answered with another object
		var tags []string
		for _, it := range listed {
			if it.MD5 != "" {
				tags = append(tags, it.MD5)
			}
		}
		slices.Sort(tags)
		if len(tags) > 0 {
			note(q, tags[0])
			note(q, strings.Join(tags, ","))
		}
	}
	f.write("answers.jsonl", out.Bytes())
}

// queries are the selections that devices of the frozen installations can make, and some more.
func queries() []string {
	all := []string{"", "cpuArch=", "cpuArch=armv8&payloadType=all", "cpuArch=%zz", "cpuArch=armv8&greeter=beta&scoreboard=beta"}
	for _, arch := range []string{"armv8", "armv7", "sparc"} {
		for _, os := range []string{"", "&os=prod", "&os=beta"} {
			for _, gamer := range []string{"", "&attrGamer=prod", "&attrGamer=beta"} {
				for _, camera := range []string{"", "&attrCamera=prod"} {
					for _, cellular := range []string{"", "&attrCellular=prod"} {
						all = append(all, "cpuArch="+arch+os+gamer+camera+cellular)
					}
				}
			}
		}
	}
	return all
}

// archive packs folders of the work folder; all files have one time.
func (f *freezer) archive(name string, folders ...string) {
	f.t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		f.t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(f.work, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			h, err := tar.FileInfoHeader(info, "")
			if err != nil {
				return err
			}
			if h.Name, err = filepath.Rel(f.work, path); err != nil {
				return err
			}
			h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime = 0, 0, "", "", time.Unix(1764547200, 0)
			if err := w.WriteHeader(h); err != nil || d.IsDir() {
				return err
			}
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = io.Copy(w, file)
			return err
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.write(name, out.Bytes())
}

// tables makes the same catalog on the stand-in for AWS, and keeps what a scan of its tables answers.
func (f *freezer) tables() {
	f.t.Helper()
	cloud := newCloud(f.t)
	f.releases(cloud.env, func(step int) {
		if step == 1 || step == 3 {
			f.run(false, cloud.env, "build")
		}
	})
	for _, table := range []string{"catalog", "ledger"} {
		var out bytes.Buffer
		if err := json.Indent(&out, cloud.call("Scan", fmt.Sprintf(`{"TableName":%q}`, table)), "", " "); err != nil {
			f.t.Fatal(err)
		}
		out.WriteByte('\n')
		f.write(table+".json", out.Bytes())
	}
}

// mains are programs of the frozen packages: a device, the table of rollouts of an index as the builder writes it, and
// one that changes the catalog of a data folder.
var mains = map[string]string{
	"cmd/device/main.go": `package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"` + module + `/client"
)

func main() {
	url, root, dir, query := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	roots, err := os.ReadFile(root)
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Options{URL: url, Selection: query, Roots: roots, Dir: dir, Install: func(_ context.Context, set client.Set) error {
		for _, f := range set.Files {
			fmt.Println("install", f.Name, f.SHA256)
		}
		return nil
	}})
	if err != nil {
		log.Fatal(err)
	}
	result, err := c.Update(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("generation %d, changed: %t\n", result.Generation, result.Changed)
}
`,
	"cmd/table/main.go": `package main

import (
	"encoding/json"
	"log"
	"os"

	"` + module + `/edge"
	"` + module + `/internal/format/index"
)

func main() {
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	ix, err := index.Parse(data)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(edge.TableOf(ix).Values()); err != nil {
		log.Fatal(err)
	}
}
`,
	"cmd/writer/main.go": `package main

import (
	"context"
	"log"
	"os"

	"` + module + `/internal/format/catalog"
	"` + module + `/internal/store/local"
)

func main() {
	store, err := local.Open(os.Args[1], local.Options{})
	if err != nil {
		log.Fatal(err)
	}
	item := catalog.Item{App: "written", Track: "prod", Version: "1"}
	if err := store.Catalog().Apply(context.Background(), catalog.Edit{Changes: []catalog.Change{catalog.Put(item)}}); err != nil {
		log.Fatal(err)
	}
	if err := store.Close(); err != nil {
		log.Fatal(err)
	}
}
`,
}
