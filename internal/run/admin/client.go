package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// Client talks to a running server. It is a builder.Catalog and a builder.CatalogWriter.
type Client struct {
	base  string // URL
	url   string // of the server for devices, or what is known instead
	name  string // for people
	token string
	tls   *tls.Config
	http  http.Client
}

// NewClient makes a client of the server that announced an endpoint. It proves itself before anything is sent to it.
func NewClient(e Endpoint) (*Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(e.Certificate)) {
		return nil, fmt.Errorf("reach the server (pid %d): it is of an earlier version, and cannot prove itself: restart it", e.PID)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: serverName}
	return newClient("https://"+e.Address, e.URL, fmt.Sprintf("the server (pid %d)", e.PID), e.Token, cfg), nil
}

// NewRemoteClient makes a client of the admin address of a server: https, or http on the loopback interface, where
// something else may add TLS. Roots are the authorities to believe; nil: the system's.
func NewRemoteClient(server, token string, roots *x509.CertPool) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%q is no URL of a server: use https://HOST:PORT", server)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return nil, fmt.Errorf("%s: a token is only sent over https, or to this machine", server)
	}
	base := u.Scheme + "://" + u.Host
	return newClient(base, base, "the server at "+base, token, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}), nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func newClient(base, url, name, token string, cfg *tls.Config) *Client {
	transport := &http.Transport{
		DialContext:     (&net.Dialer{Timeout: reachTimeout}).DialContext,
		TLSClientConfig: cfg, TLSHandshakeTimeout: reachTimeout,
		ExpectContinueTimeout: reachTimeout,
	}
	return &Client{base: base, url: url, name: name, token: token, tls: cfg, http: http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // not with the token
	}}
}

// reachTimeout is how long a server may take to be reached, and to prove itself.
const reachTimeout = 10 * time.Second

// Reach tells whether the server is there and proves itself.
func (c *Client) Reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: c.tls}).DialContext(ctx, "tcp", strings.TrimPrefix(c.base, "https://"))
	if err != nil {
		return fmt.Errorf("reach %s: %w", c.name, err)
	}
	return conn.Close()
}

// URL is the server's for devices, or its admin address if it is not known.
func (c *Client) URL() string { return c.url }

// Snapshot implements builder.Catalog.
func (c *Client) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	var items []catalog.Item
	err := c.call(ctx, http.MethodGet, "/v1/catalog", nil, &items)
	return items, err
}

// Apply implements builder.CatalogWriter.
func (c *Client) Apply(ctx context.Context, edit catalog.Edit) error {
	return c.call(ctx, http.MethodPost, "/v1/changes", edit, nil)
}

// Head implements builder.CatalogWriter.
func (c *Client) Head(ctx context.Context) (catalog.Head, error) {
	var head catalog.Head
	err := c.call(ctx, http.MethodGet, "/v1/head", nil, &head)
	return head, err
}

// Log implements builder.CatalogWriter.
func (c *Client) Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
	resp, err := c.send(ctx, http.MethodGet, fmt.Sprint("/v1/log?after=", after), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var e catalog.LogEntry
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return fmt.Errorf("read the server's log after entry %d: %w", after, io.ErrUnexpectedEOF)
		} else if err != nil {
			return fmt.Errorf("read the server's log: %w", err)
		}
		if e.Number == 0 {
			return nil
		}
		if err := yield(e); err != nil {
			return err
		}
		after = e.Number
	}
}

// Preview has the server work out what an edit changes for devices; see pipeline.Preview.
func (c *Client) Preview(ctx context.Context, edit catalog.Edit) (release.Difference, error) {
	var d release.Difference
	err := c.call(ctx, http.MethodPost, "/v1/preview", edit, &d)
	return d, err
}

// Status returns the server's status.
func (c *Client) Status(ctx context.Context) (pipeline.Status, error) {
	var s pipeline.Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Redrive puts the dead letters back into the queue.
func (c *Client) Redrive(ctx context.Context) (int, error) {
	var n int
	err := c.call(ctx, http.MethodPost, "/v1/redrive", nil, &n)
	return n, err
}

// Rollback has the server roll back; see pipeline.Rollback.
func (c *Client) Rollback(ctx context.Context, r history.Request) (pipeline.RolledBack, error) {
	var out pipeline.RolledBack
	err := c.call(ctx, http.MethodPost, "/v1/rollback", r, &out)
	return out, err
}

// Pin has the server pin what is published.
func (c *Client) Pin(ctx context.Context, by catalog.Author) (history.Pinned, error) {
	var p history.Pinned
	err := c.call(ctx, http.MethodPost, "/v1/pin", by, &p)
	return p, err
}

// Unpin has the server take the pin off.
func (c *Client) Unpin(ctx context.Context, by catalog.Author) (history.Pinned, error) {
	var p history.Pinned
	err := c.call(ctx, http.MethodPost, "/v1/unpin", by, &p)
	return p, err
}

// Build has the server build, and passes its events on; see pipeline.Build.
func (c *Client) Build(ctx context.Context, opt builder.PlanOptions, observe func(pipeline.Event)) error {
	resp, err := c.send(ctx, http.MethodPost, "/v1/build", opt)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var l line
		if err := dec.Decode(&l); err != nil {
			return fmt.Errorf("follow the server's build: %w", err)
		}
		switch {
		case l.Pinned != nil:
			return l.Pinned
		case l.Paused != "":
			return refusal{l.Paused, builder.ErrPaused}
		case l.LeftOut != nil:
			return l.LeftOut
		case l.Error != "":
			return errors.New(l.Error)
		case l.Done:
			return nil
		case observe != nil:
			observe(l.Event)
		}
	}
}

// maxSaid bounds the text of an error.
const maxSaid = 64 << 10

// refusal is the server's text of an error that is known here.
type refusal struct {
	text string
	of   error
}

func (e refusal) Error() string { return e.text }

func (e refusal) Unwrap() error { return e.of }

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("ask %s: %s: %w", c.name, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(in); err != nil {
		return nil, fmt.Errorf("ask the server: %s: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, &body)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %s: %w", path, err)
	}
	return c.do(req)
}

// do sends a request; an answer other than 200 is an error.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set(versionHeader, strconv.Itoa(catalog.Version))
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.name, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxSaid))
	resp.Body.Close()
	said := strings.TrimSpace(string(text))
	if said == "" { // to HEAD
		said = resp.Status
	}
	switch resp.StatusCode {
	case statusRefused:
		return nil, release.Refusal(said)
	case statusRace:
		return nil, refusal{said, history.ErrRace}
	case statusMoved:
		return nil, refusal{said, builder.ErrPrecondition}
	case statusAbsent:
		return nil, refusal{said, builder.ErrNotExist}
	}
	return nil, fmt.Errorf("ask %s: %s: %s", c.name, resp.Status, said)
}
