package aws

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// Limits of S3 (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
const (
	maxKey       = 1024    // bytes, prefix included
	maxSinglePut = 5 << 30 // bytes
	maxParts     = 10_000
	maxPart      = 5 << 30 // bytes
	minPart      = 5 << 20 // bytes; the last one may be smaller
)

// ObjectsOptions change how objects are kept.
type ObjectsOptions struct {
	// Prefix is put before every key; empty, or ending in a slash.
	Prefix string
}

// Objects keeps objects in a general purpose bucket of S3.
//
// Where the port leaves something open:
//
//   - A write whose answer was lost is tried again by the SDK. If the lost answer said that the write
//     had been done, the second try is refused, and Put returns ErrPrecondition though the object is
//     the caller's own. Callers live with that: an immutable object that exists is as good as
//     written, and the replacer of the index reads it again to see who won.
//   - A key that does not exist is a 404 only to a role with s3:ListBucket on the bucket; to others
//     it is a 403 (https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html). A 403 is
//     always an error here, never ErrNotExist: a lost permission must not look like an empty bucket,
//     or a builder would build everything anew.
//   - The 404 to a HEAD does not tell a missing bucket from a missing object. Get and Put do.
//   - Equal contents have equal ETags only in a bucket encrypted with SSE-S3, the default, and only
//     up to 5 GiB: an ETag is otherwise a random value
//     (https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html).
type Objects struct {
	client *s3.Client
	bucket string
	prefix string

	retry    retryer
	single   int64 // bytes; bodies beyond it go up in parts
	partSize int64 // bytes; more where it would take too many parts
}

// NewObjects returns the objects of a bucket.
func NewObjects(client *s3.Client, bucket string, opt ObjectsOptions) (*Objects, error) {
	if bucket == "" {
		return nil, errors.New("open objects: no bucket is named")
	}
	if opt.Prefix != "" && (!strings.HasSuffix(opt.Prefix, "/") || strings.HasPrefix(opt.Prefix, "/")) {
		return nil, fmt.Errorf("open objects: the prefix %q does not end in a slash, or begins with one", opt.Prefix)
	}
	return &Objects{
		client: client, bucket: bucket, prefix: opt.Prefix,
		retry:  retryer{sleep: builder.Pause, random: rand.Float64},
		single: maxSinglePut, partSize: 64 << 20,
	}, nil
}

// name is the key in the bucket.
func (o *Objects) name(key string) (*string, layout.Kind, error) {
	kind, err := layout.KindOf(key)
	if err != nil {
		return nil, kind, err
	}
	if name := o.prefix + key; len(name) <= maxKey {
		return &name, kind, nil
	}
	return nil, kind, fmt.Errorf("name object: with its prefix the key is longer than %d bytes", maxKey)
}

// Stat implements builder.Objects.
func (o *Objects) Stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	info, err := o.stat(ctx, key)
	if err != nil {
		return builder.ObjectInfo{}, fmt.Errorf("stat object %q: %w", key, err)
	}
	return info, nil
}

func (o *Objects) stat(ctx context.Context, key string) (builder.ObjectInfo, error) {
	name, _, err := o.name(key)
	if err != nil {
		return builder.ObjectInfo{}, err
	}
	out, err := o.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &o.bucket, Key: name})
	if err != nil {
		return builder.ObjectInfo{}, readError(err)
	}
	return builder.ObjectInfo{
		Key: key, Size: aws.ToInt64(out.ContentLength), ETag: unquoted(out.ETag), Meta: out.Metadata,
		Modified: aws.ToTime(out.LastModified), Headers: headers(out.ContentType, out.CacheControl, out.ContentDisposition),
	}, nil
}

func headers(contentType, cacheControl, disposition *string) layout.Headers {
	return layout.Headers{
		ContentType: aws.ToString(contentType), CacheControl: aws.ToString(cacheControl), ContentDisposition: aws.ToString(disposition),
	}
}

func unquoted(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }

// readError puts S3's word for absence into the port's.
func readError(err error) error {
	var noKey *types.NoSuchKey
	var notFound *types.NotFound // what the SDK makes of a 404 without a body, the answer to a HEAD
	switch {
	case errors.As(err, &noKey), errors.As(err, &notFound):
		return builder.ErrNotExist
	case statusOf(err) == 403:
		return fmt.Errorf("%w (without s3:ListBucket on the bucket, S3 says so of an object that does not exist, too)", err)
	}
	return err
}
