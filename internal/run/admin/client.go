package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/pipeline"
)

// Client talks to a running server. It is a builder.Catalog and a builder.CatalogWriter.
type Client struct {
	endpoint Endpoint
	http     http.Client
}

// NewClient makes a client of an endpoint.
func NewClient(e Endpoint) *Client { return &Client{endpoint: e} }

// Endpoint is the server's.
func (c *Client) Endpoint() Endpoint { return c.endpoint }

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
		return fmt.Errorf("ask the server (pid %d): %s: %w", c.endpoint.PID, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(in); err != nil {
		return nil, fmt.Errorf("ask the server: %s: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.endpoint.Address+path, &body)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %s: %w", path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.endpoint.Token)
	req.Header.Set(versionHeader, strconv.Itoa(catalog.Version))
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the server (pid %d): %w", c.endpoint.PID, err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxSaid))
		resp.Body.Close()
		said := strings.TrimSpace(string(text))
		switch resp.StatusCode {
		case statusRefused:
			return nil, release.Refusal(said)
		case statusRace:
			return nil, refusal{said, history.ErrRace}
		case statusMoved:
			return nil, refusal{said, builder.ErrPrecondition}
		}
		return nil, fmt.Errorf("ask the server (pid %d): %s: %s", c.endpoint.PID, resp.Status, said)
	}
	return resp, nil
}
