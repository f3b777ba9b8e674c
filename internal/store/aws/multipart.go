package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"

	"github.com/precast-ota/precast/builder"
)

const abortAfter = 30 * time.Second

// inParts writes an object that is too large for one request. The condition is judged at the end, by
// S3; the checksum is that of the whole object, so it does not depend on the parts
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html). A process that dies
// leaves its parts behind: the bucket's lifecycle rule for incomplete uploads removes them.
func (w write) inParts(ctx context.Context) (etag string, err error) {
	size := max(w.partSize, (w.body.Size+maxParts-1)/maxParts)
	if size > maxPart {
		return "", fmt.Errorf("check body: %d bytes are more than %d parts hold", w.body.Size, maxParts)
	}
	// It spares the sending of gigabytes in vain.
	if err := w.precheck(ctx); err != nil {
		return "", err
	}
	created, err := w.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &w.bucket, Key: w.name,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme, ChecksumType: types.ChecksumTypeFullObject,
		ContentType: optional(w.headers.ContentType), CacheControl: optional(w.headers.CacheControl),
		ContentDisposition: optional(w.headers.ContentDisposition), Metadata: w.meta,
	})
	if err != nil {
		return "", err
	}
	etag, err = w.upload(ctx, created.UploadId, size)
	if err != nil {
		w.abort(ctx, created.UploadId)
	}
	return etag, err
}

func (w write) precheck(ctx context.Context) error {
	if w.ifMatch == nil && w.ifNoneMatch == nil {
		return nil
	}
	out, err := w.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &w.bucket, Key: w.name})
	if err != nil {
		err = readError(err)
	}
	switch {
	case errors.Is(err, builder.ErrNotExist):
		if w.ifMatch != nil {
			return builder.ErrPrecondition
		}
		return nil
	case err != nil:
		return err
	case w.ifNoneMatch != nil || *w.ifMatch != `"`+unquoted(out.ETag)+`"`:
		return builder.ErrPrecondition
	}
	return nil
}

func (w write) upload(ctx context.Context, id *string, size int64) (etag string, err error) {
	var parts []types.CompletedPart
	for off := int64(0); off < w.body.Size; off += size {
		part, err := w.part(ctx, id, int32(len(parts)+1), off, min(size, w.body.Size-off))
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	out, err := w.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &w.bucket, Key: w.name, UploadId: id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}, MpuObjectSize: &w.body.Size,
		ChecksumType: types.ChecksumTypeFullObject, ChecksumCRC64NVME: encodeCRC(w.body.CRC64NVME),
		IfNoneMatch: w.ifNoneMatch, IfMatch: w.ifMatch,
	})
	if err != nil {
		return "", err
	}
	return unquoted(out.ETag), nil
}

func (w write) part(ctx context.Context, id *string, number int32, off, n int64) (types.CompletedPart, error) {
	sum := crc64nvme.New()
	if _, err := io.CopyBuffer(sum, newSection(w.body.Reader, off, n), make([]byte, readBuffer)); err != nil {
		return types.CompletedPart{}, err
	}
	crc := encodeCRC(sum.Sum64())
	out, err := w.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &w.bucket, Key: w.name, UploadId: id, PartNumber: &number,
		Body: newSection(w.body.Reader, off, n), ContentLength: &n, ChecksumCRC64NVME: crc,
	}, withBody)
	if err != nil {
		return types.CompletedPart{}, fmt.Errorf("send part %d: %w", number, err)
	}
	return types.CompletedPart{PartNumber: &number, ETag: out.ETag, ChecksumCRC64NVME: crc}, nil
}

// abort frees what was sent. It tells nobody of failing: the caller has an error already, and the
// lifecycle rule does it otherwise.
func (w write) abort(ctx context.Context, id *string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortAfter)
	defer cancel()
	_, _ = w.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &w.bucket, Key: w.name, UploadId: id})
}
