package aws

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

var sha = strings.Repeat("0", 64)

func bodyOf(s string) builder.Body {
	return builder.Body{Reader: strings.NewReader(s), Size: int64(len(s))}
}

// What a PUT carries, byte for byte; the expected checksum is from the CRC catalogue
// (https://reveng.sourceforge.io/crc-catalogue/all.htm, CRC-64/NVME: check 0xae8b14860a799888).
func TestPutRequest(t *testing.T) {
	var got *http.Request
	var body string
	o, _ := fakeObjects(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)
		w.Header().Set("ETag", `"the-etag"`)
	})
	o.prefix = "some/where/"
	meta := map[string]string{"generation": "42"}
	for _, checked := range []bool{false, true} {
		b := bodyOf("123456789")
		if checked {
			b.CRC64NVME, b.Checked = 0xae8b14860a799888, true
		}
		info, err := o.Put(t.Context(), layout.BundleKey(sha, "2f"), b, builder.PutOptions{IfAbsent: true, Meta: meta})
		if err != nil {
			t.Fatal(err)
		}
		if info.ETag != "the-etag" || info.Size != 9 || !maps.Equal(info.Meta, meta) {
			t.Errorf("Put = %+v", info)
		}
		if body != "123456789" || got.ContentLength != 9 || len(got.TransferEncoding) > 0 {
			t.Errorf("sent %q, length %d, %q", body, got.ContentLength, got.TransferEncoding)
		}
		if want := "/bucket/some/where/bundles/" + sha + "/2f.tar.gz"; got.URL.Path != want {
			t.Errorf("path %q, want %q", got.URL.Path, want)
		}
		for name, want := range map[string]string{
			"Content-Type":             "application/gzip",
			"Cache-Control":            "public, max-age=30, stale-while-revalidate=30",
			"Content-Disposition":      `attachment; filename="ota-package.tar.gz"`,
			"Content-Encoding":         "",
			"If-None-Match":            "*",
			"If-Match":                 "",
			"X-Amz-Checksum-Crc64nvme": "rosUhgp5mIg=",
			"X-Amz-Checksum-Crc32":     "",
			"X-Amz-Trailer":            "",
			"X-Amz-Content-Sha256":     "UNSIGNED-PAYLOAD",
			"X-Amz-Meta-Generation":    "42",
		} {
			if value := got.Header.Get(name); value != want {
				t.Errorf("%s: %q, want %q", name, value, want)
			}
		}
	}
	if _, err := o.Put(t.Context(), layout.IndexKey, bodyOf("x"), builder.PutOptions{IfMatch: "abc"}); err != nil {
		t.Fatal(err)
	}
	if m, d := got.Header.Get("If-Match"), got.Header["Content-Disposition"]; m != `"abc"` || d != nil {
		t.Errorf("If-Match: %s, Content-Disposition: %q", m, d)
	}
}

func TestPutAnswers(t *testing.T) {
	const put = "PUT /bucket/index?x-id=PutObject"
	absent, match := builder.PutOptions{IfAbsent: true}, builder.PutOptions{IfMatch: "abc"}
	errOther := errors.New("another error")
	for _, test := range []struct {
		name     string
		opt      builder.PutOptions
		steps    []func(http.ResponseWriter, *http.Request, string)
		want     error
		requests int
		waits    int
	}{
		{"exists", absent, steps(answer(412, "PreconditionFailed")), builder.ErrPrecondition, 1, 0},
		{"changed", match, steps(answer(412, "PreconditionFailed")), builder.ErrPrecondition, 1, 0},
		{"nothing to match", match, steps(answer(404, "NoSuchKey")), builder.ErrPrecondition, 1, 0},
		{"no bucket", match, steps(answer(404, "NoSuchBucket")), errOther, 1, 0},
		{"forbidden", absent, steps(answer(403, "AccessDenied")), errOther, 1, 0},
		{"wrong checksum", absent, steps(answer(400, "BadDigest")), errOther, 1, 0},
		{"conflict, then written", absent, steps(answer(409, "ConditionalRequestConflict"), answer(200, "")), nil, 2, 1},
		{"conflict, then exists", absent, steps(answer(409, "ConditionalRequestConflict"), answer(412, "PreconditionFailed")), builder.ErrPrecondition, 2, 1},
		{"conflict for ever", match, steps(answer(409, "ConditionalRequestConflict")), errOther, attempts, attempts - 1},
		{"another 409", absent, steps(answer(409, "OperationAborted")), errOther, 1, 0},
		{"slow down, then written", absent, steps(answer(503, "SlowDown"), answer(503, "SlowDown"), answer(200, "")), nil, 3, 0},
		{"slow down for ever", absent, steps(answer(503, "SlowDown")), errOther, 3, 0},
		{"internal error, then written", match, steps(answer(500, "InternalError"), answer(200, "")), nil, 2, 0},
		{"not written, answer lost", absent, steps(hangUp, answer(200, "")), nil, 2, 0},
		// It was written. See Objects.
		{"written, answer lost", absent, steps(hangUp, answer(412, "PreconditionFailed")), builder.ErrPrecondition, 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &script{}
			for _, step := range test.steps {
				s.steps = append(s.steps, func(w http.ResponseWriter, r *http.Request, body string) {
					if body != "the body" {
						t.Errorf("request has the body %q", body)
					}
					step(w, r, body)
				})
			}
			o, slept := fakeObjects(t, s.ServeHTTP)
			_, err := o.Put(t.Context(), layout.IndexKey, bodyOf("the body"), test.opt)
			switch {
			case test.want == errOther:
				if err == nil || errors.Is(err, builder.ErrPrecondition) || errors.Is(err, builder.ErrNotExist) {
					t.Errorf("Put = %v, want another error", err)
				}
			case !errors.Is(err, test.want):
				t.Errorf("Put = %v, want %v", err, test.want)
			}
			if got := s.requests(); len(got) != test.requests || slices.ContainsFunc(got, func(r string) bool { return r != put }) {
				t.Errorf("%d requests %q, want %d", len(got), got, test.requests)
			}
			if len(*slept) != test.waits {
				t.Errorf("waited %v, want %d times", *slept, test.waits)
			}
		})
	}
}

