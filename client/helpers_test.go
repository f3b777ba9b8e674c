package client_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/client"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// A clock that stands still until it is moved. It is a client.Clock.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*timer]bool
}

type timer struct {
	at time.Time
	f  func()
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), timers: make(map[*timer]bool)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{c.now.Add(d), f}
	c.timers[t] = true
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		was := c.timers[t]
		delete(c.timers, t)
		return was
	}
}

// advance lets time pass, and runs what is due, in this goroutine.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	var due []*timer
	for t := range c.timers {
		if !t.at.After(c.now) {
			due = append(due, t)
			delete(c.timers, t)
		}
	}
	c.mu.Unlock()
	for _, t := range due {
		t.f()
	}
}

func key(seed byte) signing.PrivateKey {
	k, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

// The keys of the tests. rootKey's public half is in the devices; the attacker has keys of their own.
var rootKey, signingKey, attackerRoot, attackerKey = key(1), key(2), key(66), key(67)

// The device of the tests, as its maker wrote it and in canonical form.
const (
	query     = "cpuArch=ARMv8&attrGamer=prod&os=prod"
	selection = "attrgamer=prod&cpuarch=armv8"
)

// world is a real installation: catalog, builder, server. Its clock is that of the devices.
type world struct {
	t       testing.TB
	clock   *clock
	objects shelf
	signing signing.Signer // what the server signs by at first, and somebody may steal
	serve   func(w *world, m *issuer.Issuer) http.Handler
	pub     *server.Published
	origin  string // URL of the server
	keyring *keyring.Keyring
	release int
	kind    kind
	limits  client.Limits // of the devices, set before they are made

	mu     sync.Mutex
	server http.Handler
	attack http.HandlerFunc // nil: nobody is there
	front  string           // URL that the devices know

	under   device // who is attacked
	patient bool   // the device does not mind how slow the attacker is
	hurried bool   // devices in sh, whose clock is the real one, wait for seconds only
}

// shelf is an object store of the tests.
type shelf interface {
	builder.Objects
	put(key string, data []byte)
	set(m memory) // replaces what is published
}

// onBothKinds plays a test on an installation with copies, and on one that composes bundles while they are sent.
func onBothKinds(t *testing.T, play func(t *testing.T, newWorld func(testing.TB) *world)) {
	t.Run("copies", func(t *testing.T) { play(t, newWorld) })
	t.Run("composed", func(t *testing.T) { play(t, newComposedWorld) })
}

// newWorld is an installation in this process, with copies.
func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, kind{})
}

// newComposedWorld is one without.
func newComposedWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, kind{composed: true})
}

func newWorldWith(t testing.TB, k kind) *world {
	t.Helper()
	return newWorldOn(t, k, &objects{m: make(memory)}, signingKey, func(w *world, m *issuer.Issuer) http.Handler {
		s := server.New(w.objects, w.pub, server.NewMetrics(), slog.New(slog.DiscardHandler))
		s.Statements(m)
		return s.Handler()
	})
}

func newWorldOn(t testing.TB, k kind, objects shelf, signer signing.Signer, serve func(*world, *issuer.Issuer) http.Handler) *world {
	t.Helper()
	w := &world{t: t, kind: k, clock: newClock(), objects: objects, signing: signer, serve: serve}
	w.pub = server.NewPublished(w.objects, slog.New(slog.DiscardHandler))
	w.sign(w.signing)
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		h := w.server
		w.mu.Unlock()
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(origin.Close)
	w.origin = origin.URL
	target, _ := url.Parse(w.origin)
	honest := httputil.NewSingleHostReverseProxy(target)
	honest.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		attack := w.attack
		w.mu.Unlock()
		if attack == nil {
			attack = honest.ServeHTTP
		}
		attack(rw, r)
	}))
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	front.Start()
	t.Cleanup(front.Close)
	w.front = front.URL

	w.putKeyring(keyring.Keyring{Version: 1, Expires: w.clock.Now().Add(365 * 24 * time.Hour),
		Roots: publics(rootKey), Signing: publics(w.signing)}, rootKey)
	w.publish()
	return w
}

