//go:build unix

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/precast-ota/precast/internal/store/local"
)

// C23: several commands at once, without a server, wait for each other and are all done.
func TestCommandsWaitForEachOtherC23(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PRECAST_DATA", filepath.Join(dir, "data"))
	binary := filepath.Join(dir, "binary")
	if err := os.WriteFile(binary, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const commands = 8
	var wg sync.WaitGroup
	for i := range commands {
		wg.Go(func() {
			if out, err := exec.Command("precast", "catalog", "put", fmt.Sprint("app", i), binary, "--version", "1").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	out, _ := says(t, exitOK, "catalog", "list")
	for i := range commands {
		if !strings.Contains(out, fmt.Sprint("app", i)) {
			t.Errorf("app%d is not in the catalog:\n%s", i, out)
		}
	}
}

// C23: a command says for what it waits and goes on as soon as it can, or gives up when it has been told to.
func TestLockWaitC23(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PRECAST_DATA", dir)
	store, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, errs := says(t, exitError, "catalog", "list", "--lock-wait", "0s"); !strings.Contains(errs, dir+": in use by another process, still after 0s (--lock-wait): wait for it to end") {
		t.Errorf("without waiting: %q", errs)
	}
	cmd := exec.Command("precast", "catalog", "list", "--lock-wait", "10m")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if want := "precast: waiting for another process that uses " + dir + " (--lock-wait 10m0s)\n"; line != want {
		t.Errorf("it says %q %v, want %q", line, err, want)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after the other process has ended: %v", err)
	}
}

// A folder that a process cannot write to is listed, inspected, checked and served, and stays as it is.
func TestReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	precast(t, nil, "seed", "--data", data, "--size", "2KiB")
	precast(t, nil, "build", "--data", data)
	precast(t, nil, "catalog", "put", "waits", filepath.Join(data, "precast.db"), "--version", "1", "--data", data)
	before := tree(t, data)
	path := filepath.Join(dir, "precast")
	copyProgram(t, path)
	readOnly(t, data)
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // to whom permissions mean nothing
		attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // where t.TempDir makes its folders
			t.Fatal(err)
		}
	}
	command := func(args ...string) (string, error) {
		cmd := exec.Command(path, append(args, "--data", data)...)
		cmd.Dir, cmd.SysProcAttr = "/", attr
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct{ args, want string }{
		{"catalog list", "waits"}, {"catalog export", `"waits"`}, {"catalog log --verify", "none of them changed"},
		{"history", "(published)"}, {"diff current catalog", "waits"}, {"plan", ""}, {"fsck", ""}, {"status --json", `"generation"`},
	} {
		out, err := command(strings.Fields(c.args)...)
		if exit, no := err.(*exec.ExitError); err != nil && !(no && exit.ExitCode() == exitNo && (c.args == "fsck" || c.args == "status --json")) || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
	for _, args := range []string{"catalog rm waits", "catalog put other " + filepath.Join(data, "precast.db") + " --version 1", "build", "pin"} {
		if out, err := command(strings.Fields(args)...); err == nil || !strings.Contains(out, "read-only") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	cmd := exec.Command(path, "serve", "--addr", "127.0.0.1:0", "--data", data)
	cmd.Dir, cmd.SysProcAttr = "/", attr
	s, err := started(cmd)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/package?cpuArch=armv8&attrGamer=prod": 200, "/package?cpuArch=none": 404, "/readyz": 200, "/livez": 200} {
		resp, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %s %v", path, resp.Status, err)
		}
		resp.Body.Close()
	}
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if after := tree(t, data); after != before {
		t.Errorf("the folder was\n%s\nand is\n%s", before, after)
	}
}

// readOnly takes the right to write to a folder from everybody, until the test ends.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	set := func(folder, file fs.FileMode) error {
		return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				return os.Chmod(path, folder)
			}
			return os.Chmod(path, file)
		})
	}
	if err := set(0o555, 0o444); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(0o755, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// tree is every file of a folder, with its digest.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			fmt.Fprintln(&all, path)
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %x\n", path, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	from, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// The access log has one line a request: what was asked for in the catalog's words, and how it was answered. Nothing in
// it tells one device from another, and a device cannot write into it.
func TestAccessLog(t *testing.T) {
	dir := t.TempDir()
	precast(t, nil, "seed", "--data", dir, "--size", "2KiB")
	precast(t, nil, "build", "--data", dir)
	file := filepath.Join(dir, "access.log")
	s, err := startServer("precast", dir, os.Environ(), "--data", dir, "--access-log", file)
	if err != nil {
		t.Fatal(err)
	}
	const digest = "d41d8cd98f00b204e9800998ecf8427e"
	requests := []struct {
		method, path, held, want string
	}{
		{"GET", "/package?cpuArch=armv8&attrGamer=prod", "", "package GET 200 composed attrgamer=prod&cpuarch=armv8"},
		{"HEAD", "/package?ATTRGAMER=prod&cpuArch=armv8&slot=4711", `"` + digest + `"`, "package HEAD 200 composed attrgamer=prod&cpuarch=armv8"},
		{"GET", "/package?cpuArch=armv8&attrNobody" + digest + "=prod&attrGamer=" + digest, "", "package GET 200 composed cpuarch=armv8"},
		{"GET", "/package?cpuArch=arm%0a%22v8", "", "package GET 400"},
		{"GET", "/package", "", "package GET 400"},
		{"DELETE", "/package?cpuArch=armv8", "", "package other 405"},
		{"GET", "/%0d%0a{\"status\":200}", "", "other GET 404"},
	}
	for _, r := range requests {
		req, err := http.NewRequest(r.method, s.url+r.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.held != "" {
			req.Header.Set("If-None-Match", r.held)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if err := s.end(syscall.SIGTERM); err != nil { // the last line is written after the answer
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != len(requests) {
		t.Fatalf("%d lines of %d requests:\n%s", len(lines), len(requests), text)
	}
	for i, line := range lines {
		var said struct {
			Time                             time.Time
			Route, Method, Source, Selection string
			Status                           int
			Bytes                            int64
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil || said.Time.IsZero() {
			t.Errorf("%s: %v", line, err)
		}
		got := strings.Join(strings.Fields(fmt.Sprint(said.Route, " ", said.Method, " ", said.Status, " ", said.Source, " ", said.Selection)), " ")
		if !strings.HasPrefix(got, requests[i].want) {
			t.Errorf("%s %s: the log says %q, want %q", requests[i].method, requests[i].path, got, requests[i].want)
		}
		if (said.Bytes > 0) != (said.Method != "HEAD") {
			t.Errorf("%s: %d bytes", line, said.Bytes)
		}
	}
	for _, secret := range []string{digest, "4711", "slot", "127.0.0.1", "nobody", "Go-http"} {
		if strings.Contains(strings.ToLower(string(text)), strings.ToLower(secret)) {
			t.Errorf("the log holds %q:\n%s", secret, text)
		}
	}
}

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key, a.pem, _ = certify(t, template, nil)
	return a
}

// certify makes a certificate by an authority, or one that certifies itself.
func certify(t *testing.T, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = &authority{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// issue writes a certificate for 127.0.0.1 with a serial number, and its key.
func (a *authority) issue(t *testing.T, serial int64, cert, key string) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	_, _, certText, keyText := certify(t, template, a)
	replace(t, key, keyText)
	replace(t, cert, certText)
}

// replace has a file's new content there at once.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// C22: from another machine, with tokens of one's own over TLS. Certificates and tokens change without a restart, and
// clients that stop in the handshake hold nobody up.
func TestAnotherMachineC22(t *testing.T) {
	dir := t.TempDir()
	name := func(base string) string { return filepath.Join(dir, base) }
	data := name("data")
	precast(t, nil, "seed", "--data", data, "--size", "2KiB")
	ca := newAuthority(t)
	ca.issue(t, 10, name("device.pem"), name("device.key"))
	ca.issue(t, 20, name("admin.pem"), name("admin.key"))
	replace(t, name("ca.pem"), ca.pem)
	replace(t, name("others.pem"), newAuthority(t).pem)
	tokens := map[string]string{}
	for _, role := range []string{"read", "release", "admin"} {
		tokens[role] = role + "-0123456789abcdef0123"
		replace(t, name(role), []byte(tokens[role]+"\n"))
	}
	sum := sha256.Sum256([]byte(tokens["release"]))
	hashed := "nightly release sha256:" + hex.EncodeToString(sum[:]) + "\n"
	replace(t, name("tokens"), []byte("grafana read "+tokens["read"]+"\n"+hashed+"me admin "+tokens["admin"]+"\n"))

	limited := name("limited")
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limited, fmt.Appendf(nil, "#!/bin/sh\nulimit -n 200\nexec %s \"$@\"\n", path), 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"--data", data, "--tls-cert", name("device.pem"), "--tls-key", name("device.key"),
		"--admin-addr", "127.0.0.1:0", "--admin-tokens", name("tokens"), "--admin-tls-cert", name("admin.pem"), "--admin-tls-key", name("admin.key")}
	s, err := startServer(limited, dir, os.Environ(), args...)
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = s.end(syscall.SIGKILL)
		}
	}()
	remote := func(role, authorities string, args ...string) (string, int) {
		t.Helper()
		var out bytes.Buffer
		args = append(args, "--server", s.admin, "--token-file", name(role), "--ca-file", name(authorities))
		code := run(t.Context(), args, streams{out: &out, err: &out, in: strings.NewReader("")})
		return out.String(), code
	}
	expect := func(want int, says, role, authorities string, args ...string) {
		t.Helper()
		if out, code := remote(role, authorities, args...); code != want || !strings.Contains(out, says) {
			t.Errorf("%s as %s: exit code %d, %s", args, role, code, out)
		}
	}
	replace(t, name("firmware"), []byte("firmware"))
	put := func(version string) []string {
		return []string{"catalog", "put", "scoreboard", name("firmware"), "--version", version, "--wait"}
	}
	expect(exitOK, "scoreboard", "read", "ca.pem", "catalog", "list")
	expect(exitError, "the token of grafana has the role read; this needs the role release", "read", "ca.pem", put("2")...)
	expect(exitError, "certificate signed by unknown authority", "release", "others.pem", put("2")...)
	expect(exitOK, "is published", "release", "ca.pem", put("2")...)
	expect(exitOK, "nightly (says ", "read", "ca.pem", "catalog", "log")
	expect(exitOK, "", "release", "ca.pem", "catalog", "promote", "scoreboard", "--from", "prod", "--to", "beta")
	expect(exitError, "needs the role admin", "release", "ca.pem", "status", "--redrive")
	expect(exitError, "needs the role admin", "release", "ca.pem", "build", "--verify")
	expect(exitOK, "", "admin", "ca.pem", "build", "--verify")

	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	get := func(base, path string) (serial int64, status int) {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
		resp, err := client.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), resp.StatusCode
	}
	device := func(serial int64) {
		t.Helper()
		if got, status := get(s.url, "/package?cpuArch=armv8&attrGamer=prod"); got != serial || status != 200 {
			t.Errorf("devices get status %d with certificate %d, want %d", status, got, serial)
		}
	}
	device(10)
	// S14: metrics are for those who watch.
	for url, want := range map[string]int{s.url + "/metrics": 404, s.admin + "/metrics": 200, s.admin + "/readyz": 200, s.url + "/v1/catalog": 404, s.admin + "/v1/catalog": 401, s.admin + "/package?cpuArch=armv8": 404} {
		base, path, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
		if _, status := get("https://"+base, "/"+path); status != want {
			t.Errorf("%s: %d, want %d", url, status, want)
		}
	}
	ca.issue(t, 11, name("device.pem"), name("device.key"))
	ca.issue(t, 21, name("admin.pem"), name("admin.key"))
	device(11)
	if serial, _ := get(s.admin, "/livez"); serial != 21 {
		t.Errorf("administrators get certificate %d, want 21", serial)
	}
	replace(t, name("device.pem"), []byte("half a certif"))
	replace(t, name("tokens"), []byte("nonsense\n"))
	device(11)
	expect(exitOK, "scoreboard", "release", "ca.pem", "catalog", "list")
	replace(t, name("tokens"), []byte("me admin "+tokens["admin"]+"\n")) // the others are taken back
	expect(exitError, "wrong token", "release", "ca.pem", put("3")...)
	expect(exitOK, "scoreboard", "admin", "ca.pem", "catalog", "list")

	for _, begin := range []string{"", "\x16\x03\x01\x02\x00\x01"} { // nothing, or half a ClientHello
		for _, url := range []string{s.url, s.admin} {
			for range 220 {
				c, err := net.Dial("tcp", strings.TrimPrefix(url, "https://"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := io.WriteString(c, begin); err != nil {
					t.Fatal(err)
				}
			}
		}
		device(11)
		expect(exitOK, "scoreboard", "admin", "ca.pem", "catalog", "list")
	}
	ended = true
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	said := s.stderr.String()
	for _, want := range []string{"device.pem", "tokens"} {
		if !strings.Contains(said, "the last good content stays in use") || !strings.Contains(said, want) {
			t.Errorf("the log does not say that %s cannot be used: %s", want, said)
		}
	}
	for _, token := range tokens {
		if strings.Contains(said, token) {
			t.Errorf("the log holds a token: %s", said)
		}
	}
}

// C22: no token travels in the clear because of a forgotten flag.
func TestTokensNeedTLSC22(t *testing.T) {
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	replace(t, tokens, []byte("me admin 0123456789abcdef0123\n"))
	args := []string{"serve", "--data", filepath.Join(dir, "data"), "--addr", "127.0.0.1:0", "--admin-tokens", tokens}
	if _, errs := says(t, exitError, append(args, "--admin-addr", "0.0.0.0:0")...); !strings.Contains(errs, "would be sent in the clear") || !strings.Contains(errs, "--admin-behind-tls") {
		t.Errorf("%q", errs)
	}
	if _, errs := says(t, exitError, args...); !strings.Contains(errs, "go with --admin-addr") {
		t.Errorf("%q", errs)
	}
	if _, errs := says(t, exitError, "catalog", "list", "--server", "http://192.0.2.1:9", "--token-file", tokens); !strings.Contains(errs, "file") && !strings.Contains(errs, "token") {
		t.Errorf("%q", errs)
	}
}

// S11: after SIGKILL of a server, a stranger on its port learns nothing, and nobody says that the change is made.
func TestStrangerOnThePortS11(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PRECAST_DATA", dir)
	binary := filepath.Join(t.TempDir(), "binary")
	replace(t, binary, []byte("x"))
	says(t, exitOK, "catalog", "put", "app", binary, "--version", "1")
	s, err := startServer("precast", dir, os.Environ(), "--data", dir)
	if err != nil {
		t.Fatal(err)
	}
	var endpoint struct{ Address, Token string }
	text, err := os.ReadFile(filepath.Join(dir, "serve.json"))
	if err == nil {
		err = json.Unmarshal(text, &endpoint)
	}
	if err != nil || endpoint.Token == "" {
		t.Fatalf("serve.json: %s %v", text, err)
	}
	if err := s.end(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stranger, err := net.Listen("tcp", endpoint.Address)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := stranger.Accept()
			if err != nil {
				return
			}
			hello := make([]byte, 1024)
			n, _ := c.Read(hello)
			got.Write(hello[:n])
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			c.Close()
		}
	}()
	store, err := local.Open(dir, local.Options{}) // as if another command had the folder
	if err != nil {
		t.Fatal(err)
	}
	if _, errs := says(t, exitError, "catalog", "put", "secret-app", binary, "--version", "2", "--lock-wait", "0s"); !strings.Contains(errs, "in use by another process") {
		t.Errorf("%q", errs)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	says(t, exitOK, "catalog", "put", "secret-app", binary, "--version", "2")
	stranger.Close()
	<-ended
	if got.Len() == 0 || strings.Contains(got.String(), endpoint.Token) || strings.Contains(got.String(), "secret-app") {
		t.Errorf("the stranger got %q", got.String())
	}
	if out, _ := says(t, exitOK, "catalog", "list"); !strings.Contains(out, "secret-app") {
		t.Errorf("the change that was said to be made is not there: %s", out)
	}
}
