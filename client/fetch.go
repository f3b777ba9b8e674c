package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/trust/statement"
)

// get reads a response of at most limit bytes, for a device that holds files with these digests.
func (c *Client) get(ctx context.Context, path, query string, limit int64, held []string) ([]byte, error) {
	ctx, watch := c.watch(ctx)
	defer watch.end()
	resp, err := c.ask(ctx, path, query, holding(held))
	if err != nil {
		return nil, watch.blame(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, answered(resp)
	}
	if c.skip[TooLong] {
		limit = 1 << 40
	}
	data, err := io.ReadAll(io.LimitReader(watch.reader(resp.Body), limit+1))
	if err != nil {
		return nil, watch.blame(err)
	}
	if int64(len(data)) > limit {
		return nil, refuse(TooLong, fmt.Errorf("answer is longer than %d bytes", limit))
	}
	return data, nil
}

// holding returns the request headers for a device that holds files with these digests.
func holding(digests []string) http.Header {
	header := make(http.Header)
	if n := min(len(digests), edge.MaxTags); n > 0 {
		header.Set("If-None-Match", strings.Join(digests[:n], ", "))
	}
	return header
}

func (c *Client) ask(ctx context.Context, path, query string, header http.Header) (*http.Response, error) {
	u := *c.base
	u.Path += path
	u.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	// Otherwise net/http would ask for gzip, and decompress it without a limit.
	req.Header.Set("Accept-Encoding", "identity")
	return c.opt.HTTP.Do(req)
}

// answered makes an error of an unexpected response.
func answered(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // for the message only
	return fmt.Errorf("the server answered %s: %s", printable(resp.Status), printable(strings.TrimSpace(string(text))))
}

// printable is what others wrote, without what steers a terminal or makes a line of its own.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(text, "?"))
}

// A watch ends a request that is too slow, whether bytes come slowly or not at all.
type watch struct {
	c      *Client
	cancel context.CancelCauseFunc
	got    atomic.Int64 // bytes since the window started
	stop   atomic.Pointer[func() bool]
	cause  func() error
}

func (c *Client) watch(ctx context.Context) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{c: c, cancel: cancel, cause: func() error { return context.Cause(ctx) }}
	w.next()
	return ctx, w
}

// next starts a window, and checks the speed when it ends.
func (w *watch) next() {
	l := w.c.opt.Limits
	stop := w.c.opt.Clock.AfterFunc(l.RateWindow, func() {
		least := l.MinRate * int64(l.RateWindow/time.Second)
		if got := w.got.Swap(0); got < least && !w.c.skip[TooSlow] {
			w.cancel(refuse(TooSlow, fmt.Errorf("only %d bytes came in %v, and %d must", got, l.RateWindow, least)))
			return
		}
		w.next()
	})
	w.stop.Store(&stop)
}

func (w *watch) end() {
	if stop := w.stop.Load(); stop != nil {
		(*stop)()
	}
	w.cancel(nil)
}

// blame returns why a request failed: because it was too slow, or err.
func (w *watch) blame(err error) error {
	if cause := w.cause(); cause != nil && errors.As(cause, new(*Refusal)) {
		return cause
	}
	return err
}

func (w *watch) reader(r io.Reader) io.Reader { return countingReader{r, &w.got} }

type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n.Add(int64(n))
	return n, err
}

// maxBundle is the greatest length of a bundle of these items. Deflate adds 5 bytes to every 64 KiB that it cannot
// compress (RFC 1951, section 3.2.4), and tar up to 3 KiB of headers and padding to every file. maxDetails limits the
// manifest.
func maxBundle(said *statement.Signed, coming []statement.Item) int64 {
	n := int64(64<<10) + maxDetails(said)
	for _, it := range coming {
		n += it.Size + it.Size/1024 + 4<<10
	}
	return n
}

