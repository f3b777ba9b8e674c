package upgrade

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"go.etcd.io/bbolt"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// folderVersion reads the version of a data folder.
func folderVersion(t *testing.T, data string) (version uint64) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(data, "precast.db"), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.View(func(tx *bbolt.Tx) error {
		version = binary.BigEndian.Uint64(tx.Bucket([]byte("store")).Get([]byte("schema")))
		return nil
	}), db.Close()); err != nil {
		t.Fatal(err)
	}
	return version
}

// S13: a folder is taken up as it is opened. From then on the earlier program refuses it, and changes nothing.
func TestS13AnEarlierProgramRefusesTheFolder(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		dir := f.installation()
		data, db := filepath.Join(dir, "data"), filepath.Join(dir, "data", "precast.db")
		writer := f.build("./cmd/writer")
		before := folderVersion(t, data)
		if before >= catalog.Version {
			t.Skip("it stores catalogs in the same version")
		}
		command(t, dir, nil, writer, data)
		c := f.commands(dir)
		c.says(0, "catalog list", "written", "scoreboard")
		if v := folderVersion(t, data); v != catalog.Version {
			t.Fatalf("the folder has version %d, want %d", v, catalog.Version)
		}
		taken, err := os.ReadFile(db)
		if err != nil {
			t.Fatal(err)
		}
		out, code := try(t, dir, nil, writer, data)
		if code == 0 || !strings.Contains(out, "version "+strconv.Itoa(catalog.Version)) || !strings.Contains(out, "this program knows version "+strconv.FormatUint(before, 10)) {
			t.Errorf("the earlier program: exit code %d\n%s", code, out)
		}
		if after, err := os.ReadFile(db); err != nil || !bytes.Equal(after, taken) {
			t.Errorf("the earlier program has changed the folder (%v)", err)
		}
	})
}

// fields lists what a catalog stores: the fields of every type that items are made of, with their tags.
func fields(t *testing.T, sources map[string][]byte) (all []string) {
	t.Helper()
	types := make(map[string]*ast.StructType)
	for name, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					types[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	seen := make(map[string]bool)
	var walk func(name string)
	walk = func(name string) {
		s := types[name]
		if s == nil || seen[name] {
			return
		}
		seen[name] = true
		for _, f := range s.Fields.List {
			for _, n := range f.Names {
				all = append(all, name+"."+n.Name+" "+f.Tag.Value)
			}
			ast.Inspect(f.Type, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					walk(id.Name)
				}
				return true
			})
		}
	}
	walk("Item")
	slices.Sort(all)
	return all
}

// S13: a field that the newest frozen program does not know raises the version.
func TestS13FieldsRaiseTheVersion(t *testing.T) {
	const dir = "internal/format/catalog/"
	present := make(map[string][]byte)
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if present[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	now := fields(t, present)
	if len(now) < 15 {
		t.Fatalf("only the fields %q are found", now)
	}
	each(t, func(t *testing.T, f frozen) {
		earlier := make(map[string][]byte)
		for _, file := range txtar.Parse(f.read("sources.txtar")).Files {
			if base, ok := strings.CutPrefix(file.Name, dir); ok {
				earlier[base] = file.Data
			}
		}
		then := fields(t, earlier)
		version := folderVersion(t, filepath.Join(f.installation("data/precast.db"), "data"))
		if !slices.Equal(now, then) && version >= catalog.Version {
			t.Errorf("items have the fields\n%s\nand a program of catalog.Version %d knows\n%s\nRaise catalog.Version.",
				strings.Join(now, "\n"), version, strings.Join(then, "\n"))
		}
	})
}

// snapshot lists the files of a data folder with their digests.
func snapshot(t *testing.T, data string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = digest(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// S13: of a folder that a later program has taken up, no command changes anything, and each says what is needed.
func TestS13ALaterFolderIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		dir := f.installation()
		data := filepath.Join(dir, "data")
		c := f.commands(dir)
		c.says(0, "catalog list")
		db, err := bbolt.Open(filepath.Join(data, "precast.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		later := binary.BigEndian.AppendUint64(nil, catalog.Version+1)
		if err := errors.Join(db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("store")).Put([]byte("schema"), later) }), db.Close()); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, data)
		refusal := fmt.Sprintf("the catalog is stored in version %d, and this program knows versions up to %d: a newer precast is needed", catalog.Version+1, catalog.Version)
		for _, line := range []string{
			"seed", "catalog list", "catalog export", "catalog rm greeter --track beta",
			"catalog put x " + filepath.Join(root, "go.mod") + " --version 1",
			"catalog rollout os_armv8 100", "catalog import " + filepath.Join(root, "go.mod"), "plan", "build", "build --verify", "status --redrive",
			"history", "diff 1 current", "rollback 1", "pin", "unpin", "fsck --repair", "gc --delete", "keys publish", "serve --addr 127.0.0.1:0",
		} {
			c.says(1, line, refusal)
		}
		if after := snapshot(t, data); !maps.Equal(after, before) {
			for path, sum := range after {
				if before[path] != sum {
					t.Errorf("%s was changed", path)
				}
			}
			t.Errorf("%d files, were %d", len(after), len(before))
		}
	})
}