func publics(keys ...signing.Signer) []signing.PublicKey {
	var all []signing.PublicKey
	for _, k := range keys {
		all = append(all, k.Public())
	}
	return all
}

// sign has the server sign by another key from now on.
func (w *world) sign(k signing.Signer) {
	w.t.Helper()
	m, err := issuer.New(k, issuer.DefaultSchedule(), w.clock.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	h := w.serve(w, m)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server = h
}

// putKeyring publishes a keyring.
func (w *world) putKeyring(k keyring.Keyring, by ...signing.Signer) {
	w.t.Helper()
	signed, err := k.Sign(context.Background(), by...)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range []string{layout.KeyringVersionKey(k.Version), layout.KeyringKey} {
		w.objects.put(name, signed.Encode())
	}
	w.keyring = signed
}

// nextKeyring publishes a changed keyring, one version up.
func (w *world) nextKeyring(change func(k *keyring.Keyring), by ...signing.Signer) {
	w.t.Helper()
	k := *w.keyring
	k.Version++
	change(&k)
	w.putKeyring(k, by...)
}

// publish releases new versions of everything, and returns what the device is to have.
func (w *world) publish() map[string]string {
	w.t.Helper()
	w.release++
	w.load(w.release)
	return released(w.release)
}

// attacked puts an attacker between the devices and the server; nil takes them away.
func (w *world) attacked(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attack = h
}

// recorded is an answer that an attacker keeps.
type recorded struct {
	status int
	header http.Header
	body   []byte
}

func (a recorded) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

func (a recorded) handle(w http.ResponseWriter, _ *http.Request) { a.send(w) }

// fetch asks the server itself.
func (w *world) fetch(path string, header ...string) recorded {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.origin+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return recorded{resp.StatusCode, resp.Header, body}
}

// forward passes a request on and returns what the server says.
func (w *world) forward(r *http.Request) recorded {
	var header []string
	for name := range r.Header {
		header = append(header, name, r.Header.Get(name))
	}
	return w.fetch(r.URL.RequestURI(), header...)
}

// The parts of what a device asks for.
func isKeyring(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/keyring") }
func isStatement(r *http.Request) bool {
	return r.URL.Path == "/package" && strings.Contains(r.URL.RawQuery, "payloadType=statement")
}
func isBundle(r *http.Request) bool { return r.URL.Path == "/package" && !isStatement(r) }

// statementNow is what the server says of the device at this moment.
func (w *world) statementNow() statement.Statement {
	w.t.Helper()
	a := w.fetch("/package?" + selection + "&payloadType=statement")
	s, err := statement.Parse(a.body)
	if err != nil {
		w.t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return s.Statement
}

// signedBy is a statement as a holder of a key would make it.
func (w *world) signedBy(k signing.Signer, s statement.Statement) recorded {
	w.t.Helper()
	data, err := statement.Sign(context.Background(), s, k)
	if err != nil {
		w.t.Fatal(err)
	}
	return recorded{200, http.Header{"Content-Type": {"text/plain"}}, data}
}

// evil is a set that nobody has released.
func (w *world) evil(generation uint64) (statement.Statement, recorded) {
	s := w.statementNow()
	s.Generation = generation
	files := map[string]string{"os_armv8_6.6.6": "evil"}
	s.Items = items(files)
	return s, w.bundle(files, files)
}

func items(files map[string]string) []statement.Item {
	var all []statement.Item
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256([]byte(files[name]))
		cut := strings.LastIndexByte(name, '_')
		all = append(all, statement.Item{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(files[name])), App: name[:cut], Version: name[cut+1:]})
	}
	return all
}

// bundle packs files, with a package_details.json of listed ones, as if all of them were there.
func (w *world) bundle(files, listed map[string]string) recorded {
	w.t.Helper()
	return w.pack(files, listed, func(string) int { return manifest.StatusIncluded })
}

// bundleOf packs files, with a package_details.json of all that a device is to have.
func (w *world) bundleOf(files, all map[string]string) recorded {
	w.t.Helper()
	return w.pack(files, all, func(name string) int {
		if _, ok := files[name]; ok {
			return manifest.StatusIncluded
		}
		return manifest.StatusHeld
	})
}

func (w *world) pack(files, listed map[string]string, status func(name string) int) recorded {
	w.t.Helper()
	m := make(manifest.Manifest)
	for _, it := range items(listed) {
		sum := md5.Sum([]byte(listed[it.FileName()]))
		m[it.App] = manifest.Entry{LatestVersion: it.Version, StatusCode: status(it.FileName()), Size: it.Size, SHA256: it.SHA256, MD5: hex.EncodeToString(sum[:])}
	}
	details, err := m.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	return recorded{200, http.Header{"Content-Type": {"application/gzip"}}, pack(w.t, append([]member{{name: layout.ManifestName, content: string(details)}}, members(files)...)...)}
}

type member struct {
	name, content string
	kind          byte
}

func members(files map[string]string) []member {
	var all []member
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, member{name: name, content: files[name]})
	}
	return all
}