// maxDetails is the greatest length of the package_details.json of a statement.
func maxDetails(said *statement.Signed) int64 { return 4<<10 + 4<<10*int64(len(said.Items)) }

// tagSuffix is the end of the name of the file that holds a download's ETag.
const tagSuffix = ".etag"

// download writes the bundle of the coming items to a file. It continues an earlier download of the same bundle, and
// reports that as resumed.
func (c *Client) download(ctx context.Context, query string, said *statement.Signed, coming []statement.Item, digests []string) (name string, resumed bool, n int64, err error) {
	sum := sha256.Sum256([]byte(contents(said) + " " + strings.Join(digests, ",")))
	name = filepath.Join(c.opt.Dir, "download-"+hex.EncodeToString(sum[:8]))
	c.forgetDownloads(name)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", false, 0, err
	}
	defer f.Close()
	t := &transfer{c: c, query: query, f: f, name: name, digests: digests, limit: maxBundle(said, coming)}
	if t.at, err = f.Seek(0, io.SeekEnd); err != nil {
		return "", false, 0, err
	}
	start := t.at
	resumed = start > 0
	for try := 0; ; try++ {
		before := t.at
		var done bool
		done, err = t.goOn(ctx)
		if done || err != nil && (errors.As(err, new(*Refusal)) || ctx.Err() != nil) || try >= c.opt.Limits.Resumes || t.at <= before {
			break
		}
	}
	if err != nil {
		err = fmt.Errorf("get bundle: %w", err)
	}
	return name, resumed, t.got, err
}

// transfer is a download in progress.
type transfer struct {
	c       *Client
	query   string
	f       *os.File
	name    string
	digests []string // held
	limit   int64    // greatest length of the bundle, in bytes
	at      int64    // bytes in the file
	got     int64    // bytes received by this Update
}

// goOn requests the rest of the bundle. done reports that the file is complete.
func (t *transfer) goOn(ctx context.Context) (done bool, err error) {
	ctx, watch := t.c.watch(ctx)
	defer watch.end()
	header := holding(t.digests)
	if tag, err := os.ReadFile(t.name + tagSuffix); t.at > 0 && err == nil && len(tag) > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(t.at, 10)+"-")
		header.Set("If-Range", string(tag)) // RFC 9110, section 13.1.5
	}
	resp, err := t.c.ask(ctx, "/package", t.query, header)
	if err != nil {
		return false, watch.blame(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(t.at, 10)+"-"):
	case resp.StatusCode == http.StatusOK:
		if err := t.restart(resp.Header.Get("ETag")); err != nil {
			return false, err
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable, resp.StatusCode == http.StatusPartialContent:
		// The file is not the beginning of the bundle that the server has.
		return false, errors.Join(t.restart(""), refuse(WrongFile, fmt.Errorf("the server answered %s with the range %q", resp.Status, resp.Header.Get("Content-Range"))))
	case resp.StatusCode == http.StatusNotModified:
		return false, refuse(MissingFile, errors.New("the server says that nothing is lacking"))
	default:
		return false, answered(resp)
	}
	limit := t.limit
	if t.c.skip[TooLong] {
		limit = 1 << 40
	}
	n, err := io.Copy(t.f, io.LimitReader(watch.reader(resp.Body), limit+1-t.at))
	t.at += n
	t.got += n
	if t.at > limit {
		return false, refuse(TooLong, fmt.Errorf("bundle is longer than the %d bytes that the statement allows for", limit))
	}
	if err != nil {
		return false, watch.blame(err)
	}
	return true, t.f.Sync()
}

// restart empties the file, and saves the ETag of the response that will fill it.
func (t *transfer) restart(tag string) error {
	t.at = 0
	if _, err := t.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if strings.HasPrefix(tag, "W/") || len(tag) > 1024 {
		tag = "" // a weak ETag does not promise the same bytes
	}
	return errors.Join(t.f.Truncate(0), os.WriteFile(t.name+tagSuffix, []byte(tag), 0o600))
}
