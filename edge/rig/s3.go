package rig

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// S3 serves a builder's objects as a bucket does, addressed by path. Every request must be signed.
type S3 struct {
	objects        builder.Objects
	bucket, region string
	keys           map[string]aws.Credentials
	now            func() time.Time
	list           bool // readers may list: what is missing is 404, not 403

	mu       sync.Mutex
	down     bool
	slowDown bool
	held     chan struct{}
	other    map[string][]byte
	requests []S3Request
}

// S3Request is a request that came to S3.
type S3Request struct {
	By     string // access key, empty if the signature was refused
	Method string
	Key    string
	Query  string
	Status int // 0: the connection was closed
}

// SetDown makes S3 close every connection, until it is set up again.
func (s *S3) SetDown(down bool) { s.mu.Lock(); s.down = down; s.mu.Unlock() }

// SetSlowDown makes S3 answer 503 SlowDown.
func (s *S3) SetSlowDown(on bool) { s.mu.Lock(); s.slowDown = on; s.mu.Unlock() }

// Hold makes S3 answer nobody until release is called.
func (s *S3) Hold() (release func()) {
	held := make(chan struct{})
	s.mu.Lock()
	s.held = held
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.held = nil
		s.mu.Unlock()
		close(held)
	})
}

// Replace makes a key's object have other bytes; nil undoes it.
func (s *S3) Replace(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data == nil {
		delete(s.other, key)
	} else {
		s.other[key] = data
	}
}

// Requests returns what has come so far.
func (s *S3) Requests() []S3Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]S3Request(nil), s.requests...)
}

// ServeHTTP implements http.Handler.
func (s *S3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	down, slowDown, held := s.down, s.slowDown, s.held
	s.mu.Unlock()
	req := S3Request{Method: r.Method, Query: r.URL.RawQuery}
	req.Key, _ = strings.CutPrefix(r.URL.Path, "/"+s.bucket+"/")
	defer func() {
		s.mu.Lock()
		s.requests = append(s.requests, req)
		s.mu.Unlock()
	}()
	if held != nil {
		select {
		case <-held:
		case <-r.Context().Done():
			return
		}
	}
	if down {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return
	}
	req.Status = s.answer(w, r, &req, slowDown)
}

// maxS3Header is how many bytes of request line and headers S3 takes. Beyond, it answers 400
// RequestHeaderSectionTooLarge, "Your request header section exceeds the maximum allowed size", with MaxSizeAllowed
// 8192. What it counts is not documented (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
const maxS3Header = 8192

func headerLength(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Proto) + len("Host: ") + len(r.Host) + 8
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	return n
}

func (s *S3) answer(w http.ResponseWriter, r *http.Request, req *S3Request, slowDown bool) int {
	fail := func(status int, code, message string) int {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_ = xml.NewEncoder(w).Encode(struct {
				XMLName       xml.Name `xml:"Error"`
				Code, Message string
			}{Code: code, Message: message})
		}
		return status
	}
	w.Header().Set("Server", "AmazonS3")
	w.Header().Set("X-Amz-Request-Id", "RIG")
	if n := headerLength(r); n > maxS3Header {
		return fail(http.StatusBadRequest, "RequestHeaderSectionTooLarge", fmt.Sprintf("Your request header section exceeds the maximum allowed size: %d bytes", n))
	}
	who, err := verify(r, s.keys, "s3", s.region, s.now())
	if err != nil {
		return fail(http.StatusForbidden, "AccessDenied", err.Error())
	}
	req.By = who
	if slowDown {
		return fail(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	}
	// S3 reads some parameters and ignores the rest: here each of them is a leak.
	if r.URL.RawQuery != "" {
		return fail(http.StatusBadRequest, "InvalidArgument", "query parameters are not expected here: "+r.URL.RawQuery)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return fail(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
	}
	body, info, err := s.read(r.Context(), req.Key)
	if errors.Is(err, builder.ErrNotExist) {
		if s.list {
			return fail(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		}
		// https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
		return fail(http.StatusForbidden, "AccessDenied", "Access Denied")
	}
	if err != nil {
		return fail(http.StatusInternalServerError, "InternalError", err.Error())
	}
	return s.send(w, r, body, info)
}

// read returns an object.
func (s *S3) read(ctx context.Context, key string) ([]byte, builder.ObjectInfo, error) {
	if _, err := layout.KindOf(key); err != nil {
		return nil, builder.ObjectInfo{}, fmt.Errorf("%w: %w", builder.ErrNotExist, err)
	}
	s.mu.Lock()
	other, ok := s.other[key]
	s.mu.Unlock()
	if ok {
		kind, _ := layout.KindOf(key)
		return other, builder.ObjectInfo{Key: key, Modified: s.now(), Headers: layout.HeadersOf(kind)}, nil
	}
	body, info, err := s.objects.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, info, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return data, info, err
}

// etag is an object's ETag: its MD5, if it is of one part and without a key of KMS's
// (https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html).
func etag(body []byte) string {
	sum := md5.Sum(body)
	return hex.EncodeToString(sum[:])
}

func (s *S3) send(w http.ResponseWriter, r *http.Request, body []byte, info builder.ObjectInfo) int {
	h := w.Header()
	h.Set("ETag", `"`+etag(body)+`"`)
	h.Set("Content-Type", info.Headers.ContentType)
	h.Set("Cache-Control", info.Headers.CacheControl)
	if info.Headers.ContentDisposition != "" {
		h.Set("Content-Disposition", info.Headers.ContentDisposition)
	}
	h.Set("X-Amz-Server-Side-Encryption", "AES256")
	rec := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
	http.ServeContent(rec, r, "", info.Modified, bytes.NewReader(body))
	return rec.status
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Objects are the same objects for other readers of S3, with its faults.
func (s *S3) Objects() builder.Objects { return faulty{s} }

type faulty struct{ s *S3 }

// errS3 is what a reader gets of an S3 in trouble.
var errS3 = errors.New("S3 does not answer")

func (f faulty) err(ctx context.Context) error {
	f.s.mu.Lock()
	down, held := f.s.down || f.s.slowDown, f.s.held
	f.s.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if down {
		return errS3
	}
	return nil
}

func (f faulty) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	if err := f.err(ctx); err != nil {
		return builder.ObjectInfo{}, err
	}
	info, err := f.s.objects.Stat(ctx, key)
	if kind, _ := layout.KindOf(key); err == nil && (kind == layout.Bundle || kind == layout.Manifest) {
		// The composer passes it on.
		var data []byte
		if data, _, err = f.s.read(ctx, key); err == nil {
			info.ETag = etag(data)
		}
	}
	return info, err
}

func (f faulty) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	if err := f.err(ctx); err != nil {
		return nil, builder.ObjectInfo{}, err
	}
	f.s.mu.Lock()
	other, replaced := f.s.other[key]
	f.s.mu.Unlock()
	if !replaced {
		return f.s.objects.Get(ctx, key, off, n)
	}
	info := builder.ObjectInfo{Key: key, Size: int64(len(other)), ETag: etag(other)}
	from := min(off, info.Size)
	to := info.Size
	if n >= 0 {
		to = min(from+n, to)
	}
	return io.NopCloser(bytes.NewReader(other[from:to])), info, nil
}

func (f faulty) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	if err := f.err(ctx); err != nil {
		return builder.ObjectInfo{}, err
	}
	if info, err := f.s.objects.Put(ctx, key, body, opt); err != nil {
		return info, err
	}
	return f.Stat(ctx, key)
}

func (f faulty) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	if err := f.err(ctx); err != nil {
		return err
	}
	return f.s.objects.List(ctx, prefix, yield)
}
