// Package story plays the README's story: devices ask for their packages over HTTP, as curl does, a new
// version is released meanwhile, and every answer is checked.
package story

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/format/manifest"
	"github.com/precast-ota/precast/internal/operate/inspect"
	"github.com/precast-ota/precast/seed"
)

// Story is what Play needs.
type Story struct {
	Out  io.Writer
	Dir  string // for answers
	URL  string // of the server or CDN, which has the sample
	Size int64  // of the sample's binaries, in bytes
	Seed uint64 // for the sample's generated binaries
	// Release puts an item, whose binary is file, into the catalog, and returns once it is served.
	Release func(ctx context.Context, it catalog.Item, file string) error
	// Cached: there is a CDN in front. Every request is made twice, and what X-Cache says is shown.
	Cached bool

	curl  string // empty: not installed
	wrong Wrong
}

// Wrong lists the answers that were not as they must be.
type Wrong []string

func (w Wrong) Error() string {
	return fmt.Sprintf("%d answers were wrong:\n  %s", len(w), strings.Join(w, "\n  "))
}

func (s *Story) say(format string, args ...any) { fmt.Fprintf(s.Out, format+"\n", args...) }

// Play plays the story. Its error is a Wrong if answers were wrong.
func (s *Story) Play(ctx context.Context) error {
	var err error
	if s.curl, err = exec.LookPath("curl"); err != nil {
		s.say("curl is not installed: a small HTTP client stands in for it.")
	}
	sums := s.digests()
	all := "cpuArch=armv8&attrGamer=prod&attrCellular=prod"
	allFiles := []string{"modemFW_1.0", "os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}
	var allHeld []string
	for _, f := range allFiles {
		allHeld = append(allHeld, sums[f])
	}
	s.say("\nDevices ask:")
	t := s.table()
	for _, st := range []step{
		{"1 operating system", "cpuArch=armv8", nil, 200, []string{"os_armv8_1.1.0"}, nil},
		{"2 its beta", "cpuArch=armv8&os=beta", nil, 200, []string{"os_armv8_2.0.0"}, nil},
		{"3 a gamer", "cpuArch=armv8&attrGamer=prod", nil, 200, []string{"os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}, nil},
		{"4 a gamer with a modem", all, nil, 200, allFiles, nil},
		{"5 only the list", all + "&payloadType=metadataOnly", nil, 200, allFiles, nil},
		{"6 holds the OS", all, []string{sums["os_armv8_1.1.0"]}, 200, []string{"modemFW_1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}, []string{"os_armv8_1.1.0"}},
		{"7 holds the OS, only the list", all + "&payloadType=metadataOnly", []string{sums["os_armv8_1.1.0"]}, 200, []string{"modemFW_1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}, []string{"os_armv8_1.1.0"}},
		{"8 holds everything", all, allHeld, 304, nil, nil},
		{"9 nothing for it", "cpuArch=riscv", nil, 404, nil, nil},
		{"10 forgot what it is", "attrGamer=prod", nil, 400, nil, nil},
	} {
		if err := s.ask(ctx, t, st); err != nil {
			return err
		}
	}
	if err := s.resume(ctx, t, all, allFiles); err != nil {
		return err
	}
	t.Flush()

	s.say("\nA new version is released while the server runs:")
	if err := s.release(ctx); err != nil {
		return err
	}
	s.say("\nThe same devices ask again:")
	t = s.table()
	for _, st := range []step{
		{"12 held everything before", all, allHeld, 200, []string{"scoreboard_1.0.1"}, []string{"modemFW_1.0", "os_armv8_1.1.0", "videoStreamer_0.0.1"}},
		{"13 not a gamer: nothing new", "cpuArch=armv8", []string{sums["os_armv8_1.1.0"]}, 304, nil, nil},
		{"14 one app by its name", "cpuArch=armv8&scoreboard=prod", []string{sums["os_armv8_1.1.0"]}, 200, []string{"scoreboard_1.0.1"}, []string{"os_armv8_1.1.0"}},
	} {
		if err := s.ask(ctx, t, st); err != nil {
			return err
		}
	}
	t.Flush()
	if len(s.wrong) > 0 {
		return s.wrong
	}
	s.say("\nEvery answer was right.")
	return nil
}

func (s *Story) table() *tabwriter.Writer {
	t := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	cache := ""
	if s.Cached {
		cache = "CDN\t"
	}
	fmt.Fprintln(t, "  DEVICE\tSTATUS\tBYTES\tMS\t"+cache+"BROUGHT")
	return t
}

// digests computes the MD5 of each sample binary by its file name, as a device would of its files.
func (s *Story) digests() map[string]string {
	sums := make(map[string]string)
	for _, it := range seed.SampleItems() {
		sums[it.App+"_"+it.Version] = md5Of(seed.Content(s.Seed, it, s.Size))
	}
	return sums
}

func md5Of(r io.Reader) string {
	h := md5.New()
	_, _ = io.Copy(h, r) // generated content never fails
	return hex.EncodeToString(h.Sum(nil))
}

// release puts a new scoreboard into the catalog, as a release manager would.
func (s *Story) release(ctx context.Context) error {
	it := catalog.Item{App: "scoreboard", Track: "prod", Version: "1.0.1", DeviceAttr: map[string]bool{"gamer": true}}
	file := filepath.Join(s.Dir, "scoreboard")
	content, err := io.ReadAll(seed.Content(s.Seed, it, s.Size))
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, content, 0o755); err != nil {
		return err
	}
	return s.Release(ctx, it, file)
}

// ask makes a request and checks its answer; with a CDN in front, twice.
func (s *Story) ask(ctx context.Context, t io.Writer, st step) error {
	var args []string
	if len(st.held) > 0 {
		args = []string{"-H", "If-None-Match: " + strings.Join(st.held, ",")}
	}
	first, err := s.askOnce(ctx, t, st, args)
	if err != nil || !s.Cached {
		return err
	}
	st.title += ", again"
	second, err := s.askOnce(ctx, t, st, args)
	if err == nil && strings.HasPrefix(first.cache, "Miss") && !strings.HasPrefix(second.cache, "Hit") {
		s.wrong = append(s.wrong, fmt.Sprintf("%s: the CDN says %q after %q", st.title, second.cache, first.cache))
	}
	return err
}

func (s *Story) askOnce(ctx context.Context, t io.Writer, st step, args []string) (answer, error) {
	a, err := s.fetch(ctx, s.URL+"/package?"+st.query, st.title, args...)
	if err != nil {
		return a, err
	}
	brought, held, err := contents(ctx, st, a)
	var problem string
	switch {
	case err != nil:
		problem = err.Error()
	case a.status != st.status:
		problem = fmt.Sprintf("status %d, not %d", a.status, st.status)
	case !slices.Equal(brought, st.files) || !slices.Equal(held, st.heldBy):
		problem = fmt.Sprintf("brought %v and told to keep %v, not %v and %v", brought, held, st.files, st.heldBy)
	}
	s.row(t, st.title, a, strings.Join(brought, " "), problem)
	return a, nil
}

func (s *Story) row(t io.Writer, title string, a answer, brought, problem string) {
	if problem != "" {
		s.wrong = append(s.wrong, title+": "+problem)
		brought = "WRONG: " + problem
	}
	cache := ""
	if s.Cached {
		cache = strings.TrimSuffix(a.cache, " from cloudfront") + "\t"
	}
	fmt.Fprintf(t, "  %s\t%d\t%d\t%.1f\t%s%s\n", title, a.status, a.bytes, a.seconds*1000, cache, brought)
}

// contents looks into an answer's body: what it brings, and what it says that the device holds.
func contents(ctx context.Context, st step, a answer) (brought, held []string, err error) {
	if a.status != http.StatusOK {
		if a.status == http.StatusNotModified && a.bytes != 0 {
			err = errors.New("a 304 with a body")
		}
		return nil, nil, err
	}
	f, err := os.Open(a.body)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	var m manifest.Manifest
	if strings.Contains(st.query, "metadataOnly") {
		if m, err = manifest.Decode(f); err != nil {
			return nil, nil, err
		}
	} else {
		rep, err := inspect.Bundle(ctx, f)
		if err != nil {
			return nil, nil, err
		}
		if len(rep.Problems) > 0 {
			return nil, nil, fmt.Errorf("unsound bundle: %s", strings.Join(rep.Problems, "; "))
		}
		m = rep.Manifest
	}
	for name, e := range m.Files() {
		if e.StatusCode == manifest.StatusHeld {
			held = append(held, name)
		} else {
			brought = append(brought, name)
		}
	}
	slices.Sort(brought)
	slices.Sort(held)
	return brought, held, nil
}

// resume downloads a bundle in two parts, as after a broken connection.
func (s *Story) resume(ctx context.Context, t io.Writer, query string, files []string) error {
	url := s.URL + "/package?" + query
	first, err := s.fetch(ctx, url, "11 first part", "-r", "0-65535")
	if err != nil {
		return err
	}
	rest, err := s.fetch(ctx, url, "11 rest", "-r", "65536-")
	if err != nil {
		return err
	}
	whole, err := os.ReadFile(first.body)
	if err != nil {
		return err
	}
	tail, err := os.ReadFile(rest.body)
	if err != nil {
		return err
	}
	var problem string
	if first.status != http.StatusPartialContent || rest.status != http.StatusPartialContent {
		problem = fmt.Sprintf("status %d and %d, not 206", first.status, rest.status)
	} else if rep, err := inspect.Bundle(ctx, bytes.NewReader(append(whole, tail...))); err != nil || len(rep.Problems) > 0 {
		problem = fmt.Sprint("the two parts are not the bundle: ", err)
	}
	s.row(t, "11 broken off, goes on", rest, strings.Join(files, " "), problem)
	return nil
}

// step is one request of the story and what must come of it.
type step struct {
	title  string
	query  string
	held   []string // If-None-Match
	status int
	files  []string // in the bundle; for metadataOnly: with status_code 200
	heldBy []string // with status_code 304
}
