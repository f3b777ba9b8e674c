package aws

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// List implements builder.Objects. A general purpose bucket lists its keys in ascending byte order
// (https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html). Objects that are not of
// the layout are passed over.
func (o *Objects) List(ctx context.Context, prefix string, yield func(builder.ObjectInfo) error) error {
	if len(o.prefix+prefix) > maxKey || strings.ContainsFunc(prefix, neverInKeys) {
		return ctx.Err() // no key looks like this, and S3 may refuse to say so
	}
	pages := s3.NewListObjectsV2Paginator(o.client, &s3.ListObjectsV2Input{
		Bucket: &o.bucket, Prefix: optional(o.prefix + prefix),
		// A foreign key may have characters that XML has not.
		EncodingType: types.EncodingTypeUrl,
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list objects %q: %w", prefix, err)
		}
		for _, obj := range page.Contents {
			name, err := url.QueryUnescape(aws.ToString(obj.Key))
			if err != nil {
				return fmt.Errorf("list objects %q: decode key: %w", prefix, err)
			}
			key, ok := strings.CutPrefix(name, o.prefix)
			if _, err := layout.KindOf(key); err != nil || !ok {
				continue
			}
			info := builder.ObjectInfo{Key: key, Size: aws.ToInt64(obj.Size), ETag: unquoted(obj.ETag), Modified: aws.ToTime(obj.LastModified)}
			if err := yield(info); err != nil {
				return err
			}
		}
	}
	return nil
}

func neverInKeys(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' }
