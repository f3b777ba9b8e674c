package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"precast/builder"
	"precast/internal/catalog"
	"precast/internal/inspect"
	"precast/internal/manifest"
	"precast/internal/station"
	"precast/seed"
)

type demoCmd struct {
	Size size   `help:"Size of each binary." default:"1MiB"`
	Rng  uint64 `help:"Another number makes other binaries." default:"1"`
	Keep string `help:"Keep the data folder and all answers here." placeholder:"DIR" type:"path"`
}

func (*demoCmd) Help() string {
	return `Brings the sample in, serves it, and asks for packages as devices do, with curl where it is
installed; then releases a new version while the server runs. Every answer is checked, and the exit
code is 3 if one is wrong.

Examples:
  precast demo
  precast demo --size 10MiB --keep /tmp/precast-demo`
}

func (c *demoCmd) Run(ctx context.Context, std streams) (err error) {
	dir := c.Keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "precast-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if err = os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &demo{out: std.out, dir: dir, data: filepath.Join(dir, "data"), size: int64(c.Size), rng: c.Rng}
	if d.curl, err = exec.LookPath("curl"); err != nil {
		d.say("curl is not installed: a small HTTP client stands in for it.")
	}
	if err := errors.Join(d.seed(ctx), d.build(ctx)); err != nil {
		cancel()
		return err
	}
	served := d.serve(ctx)
	err = d.story(ctx)
	cancel()
	return errors.Join(err, <-served)
}

// demo plays the story. Its steps print what they do, in the words of a shell.
type demo struct {
	out       io.Writer
	dir, data string
	size      int64
	rng       uint64
	curl      string // empty: not installed
	url       string // of the server
	wrong     []string
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) seed(ctx context.Context) error {
	d.say("$ precast seed --data %s --size %s", d.data, strings.ReplaceAll(bytesText(d.size), " ", ""))
	data, err := dataFlag{Data: d.data}.open(ctx)
	if err != nil {
		return err
	}
	defer data.Close()
	res, err := importer(data, streams{}, true).Sample(ctx, d.size, d.rng)
	if err != nil {
		return err
	}
	d.say("  %d items in the catalog", len(res.Items))
	return nil
}

// serve starts the server and waits until it is ready. What it ends with comes from the channel.
func (d *demo) serve(ctx context.Context) <-chan error {
	d.say("$ precast serve --data %s --addr 127.0.0.1:0", d.data)
	ended := make(chan error, 1)
	ready := make(chan string, 1)
	cmd := serveCmd{dataFlag: dataFlag{Data: d.data}, Addr: "127.0.0.1:0", Window: 50 * time.Millisecond, Workers: 2}
	params := builder.DefaultParams()
	cmd.MaxBundles, cmd.MaxBytes, cmd.MaxCombinations = params.MaxBundles, size(params.MaxBytes), params.MaxCombinations
	cmd.SubsetItems, cmd.Retain = params.SubsetItems, params.Retain
	go func() {
		ended <- cmd.serve(ctx, d.log(), func(url string) { ready <- url })
	}()
	select {
	case d.url = <-ready:
		d.say("  ready %s", d.url)
	case err := <-ended:
		ended <- err
	}
	return ended
}

// build builds and publishes, in the server if it runs.
func (d *demo) build(ctx context.Context) error {
	d.say("$ precast build --data %s", d.data)
	data, err := dataFlag{Data: d.data}.open(ctx)
	if err != nil {
		return err
	}
	defer data.Close()
	opt := builder.Options{Log: d.log()}
	start := time.Now()
	written, bytes := 0, int64(0)
	err = data.build(ctx, opt, builder.PlanOptions{}, func(ev station.Event) {
		if ev.Stored != nil && !ev.Stored.Existed {
			written++
			bytes += ev.Stored.Size
		}
	})
	if err != nil {
		return err
	}
	ix, _, err := builder.ReadIndex(ctx, data.objects)
	if err != nil {
		return err
	}
	d.say("  generation %d is published: %d objects written, %s, in %.1f s", ix.Generation, written, bytesText(bytes), time.Since(start).Seconds())
	return nil
}

