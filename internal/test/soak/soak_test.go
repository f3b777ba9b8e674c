// Package soak_test lets devices poll a running server while its catalog changes at random and the server is
// killed now and then. Every answer is compared with the plain reference, for one of the catalogs that can be
// live at that time; the server's memory and file descriptors stay flat.
//
//	make soak               # five minutes
//	make soak SOAK=1h
package soak_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/operate/inspect"
	"github.com/precast-ota/precast/internal/test/reference"
)

var duration = flag.Duration("soak", 4*time.Second, "how long devices poll and the catalog changes")

// devices is how many devices poll at a time.
const devices = 6

// soak is one run. Everything below mu is shared by devices, releases and kills.
type soak struct {
	t    *testing.T
	path string // of the precast program
	data string

	mu      sync.Mutex
	serving *exec.Cmd
	url     string
	lives   int // of the server
	// catalogs are all states that the catalog had, or has been told to have, oldest first.
	catalogs [][]catalog.Item
	// floor is the newest state that is known to have been published: an answer followed from it, or from a
	// later one, and from none before.
	floor    int
	answers  map[int]int // by status
	bytes    int64
	releases int
	problems []string
}

func TestSoak(t *testing.T) {
	for name, copies := range map[string]string{"pieces": "false", "copies": "true"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PRECAST_COPIES", copies)
			soaked(t)
		})
	}
}

func soaked(t *testing.T) {
	s := &soak{t: t, data: t.TempDir(), answers: make(map[int]int)}
	s.path = filepath.Join(t.TempDir(), "precast")
	if out, err := exec.Command("go", "build", "-o", s.path, "github.com/precast-ota/precast/cmd/precast").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	s.run("seed", "--data", s.data, "--size", "20KiB")
	s.catalogs = [][]catalog.Item{s.export()}
	if err := s.serve(); err != nil {
		t.Fatal(err)
	}
	defer func() { s.stop(syscall.SIGTERM) }()

	ctx, cancel := context.WithTimeout(t.Context(), *duration)
	defer cancel()
	var all sync.WaitGroup
	for n := range devices {
		all.Go(func() { s.device(ctx, rand.New(rand.NewPCG(1, uint64(n)))) })
	}
	all.Go(func() { s.release(ctx, rand.New(rand.NewPCG(2, 0))) })
	var used usage
	all.Go(func() { s.watch(ctx, &used) })
	all.Wait()
	s.settle()
	s.stop(syscall.SIGTERM)
	if len(s.problems) > 0 {
		t.Fatalf("%d answers were wrong:\n%s", len(s.problems), strings.Join(s.problems[:min(5, len(s.problems))], "\n"))
	}
	for _, status := range []int{200, 304} {
		if s.answers[status] == 0 {
			t.Errorf("no device was answered with %d", status)
		}
	}
	if s.releases == 0 {
		t.Error("nothing was released")
	}
	used.check(t)
	t.Logf("%v: answers by status %v, %.1f MB, %d releases, %d kills, state %d of %d was seen last; %s",
		*duration, s.answers, float64(s.bytes)/1e6, s.releases, s.lives-1, s.floor, len(s.catalogs)-1, &used)
}

