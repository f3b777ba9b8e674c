//go:build aws

package aws

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// What S3 keeps with an object is what CloudFront will send.
func TestStoredHeaders(t *testing.T) {
	t.Parallel()
	o := openObjects(t, ObjectsOptions{Prefix: "p/"})
	for _, key := range []string{
		layout.BundleKey(sha, "1"), layout.ManifestKey(sha, "1"), layout.IndexKey, layout.PieceKey(sha, "x"), layout.RejectKey(sha),
	} {
		if _, err := o.Put(t.Context(), key, bodyOf("123456789"), builder.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		head, err := clients.S3.HeadObject(t.Context(), &s3.HeadObjectInput{
			Bucket: &o.bucket, Key: ptr("p/" + key), ChecksumMode: types.ChecksumModeEnabled,
		})
		if err != nil {
			t.Fatal(err)
		}
		kind, _ := layout.KindOf(key)
		want := layout.HeadersOf(kind)
		got := layout.Headers{
			ContentType: aws.ToString(head.ContentType), CacheControl: aws.ToString(head.CacheControl),
			ContentDisposition: aws.ToString(head.ContentDisposition),
		}
		if got != want || head.ContentEncoding != nil || aws.ToString(head.ChecksumCRC64NVME) != "rosUhgp5mIg=" {
			t.Errorf("%s is kept with %+v, encoding %v, CRC %v; want %+v", key, got, head.ContentEncoding, head.ChecksumCRC64NVME, want)
		}
	}
}

func TestMultipart(t *testing.T) {
	t.Parallel()
	o := openObjects(t, ObjectsOptions{})
	o.single, o.partSize = minPart, minPart
	// The stand-in takes every checksum of a multipart upload for one of the composite type, so it is
	// not told that of the whole; TestMultipartAnswers sees it.
	o.client = s3.New(o.client.Options(), func(opt *s3.Options) {
		opt.APIOptions = append(opt.APIOptions, withoutWholeChecksum)
	})
	b := make([]byte, 2*minPart+12345)
	rand.NewChaCha8([32]byte{1}).Read(b)
	body := func() builder.Body {
		return builder.Body{Reader: bytes.NewReader(b), Size: int64(len(b)), CRC64NVME: crc64nvme.Checksum(b), Checked: true}
	}
	meta := map[string]string{"a": "b"}
	key := layout.BundleKey(sha, "1")
	put := func(body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
		opt.Meta = meta
		return o.Put(t.Context(), key, body, opt)
	}
	if _, err := put(body(), builder.PutOptions{IfMatch: "x"}); !errors.Is(err, builder.ErrPrecondition) {
		t.Errorf("Put if match of what is absent = %v", err)
	}
	info, err := put(body(), builder.PutOptions{IfAbsent: true})
	if err != nil {
		t.Fatal(err)
	}
	r, got, err := o.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if read, err := io.ReadAll(r); err != nil || !bytes.Equal(read, b) {
		t.Errorf("read %d bytes, %v", len(read), err)
	}
	if got.ETag != info.ETag || got.Size != int64(len(b)) || got.Meta["a"] != "b" {
		t.Errorf("Get = %+v, want %+v", got, info)
	}
	if _, err := put(body(), builder.PutOptions{IfAbsent: true}); !errors.Is(err, builder.ErrPrecondition) {
		t.Errorf("Put if absent of what exists = %v", err)
	}
	again, err := put(body(), builder.PutOptions{IfMatch: info.ETag})
	if err != nil || again.ETag != info.ETag {
		t.Errorf("Put of the same = %+v, %v, want ETag %s", again, err, info.ETag)
	}
	if _, err := put(body(), builder.PutOptions{IfMatch: "x"}); !errors.Is(err, builder.ErrPrecondition) {
		t.Errorf("Put if another matches = %v", err)
	}
	uploads, err := clients.S3.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &o.bucket})
	if err != nil || len(uploads.Uploads) > 0 {
		t.Errorf("%d uploads are left, %v", len(uploads.Uploads), err)
	}
}

func withoutWholeChecksum(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("WithoutWholeChecksum",
		func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
			if req, ok := in.Request.(*smithyhttp.Request); ok && middleware.GetOperationName(ctx) == "CompleteMultipartUpload" {
				req.Header.Del("X-Amz-Checksum-Crc64nvme")
			}
			return next.HandleBuild(ctx, in)
		}), middleware.After)
}

func TestDelete(t *testing.T) {
	t.Parallel()
	o := openObjects(t, ObjectsOptions{})
	if _, err := o.Put(t.Context(), layout.IndexKey, bodyOf("x"), builder.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := o.Delete(t.Context(), layout.IndexKey); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Stat(t.Context(), layout.IndexKey); !errors.Is(err, builder.ErrNotExist) {
		t.Errorf("Stat = %v", err)
	}
	if err := o.Delete(t.Context(), "../other"); err == nil {
		t.Error("Delete accepted a foreign key")
	}
}

func TestListPassesOver(t *testing.T) {
	t.Parallel()
	o := openObjects(t, ObjectsOptions{Prefix: "p/"})
	for _, name := range []string{"index", "p/index", "p/other", "p/a\x01b", "q/index"} {
		if _, err := clients.S3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &o.bucket, Key: &name, Body: strings.NewReader("x")}); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	err := o.List(t.Context(), "", func(i builder.ObjectInfo) error { keys = append(keys, i.Key); return nil })
	if err != nil || len(keys) != 1 || keys[0] != layout.IndexKey {
		t.Errorf("List = %q, %v", keys, err)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	o := openObjects(t, ObjectsOptions{})
	key := "releases/a key?x=1&y=2#3+%25 ü"
	if _, err := clients.S3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &o.bucket, Key: &key, Body: strings.NewReader("the binary")}); err != nil {
		t.Fatal(err)
	}
	s := NewSources(clients.S3)
	r, err := s.Open(t.Context(), "s3://"+o.bucket+"/"+key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "the binary" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	for url, absent := range map[string]bool{"s3://" + o.bucket + "/none": true, "s3://no-such-bucket-here/none": false} {
		if _, err := s.Open(t.Context(), url); err == nil || errors.Is(err, builder.ErrNotExist) != absent {
			t.Errorf("Open(%s) = %v", url, err)
		}
	}
}
