//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/precast-ota/precast/client"
)

// place is where an installation is: a data folder, or resources on AWS.
type place struct {
	t    *testing.T
	work string
	env  []string
}

func folder(t *testing.T, work, name string) place {
	return place{t, work, append(os.Environ(), "PRECAST_DATA="+filepath.Join(work, name))}
}

// command runs precast, which has to end with one of the exit codes.
func (p place) command(codes []int, args ...string) (string, int) {
	p.t.Helper()
	cmd := exec.Command("precast", args...)
	cmd.Dir, cmd.Env = p.work, p.env
	out, _ := cmd.CombinedOutput()
	code := cmd.ProcessState.ExitCode()
	if !slices.Contains(codes, code) {
		p.t.Fatalf("precast %s: exit code %d, want %v\n%s", strings.Join(args, " "), code, codes, out)
	}
	return string(out), code
}

func (p place) do(args ...string) string {
	p.t.Helper()
	out, _ := p.command([]int{exitOK}, args...)
	return out
}

// serve serves the place while f runs.
func (p place) serve(key string, f func(url string)) {
	p.t.Helper()
	s, err := startServer("precast", p.work, p.env, "--signing-key", "file:"+key)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() {
		if err := s.end(syscall.SIGTERM); err != nil {
			p.t.Error(err)
		}
	}()
	f(s.url)
}

// live makes a random history: releases, rollouts, floors, promotions, removals, rollbacks and pins. What is refused
// changes nothing. Every generation, from the first one on, has an operating system for every device.
func (p place) live(random *rand.Rand, commands int) {
	p.t.Helper()
	apps, systems := []string{"os_armv7", "os_armv8", "game", "board"}, 2
	for i := range commands {
		app, track := apps[random.IntN(len(apps))], []string{"prod", "prod", "beta"}[random.IntN(3)]
		switch op := random.IntN(12); {
		case op < 6 || i < len(apps):
			if i < len(apps) {
				app, track = apps[i], "prod"
			}
			content := make([]byte, 100+random.IntN(3000))
			for j := range content {
				content[j] = byte(random.IntN(8))
			}
			if err := os.WriteFile(filepath.Join(p.work, "content"), content, 0o600); err != nil {
				p.t.Fatal(err)
			}
			args := []string{"catalog", "put", app, "content", "--version", fmt.Sprint(random.IntN(1000), ".", i), "--track", track, "--message", fmt.Sprint("change ", i)}
			if random.IntN(3) == 0 && i >= systems {
				args = append(args, "--rollout", fmt.Sprint(1+random.IntN(99)))
			}
			if attr := random.IntN(6); attr < 2 && !strings.HasPrefix(app, "os_") {
				args = append(args, "--attr", []string{"gamer", "kiosk"}[attr])
			}
			p.command([]int{exitOK, exitError, exitNo}, args...) // the first release has no rollout
		case op == 6:
			p.command([]int{exitOK, exitError, exitNo}, "catalog", "rollout", app, fmt.Sprint(random.IntN(101)), "--track", track)
		case op == 7:
			p.command([]int{exitOK, exitError, exitNo}, "catalog", "promote", app, "--from", "beta", "--to", "prod")
		case op == 8:
			p.command([]int{exitOK, exitError, exitNo}, "catalog", "rm", "board", "--track", track)
		case op == 9:
			p.command([]int{exitOK, exitError, exitNo}, "rollback", "--reason", "a drill")
		case op == 10:
			p.command([]int{exitOK, exitError, exitNo}, "unpin")
		}
		if i+1 >= systems {
			p.command([]int{exitOK, exitNo}, "build")
		}
	}
}

// answers are what devices get for every combination of what tells them apart, by query.
func answers(t *testing.T, url string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, arch := range []string{"armv7", "armv8", "none"} {
		for _, os := range []string{"", "&os=beta"} {
			for _, gamer := range []string{"", "&attrGamer=prod", "&attrGamer=beta"} {
				for _, kiosk := range []string{"", "&attrKiosk=prod"} {
					for _, slot := range []string{"", "&slot=0", "&slot=3333", "&slot=9999"} {
						for _, payload := range []string{"", "&payloadType=metadataOnly"} {
							query := "cpuArch=" + arch + os + gamer + kiosk + slot + payload
							resp, err := http.Get(url + "/package?" + query)
							if err != nil {
								t.Fatal(err)
							}
							body, err := io.ReadAll(resp.Body)
							resp.Body.Close()
							if err != nil {
								t.Fatal(err)
							}
							all[query] = fmt.Sprintf("%d %s %x", resp.StatusCode, resp.Header.Get("ETag"), sha256.Sum256(body))
						}
					}
				}
			}
		}
	}
	return all
}

// fleet is a device with each client. It verifies what it gets.
type fleet struct {
	t          *testing.T
	root       []byte
	dir, shell string
}