// run runs the command, and fails the test if it fails.
func (s *soak) run(args ...string) []byte {
	s.t.Helper()
	out, err := exec.Command(s.path, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		s.t.Fatalf("precast %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// export reads the catalog.
func (s *soak) export() []catalog.Item {
	entries, err := catalog.Decode(bytes.NewReader(s.run("catalog", "export", "--data", s.data)))
	if err != nil {
		s.t.Fatal(err)
	}
	var items []catalog.Item
	for _, e := range entries {
		items = append(items, e.Item)
	}
	return items
}

// serve starts a server and waits until it answers from something published.
func (s *soak) serve() error {
	cmd := exec.Command(s.path, "serve", "--data", s.data, "--addr", "127.0.0.1:0", "--window", "20ms", "--log-level", "error")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return errors.Join(fmt.Errorf("the server did not get ready: %w", err), cmd.Wait())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving, s.url = cmd, strings.TrimPrefix(strings.TrimSpace(line), "ready ")
	s.lives++
	return nil
}

func (s *soak) stop(sig syscall.Signal) {
	s.mu.Lock()
	cmd := s.serving
	s.serving = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig)
	err := cmd.Wait()
	if sig == syscall.SIGTERM && err != nil {
		s.t.Errorf("the server ended with %v", err)
	}
}

// release changes the catalog at random, and kills the server now and then.
func (s *soak) release(ctx context.Context, r *rand.Rand) {
	file := filepath.Join(s.t.TempDir(), "binary")
	// Few kills, so that a life is long enough to tell whether it leaks.
	every := *duration / 2
	if *duration >= time.Minute {
		every = *duration / 5
	}
	kill := time.Now().Add(every)
	for n := 0; ctx.Err() == nil; n++ {
		if time.Now().After(kill) {
			kill = kill.Add(every)
			s.stop(syscall.SIGKILL)
			if err := s.serve(); err != nil {
				s.t.Error(err)
				return
			}
		}
		s.mu.Lock()
		items := slices.Clone(s.catalogs[len(s.catalogs)-1])
		s.mu.Unlock()
		it := &items[r.IntN(len(items))]
		var args []string
		var err error
		if it.Partial() && r.IntN(2) == 0 { // more of the fleet, all of it, or less
			percent := []float64{1, 50, 99, 100}[r.IntN(4)]
			*it = it.Clone()
			it.Rollout.Percent = percent
			if args = []string{"catalog", "rollout", it.App, fmt.Sprint(percent), "--track", it.Track, "--allow-shrink"}; percent == 100 {
				it.Rollout, it.Previous = nil, nil
			}
		} else if r.IntN(3) > 0 || len(items) <= 5 || strings.HasPrefix(it.App, "os_") { // another version
			old := it.Clone()
			*it = catalog.Item{App: old.App, Track: old.Track, Version: fmt.Sprintf("%d.%d", n, r.IntN(10)), CPUArch: old.CPUArch, DeviceAttr: old.DeviceAttr}
			content := make([]byte, 1+r.IntN(40<<10))
			for k := range content {
				content[k] = byte(r.Uint32() >> 24)
			}
			if err = os.WriteFile(file, content, 0o755); err != nil {
				s.t.Error(err)
				return
			}
			args = []string{"catalog", "put", it.App, file, "--track", it.Track, "--version", it.Version}
			for _, a := range it.Attrs() {
				args = append(args, "--attr", a)
			}
			sum, md := sha256.Sum256(content), md5.Sum(content)
			it.SHA256, it.MD5, it.Size = hex.EncodeToString(sum[:]), hex.EncodeToString(md[:]), int64(len(content))
			switch r.IntN(4) {
			case 0:
				it.Rollout = &catalog.Rollout{Percent: float64(r.IntN(100))}
				args = append(args, "--rollout", fmt.Sprint(it.Rollout.Percent))
			case 1:
				it.Floors = []catalog.Item{{Version: old.Version}}
				args = append(args, "--floor", old.Version)
			case 2:
				it.Floors = []catalog.Item{}
				args = append(args, "--no-floor")
			}
			if *it, err = catalog.Succeed(*it, &old); err != nil {
				s.t.Error(err)
				return
			}
		} else {
			args = []string{"catalog", "rm", it.App, "--track", it.Track}
			key := it.Key()
			items = slices.DeleteFunc(items, func(other catalog.Item) bool { return other.Key() == key })
		}
		// Told before it is done: a device may see it before this process knows that it was done.
		s.mu.Lock()
		s.catalogs = append(s.catalogs, items)
		s.mu.Unlock()
		out, err := exec.Command(s.path, append(args, "--data", s.data)...).CombinedOutput()
		if err != nil {
			s.t.Errorf("precast %s: %v\n%s", strings.Join(args, " "), err, out)
			return
		}
		s.mu.Lock()
		s.releases++
		s.mu.Unlock()
		// A release manager's pace, for a server that need not only build.
		_ = builder.Pause(ctx, time.Duration(r.IntN(300))*time.Millisecond)
	}
}

// selections that devices of the sample's kinds send.
func selection(r *rand.Rand) [][2]string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	params := [][2]string{{"cpuArch", pick("armv8", "armv7")}}
	if r.IntN(3) == 0 {
		params = append(params, [2]string{"os", pick("beta", "prod")})
	}
	for _, attr := range []string{"attrGamer", "attrCamera", "attrCellular"} {
		if r.IntN(2) == 0 {
			params = append(params, [2]string{attr, pick("prod", "prod", "beta")})
		}
	}
	if r.IntN(3) > 0 {
		params = append(params, [2]string{"slot", fmt.Sprint(r.IntN(10000))})
	}
	if r.IntN(4) == 0 {
		params = append(params, [2]string{"payloadType", "metadataOnly"})
	}
	return params
}

// device is one device after another: each polls some times, and holds what it was brought.
func (s *soak) device(ctx context.Context, r *rand.Rand) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		params := selection(r)
		held := make(map[string]bool)
		for range 1 + r.IntN(6) {
			brought, err := s.poll(ctx, client, params, held)
			if err != nil {
				break // the server was killed, or the time is over
			}
			for _, digest := range brought {
				if r.IntN(4) > 0 {
					held[digest] = true
				}
			}
		}
	}
}

