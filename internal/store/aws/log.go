package aws

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// The log is in the ledger's table: one item for where it ends, and one for each entry. They have no TTL.
const (
	logID = "log" // where it ends
	// logEntryID and the number, without leading zeros.
	logEntryID = "log/"

	attrDigest = "digest" // of the last entry; attrNumber is its number
	// attrStoreVersion is catalog.Version of the program that wrote the last entry. It is here, as the catalog's table
	// belongs to other programs and to people too, who know nothing of it. A catalog without a log is of version 1.
	attrStoreVersion = "version"
	attrEntry        = "entry" // of an entry: it as JSON

	logWrites = 2 // items of a transaction
	// logPage is how many entries are read at a time.
	logPage = 32
)

func logKey(number uint64) attributes { return ledgerKey(fmt.Sprint(logEntryID, number)) }

// logWrites are the writes that append an entry to a log that ends at head.
func (c *Catalog) logWrites(entry catalog.LogEntry, head catalog.Head) ([]types.TransactWriteItem, error) {
	data, err := json.Marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("write entry %d of the log: %w", entry.Number, err)
	}
	item := logKey(entry.Number)
	item[attrEntry] = text(string(data))
	end := ledgerKey(logID)
	end[attrNumber], end[attrDigest], end[attrStoreVersion] = number(int64(entry.Number)), text(entry.Digest), number(catalog.Version)
	ends := &types.Put{TableName: &c.ledger, Item: end}
	if head.Number == 0 {
		ends.ConditionExpression, ends.ExpressionAttributeNames = ptr("attribute_not_exists(#id)"), map[string]string{"#id": attrID}
	} else {
		ends.ConditionExpression, ends.ExpressionAttributeNames = ptr("#digest = :digest"), map[string]string{"#digest": attrDigest}
		ends.ExpressionAttributeValues = attributes{":digest": text(head.Digest)}
	}
	return []types.TransactWriteItem{
		{Put: &types.Put{TableName: &c.ledger, Item: item, ConditionExpression: ptr("attribute_not_exists(#id)"),
			ExpressionAttributeNames: map[string]string{"#id": attrID}}},
		{Put: ends},
	}, nil
}

// Head implements builder.CatalogWriter. It fails with a catalog.VersionError if a later program has written the log:
// no transaction comes after such an entry then, as each is conditional on where the log ended.
func (c *Catalog) Head(ctx context.Context) (catalog.Head, error) {
	av, err := c.logItem(ctx, ledgerKey(logID))
	if err != nil || av == nil {
		return catalog.NewHead(), err
	}
	version, err := decodeNumber(av, attrStoreVersion)
	if err != nil {
		return catalog.Head{}, err
	}
	if err := catalog.CheckVersion(uint64(max(version, 0))); err != nil {
		return catalog.Head{}, err
	}
	n, err := decodeNumber(av, attrNumber)
	if err != nil {
		return catalog.Head{}, err
	}
	return catalog.Head{Number: uint64(n), Digest: decodeText(av[attrDigest])}, nil
}

func (c *Catalog) logItem(ctx context.Context, key attributes) (attributes, error) {
	out, err := c.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &c.ledger, Key: key, ConsistentRead: ptr(true)})
	if err != nil {
		return nil, fmt.Errorf("read the catalog's log: %w", err)
	}
	return out.Item, nil
}

// Log implements builder.CatalogWriter.
func (c *Catalog) Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error {
	head, err := c.Head(ctx)
	if err != nil {
		return err
	}
	for after < head.Number {
		page := make([]catalog.LogEntry, min(logPage, head.Number-after))
		g, gctx := errgroup.WithContext(ctx)
		for i := range page {
			g.Go(func() (err error) {
				page[i], err = c.logEntry(gctx, after+1+uint64(i))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, e := range page {
			if err := yield(e); err != nil {
				return err
			}
		}
		after += uint64(len(page))
	}
	return nil
}

// logEntry returns an entry of the log. Of one that is gone only the number is there, for who follows the log to see.
func (c *Catalog) logEntry(ctx context.Context, number uint64) (catalog.LogEntry, error) {
	e := catalog.LogEntry{Number: number}
	av, err := c.logItem(ctx, logKey(number))
	if err != nil || av == nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(decodeText(av[attrEntry])), &e); err != nil {
		return e, fmt.Errorf("parse entry %d of the catalog's log: %w", number, err)
	}
	return e, nil
}
