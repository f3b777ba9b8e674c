package aws

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// The version of a catalog's table is an item of the ledger's table: the catalog's table belongs to other programs
// and to people too, who know nothing of it. Without that item it is the first version. Every transaction of Apply
// writes it, and so takes up an earlier version together with its first change.
const (
	catalogPrefix    = "catalog/" // and the catalog's table
	attrStoreVersion = "version"
)

// versionWrite notes this program's version, unless a later one is noted.
func (c *Catalog) versionWrite() types.TransactWriteItem {
	return types.TransactWriteItem{Update: &types.Update{
		TableName: &c.ledger, Key: ledgerKey(catalogPrefix + c.table),
		UpdateExpression:          ptr("SET #v = :known"),
		ConditionExpression:       ptr("attribute_not_exists(#v) OR #v <= :known"),
		ExpressionAttributeNames:  map[string]string{"#v": attrStoreVersion},
		ExpressionAttributeValues: attributes{":known": number(catalog.Version)},
	}}
}

// checkVersion fails with a catalog.VersionError if the catalog is of a version that this program does not know.
func (c *Catalog) checkVersion(ctx context.Context) error {
	out, err := c.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &c.ledger, Key: ledgerKey(catalogPrefix + c.table), ConsistentRead: ptr(true),
	})
	if err != nil {
		return fmt.Errorf("read its version: %w", err)
	}
	if out.Item[attrStoreVersion] == nil {
		return nil
	}
	found, err := decodeNumber(out.Item, attrStoreVersion)
	if err != nil {
		return err
	}
	return catalog.CheckVersion(uint64(max(found, 0)))
}
