//go:build aws

package aws

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// version reads the version that is noted of a catalog; 0: none.
func version(t *testing.T, c *Catalog) int64 {
	t.Helper()
	out, err := clients.DynamoDB.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &c.ledger, Key: ledgerKey(logID), ConsistentRead: ptr(true)})
	if err != nil {
		t.Fatal(err)
	}
	if out.Item == nil {
		return 0
	}
	n, err := decodeNumber(out.Item, attrStoreVersion)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func setVersion(t *testing.T, c *Catalog, n int64) {
	t.Helper()
	_, err := clients.DynamoDB.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &c.ledger, Key: ledgerKey(logID), UpdateExpression: ptr("SET #v = :n"),
		ExpressionAttributeNames: map[string]string{"#v": attrStoreVersion}, ExpressionAttributeValues: attributes{":n": number(n)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// S13: tables without a version, empty or written by others, are taken up with the first change.
func TestS13TablesAreTakenUp(t *testing.T) {
	t.Parallel()
	c := openCatalog(t, CatalogOptions{})
	// The sample's program, and people with the console, know nothing of a version.
	foreign := attributes{attrApp: text("foreign"), attrTrack: text("prod"), attrVersion: text("1")}
	if _, err := clients.DynamoDB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &c.table, Item: foreign}); err != nil {
		t.Fatal(err)
	}
	wantItems(t, c, 1, "1")
	if n := version(t, c); n != 0 {
		t.Errorf("reading has made version %d", n)
	}
	if err := c.Apply(t.Context(), catalog.Edit{Changes: puts(2)}); err != nil {
		t.Fatal(err)
	}
	wantItems(t, c, 3, "1")
	if n := version(t, c); n != catalog.Version {
		t.Errorf("writing has left version %d, want %d", n, catalog.Version)
	}
	if _, err := clients.DynamoDB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &c.table, Item: foreign}); err != nil {
		t.Fatal(err)
	}
	wantItems(t, c, 3, "1")
}

// S13: what a later program has changed is neither changed nor read, and nothing is published of it.
func TestS13LaterTablesAreRefused(t *testing.T) {
	t.Parallel()
	c := openCatalog(t, CatalogOptions{Split: true})
	if err := c.Apply(t.Context(), catalog.Edit{Changes: puts(1)}); err != nil {
		t.Fatal(err)
	}
	setVersion(t, c, catalog.Version+1)
	_, read := c.Snapshot(t.Context())
	for name, err := range map[string]error{
		"Snapshot":       read,
		"Apply":          c.Apply(t.Context(), catalog.Edit{Changes: puts(2)}),
		"Apply of a lot": c.Apply(t.Context(), catalog.Edit{Changes: puts(230)}),
	} {
		found, is := errors.AsType[catalog.VersionError](err)
		if !is || found.Found != catalog.Version+1 || !strings.Contains(err.Error(), "a newer precast is needed") {
			t.Errorf("%s = %v", name, err)
		}
	}
	if n := version(t, c); n != catalog.Version+1 {
		t.Errorf("the version has become %d", n)
	}
	setVersion(t, c, catalog.Version)
	wantItems(t, c, 1, "1")
}
