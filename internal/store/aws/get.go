package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/precast-ota/precast/builder"
)

// An object may grow between the answer that a range is beyond its end and the look at its size.
const rangeTries = 3

// Get implements builder.Objects. The SDK checks a whole object's bytes against the checksum that S3
// keeps; the last Read then fails if they differ. Those of a range it cannot check.
func (o *Objects) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	body, info, err := o.get(ctx, key, off, n)
	if err != nil {
		return nil, builder.ObjectInfo{}, fmt.Errorf("get object %q: %w", key, err)
	}
	return body, info, nil
}

func (o *Objects) get(ctx context.Context, key string, off, n int64) (io.ReadCloser, builder.ObjectInfo, error) {
	var none builder.ObjectInfo
	if off < 0 {
		return nil, none, fmt.Errorf("offset %d is negative", off)
	}
	name, _, err := o.name(key)
	if err != nil {
		return nil, none, err
	}
	for range rangeTries {
		if n != 0 {
			in := &s3.GetObjectInput{Bucket: &o.bucket, Key: name, Range: rangeHeader(off, n)}
			out, err := o.client.GetObject(ctx, in)
			if err == nil {
				return describe(key, in, out)
			}
			if statusOf(err) != http.StatusRequestedRangeNotSatisfiable {
				return nil, none, readError(err)
			}
		}
		// S3 refuses a range that begins at or beyond the end, of an empty object any range
		// (https://www.rfc-editor.org/rfc/rfc9110#name-416-range-not-satisfiable); to the port it is
		// a range of no bytes.
		info, err := o.stat(ctx, key)
		if err != nil {
			return nil, none, err
		}
		if n == 0 || off >= info.Size {
			return http.NoBody, info, nil
		}
	}
	return nil, none, errors.New("its size keeps changing")
}

// rangeHeader is nil for the whole object.
func rangeHeader(off, n int64) *string {
	switch {
	case n < 0 && off == 0:
		return nil
	case n < 0 || n > math.MaxInt64-off:
		return aws.String(fmt.Sprintf("bytes=%d-", off))
	}
	return aws.String(fmt.Sprintf("bytes=%d-%d", off, off+n-1))
}

func describe(key string, in *s3.GetObjectInput, out *s3.GetObjectOutput) (io.ReadCloser, builder.ObjectInfo, error) {
	info := builder.ObjectInfo{
		Key: key, Size: aws.ToInt64(out.ContentLength), ETag: unquoted(out.ETag), Meta: out.Metadata,
		Modified: aws.ToTime(out.LastModified), Headers: headers(out.ContentType, out.CacheControl, out.ContentDisposition),
	}
	if in.Range == nil {
		return out.Body, info, nil
	}
	// "bytes 6-10/43"
	_, total, _ := strings.Cut(aws.ToString(out.ContentRange), "/")
	size, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		out.Body.Close()
		return nil, info, fmt.Errorf("read range: the answer to %q has the Content-Range %q", *in.Range, aws.ToString(out.ContentRange))
	}
	info.Size = size
	return out.Body, info, nil
}