func (d *demo) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
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

func (d *demo) story(ctx context.Context) error {
	if d.url == "" {
		return errors.New("the server did not start")
	}
	sums := d.digests()
	all := "cpuArch=armv8&attrGamer=prod&attrCellular=prod"
	allFiles := []string{"modemFW_1.0", "os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}
	var allHeld []string
	for _, f := range allFiles {
		allHeld = append(allHeld, sums[f])
	}
	d.say("\nDevices ask:")
	t := d.table()
	for _, s := range []step{
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
		if err := d.ask(ctx, t, s); err != nil {
			return err
		}
	}
	if err := d.resume(ctx, t, all, allFiles); err != nil {
		return err
	}
	t.Flush()

	d.say("\nA new version is released while the server runs:")
	if err := d.release(ctx); err != nil {
		return err
	}
	d.say("\nThe same devices ask again:")
	t = d.table()
	for _, s := range []step{
		{"12 held everything before", all, allHeld, 200, []string{"scoreboard_1.0.1"}, []string{"modemFW_1.0", "os_armv8_1.1.0", "videoStreamer_0.0.1"}},
		{"13 not a gamer: nothing new", "cpuArch=armv8", []string{sums["os_armv8_1.1.0"]}, 304, nil, nil},
	} {
		if err := d.ask(ctx, t, s); err != nil {
			return err
		}
	}
	t.Flush()
	if len(d.wrong) > 0 {
		return no("%d answers were wrong:\n  %s", len(d.wrong), strings.Join(d.wrong, "\n  "))
	}
	d.say("\nEvery answer was right.")
	return nil
}

func (d *demo) table() *tabwriter.Writer {
	t := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  DEVICE\tSTATUS\tBYTES\tMS\tBROUGHT")
	return t
}

// digests computes the MD5 of each sample binary by its file name, as a device would of its files.
func (d *demo) digests() map[string]string {
	sums := make(map[string]string)
	for _, it := range seed.SampleItems() {
		sums[it.App+"_"+it.Version] = md5Of(seed.Content(d.rng, it, d.size))
	}
	return sums
}

func md5Of(r io.Reader) string {
	h := md5.New()
	_, _ = io.Copy(h, r) // generated content never fails
	return hex.EncodeToString(h.Sum(nil))
}

// release puts a new scoreboard into the catalog, as a release manager would.
func (d *demo) release(ctx context.Context) error {
	it := catalog.Item{App: "scoreboard", Track: "prod", Version: "1.0.1", DeviceAttr: map[string]bool{"gamer": true}}
	file := filepath.Join(d.dir, "scoreboard")
	content, err := io.ReadAll(seed.Content(d.rng, it, d.size))
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, content, 0o755); err != nil {
		return err
	}
	d.say("$ precast catalog put scoreboard %s --data %s --version 1.0.1 --attr gamer", file, d.data)
	put := putCmd{dataFlag: dataFlag{Data: d.data}, App: it.App, File: file, Track: it.Track, Version: it.Version, Attr: []string{"gamer"}}
	if err := put.Run(ctx, streams{out: io.Discard, err: io.Discard}); err != nil {
		return err
	}
	return d.awaitGeneration(ctx, 2)
}

