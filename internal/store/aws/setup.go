package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

const tableReadyAfter = 2 * time.Minute

// Names say what Setup creates.
type Names struct {
	Bucket       string
	CatalogTable string
	LedgerTable  string
	Queue        string
	DeadLetters  string // name of the dead-letter queue
	// MaxReceives is how often a message may be received; 0 means 5.
	MaxReceives int
}

// Created tells what Setup made, where a name is not enough to find it.
type Created struct {
	QueueURL       string
	DeadLetterURL  string
	CatalogStream  string // ARN of the catalog's change stream
	CatalogTable   string // ARN
	QueueARN       string
	DeadLettersARN string
}

// Setup creates what the drivers need, for tests and for quick trials: an empty name is passed over,
// and what exists is left as it is. A deployment is Terraform's business: this knows no encryption
// keys, no policies, no backups.
func Setup(ctx context.Context, c *Clients, n Names) (Created, error) {
	var p Created
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{n.Bucket, func() error { return createBucket(ctx, c.S3, n.Bucket) }},
		{n.CatalogTable, func() error { return createCatalog(ctx, c.DynamoDB, n.CatalogTable, &p) }},
		{n.LedgerTable, func() error { return createLedger(ctx, c.DynamoDB, n.LedgerTable) }},
		{n.DeadLetters, func() (err error) {
			p.DeadLetterURL, p.DeadLettersARN, err = createQueue(ctx, c.SQS, n.DeadLetters, nil)
			return err
		}},
		{n.Queue, func() (err error) {
			p.QueueURL, p.QueueARN, err = createQueue(ctx, c.SQS, n.Queue, redrive(p.DeadLettersARN, n.MaxReceives))
			return err
		}},
	} {
		if step.name == "" {
			continue
		}
		if err := step.run(); err != nil {
			return p, fmt.Errorf("create %s: %w", step.name, err)
		}
	}
	return p, nil
}

func createBucket(ctx context.Context, client *s3.Client, name string) error {
	in := &s3.CreateBucketInput{Bucket: &name}
	if region := client.Options().Region; region != "us-east-1" { // which must not be named
		in.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(region)}
	}
	_, err := client.CreateBucket(ctx, in)
	var mine *s3types.BucketAlreadyOwnedByYou
	if errors.As(err, &mine) {
		return nil
	}
	return err
}

func createCatalog(ctx context.Context, client *dynamodb.Client, name string, p *Created) error {
	table, err := createTable(ctx, client, &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: ddb.BillingModePayPerRequest,
		AttributeDefinitions: []ddb.AttributeDefinition{
			{AttributeName: ptr(attrApp), AttributeType: ddb.ScalarAttributeTypeS},
			{AttributeName: ptr(attrTrack), AttributeType: ddb.ScalarAttributeTypeS},
		},
		KeySchema: []ddb.KeySchemaElement{
			{AttributeName: ptr(attrApp), KeyType: ddb.KeyTypeHash},
			{AttributeName: ptr(attrTrack), KeyType: ddb.KeyTypeRange},
		},
		StreamSpecification: &ddb.StreamSpecification{StreamEnabled: ptr(true), StreamViewType: ddb.StreamViewTypeNewAndOldImages},
	})
	if err == nil {
		p.CatalogTable, p.CatalogStream = aws.ToString(table.TableArn), aws.ToString(table.LatestStreamArn)
	}
	return err
}

func createLedger(ctx context.Context, client *dynamodb.Client, name string) error {
	_, err := createTable(ctx, client, &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: ddb.BillingModePayPerRequest,
		AttributeDefinitions: []ddb.AttributeDefinition{{AttributeName: ptr(attrID), AttributeType: ddb.ScalarAttributeTypeS}},
		KeySchema:            []ddb.KeySchemaElement{{AttributeName: ptr(attrID), KeyType: ddb.KeyTypeHash}},
	})
	if err != nil {
		return err
	}
	ttl, err := client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &name})
	if err != nil {
		return err
	}
	if d := ttl.TimeToLiveDescription; d != nil && d.TimeToLiveStatus == ddb.TimeToLiveStatusEnabled {
		return nil // to enable it twice is an error
	}
	_, err = client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName:               &name,
		TimeToLiveSpecification: &ddb.TimeToLiveSpecification{AttributeName: ptr(attrExpires), Enabled: ptr(true)},
	})
	return err
}

func createTable(ctx context.Context, client *dynamodb.Client, in *dynamodb.CreateTableInput) (*ddb.TableDescription, error) {
	_, err := client.CreateTable(ctx, in)
	var exists *ddb.ResourceInUseException
	if err != nil && !errors.As(err, &exists) {
		return nil, err
	}
	out, err := dynamodb.NewTableExistsWaiter(client, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay = time.Second
	}).WaitForOutput(ctx, &dynamodb.DescribeTableInput{TableName: in.TableName}, tableReadyAfter)
	if err != nil {
		return nil, err
	}
	return out.Table, nil
}

func createQueue(ctx context.Context, client *sqs.Client, name string, attrs map[string]string) (url, arn string, err error) {
	out, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attrs})
	if err != nil {
		return "", "", err
	}
	got, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: out.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return "", "", err
	}
	return aws.ToString(out.QueueUrl), got.Attributes[string(sqstypes.QueueAttributeNameQueueArn)], nil
}

// redrive is the attribute that makes dead letters.
func redrive(deadARN string, maxReceives int) map[string]string {
	if deadARN == "" {
		return nil
	}
	if maxReceives == 0 {
		maxReceives = 5
	}
	policy, _ := json.Marshal(map[string]string{ // strings cannot fail
		"deadLetterTargetArn": deadARN, "maxReceiveCount": strconv.Itoa(maxReceives),
	})
	return map[string]string{string(sqstypes.QueueAttributeNameRedrivePolicy): string(policy)}
}