// poll asks once, checks the answer, and returns the digests of what it brought.
func (s *soak) poll(ctx context.Context, client *http.Client, params [][2]string, held map[string]bool) (brought []string, err error) {
	s.mu.Lock()
	base, floor := s.url, s.floor
	s.mu.Unlock()
	query := url.Values{}
	for _, p := range params {
		query.Add(p[0], p[1])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/package?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if len(held) > 0 {
		req.Header.Set("If-None-Match", strings.Join(slices.Sorted(maps.Keys(held)), ","))
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	got := answer{status: resp.StatusCode}
	if resp.StatusCode == http.StatusOK {
		if err := got.read(context.WithoutCancel(ctx), resp.Header.Get("Content-Type"), body); err != nil {
			s.problem("%s: %v", req.URL, err)
			return nil, nil
		}
	}
	s.check(got, req, floor, params, held)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[got.status]++
	s.bytes += int64(len(body))
	return got.digests, nil
}

// answer is what a device makes of an answer.
type answer struct {
	status  int
	files   []string          // brought
	digests []string          // of these
	content map[string]string // digests by file
}

func (a *answer) read(ctx context.Context, contentType string, body []byte) error {
	var m manifest.Manifest
	if contentType == "application/json" {
		var err error
		if m, err = manifest.Decode(bytes.NewReader(body)); err != nil {
			return err
		}
	} else {
		rep, err := inspect.Bundle(ctx, bytes.NewReader(body))
		if err != nil {
			return err
		}
		if len(rep.Problems) > 0 {
			return fmt.Errorf("unsound bundle: %s", strings.Join(rep.Problems, "; "))
		}
		m = rep.Manifest
	}
	a.content = make(map[string]string)
	for name, e := range m.Files() {
		if e.StatusCode == manifest.StatusIncluded {
			a.files = append(a.files, name)
			a.digests = append(a.digests, e.SHA256)
			a.content[name] = e.SHA256
		}
	}
	slices.Sort(a.files)
	return nil
}

// of tells whether the files that an answer brought have the contents that a catalog says, and not only its names.
// (A bundle's own manifest has been compared with its files.)
func (a *answer) of(items []catalog.Item) bool {
	said := make(map[string]string)
	for _, it := range items {
		for _, step := range it.Steps() {
			said[layout.FileName(step.App, step.Version)] = step.SHA256
		}
	}
	for name, sum := range a.content {
		if said[name] != sum {
			return false
		}
	}
	return true
}

// check compares an answer with every catalog that could have been live.
func (s *soak) check(got answer, req *http.Request, floor int, params [][2]string, held map[string]bool) {
	s.mu.Lock()
	states := slices.Clone(s.catalogs[floor:])
	s.mu.Unlock()
	for i, items := range states {
		status, files := reference.Answer(items, params, held)
		if status == got.status && slices.Equal(files, got.files) && got.of(items) {
			s.mu.Lock()
			s.floor = max(s.floor, floor+i)
			s.mu.Unlock()
			return
		}
	}
	s.problem("%s, held %v: %d %v follows from none of the catalogs %d to %d", req.URL, slices.Sorted(maps.Keys(held)), got.status, got.files, floor, floor+len(states)-1)
}

// Other bytes under the right names are a wrong answer.
func TestSoakSeesOtherContent(t *testing.T) {
	sum := func(b byte) string { return strings.Repeat(hex.EncodeToString([]byte{b}), sha256.Size) }
	item := func(b byte) catalog.Item {
		return catalog.Item{App: "os_armv8", Track: "prod", Version: "1", SHA256: sum(b), MD5: sum(b)[:32], CPUArch: "armv8"}
	}
	params := [][2]string{{"cpuArch", "armv8"}}
	req, err := http.NewRequest(http.MethodGet, "http://host/package", nil)
	if err != nil {
		t.Fatal(err)
	}
	for b, problems := range map[byte]int{1: 0, 2: 0, 3: 1} {
		s := &soak{t: t, catalogs: [][]catalog.Item{{item(1)}, {item(2)}}}
		a := answer{status: http.StatusOK, files: []string{"os_armv8_1"}, content: map[string]string{"os_armv8_1": sum(b)}}
		s.check(a, req, 0, params, nil)
		if len(s.problems) != problems {
			t.Errorf("content %d: %v", b, s.problems)
		}
	}
}

func (s *soak) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

// settle waits until the last catalog is published, and lets devices ask once more: now only it will do.
func (s *soak) settle() {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		var status struct {
			UpToDate bool `json:"upToDate"`
		}
		out, err := exec.Command(s.path, "status", "--json", "--data", s.data).Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			s.t.Fatal(err)
		}
		if err := json.Unmarshal(out, &status); err != nil {
			s.t.Fatalf("%v: %s", err, out)
		}
		if status.UpToDate {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the last change is not published: %s", out)
		}
	}
	s.mu.Lock()
	s.floor = len(s.catalogs) - 1
	last := s.catalogs[s.floor]
	s.mu.Unlock()
	same := func(a, b catalog.Item) bool {
		return a.Key() == b.Key() && slices.EqualFunc(a.Steps(), b.Steps(), func(a, b catalog.Step) bool {
			return a.Role == b.Role && a.Version == b.Version && a.SHA256 == b.SHA256 && a.Partial() == b.Partial()
		})
	}
	if now := s.export(); !slices.EqualFunc(slices.SortedFunc(slices.Values(last), catalog.Compare), now, same) {
		s.t.Fatalf("the catalog is %v, and should be %v", now, last)
	}
	r := rand.New(rand.NewPCG(3, 0))
	for range 50 {
		if _, err := s.poll(context.Background(), http.DefaultClient, selection(r), nil); err != nil {
			s.t.Fatal(err)
		}
	}
}