// update has the devices update from a server, and returns the generation, and the file of the operating system that
// each has then.
func (f fleet) update(url string) (generation uint64, system []byte) {
	f.t.Helper()
	c, err := client.New(client.Options{
		URL: url, Selection: "cpuArch=armv8&attrGamer=prod&slot=1234", Roots: f.root, Dir: filepath.Join(f.dir, "go"),
		Install: func(_ context.Context, set client.Set) (err error) {
			for _, file := range set.Files {
				if file.App == "os_armv8" {
					system, err = os.ReadFile(file.Path)
				}
			}
			return err
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	res, err := c.Update(f.t.Context())
	if err != nil {
		f.t.Fatalf("the client in Go: %v", err)
	}
	root, copied := filepath.Join(f.dir, "root.pem"), filepath.Join(f.dir, "copied")
	if err := os.WriteFile(root, f.root, 0o600); err != nil {
		f.t.Fatal(err)
	}
	out, err := exec.Command("sh", f.shell, url, "cpuArch=armv8&attrGamer=prod&slot=1234", root, filepath.Join(f.dir, "sh"),
		"sh", "-c", `rm -rf "$0" && cp -rL "$1" "$0"`, copied).CombinedOutput()
	if err != nil {
		f.t.Fatalf("the client in sh: %v: %s", err, out)
	}
	if !res.Changed {
		return res.Generation, nil
	}
	same := false
	files, err := filepath.Glob(filepath.Join(copied, "os_armv8*"))
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.t.Fatal(err)
		}
		same = same || bytes.Equal(data, system)
	}
	if err != nil || !same {
		f.t.Errorf("the client in sh does not have what the one in Go has: %v %v\n%s", files, err, out)
	}
	return res.Generation, system
}

// drill backs up one place and restores it into another: all answers are the same, and devices that have seen the last
// generation go on with the next one. Where bundles are stored and were not, or the other way round, the first build
// publishes one more generation.
func drill(t *testing.T, from, to place, key string, devices fleet, archive string, more uint64) {
	t.Helper()
	from.do("backup", archive)
	from.do("backup", archive, "--check")
	var want map[string]string
	var seen uint64
	from.serve(key, func(url string) {
		want = answers(t, url)
		seen, _ = devices.update(url)
	})
	restored := to.do("restore", archive)
	if !strings.Contains(restored, fmt.Sprintf("generation %d, ", seen)) {
		t.Errorf("devices have seen generation %d: %s", seen, restored)
	}
	to.command([]int{exitOK}, "fsck", "--deep")
	if got, want := to.do("catalog", "export"), from.do("catalog", "export"); got != want {
		t.Errorf("the catalog was\n%s\nand is\n%s", want, got)
	}
	to.serve(key, func(url string) {
		for query, got := range answers(t, url) {
			if got != want[query] {
				t.Errorf("%s: %s, before %s", query, got, want[query])
			}
		}
		if generation, _ := devices.update(url); generation < seen || generation > seen+more {
			t.Errorf("without a change, devices go from generation %d to %d", seen, generation)
		}
	})
	content := fmt.Appendf(nil, "a system after generation %d", seen)
	if err := os.WriteFile(filepath.Join(to.work, "content"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	to.command([]int{exitOK, exitNo}, "unpin") // the last command of the history may have been a rollback
	to.do("catalog", "put", "os_armv8", "content", "--version", fmt.Sprint("after-", seen))
	to.command([]int{exitOK}, "build")
	to.serve(key, func(url string) {
		generation, system := devices.update(url)
		if generation <= seen || !bytes.Equal(system, content) {
			t.Errorf("after generation %d, devices have generation %d with %q", seen, generation, system)
		}
	})
}

// signer makes keys; it returns the root key that devices are made with, and the file of the key that signs.
func (p place) signer() (root []byte, key string) {
	p.t.Helper()
	p.do("keys", "init", "--dir", "keys")
	p.do("keys", "publish", "--dir", "keys")
	match := func(pattern string) string {
		p.t.Helper()
		names, err := filepath.Glob(filepath.Join(p.work, "keys", pattern))
		if err != nil || len(names) != 1 {
			p.t.Fatalf("%s: %v %v", pattern, names, err)
		}
		return names[0]
	}
	root, err := os.ReadFile(match("root-*.pub.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	return root, match("signing-*.pem")
}

func newFleet(t *testing.T, root []byte) fleet {
	t.Helper()
	shell, err := filepath.Abs("../../client/precast-device.sh")
	if err != nil {
		t.Fatal(err)
	}
	return fleet{t, root, t.TempDir(), shell}
}

// C11: a random history, a backup, and a restore into an empty folder. It prints the seed.
func TestRestoreDrillC11(t *testing.T) {
	for _, seed := range []uint64{1, 2, rand.Uint64()} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			work := t.TempDir()
			from := folder(t, work, "data")
			from.live(rand.New(rand.NewPCG(seed, 0)), 16)
			root, key := from.signer()
			drill(t, from, folder(t, work, "restored"), key, newFleet(t, root), "backup.tar.zst", 0)
		})
	}
}
