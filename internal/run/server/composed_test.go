package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/server"
)

// withoutCopies composes everything while it is sent.
func withoutCopies() builder.Options {
	p := builder.DefaultParams()
	p.MaxBundles = 0
	return builder.Options{Params: p}
}

// C19: an answer that is composed while it is sent is in everything that of a file: status, headers, ranges, bytes.
func TestC19ComposedAnswersAreThoseOfFiles(t *testing.T) {
	files, composed := newSite(t, builder.Options{}, sample(20_000)), newSite(t, withoutCopies(), sample(20_000))
	n := 0
	for _, prefix := range []string{layout.BundlePrefix, layout.ManifestPrefix} {
		if err := composed.store.Objects().List(t.Context(), prefix, func(builder.ObjectInfo) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if n > 0 {
		t.Fatalf("%d bundles and manifests are stored", n)
	}
	ix := files.pub.Index()
	cases := 0
	for _, query := range []string{"cpuArch=armv8", "cpuArch=armv8&attrGamer=prod&attrCellular=prod", "cpuArch=armv7&os=beta&attrCamera=prod"} {
		for _, payload := range []string{"", "&payloadType=metadataOnly"} {
			path := "/package?" + query + payload
			d := edge.Decide(ix, query+payload, "")
			_, key := d.Object()
			etag := `"` + layout.ETag(key) + `"`
			size := len(files.get(path).body)
			ranges := []string{"", "bytes=0-0", "bytes=0-", "bytes=100-199", fmt.Sprintf("bytes=%d-", size-1), fmt.Sprintf("bytes=%d-", size), fmt.Sprintf("bytes=%d-%d", size-10, size+10),
				"bytes=-1", "bytes=-100", "bytes=-0", fmt.Sprintf("bytes=-%d", size+1), "bytes=5-4", "bytes=x", "lines=0-1", "bytes=0-9,20-29", "bytes=0-9,-5", fmt.Sprintf("bytes=%d-,0-3", size/2), fmt.Sprintf("bytes=0-%d,0-%d", size, size)}
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				for _, r := range ranges {
					for _, more := range [][]string{nil, {"If-Range", etag}, {"If-Range", `"another"`}, {"If-None-Match", etag}, {"If-None-Match", edge.Hex(d.Set.Item(0).MD5[:])}, {"If-Match", etag}, {"If-Match", `"another"`}} {
						headers := append([]string{"Accept-Encoding", "identity"}, more...)
						if r != "" {
							headers = append(headers, "Range", r)
						}
						want, got := files.do(method, path, headers...), composed.do(method, path, headers...)
						delete(want.header, "Date")
						delete(got.header, "Date")
						// The boundary between parts is a random word.
						want, got = unbounded(want), unbounded(got)
						if want.status != got.status || !maps.EqualFunc(want.header, got.header, func(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) || !bytes.Equal(want.body, got.body) {
							t.Errorf("%s %s %v: composed %d %v (%d bytes), file %d %v (%d bytes)", method, path, headers, got.status, got.header, len(got.body), want.status, want.header, len(want.body))
						}
						cases++
					}
				}
			}
		}
	}
	if cases < 1000 {
		t.Fatalf("only %d requests", cases)
	}
}

// unbounded replaces the boundary of a multipart answer.
func unbounded(a answer) answer {
	if _, boundary, ok := strings.Cut(a.header.Get("Content-Type"), "boundary="); ok {
		a.header.Set("Content-Type", "multipart/byteranges")
		a.body = bytes.ReplaceAll(a.body, []byte(boundary), []byte("boundary"))
	}
	return a
}

// pieceReads notes what is read of pieces.
type pieceReads struct {
	builder.Objects
	mu   sync.Mutex
	read map[string]int64
}

func (c *pieceReads) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	body, info, err := c.Objects.Get(ctx, key, off, n)
	return readBody{body, c, key}, info, err
}

type readBody struct {
	io.ReadCloser
	c   *pieceReads
	key string
}

func (b readBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	b.c.read[b.key] += int64(n)
	return n, err
}

// C19: a range of a composed bundle reads nothing of what comes before it.
func TestC19ARangeReadsOnlyItself(t *testing.T) {
	s := newSite(t, withoutCopies(), sample(300_000))
	objects := &pieceReads{Objects: s.store.Objects(), read: make(map[string]int64)}
	front := httptest.NewServer(server.New(objects, s.pub, server.NewMetrics(), slog.New(slog.DiscardHandler)).Handler())
	defer front.Close()
	over := &site{t: t, url: front.URL}
	path := "/package?cpuArch=armv8&attrGamer=prod&attrCellular=prod"
	whole := over.get(path)
	clear(objects.read)
	at := len(whole.body) - 50_000
	rest := over.get(path, "Range", fmt.Sprintf("bytes=%d-", at))
	if rest.status != http.StatusPartialContent || !bytes.Equal(rest.body, whole.body[at:]) {
		t.Fatalf("%d, %d bytes", rest.status, len(rest.body))
	}
	var read int64
	for _, n := range objects.read {
		read += n
	}
	if len(objects.read) != 1 || read > 60_000 {
		t.Fatalf("for 50,000 bytes at the end it read %v", objects.read)
	}
}
