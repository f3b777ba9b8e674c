package aws

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"maps"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

const readBuffer = 256 << 10

// Put implements builder.Objects.
func (o *Objects) Put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	info, err := o.put(ctx, key, body, opt)
	if err != nil {
		return builder.ObjectInfo{}, fmt.Errorf("put object %q: %w", key, err)
	}
	return info, nil
}

func (o *Objects) put(ctx context.Context, key string, body builder.Body, opt builder.PutOptions) (builder.ObjectInfo, error) {
	var none builder.ObjectInfo
	name, kind, err := o.name(key)
	if err != nil {
		return none, err
	}
	if err := opt.Check(); err != nil {
		return none, err
	}
	if body, err = checkBody(ctx, body); err != nil {
		return none, err
	}
	w := write{
		Objects: o, name: name, headers: layout.HeadersOf(kind), body: body,
		meta: maps.Clone(opt.Meta), ifNoneMatch: nil, ifMatch: nil,
	}
	if opt.IfAbsent {
		w.ifNoneMatch = ptr("*")
	}
	if opt.IfMatch != "" {
		w.ifMatch = ptr(`"` + opt.IfMatch + `"`)
	}
	put := w.whole
	if body.Size > o.single {
		put = w.inParts
	}
	var etag string
	// S3 answers 409 when it cannot tell whether the condition holds, because of another request for
	// the same key at the same time; nothing is written then, and one tries again
	// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
	err = o.retry.do(ctx, func() (conflict bool, err error) {
		etag, err = put(ctx)
		return codeOf(err) == "ConditionalRequestConflict", err
	})
	if err != nil {
		return none, w.error(err)
	}
	return builder.ObjectInfo{Key: key, Size: body.Size, ETag: etag, Meta: w.meta}, nil
}

// write is one Put.
type write struct {
	*Objects
	name                 *string
	headers              layout.Headers
	body                 builder.Body // checked
	meta                 map[string]string
	ifNoneMatch, ifMatch *string
}

// error puts S3's word for a condition that does not hold into the port's.
func (w write) error(err error) error {
	switch {
	case codeOf(err) == "PreconditionFailed":
		return builder.ErrPrecondition
	case w.ifMatch != nil && codeOf(err) == "NoSuchKey": // there is nothing to match
		return builder.ErrPrecondition
	}
	return err
}

// whole writes the object with one request. S3 checks the bytes against the checksum, so they need
// no second one in the signature.
func (w write) whole(ctx context.Context) (etag string, err error) {
	out, err := w.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &w.bucket, Key: w.name,
		Body: newSection(w.body.Reader, 0, w.body.Size), ContentLength: &w.body.Size,
		ChecksumCRC64NVME: encodeCRC(w.body.CRC64NVME),
		ContentType:       optional(w.headers.ContentType), CacheControl: optional(w.headers.CacheControl),
		ContentDisposition: optional(w.headers.ContentDisposition),
		Metadata:           w.meta, IfNoneMatch: w.ifNoneMatch, IfMatch: w.ifMatch,
	}, withBody)
	if err != nil {
		return "", err
	}
	return unquoted(out.ETag), nil
}

// withBody is how requests with a large body are sent.
//
// They carry x-amz-content-sha256: UNSIGNED-PAYLOAD
// (https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html): to sign a body
// costs more than to send it.
//
// And they wait for "100 Continue" before they send it. The SDK asks for that beyond 2 MB, but
// net/http waits only in requests that say they are HTTP/1.1, which the SDK's do not. Without the
// wait a refused write sends its body in vain, and may break off before the refusal is read.
func withBody(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware,
		func(stack *middleware.Stack) error {
			return stack.Build.Add(middleware.BuildMiddlewareFunc("WaitForContinue", waitForContinue), middleware.After)
		})
}

func waitForContinue(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
	if req, ok := in.Request.(*smithyhttp.Request); ok {
		req.Proto, req.ProtoMajor, req.ProtoMinor = "HTTP/1.1", 1, 1
	}
	return next.HandleBuild(ctx, in)
}

// encodeCRC is the form of the header x-amz-checksum-crc64nvme
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html).
func encodeCRC(sum uint64) *string {
	return ptr(base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, sum)))
}

// checkBody makes sure of the body's size and checksum, reading it once if its checksum is unknown.
func checkBody(ctx context.Context, body builder.Body) (builder.Body, error) {
	if body.Checked && body.Size > 0 { // S3 will check its bytes
		end, err := body.Reader.Seek(0, io.SeekEnd)
		if err != nil {
			return body, fmt.Errorf("read body: %w", err)
		}
		return body, checkSize(end, body.Size)
	}
	if _, err := body.Reader.Seek(0, io.SeekStart); err != nil {
		return body, fmt.Errorf("read body: %w", err)
	}
	sum, size := uint64(0), int64(0)
	buf := make([]byte, min(max(body.Size, 0)+1, readBuffer))
	for {
		if err := ctx.Err(); err != nil {
			return body, err
		}
		n, err := body.Reader.Read(buf)
		size += int64(n)
		if size > body.Size {
			break
		}
		sum = crc64nvme.Update(sum, buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return body, fmt.Errorf("read body: %w", err)
		}
	}
	if err := checkSize(size, body.Size); err != nil {
		return body, err
	}
	if body.Checked && sum != body.CRC64NVME {
		return body, fmt.Errorf("check body: CRC-64/NVME is %016x, not %016x", sum, body.CRC64NVME)
	}
	body.CRC64NVME, body.Checked = sum, true
	return body, nil
}

func checkSize(got, want int64) error {
	switch {
	case got < want:
		return fmt.Errorf("read body: %d bytes, shorter than its size, %d bytes", got, want)
	case got > want:
		return fmt.Errorf("read body: longer than its size, %d bytes", want)
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

// optional is nil for an empty string.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
