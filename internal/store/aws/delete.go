package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// maxDelete is how many keys one request may name
// (https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html).
const maxDelete = 1000

// Delete removes objects; removing what is not there is no error. On error some of them may have been
// removed. In a bucket with versions they become old versions, which a lifecycle rule has to end.
func (o *Objects) Delete(ctx context.Context, keys ...string) error {
	names := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		name, _, err := o.name(key)
		if err != nil {
			return fmt.Errorf("delete object %q: %w", key, err)
		}
		names[i].Key = name
	}
	for batch := range slices.Chunk(names, maxDelete) {
		if err := o.deleteBatch(ctx, batch); err != nil {
			return fmt.Errorf("delete %d objects: %w", len(keys), err)
		}
	}
	return nil
}

func (o *Objects) deleteBatch(ctx context.Context, batch []types.ObjectIdentifier) error {
	out, err := o.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &o.bucket, Delete: &types.Delete{Objects: batch, Quiet: ptr(true)}, // only what failed is listed
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range out.Errors {
		if aws.ToString(e.Code) == "NoSuchKey" {
			continue
		}
		if len(errs) == 10 {
			errs = append(errs, fmt.Errorf("and %d more", len(out.Errors)-10))
			break
		}
		errs = append(errs, fmt.Errorf("%s: %s: %s", aws.ToString(e.Key), aws.ToString(e.Code), aws.ToString(e.Message)))
	}
	return errors.Join(errs...)
}
