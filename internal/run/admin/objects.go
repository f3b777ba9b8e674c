package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/precast-ota/precast/builder"
)

// objectHeader carries a builder.ObjectInfo as JSON, and putHeader what a Put says besides its body.
const (
	objectHeader = "X-Precast-Object"
	putHeader    = "X-Precast-Put"
)

// putting is what a Put says besides its body.
type putting struct {
	builder.PutOptions
	CRC64NVME uint64
	Checked   bool
}

// listed is one line of a list: an object, or last of all the outcome.
type listed struct {
	Object *builder.ObjectInfo `json:"object,omitempty"`
	Done   bool                `json:"done,omitempty"`
	Error  string              `json:"error,omitempty"`
}

// Objects are a server's, reached through its admin API; see builder.Objects. What a token may write depends on its
// role.
type Objects struct{ client *Client }

// Objects returns the server's objects.
func (c *Client) Objects() *Objects { return &Objects{c} }

var _ builder.Objects = (*Objects)(nil)

// open asks for an object, or for what describes it.
func (o *Objects) open(ctx context.Context, method, key, query string) (*http.Response, builder.ObjectInfo, error) {
	var info builder.ObjectInfo
	u := url.URL{Path: "/v1/objects/" + key, RawQuery: query}
	req, err := http.NewRequestWithContext(ctx, method, o.client.base+u.String(), nil)
	if err != nil {
		return nil, info, err
	}
	resp, err := o.client.do(req)
	if err != nil {
		return nil, info, err
	}
	if err := json.Unmarshal([]byte(resp.Header.Get(objectHeader)), &info); err != nil {
		resp.Body.Close()
		return nil, info, fmt.Errorf("read answer of %s: %w", o.client.name, err)
	}
	return resp, info, nil
}

// Stat implements builder.Objects.
func (o *Objects) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	resp, info, err := o.open(ctx, http.MethodHead, key, "")
	if err != nil {
		return info, fmt.Errorf("stat object %q: %w", key, err)
	}
	return info, resp.Body.Close()
}

// Get implements builder.Objects.
func (o *Objects) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	query := url.Values{"off": {strconv.FormatInt(off, 10)}, "n": {strconv.FormatInt(n, 10)}}.Encode()
	resp, info, err := o.open(ctx, http.MethodGet, key, query)
	if err != nil {
		return nil, info, fmt.Errorf("get object %q: %w", key, err)
	}
	return resp.Body, info, nil
}

// Put implements builder.Objects.
func (o *Objects) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	info, err := o.put(ctx, key, body, opt)
	if err != nil {
		return builder.ObjectInfo{}, fmt.Errorf("put object %q: %w", key, err)
	}
	return info, nil
}

func (o *Objects) put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (info builder.ObjectInfo, err error) {
	// The server would take a longer body for one of its size.
	end, err := body.Reader.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = body.Reader.Seek(0, io.SeekStart)
	}
	if err != nil {
		return info, fmt.Errorf("read body: %w", err)
	}
	if end != body.Size {
		return info, fmt.Errorf("read body: %d bytes, not %d", end, body.Size)
	}
	says, err := json.Marshal(putting{opt, body.CRC64NVME, body.Checked})
	if err != nil {
		return info, err
	}
	u := url.URL{Path: "/v1/objects/" + key}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, o.client.base+u.String(), io.NopCloser(body.Reader))
	if err != nil {
		return info, err
	}
	if req.ContentLength = body.Size; body.Size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set(putHeader, string(says))
	req.Header.Set("Expect", "100-continue") // what is there already is not sent
	resp, err := o.client.do(req)
	if err != nil {
		return info, err
	}
	defer resp.Body.Close()
	return info, json.NewDecoder(resp.Body).Decode(&info)
}

// List implements builder.Objects.
func (o *Objects) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	resp, err := o.client.send(ctx, http.MethodGet, "/v1/list?prefix="+url.QueryEscape(prefix), nil)
	if err != nil {
		return fmt.Errorf("list objects: %w", err)
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var l listed
		if err := dec.Decode(&l); err != nil {
			return fmt.Errorf("list objects: %w", err)
		}
		switch {
		case l.Error != "":
			return errors.New(l.Error)
		case l.Done:
			return nil
		case l.Object == nil:
			return errors.New("list objects: a line holds none")
		}
		if err := yield(*l.Object); err != nil {
			return err
		}
	}
}

// Delete removes objects; removing what is not there is no error.
func (o *Objects) Delete(ctx context.Context, keys ...string) error {
	return o.client.call(ctx, http.MethodPost, "/v1/delete", keys, nil)
}
