package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/manifest"
)

// maxBody bounds what is read of an answer.
const maxBody = 16 << 20

// headers are those of an answer that tell where it comes from.
var headers = []string{"Age", "Cache-Control", "Content-Type", "ETag", "Last-Modified", "Retry-After", "Server", "Via", "X-Cache"}

// Live asks a server or a CDN, as a device does. What that tells is all that is known: not why, nor what will come.
func Live(ctx context.Context, client *http.Client, base *url.URL, q Question) (*Report, error) {
	rep := &Report{Of: base.Redacted(), Query: q.Query, Held: []string{}, Answer: Answer{Items: []Item{}, Unmet: []Unmet{}, Near: []Near{}}}
	selection, slot, err := edge.ParseQuery(q.Query)
	if err == nil {
		rep.Query = selection.String()
	}
	if slot != edge.NoSlot {
		rep.Slot = &slot
	}
	if held, err := edge.ParseTags(q.Held); err == nil {
		rep.Held = append(rep.Held, held...)
	}
	l := live{client: client, base: *base, held: q.Held}
	l.base.Path = strings.TrimSuffix(strings.TrimSuffix(l.base.Path, "/"), "/package") + "/package"
	head, err := l.do(ctx, http.MethodHead, q.Query)
	if err != nil {
		return nil, err
	}
	if head.status >= http.StatusBadRequest { // only with a body does it say why
		if head, err = l.do(ctx, http.MethodGet, q.Query); err != nil {
			return nil, err
		}
	}
	rep.Status, rep.Headers = head.status, head.headers
	rep.ETag = strings.Trim(strings.TrimPrefix(head.headers["ETag"], "W/"), `"`)
	if rep.Status >= http.StatusBadRequest {
		rep.Error = head.message()
	}
	if rep.Status != http.StatusOK {
		return rep, nil
	}
	rep.Size = max(head.size, 0)
	if selection.Payload == edge.Statement {
		rep.Kind, rep.Source = "statement", "signed"
		return rep, nil
	}
	rep.Kind = "bundle"
	if selection.Payload == edge.MetadataOnly {
		rep.Kind = "manifest"
	}
	// The first parameter of a name counts.
	list, err := l.do(ctx, http.MethodGet, "payloadType=metadataOnly&"+q.Query)
	if err != nil {
		return nil, err
	}
	if list.status != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d when asked for the manifest: %s", rep.Of, list.status, list.message())
	}
	m, err := manifest.Decode(strings.NewReader(list.body))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", rep.Of, err)
	}
	for _, app := range slices.Sorted(maps.Keys(m)) {
		for _, e := range append(m[app].Alternatives, m[app]) {
			rep.Items = append(rep.Items, Item{App: line(app), Version: line(e.LatestVersion), Size: e.Size, MD5: e.MD5, SHA256: e.SHA256, Held: e.StatusCode == manifest.StatusHeld})
		}
	}
	return rep, nil
}

// live asks one server for one device.
type live struct {
	client *http.Client
	base   url.URL
	held   string
}

// heard is an answer.
type heard struct {
	status  int
	headers map[string]string
	size    int64
	body    string
}

func (l live) do(ctx context.Context, method, query string) (heard, error) {
	address := l.base
	address.RawQuery = strings.ReplaceAll(query, " ", "%20")
	req, err := http.NewRequestWithContext(ctx, method, address.String(), nil)
	if err != nil {
		return heard{}, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	if l.held != "" {
		req.Header.Set("If-None-Match", l.held)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok { // it repeats the query
			err = failed.Err
		}
		return heard{}, fmt.Errorf("ask %s: %w", l.base.Redacted(), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return heard{}, fmt.Errorf("read the answer of %s: %w", l.base.Redacted(), err)
	}
	h := heard{resp.StatusCode, make(map[string]string), resp.ContentLength, string(body)}
	for _, name := range headers {
		if v := resp.Header.Get(name); v != "" {
			h.headers[name] = v
		}
	}
	return h, nil
}

// message is the text of an error: that of a Precast, or the beginning of what something else says.
func (h heard) message() string {
	var said struct{ Error string }
	if err := json.Unmarshal([]byte(h.body), &said); err == nil && said.Error != "" {
		return line(said.Error)
	}
	const most = 200
	text := line(h.body[:min(len(h.body), most)])
	if text == "" {
		text = http.StatusText(h.status)
	}
	return text
}

// line is what a stranger wrote, on one line, so that it is not taken for a line of ours.
func line(text string) string { return strings.Join(strings.Fields(text), " ") }