func pack(t testing.TB, all ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	a := tar.NewWriter(z)
	for _, m := range all {
		h := &tar.Header{Name: m.name, Mode: 0o755, Size: int64(len(m.content)), Typeflag: tar.TypeReg}
		if m.kind != 0 {
			h.Typeflag, h.Linkname, h.Size = m.kind, m.content, 0
		}
		if err := a.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if m.kind == 0 {
			if _, err := io.WriteString(a, m.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpackAll is the inverse, for sound bundles.
func unpackAll(t testing.TB, data []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for a := tar.NewReader(z); ; {
		h, err := a.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(a)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(content)
	}
}

// device is what is attacked: the client in Go or the one in sh.
type device interface {
	// update asks for what is new; its error tells the check that failed, if one did.
	update() error
	// installed returns what is in use: file names and contents; and how often something was taken into use.
	installed() (files map[string]string, times int)
}

// goDevice is the client in Go.
type goDevice struct {
	t      testing.TB
	client *client.Client
	dir    string
	files  map[string]string
	times  int
	last   client.Result
}

func (w *world) goDevice(leftOut ...client.Check) *goDevice {
	return w.goDeviceAt(w.front, w.t.TempDir(), leftOut...)
}

func (w *world) goDeviceAt(url, dir string, leftOut ...client.Check) *goDevice {
	w.t.Helper()
	d := &goDevice{t: w.t, dir: dir}
	d.client = w.clientOf(d, query, url)
	client.LeaveOut(d.client, leftOut...)
	return d
}

// clientOf makes a device's client.
func (w *world) clientOf(d *goDevice, query, url string) *client.Client {
	w.t.Helper()
	c, err := client.New(client.Options{
		URL: url, Selection: query, Roots: signing.PublicPEM(rootKey.Public()), Dir: d.dir, Clock: w.clock, Limits: w.limits,
		HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Install: func(_ context.Context, set client.Set) error {
			files := make(map[string]string)
			for _, f := range set.Files {
				content, err := os.ReadFile(f.Path)
				if err != nil {
					return err
				}
				files[f.Name] = string(content)
			}
			d.files, d.times = files, d.times+1
			return nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (d *goDevice) update() error {
	var err error
	d.last, err = d.client.Update(context.Background())
	return err
}

func (d *goDevice) installed() (map[string]string, int) { return d.files, d.times }

// wantFiles fails unless a device has exactly these.
func wantFiles(t testing.TB, d device, want map[string]string) {
	t.Helper()
	if got, _ := d.installed(); !maps.Equal(got, want) {
		t.Fatalf("%q is installed, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

func mustUpdate(t testing.TB, d device) {
	t.Helper()
	if err := d.update(); err != nil {
		t.Fatal(err)
	}
}