func steps(s ...func(http.ResponseWriter, *http.Request, string)) []func(http.ResponseWriter, *http.Request, string) {
	return s
}

func TestConflictBackoff(t *testing.T) {
	s := &script{steps: steps(answer(409, "ConditionalRequestConflict"))}
	o, slept := fakeObjects(t, s.ServeHTTP)
	if _, err := o.Put(t.Context(), layout.IndexKey, bodyOf("x"), builder.PutOptions{IfAbsent: true}); err == nil {
		t.Fatal("Put succeeded")
	}
	want := []time.Duration{25, 50, 100, 200, 400, 800, 1000} // half the limits: the random number is 0.5
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(*slept, want) {
		t.Errorf("waited %v, want %v", *slept, want)
	}
	// Whoever waits can be called off.
	ctx, cancel := context.WithCancel(t.Context())
	o.retry.sleep = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	if _, err := o.Put(ctx, layout.IndexKey, bodyOf("x"), builder.PutOptions{IfAbsent: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want %v", err, context.Canceled)
	}
}

// What is wrong with a body is not tried again.
func TestPutBodyFails(t *testing.T) {
	s := &script{steps: steps(answer(200, ""))}
	o, _ := fakeObjects(t, s.ServeHTTP)
	boom := errors.New("boom")
	b := []byte(strings.Repeat("x", 100_000))
	r := &countingReader{ReadSeeker: bytes.NewReader(b), failAt: 50_000, err: boom}
	body := builder.Body{Reader: r, Size: int64(len(b)), CRC64NVME: crc64nvme.Checksum(b), Checked: true}
	if _, err := o.Put(t.Context(), layout.IndexKey, body, builder.PutOptions{}); !errors.Is(err, boom) {
		t.Errorf("Put = %v, want %v", err, boom)
	}
	if r.failed != 1 || len(s.requests()) != 0 {
		t.Errorf("the body failed %d times, %d requests were complete", r.failed, len(s.requests()))
	}
}

// countingReader fails after failAt bytes.
type countingReader struct {
	io.ReadSeeker
	pos, failAt, failed, read int
	err                       error
}

func (r *countingReader) Read(b []byte) (int, error) {
	if r.pos >= r.failAt {
		r.failed++
		return 0, r.err
	}
	n, err := r.ReadSeeker.Read(b[:min(len(b), r.failAt-r.pos)])
	r.pos += n
	r.read += n
	return n, err
}

func (r *countingReader) Seek(offset int64, whence int) (int64, error) {
	n, err := r.ReadSeeker.Seek(offset, whence)
	r.pos = int(n)
	return n, err
}

// A large body that is refused is not sent.
func TestPutWaitsForContinue(t *testing.T) {
	s := &script{steps: steps(answer(200, ""))}
	refuse := true
	o, _ := fakeObjects(t, func(w http.ResponseWriter, r *http.Request) {
		if refuse {
			answer(412, "PreconditionFailed")(w, r, "")
			return
		}
		s.ServeHTTP(w, r)
	})
	b := make([]byte, 8<<20)
	for _, refuse = range []bool{true, false} {
		r := &countingReader{ReadSeeker: bytes.NewReader(b), failAt: math.MaxInt}
		body := builder.Body{Reader: r, Size: int64(len(b)), CRC64NVME: crc64nvme.Checksum(b), Checked: true}
		_, err := o.Put(t.Context(), layout.IndexKey, body, builder.PutOptions{IfAbsent: true})
		if refuse && (!errors.Is(err, builder.ErrPrecondition) || r.read != 0) {
			t.Errorf("a refused Put = %v, after %d bytes", err, r.read)
		}
		if !refuse && (err != nil || r.read != len(b)) {
			t.Errorf("Put = %v, after %d bytes of %d", err, r.read, len(b))
		}
	}
}

// When Put has returned, nobody touches its body any more, whatever the transport is up to. The race
// detector watches.
func TestPutLeavesBodyAlone(t *testing.T) {
	o, _ := fakeObjects(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		answer(412, "PreconditionFailed")(w, r, "") // while the rest is being sent
	})
	b := make([]byte, 8<<20)
	for range 20 {
		r := bytes.NewReader(b)
		body := builder.Body{Reader: r, Size: int64(len(b)), CRC64NVME: crc64nvme.Checksum(b), Checked: true}
		if _, err := o.Put(t.Context(), layout.IndexKey, body, builder.PutOptions{IfAbsent: true}); err == nil {
			t.Fatal("Put succeeded")
		}
		r.Reset(nil)
	}
}

