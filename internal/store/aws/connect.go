package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

const (
	// Bodies of many megabytes go out in pieces of this size instead of 4 KB.
	writeBuffer = 64 << 10
	// A builder talks to one S3 host from as many goroutines as it builds bundles.
	idleConnections = 64
)

// Clients are the SDK clients that the drivers are made from.
type Clients struct {
	S3       *s3.Client
	DynamoDB *dynamodb.Client
	SQS      *sqs.Client
}

// Connect makes the clients from the environment and the shared configuration files, as every AWS
// tool reads them (https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html):
// AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, AWS_MAX_ATTEMPTS and so on.
func Connect(ctx context.Context, opts ...func(*config.LoadOptions) error) (*Clients, error) {
	cfg, err := LoadConfig(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return NewClients(cfg), nil
}

// NewClients makes the clients from what LoadConfig returned.
func NewClients(cfg aws.Config) *Clients {
	return &Clients{S3: NewS3(cfg), DynamoDB: dynamodb.NewFromConfig(cfg), SQS: sqs.NewFromConfig(cfg)}
}

// LoadConfig is config.LoadDefaultConfig with an HTTP client for large bodies. A missing region is
// an error here and now.
func LoadConfig(ctx context.Context, opts ...func(*config.LoadOptions) error) (aws.Config, error) {
	all := append([]func(*config.LoadOptions) error{config.WithHTTPClient(httpClient())}, opts...)
	cfg, err := config.LoadDefaultConfig(ctx, all...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("load AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return aws.Config{}, errors.New("load AWS configuration: there is no region: set AWS_REGION")
	}
	cfg.APIOptions = append(cfg.APIOptions, plainBodies, outages, naming(cfg.Region))
	return cfg, nil
}

// The SDK's own kind of client: only with that does AWS_CA_BUNDLE work.
func httpClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.WriteBufferSize = writeBuffer
		t.MaxIdleConns = 2 * idleConnections
		t.MaxIdleConnsPerHost = idleConnections
	})
}

// NewS3 makes an S3 client. At a custom endpoint the bucket goes into the path: no DNS name
// leads to a bucket there.
func NewS3(cfg aws.Config) *s3.Client {
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = o.BaseEndpoint != nil
		o.DisableLogOutputChecksumValidationSkipped = true // said of every range
	})
}
