package streampoll

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
)

// Client reads streams, as *dynamodbstreams.Client does.
type Client interface {
	// DescribeStream lists a page of a stream's shards, in no particular order.
	DescribeStream(context.Context, *dynamodbstreams.DescribeStreamInput, ...func(*dynamodbstreams.Options)) (*dynamodbstreams.DescribeStreamOutput, error)
	// GetShardIterator returns a position in a shard, which expires after 15 minutes.
	GetShardIterator(context.Context, *dynamodbstreams.GetShardIteratorInput, ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetShardIteratorOutput, error)
	// GetRecords reads from a position, at most 1,000 records, possibly none although there are more.
	// There is no next position in a closed shard that has been read to its end.
	GetRecords(context.Context, *dynamodbstreams.GetRecordsInput, ...func(*dynamodbstreams.Options)) (*dynamodbstreams.GetRecordsOutput, error)
}

// TableDescriber describes tables, as *dynamodb.Client does.
type TableDescriber interface {
	DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
}

// LatestStream returns a Config.Stream that looks a table's stream up.
func LatestStream(client TableDescriber, table string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		out, err := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &table})
		if err != nil {
			return "", fmt.Errorf("find stream of table %s: %w", table, err)
		}
		if out.Table == nil || aws.ToString(out.Table.LatestStreamArn) == "" {
			return "", fmt.Errorf("find stream of table %s: %w", table, errNoStream)
		}
		return *out.Table.LatestStreamArn, nil
	}
}

var errNoStream = errors.New("the table has none; enable it")