func TestMultipartAnswers(t *testing.T) {
	const id = "the-id"
	begin := func(w http.ResponseWriter, r *http.Request, _ string) {
		for name, want := range map[string]string{
			"X-Amz-Checksum-Algorithm": "CRC64NVME", "X-Amz-Checksum-Type": "FULL_OBJECT",
			"Content-Type": "application/octet-stream", "X-Amz-Meta-A": "b",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("create: %s: %q, want %q", name, got, want)
			}
		}
		io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>"+id+"</UploadId></InitiateMultipartUploadResult>")
	}
	absent := answer(404, "")
	complete := func(w http.ResponseWriter, r *http.Request, body string) {
		for name, want := range map[string]string{
			"X-Amz-Checksum-Crc64nvme": "rosUhgp5mIg=", "X-Amz-Checksum-Type": "FULL_OBJECT",
			"X-Amz-Mp-Object-Size": "9", "If-None-Match": "*",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("complete: %s: %q, want %q", name, got, want)
			}
		}
		if n := strings.Count(body, "<PartNumber>"); n != 3 {
			t.Errorf("complete has %d parts: %s", n, body)
		}
		io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"multi-3"</ETag></CompleteMultipartUploadResult>`)
	}
	ok := answer(200, "")
	const (
		head  = "HEAD /bucket/index"
		start = "POST /bucket/index?uploads="
		part  = "PUT /bucket/index?partNumber="
		end   = "POST /bucket/index?uploadId=" + id
		abort = "DELETE /bucket/index?uploadId=" + id + "&x-id=AbortMultipartUpload"
	)
	upload := []string{head, start, part + "1", part + "2", part + "3", end}
	for _, test := range []struct {
		name     string
		steps    []func(http.ResponseWriter, *http.Request, string)
		etag     string
		want     error // nil with no ETag: any other
		requests []string
	}{
		{"written", steps(absent, begin, ok, ok, ok, complete), "multi-3", nil, upload},
		{"there already", steps(ok), "", builder.ErrPrecondition, upload[:1]},
		{"there meanwhile", steps(absent, begin, ok, ok, ok, answer(412, "PreconditionFailed")), "", builder.ErrPrecondition, append(slices.Clone(upload), abort)},
		{"conflict", steps(absent, begin, ok, ok, ok, answer(409, "ConditionalRequestConflict"), ok, absent, begin, ok, ok, ok, complete), "multi-3", nil,
			append(append(slices.Clone(upload), abort), upload...)},
		{"no permission", steps(absent, begin, ok, answer(403, "AccessDenied")), "", nil, append(slices.Clone(upload[:4]), abort)},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &script{steps: test.steps}
			o, _ := fakeObjects(t, s.ServeHTTP)
			o.single, o.partSize = 8, 4
			info, err := o.Put(t.Context(), layout.IndexKey, bodyOf("123456789"), builder.PutOptions{IfAbsent: true, Meta: map[string]string{"a": "b"}})
			if info.ETag != test.etag || (err == nil) != (test.etag != "") || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("Put = %+v, %v, want ETag %q, %v", info, err, test.etag, test.want)
			}
			got := s.requests()
			if !slices.EqualFunc(got, test.requests, strings.HasPrefix) {
				t.Errorf("requests %q, want %q", got, test.requests)
			}
		})
	}
}

func TestSection(t *testing.T) {
	s := newSection(strings.NewReader("0123456789"), 3, 4)
	for range 2 {
		if _, err := s.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(s); string(b) != "3456" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
	}
	if end, err := s.Seek(0, io.SeekEnd); end != 4 || err != nil {
		t.Errorf("Seek to the end = %d, %v", end, err)
	}
	if b, err := io.ReadAll(newSection(strings.NewReader("0123456789"), 8, 4)); string(b) != "89" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v from a short body", b, err)
	}
	if _, err := s.Seek(-1, io.SeekStart); err == nil {
		t.Error("Seek to before the start succeeded")
	}
}

func TestPutTooLarge(t *testing.T) {
	o, _ := fakeObjects(t, func(http.ResponseWriter, *http.Request) { t.Error("there was a request") })
	body := builder.Body{Reader: endless{}, Size: maxParts*maxPart + 1, Checked: true}
	if _, err := o.Put(t.Context(), layout.IndexKey, body, builder.PutOptions{}); err == nil {
		t.Error("Put accepted 50 TiB and a byte")
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error)     { return len(b), nil }
func (endless) Seek(int64, int) (int64, error) { return maxParts*maxPart + 1, nil }
