package rig

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// wholeAnswer is an http.ResponseWriter that keeps what is written.
type wholeAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *wholeAnswer) Header() http.Header { return w.header }

func (w *wholeAnswer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *wholeAnswer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// send answers from a whole copy: what the viewer's conditions and range ask of it.
func (c *CloudFront) send(w http.ResponseWriter, hr *http.Request, t *Trace, b *Behavior, o outcome) {
	t.Stale = o.stale
	if t.Origin == "" {
		t.Origin = o.origin
	}
	if !o.stored.IsZero() && o.xcache != miss {
		w.Header().Set("Age", strconv.FormatInt(int64(max(c.now().Sub(o.stored), 0)/time.Second), 10))
	}
	if c.unsatisfiable(o.answer, hr.Header) {
		o.answer = beyond(o.answer)
	}
	if o.answer.status != http.StatusOK {
		c.write(w, hr, t, b, o.answer, o.xcache)
		return
	}
	c.head(w, t, b, o.answer, o.xcache)
	if w.Header().Get("Content-Type") == "" {
		w.Header()["Content-Type"] = nil // not to be guessed
	}
	modified, _ := http.ParseTime(o.answer.header.Get("Last-Modified"))
	http.ServeContent(w, hr, "", modified, bytes.NewReader(o.answer.body))
}

// unsatisfiable tells whether a request has a range of an empty answer, and CloudFront objects.
func (c *CloudFront) unsatisfiable(a *response, header http.Header) bool {
	return c.dist.Assume.EmptyHasNoRange && a.status == http.StatusOK && len(a.body) == 0 &&
		strings.HasPrefix(header.Get("Range"), "bytes=") && header.Get("If-Range") == ""
}

// beyond is the answer to a range that there is not.
func beyond(a *response) *response {
	header := a.header.Clone()
	header.Set("Content-Range", fmt.Sprintf("bytes */%d", len(a.body)))
	return &response{status: http.StatusRequestedRangeNotSatisfiable, header: header, origin: a.origin}
}

// write sends an answer as it is.
func (c *CloudFront) write(w http.ResponseWriter, hr *http.Request, t *Trace, b *Behavior, a *response, xcache string) {
	c.head(w, t, b, a, xcache)
	h := w.Header()
	if hr.Method == http.MethodHead && a.header.Get("Content-Length") != "" {
		h.Set("Content-Length", a.header.Get("Content-Length"))
	} else if a.status != http.StatusNotModified && a.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	if hr.Method != http.MethodHead && a.status != http.StatusNotModified {
		_, _ = w.Write(a.body) // a wholeAnswer takes everything
	}
}

// head sets an answer's headers: the origin's, CloudFront's own, the response headers policy's.
func (c *CloudFront) head(w http.ResponseWriter, t *Trace, b *Behavior, a *response, xcache string) {
	h := w.Header()
	for name, values := range a.header {
		if !removed(name) {
			h[name] = slices.Clone(values)
		}
	}
	if b != nil {
		if vary := keptVary(h.Values("Vary"), b.Cache.Headers); vary == "" {
			h.Del("Vary")
		} else {
			h.Set("Vary", vary)
		}
		for name, value := range b.Override {
			h.Set(name, value)
		}
	}
	t.XCache = xcache
	h.Set("X-Cache", xcache+" from cloudfront")
	h.Set("Via", via(c.dist.ID))
	h.Set("X-Amz-Cf-Pop", "RIG50-P1")
	h.Set("X-Amz-Cf-Id", t.ID)
}

func via(id string) string { return "1.1 " + strings.ToLower(id) + ".cloudfront.net (CloudFront)" }

// removed are the headers that CloudFront takes away from what an origin answers
// (RequestAndResponseBehaviorCustomOrigin.html, ResponseCustomRemovedHeaders;
// RequestAndResponseBehaviorS3Origin.html, ResponseS3RemovedHeaders). Lengths are the server's to set.
func removed(name string) bool {
	return slices.Contains([]string{"Connection", "Content-Length", "Set-Cookie", "Trailer", "Transfer-Encoding", "Upgrade", "X-Amz-Id-2", "X-Amz-Request-Id"}, name)
}

// keptVary is what CloudFront leaves of Vary: headers that it passes on, Accept-Encoding and Cookie.
func keptVary(lines, forwarded []string) string {
	var kept []string
	for name := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name = strings.TrimSpace(name)
		same := func(other string) bool { return strings.EqualFold(name, other) }
		if slices.ContainsFunc(append([]string{"Accept-Encoding", "Cookie", "*"}, forwarded...), same) {
			kept = append(kept, name)
		}
	}
	return strings.Join(kept, ", ")
}
