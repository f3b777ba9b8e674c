package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/precast-ota/precast/internal/operate/inspect"
)

// Device asks a distribution as devices do.
type Device struct {
	URL string // of the distribution
	// Endpoint is asked in its place, with the distribution's host name, if it is not on the internet: a
	// stand-in of tests.
	Endpoint string
	HTTP     *http.Client
}

// request makes a GET request.
func (d Device) request(ctx context.Context, path string) (*http.Request, error) {
	if d.Endpoint == "" {
		return http.NewRequestWithContext(ctx, http.MethodGet, d.URL+path, nil)
	}
	public, err := url.Parse(d.URL)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(d.Endpoint, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	req.Host = public.Host
	req.Header.Set("X-Forwarded-Proto", public.Scheme)
	return req, nil
}

// Ask is one request and what must come back.
type Ask struct {
	Title string
	Path  string
	Held  []string // digests
	// Want is the status.
	Want int
	// Files are the binaries that a bundle brings, sorted; nil: the answer is not looked into.
	Files []string
	// Listed are the apps that a manifest lists, sorted; nil: as Files.
	Listed []string
}

// WithoutSample are requests whose answers do not depend on the catalog: they come from the Function.
func WithoutSample() []Ask {
	return []Ask{
		{Title: "forgot what it is", Path: "/package?attrGamer=prod", Want: 400},
		{Title: "a path that there is not", Path: "/index", Want: 404},
	}
}

// Sample are the requests of the sample, given the MD5 digests of its binaries by their file names.
func Sample(md5 map[string]string) []Ask {
	all := "/package?cpuArch=armv8&attrGamer=prod&attrCellular=prod"
	files := []string{"modemFW_1.0", "os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}
	var held []string
	for _, f := range files {
		held = append(held, md5[f])
	}
	return append([]Ask{
		{Title: "operating system", Path: "/package?cpuArch=armv8", Want: 200, Files: []string{"os_armv8_1.1.0"}},
		{Title: "its beta", Path: "/package?cpuArch=armv8&os=beta", Want: 200, Files: []string{"os_armv8_2.0.0"}},
		{Title: "a gamer", Path: "/package?cpuArch=armv8&attrGamer=prod", Want: 200, Files: []string{"os_armv8_1.1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}},
		{Title: "a gamer with a modem", Path: all, Want: 200, Files: files},
		{Title: "only the list", Path: all + "&payloadType=metadataOnly", Want: 200, Listed: []string{"modemFW", "os_armv8", "scoreboard", "videoStreamer"}},
		{Title: "holds the OS", Path: all, Held: held[1:2], Want: 200, Files: []string{"modemFW_1.0", "scoreboard_1.0.0", "videoStreamer_0.0.1"}},
		{Title: "holds everything", Path: all, Held: held, Want: 304},
		{Title: "nothing for it", Path: "/package?cpuArch=riscv", Want: 404},
	}, WithoutSample()...)
}

// Wrong is an answer that is not as it must be.
type Wrong struct{ error }

// Check asks until every answer is right or the time is up: CloudFront may have kept an answer from before the
// first publish. It prints a line for each.
func (d Device) Check(ctx context.Context, asks []Ask, out io.Writer, again func(context.Context) error) error {
	for _, a := range asks {
		var status int
		var took time.Duration
		said := ""
		for {
			start := time.Now()
			var err error
			status, err = d.check(ctx, a)
			took = time.Since(start)
			if err == nil {
				break
			}
			if err.Error() != said {
				said = err.Error()
				fmt.Fprintf(out, "  not yet  %s: %s\n", a.Title, said)
			}
			if waitErr := again(ctx); waitErr != nil {
				return Wrong{fmt.Errorf("ask for %s: %w", a.Path, err)}
			}
		}
		fmt.Fprintf(out, "  %d  %5d ms  %s\n", status, took.Milliseconds(), a.Title)
	}
	return nil
}

// Once asks once.
func (d Device) Once(ctx context.Context, a Ask) error {
	_, err := d.check(ctx, a)
	return err
}

func (d Device) check(ctx context.Context, a Ask) (int, error) {
	req, err := d.request(ctx, a.Path)
	if err != nil {
		return 0, err
	}
	if len(a.Held) > 0 {
		req.Header.Set("If-None-Match", strings.Join(a.Held, ", "))
	}
	resp, err := d.HTTP.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != a.Want {
		return 0, fmt.Errorf("status %d, not %d: %.200q", resp.StatusCode, a.Want, body)
	}
	switch {
	case a.Listed != nil:
		var m map[string]json.RawMessage
		if err := json.Unmarshal(body, &m); err != nil {
			return 0, fmt.Errorf("read the list: %w", err)
		}
		var apps []string
		for app := range m {
			apps = append(apps, app)
		}
		slices.Sort(apps)
		if !slices.Equal(apps, a.Listed) {
			return 0, fmt.Errorf("it lists %v, not %v", apps, a.Listed)
		}
	case a.Files != nil:
		rep, err := inspect.Bundle(ctx, bytes.NewReader(body))
		if err != nil {
			return 0, err
		}
		if len(rep.Problems) > 0 {
			return 0, fmt.Errorf("the bundle is not sound: %v", rep.Problems)
		}
		var files []string
		for _, f := range rep.Files {
			files = append(files, f.Name)
		}
		slices.Sort(files)
		if !slices.Equal(files, a.Files) {
			return 0, fmt.Errorf("it brings %v, not %v", files, a.Files)
		}
	}
	return resp.StatusCode, nil
}
