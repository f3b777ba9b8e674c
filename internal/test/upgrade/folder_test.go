package upgrade

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// commands runs commands of this program on a data folder.
type commands struct {
	t       *testing.T
	program string
	env     []string
}

func (f frozen) commands(installation string) commands {
	f.t.Helper()
	return commands{f.t, precast(f.t), []string{
		"PRECAST_DATA=" + filepath.Join(installation, "data"), "PRECAST_KEYS=" + filepath.Join(installation, "keys"), "PRECAST_SUBSET_ITEMS=1",
	}}
}

// says runs a command and fails unless it ends with the exit code, and prints all the words.
func (c commands) says(code int, line string, words ...string) {
	c.t.Helper()
	out, got := try(c.t, "", c.env, append([]string{c.program}, strings.Split(line, " ")...)...)
	if got != code {
		c.t.Fatalf("precast %s: exit code %d, want %d\n%s", line, got, code, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			c.t.Errorf("precast %s does not say %q:\n%s", line, w, out)
		}
	}
}

// signer is the setting of the key that signs.
func signer(t *testing.T, installation string) string {
	t.Helper()
	return "PRECAST_SIGNING_KEY=file:" + only(t, filepath.Join(installation, "keys", "signing-*.pem"))
}

// An earlier program's folder is the same installation to this one: it lists, serves, builds and rolls back.
func TestFolder(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		dir := f.installation()
		c := f.commands(dir)
		c.says(0, "catalog list", "os_armv8", "for 50 % of the devices with a slot (salt spring)", "for 20 %", "1.1.0")
		c.says(3, "status", "generation 6 is published", "pinned: a holiday", "the catalog has changes that are not published")
		c.says(0, "history", "1.1.0 -> 2.1.0", "2.1.0 -> 1.1.0", "a holiday")
		c.says(0, "fsck --deep", "it is complete")

		s := serve(t, c.program, filepath.Join(dir, "data"), append(c.env, signer(t, dir))...)
		for _, want := range f.answers() {
			status, body := get(t, s.url+"/package?"+want.Query, want.Held)
			if status != want.Status || digest(body) != want.SHA256 {
				t.Errorf("%s (held %q): status %d, %d bytes of digest %s; was %+v", want.Query, want.Held, status, len(body), digest(body), want)
			}
		}
		s.stop()

		c.says(3, "build", "pinned")
		c.says(0, "unpin")
		c.says(0, "status", "it is what the catalog says")
		c.says(0, "fsck --deep", "it is complete")
		c.says(0, "catalog rollout os_armv8 100")
		c.says(0, "build", "published")
		c.says(0, "rollback 2 --reason back", "generation 2")
		c.says(3, "build", "pinned")
		c.says(0, "fsck --deep", "it is complete")
		c.says(0, "unpin")
		c.says(0, "gc --delete --grace 0s")
		c.says(0, "fsck --deep", "it is complete")
	})
}

// The jobs that an earlier program left in the queue when it was killed are done by this one.
func TestInterruptedBuild(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		c := f.commands("")
		c.env = append(c.env, "PRECAST_DATA="+filepath.Join(f.extract("interrupted.tar.gz", ""), "building"), "PRECAST_COPIES=true") // as then
		if out, code := try(t, "", c.env, c.program, "status", "--json"); code != 3 || !strings.Contains(out, `"generation": 0`) || strings.Contains(out, `"waiting": 0`) {
			t.Fatalf("no job waits: exit code %d, %s", code, out)
		}
		c.says(0, "build", "generation 1 is published")
		c.says(0, "status", "it is what the catalog says", "jobs: 0 waiting, 0 in flight, 0 dead")
		c.says(0, "fsck --deep", "it is complete")
	})
}

// The formats stay readable, each by itself, and their signatures good.
func TestFormats(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		ix, err := index.Parse(f.read("index"))
		if err != nil || ix.Pin == "" || !slices.ContainsFunc(ix.Items, func(it index.Item) bool { return it.Role == index.Floor }) {
			t.Fatalf("the index is %+v, %v", ix, err)
		}
		m, err := manifest.Decode(bytes.NewReader(f.read("manifest.json")))
		if err != nil {
			t.Fatal(err)
		}
		k, err := keyring.Parse(f.read("keyring"))
		if err != nil {
			t.Fatal(err)
		}
		st, err := statement.Parse(f.read("statement"))
		if err != nil {
			t.Fatal(err)
		}
		key, err := k.SigningKey(st.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Verify(key); err != nil || st.Generation != ix.Generation || len(st.Items) != len(m.Files()) {
			t.Errorf("a statement of generation %d for %d files, %v; the index is of generation %d, the manifest has %d files",
				st.Generation, len(st.Items), err, ix.Generation, len(m.Files()))
		}
		if !k.SignedBy(k.Roots) {
			t.Error("the keyring is not signed by its root")
		}
	})
}