// usage is what one life of the server used, at several times.
type usage struct {
	lives []life
}

type life struct {
	number      int
	memory, fds []int // KiB; count
}

// watch reads what the server uses.
func (s *soak) watch(ctx context.Context, u *usage) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		cmd, number := s.serving, s.lives
		s.mu.Unlock()
		if cmd == nil {
			continue
		}
		memory, err1 := resident(cmd.Process.Pid)
		fds, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
		if err1 != nil || err2 != nil {
			continue // killed meanwhile
		}
		if n := len(u.lives); n == 0 || u.lives[n-1].number != number {
			u.lives = append(u.lives, life{number: number})
		}
		l := &u.lives[len(u.lives)-1]
		l.memory, l.fds = append(l.memory, memory), append(l.fds, len(fds))
	}
}

// resident is a process's resident memory in KiB (proc(5)).
func resident(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
		}
	}
	return 0, errors.New("no VmRSS")
}

// check fails if the longest life used clearly more in its second half than in its first.
func (u *usage) check(t *testing.T) {
	t.Helper()
	l := u.longest()
	half := len(l.memory) / 2
	if half < 3 {
		t.Logf("no life of the server was long enough to tell whether its memory stays flat")
		return
	}
	if early, late := slices.Max(l.memory[:half]), slices.Max(l.memory[half:]); late > early+early/2+32<<10 {
		t.Errorf("resident memory grew from %d to %d KiB", early, late)
	}
	if early, late := slices.Max(l.fds[:half]), slices.Max(l.fds[half:]); late > early+4*devices {
		t.Errorf("file descriptors grew from %d to %d", early, late)
	}
}

func (u *usage) longest() life {
	if len(u.lives) == 0 {
		return life{}
	}
	return slices.MaxFunc(u.lives, func(a, b life) int { return len(a.memory) - len(b.memory) })
}

func (u *usage) String() string {
	l := u.longest()
	if len(l.memory) == 0 {
		return "nothing measured"
	}
	return fmt.Sprintf("memory %d to %d KiB, file descriptors %d to %d in the longest life",
		slices.Min(l.memory), slices.Max(l.memory), slices.Min(l.fds), slices.Max(l.fds))
}
