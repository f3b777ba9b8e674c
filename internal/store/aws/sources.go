package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Sources reads binaries at s3://bucket/key. What follows the bucket is the key as it is, with ?, #
// and % in it, as the AWS CLI has it.
type Sources struct {
	client *s3.Client
}

// NewSources returns the sources that a client can read.
func NewSources(client *s3.Client) *Sources { return &Sources{client} }

// Open implements builder.Sources. A bucket may be in another region than the client's.
func (s *Sources) Open(ctx context.Context, url string) (io.ReadCloser, error) {
	body, err := s.open(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", url, err)
	}
	return body, nil
}

func (s *Sources) open(ctx context.Context, url string) (io.ReadCloser, error) {
	path, ok := strings.CutPrefix(url, "s3://")
	bucket, key, _ := strings.Cut(path, "/")
	if !ok || bucket == "" || key == "" {
		return nil, errors.New("it is not of the form s3://bucket/key")
	}
	in := &s3.GetObjectInput{Bucket: &bucket, Key: &key}
	out, err := s.client.GetObject(ctx, in)
	if region := regionIn(err); region != "" {
		out, err = s.client.GetObject(ctx, in, func(o *s3.Options) { o.Region = region })
	}
	if err != nil {
		return nil, readError(err)
	}
	return out.Body, nil
}

// regionIn returns the region of a bucket that was asked for in another one
// (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, PermanentRedirect).
func regionIn(err error) string {
	var resp *smithyhttp.ResponseError
	if !errors.As(err, &resp) {
		return ""
	}
	if code := resp.HTTPStatusCode(); code != http.StatusMovedPermanently && code != http.StatusBadRequest {
		return ""
	}
	return resp.HTTPResponse().Header.Get("X-Amz-Bucket-Region")
}
