package streampoll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Checkpoint is how far a stream has been read, and plans been asked for.
type Checkpoint struct {
	Stream string              `json:"stream"` // ARN; the shards are this stream's
	Shards map[string]Position `json:"shards"` // by shard ID; of a missing one nothing was read
}

// Position is how far a shard has been read.
type Position struct {
	After string `json:"after,omitempty"` // sequence number of the last record
	Ended bool   `json:"ended,omitempty"` // there is nothing after it, and never will be
}

// Checkpoints keep the last checkpoint. It may be lost, at the price of reading a day's records again.
type Checkpoints interface {
	// Load returns what was saved last, the zero Checkpoint if nothing was.
	Load(ctx context.Context) (Checkpoint, error)
	// Save replaces it.
	Save(ctx context.Context, c Checkpoint) error
}

// ItemClient reads and writes items, as *dynamodb.Client does.
type ItemClient interface {
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
}

// TableCheckpoints keep the checkpoint as one item of the ledger's table, which every pipeline on AWS
// has, as do its permissions: containers come and go, and a file would go with them. One item is
// replaced as a whole, so no reader ever sees half a checkpoint; its 400 KB hold thousands of shards,
// and a catalog's table has some dozens. It does not expire: it has none of the TTL attribute.
// (The item is not guarded against a second writer. Two pollers may set it back by what one of them
// has read since: that is read again, nothing more.)
type TableCheckpoints struct {
	client ItemClient
	table  string
	id     string
}

const (
	attrID         = "id"         // the ledger's partition key
	attrCheckpoint = "checkpoint" // JSON
)

// NewTableCheckpoints keeps the checkpoint of a catalog's table in the ledger's table.
func NewTableCheckpoints(client ItemClient, ledgerTable, catalogTable string) (*TableCheckpoints, error) {
	if ledgerTable == "" || catalogTable == "" {
		return nil, errors.New("open checkpoints: the ledger's and the catalog's tables must be named")
	}
	return &TableCheckpoints{client, ledgerTable, "stream/" + catalogTable}, nil
}

// Load implements Checkpoints. What cannot be decoded counts as nothing: an error would come again
// forever, and starting over costs little.
func (t *TableCheckpoints) Load(ctx context.Context) (Checkpoint, error) {
	consistent := true
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &t.table, ConsistentRead: &consistent,
		Key: map[string]types.AttributeValue{attrID: text(t.id)},
	})
	if err != nil {
		return Checkpoint{}, fmt.Errorf("load checkpoint %s: %w", t.id, err)
	}
	var c Checkpoint
	if s, ok := out.Item[attrCheckpoint].(*types.AttributeValueMemberS); !ok || json.Unmarshal([]byte(s.Value), &c) != nil {
		return Checkpoint{}, nil
	}
	return c, nil
}

// Save implements Checkpoints.
func (t *TableCheckpoints) Save(ctx context.Context, c Checkpoint) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode checkpoint %s: %w", t.id, err)
	}
	_, err = t.client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &t.table,
		Item:      map[string]types.AttributeValue{attrID: text(t.id), attrCheckpoint: text(string(data))},
	})
	if err != nil {
		return fmt.Errorf("save checkpoint %s: %w", t.id, err)
	}
	return nil
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
