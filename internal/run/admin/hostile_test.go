//go:build unix

package admin

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/limits"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/settings"
	"github.com/precast-ota/precast/internal/store/local"
)

// C22: who may release cannot have a file of the server's machine published, whatever the address looks like. One that
// the catalog names already may be promoted.
func TestFilesOfTheServerNeedAdminC22(t *testing.T) {
	p, w := newPipeline(t)
	ci, boss := served(t, p, Release), served(t, p, Admin)
	put := func(c *Client, app, address string) error {
		it := item("1")
		it.App, it.URL = app, address
		return c.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(it)}})
	}
	for _, address := range []string{"file:///etc/shadow", "file:/etc/shadow", "FILE:///etc/shadow", "file://host/etc/shadow"} {
		if err := put(ci, "a", address); err == nil || !strings.Contains(err.Error(), "use a token with the role admin") {
			t.Errorf("%s: %v", address, err)
		}
	}
	if len(w.edits) > 0 {
		t.Errorf("the catalog got %v", w.edits)
	}
	if err := put(boss, "a", "file:///srv/a"); err != nil {
		t.Error(err)
	}
	if err := put(ci, "b", "file:///srv/a"); err != nil {
		t.Error(err)
	}
	if err := put(ci, "c", "https://packages.example.com/c"); err != nil {
		t.Error(err)
	}
}

// C22: no key leads out of the folder of objects, to read, to list, to write or to remove.
func TestKeysStayInTheFolderC22(t *testing.T) {
	dir := t.TempDir()
	store, err := local.Open(filepath.Join(dir, "data"), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := served(t, pipeline.New(pipeline.Local(store), pipeline.Config{}), Admin)
	zeros := strings.Repeat("0", 64)
	for _, key := range []string{
		"../../secret", "..%2f..%2fsecret", "%2e%2e/%2e%2e/secret", "..%5c..%5csecret", "%2fetc%2fpasswd", filepath.ToSlash(dir) + "/secret", "../precast.db", "%2e%2e%2fprecast.db",
		"binaries/..%2f..%2f..%2fsecret", "binaries/" + zeros + "/..%2f..%2f..%2f..%2fsecret/1", "binaries/" + zeros + "/%2e%2e/1", "binaries/" + zeros + "/x/%2e%2e", "binaries/" + zeros + "/x/1%00",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut} {
			req, err := http.NewRequest(method, c.base+"/v1/objects/"+key+"?off=0&n=-1", strings.NewReader("planted"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(putHeader, "{}")
			resp, err := c.do(req)
			if err == nil {
				text, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				t.Errorf("%s %s: %s %q", method, key, resp.Status, text)
			}
		}
		if err := c.Objects().Delete(t.Context(), key, strings.NewReplacer("%2f", "/", "%2e", ".", "%5c", `\`, "%00", "\x00").Replace(key)); err == nil {
			t.Errorf("DELETE %s is done", key)
		}
		if err := c.Objects().List(t.Context(), key, func(o builder.ObjectInfo) error { return fmt.Errorf("listed %s", o.Key) }); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "secret")); err != nil || string(text) != "secret" {
		t.Errorf("%q, %v", text, err)
	}
	if n := countFiles(t, filepath.Join(dir, "data", "objects")); n > 0 {
		t.Errorf("%d objects were written", n)
	}
}

func countFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// C22: an upload that says no length or too great a one, that is empty, too short or never finished stores nothing, and
// one that stalls keeps nobody from storing the same binary.
func TestBrokenUploadsC22(t *testing.T) {
	dir := t.TempDir()
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	tokens := only("a token of a test", Identity{"ci", Release})
	ended := make(chan struct{}, 16)
	handler := Handler(pipeline.New(pipeline.Local(store), pipeline.Config{}), func() Tokens { return tokens }, slog.New(slog.DiscardHandler))
	s := httptest.NewUnstartedServer(nil)
	s.Config = limits.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		ended <- struct{}{}
	}), slog.New(slog.DiscardHandler))
	s.Start()
	defer s.Close()
	content := strings.Repeat("content ", 64<<10) // four steps of the limits, to the byte
	sum := sha256.Sum256([]byte(content))
	key := layout.BinaryKey(hex.EncodeToString(sum[:]), "os_a", "1")
	begin := func(headers, body string) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(c, "PUT /v1/objects/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a token of a test\r\n%s: %d\r\n%s: {}\r\n%s\r\n\r\n%s",
			key, versionHeader, catalog.Version, putHeader, headers, body)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for headers, want := range map[string]int{
		"Content-Length: " + strconv.FormatInt(maxObject+1, 10): http.StatusRequestEntityTooLarge,
		"Transfer-Encoding: chunked":                            http.StatusRequestEntityTooLarge,
		"Content-Length: 0":                                     http.StatusInternalServerError,
	} {
		c := begin(headers, "")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s: %v %v, want %d", headers, resp, err, want)
		}
		c.Close()
		<-ended
	}
	stalled := begin("Content-Length: "+strconv.Itoa(len(content)), content[:len(content)-1])
	client, err := NewRemoteClient(s.URL, "a token of a test", nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(text string) error {
		_, err := client.Objects().Put(t.Context(), key, builder.Body{Reader: strings.NewReader(text), Size: int64(len(text))}, builder.PutOptions{IfAbsent: true})
		<-ended
		return err
	}
	if err := put(content[1:] + "!"); err == nil || !strings.Contains(err.Error(), "what was sent has the sha256") {
		t.Errorf("other content: %v", err)
	}
	if n := countFiles(t, filepath.Join(dir, "objects")); n > 0 {
		t.Errorf("%d objects are there before one was sent whole", n)
	}
	if err := put(content); err != nil {
		t.Errorf("while another upload stalls: %v", err)
	}
	stalled.Close()
	<-ended
	if n := countFiles(t, filepath.Join(dir, "objects")); n != 1 {
		t.Errorf("%d objects, want 1", n)
	}
	if n := countFiles(t, filepath.Join(dir, "tmp")); n > 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

// disk has a number of bytes free.
type disk struct {
	pipeline.Disk
	free int64
}

func (d disk) Free() (free, total int64, err error) { return d.free, 1 << 30, nil }

// C22: uploads leave as much of the disk free as builds do.
func TestUploadsLeaveRoomC22(t *testing.T) {
	store, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var least settings.MinFree
	if err := least.UnmarshalText([]byte("1KiB")); err != nil {
		t.Fatal(err)
	}
	drivers := pipeline.Local(store)
	drivers.Disk = disk{drivers.Disk, 1100}
	c := served(t, pipeline.New(drivers, pipeline.Config{MinFree: least}), Release)
	for size, fits := range map[int]bool{50: true, 100: false} {
		content := strings.Repeat("x", size)
		sum := sha256.Sum256([]byte(content))
		_, err := c.Objects().Put(t.Context(), layout.BinaryKey(hex.EncodeToString(sum[:]), "a", "1"),
			builder.Body{Reader: strings.NewReader(content), Size: int64(size)}, builder.PutOptions{})
		if (err == nil) != fits || err != nil && !strings.Contains(err.Error(), "--min-free") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// S4: a file of tokens that became a pipe holds nobody up.
func TestTokensInAPipeS4(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err) // there are none on this system
	}
	if _, _, err := ReadTokens(path); err == nil || !strings.Contains(err.Error(), "it is a pipe, not a regular file") {
		t.Error(err)
	}
}