// awaitGeneration waits for the server to have built what has changed, as /healthz tells.
func (d *demo) awaitGeneration(ctx context.Context, generation uint64) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		var health struct{ Generation uint64 }
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/healthz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("wait for generation %d: %w", generation, err)
		}
		err = json.NewDecoder(resp.Body).Decode(&health)
		resp.Body.Close()
		if err != nil {
			return fmt.Errorf("wait for generation %d: %w", generation, err)
		}
		if health.Generation >= generation {
			d.say("  generation %d is served %.1f s later", health.Generation, time.Since(start).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for generation %d: %w", generation, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// answer is what came of one request.
type answer struct {
	status  int
	bytes   int64
	seconds float64
	body    string // file
}

// ask makes a request and checks its answer.
func (d *demo) ask(ctx context.Context, t io.Writer, s step) error {
	url := d.url + "/package?" + s.query
	var args []string
	if len(s.held) > 0 {
		args = []string{"-H", "If-None-Match: " + strings.Join(s.held, ",")}
	}
	a, err := d.fetch(ctx, url, s.title, args...)
	if err != nil {
		return err
	}
	brought, held, err := d.contents(ctx, s, a)
	var problem string
	switch {
	case err != nil:
		problem = err.Error()
	case a.status != s.status:
		problem = fmt.Sprintf("status %d, not %d", a.status, s.status)
	case !slices.Equal(brought, s.files) || !slices.Equal(held, s.heldBy):
		problem = fmt.Sprintf("brought %v and told to keep %v, not %v and %v", brought, held, s.files, s.heldBy)
	}
	d.row(t, s.title, a, strings.Join(brought, " "), problem)
	return nil
}

func (d *demo) row(t io.Writer, title string, a answer, brought, problem string) {
	if problem != "" {
		d.wrong = append(d.wrong, title+": "+problem)
		brought = "WRONG: " + problem
	}
	fmt.Fprintf(t, "  %s\t%d\t%d\t%.1f\t%s\n", title, a.status, a.bytes, a.seconds*1000, brought)
}

// contents looks into an answer's body: what it brings, and what it says that the device holds.
func (d *demo) contents(ctx context.Context, s step, a answer) (brought, held []string, err error) {
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
	if strings.Contains(s.query, "metadataOnly") {
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
func (d *demo) resume(ctx context.Context, t io.Writer, query string, files []string) error {
	url := d.url + "/package?" + query
	first, err := d.fetch(ctx, url, "11 first part", "-r", "0-65535")
	if err != nil {
		return err
	}
	rest, err := d.fetch(ctx, url, "11 rest", "-r", "65536-")
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
	d.row(t, "11 broken off, goes on", rest, strings.Join(files, " "), problem)
	return nil
}

// fetch downloads a URL with curl; args are more of curl's options (-H and -r).
func (d *demo) fetch(ctx context.Context, url, title string, args ...string) (answer, error) {
	number, _, _ := strings.Cut(title, " ")
	if strings.Contains(title, "rest") {
		number += "-rest"
	}
	a := answer{body: filepath.Join(d.dir, "answer-"+number)}
	if d.curl == "" {
		return d.fetchWithout(ctx, url, a, args)
	}
	args = append([]string{"--silent", "--show-error", "--output", a.body, "--write-out", "%{http_code} %{size_download} %{time_total}"}, args...)
	cmd := exec.CommandContext(ctx, d.curl, append(args, url)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return a, fmt.Errorf("curl %s: %w: %s", url, err, strings.TrimSpace(stderr.String()))
	}
	if _, err := fmt.Sscan(string(out), &a.status, &a.bytes, &a.seconds); err != nil {
		return a, fmt.Errorf("read what curl says of %s: %q: %w", url, out, err)
	}
	return a, nil
}

// fetchWithout does what fetch does where there is no curl.
func (d *demo) fetchWithout(ctx context.Context, url string, a answer, args []string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return a, err
	}
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "-r":
			req.Header.Set("Range", "bytes="+args[i+1])
		case "-H":
			name, value, _ := strings.Cut(args[i+1], ": ")
			req.Header.Set(name, value)
		}
	}
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	f, err := os.Create(a.body)
	if err != nil {
		return a, err
	}
	defer f.Close()
	a.status = resp.StatusCode
	a.bytes, err = io.Copy(f, resp.Body)
	a.seconds = time.Since(start).Seconds()
	return a, err
}
