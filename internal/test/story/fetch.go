package story

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// answer is what came of one request.
type answer struct {
	status  int
	bytes   int64
	seconds float64
	body    string // file
	cache   string // X-Cache
}

// fetch downloads a URL with curl; args are more of curl's options (-H and -r).
func (s *Story) fetch(ctx context.Context, url, title string, args ...string) (answer, error) {
	number, rest, _ := strings.Cut(title, " ")
	if rest == "rest" || strings.HasSuffix(rest, "again") {
		number += "-" + rest[strings.LastIndex(rest, " ")+1:]
	}
	a := answer{body: filepath.Join(s.Dir, "answer-"+number)}
	if s.curl == "" {
		return s.fetchWithout(ctx, url, a, args)
	}
	headers := a.body + ".headers"
	args = append([]string{"--silent", "--show-error", "--output", a.body, "--dump-header", headers, "--write-out", "%{http_code} %{size_download} %{time_total}"}, args...)
	cmd := exec.CommandContext(ctx, s.curl, append(args, url)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return a, fmt.Errorf("curl %s: %w: %s", url, err, strings.TrimSpace(stderr.String()))
	}
	if _, err := fmt.Sscan(string(out), &a.status, &a.bytes, &a.seconds); err != nil {
		return a, fmt.Errorf("read what curl says of %s: %q: %w", url, out, err)
	}
	a.cache, err = xCache(headers)
	return a, err
}

// xCache returns X-Cache of the header lines in a file.
func xCache(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	r := textproto.NewReader(bufio.NewReader(f))
	if _, err := r.ReadLine(); err != nil { // the status line
		return "", fmt.Errorf("read the headers of an answer: %w", err)
	}
	h, err := r.ReadMIMEHeader()
	if err != nil {
		return "", fmt.Errorf("read the headers of an answer: %w", err)
	}
	return h.Get("X-Cache"), nil
}

// fetchWithout does what fetch does where there is no curl.
func (s *Story) fetchWithout(ctx context.Context, url string, a answer, args []string) (answer, error) {
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
	a.cache = resp.Header.Get("X-Cache")
	a.bytes, err = io.Copy(f, resp.Body)
	a.seconds = time.Since(start).Seconds()
	return a, err
}
