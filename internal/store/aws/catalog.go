package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// What one transaction holds
// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html).
const (
	maxTransaction      = 100 - 1   // changes; one more write is the version's
	maxTransactionBytes = 4_000_000 // 4 MB, less the attributes' own overhead
)

// CatalogOptions change how the catalog is written.
type CatalogOptions struct {
	// Split lets Apply write what one transaction cannot hold as several: additions and replacements
	// first, removals last. Until the last is written, a build may publish a catalog that has only
	// some of the changes; should one fail, those before it stay written, and applying the same
	// changes again finishes the work.
	Split bool
}

// Catalog keeps the catalog in a DynamoDB table with partition key app and sort key env, both
// strings: the table of the AWS sample, which people edit by hand, too.
type Catalog struct {
	client *dynamodb.Client
	table  string
	ledger string // the ledger's table, which has what only Precast knows of the catalog
	split  bool
	retry  retryer
}

// NewCatalog returns the catalog in a table. The ledger's table has its version.
func NewCatalog(client *dynamodb.Client, table, ledger string, opt CatalogOptions) (*Catalog, error) {
	if table == "" || ledger == "" {
		return nil, errors.New("open catalog: its table and the ledger's must be named")
	}
	return &Catalog{client, table, ledger, opt.Split, retryer{sleep: builder.Pause, random: rand.Float64}}, nil
}

// Snapshot implements builder.Catalog by a strongly consistent scan. Each page of it (1 MB) is of
// another instant.
func (c *Catalog) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	var items []catalog.Item
	pages := dynamodb.NewScanPaginator(c.client, &dynamodb.ScanInput{TableName: &c.table, ConsistentRead: ptr(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("read catalog: %w", err)
		}
		for _, av := range page.Items {
			items = append(items, decodeItem(av))
		}
	}
	// Afterwards: whoever wrote what this program does not know has raised the version with it.
	if err := c.checkVersion(ctx); err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	return items, nil
}

// Apply implements builder.CatalogWriter with one transaction, which holds 99 changes and 4 MB of
// items. It promises all or nothing, so it refuses more than that, unless CatalogOptions.Split gives
// the promise up. Of a large import it first drops what the table has already: importing a file of
// thousands of items again after changing a few is one transaction.
func (c *Catalog) Apply(ctx context.Context, edit catalog.Edit) error {
	if err := c.apply(ctx, edit.Changes); err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	return nil
}

func (c *Catalog) apply(ctx context.Context, changes []catalog.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	writes, err := c.writes(changes)
	if err != nil {
		return err
	}
	batches := pack(writes)
	if len(batches) > 1 {
		if writes, err = c.drop(ctx, writes); err != nil {
			return err
		}
		batches = pack(writes)
	}
	if len(batches) > 1 && !c.split {
		return fmt.Errorf("%d items differ from the catalog, more than the %d items or %d MB that DynamoDB writes as one: "+
			"nothing was written; write them in smaller steps, each of which may be published, or ask for the import to be split",
			len(writes), maxTransaction, maxTransactionBytes/1_000_000)
	}
	written := 0
	for _, batch := range batches {
		if err := c.transact(ctx, batch); err != nil {
			if written > 0 {
				err = fmt.Errorf("%d of %d items are written, apply the same changes again: %w", written, len(writes), err)
			}
			return err
		}
		written += len(batch)
	}
	return nil
}

// itemWrite is the last change of one key.
type itemWrite struct {
	catalog.Change
	encoded attributes // nil to remove the item
	size    int        // bytes, about
}

// writes checks changes and keeps the last of each key: a transaction has at most one of a key. They
// are sorted, puts before removals.
func (c *Catalog) writes(changes []catalog.Change) ([]itemWrite, error) {
	last := make(map[catalog.Key]int, len(changes))
	for i, change := range changes {
		switch {
		case change.Key.App == "" || change.Key.Track == "":
			return nil, fmt.Errorf("change item %s: app or env is empty", change.Key)
		case change.Item != nil && change.Item.Key() != change.Key:
			return nil, fmt.Errorf("change item %s: the item is of another key, %s", change.Key, change.Item.Key())
		}
		last[change.Key] = i
	}
	var puts, removals []itemWrite
	for i, change := range changes {
		switch {
		case last[change.Key] != i:
		case change.Item == nil:
			removals = append(removals, itemWrite{Change: change, size: len(change.Key.App + change.Key.Track)})
		default:
			av := encodeItem(*change.Item)
			puts = append(puts, itemWrite{change, av, sizeOf(av)})
		}
	}
	return append(puts, removals...), nil
}

// sizeOf counts the bytes of names and values
// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html).
func sizeOf(av attributes) int {
	size := 0
	for name, value := range av {
		size += len(name)
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			size += len(v.Value)
		case *types.AttributeValueMemberM:
			size += 3 + sizeOf(v.Value) + len(v.Value)
		default:
			size += 21 // a number at most; true and false take 1
		}
	}
	return size
}

// pack groups writes into what transactions hold.
func pack(writes []itemWrite) [][]itemWrite {
	var batches [][]itemWrite
	start, size := 0, 0
	for i, w := range writes {
		if i-start == maxTransaction || i > start && size+w.size > maxTransactionBytes {
			batches = append(batches, writes[start:i])
			start, size = i, 0
		}
		size += w.size
	}
	if start < len(writes) {
		batches = append(batches, writes[start:])
	}
	return batches
}

// drop leaves out writes that change nothing.
func (c *Catalog) drop(ctx context.Context, writes []itemWrite) ([]itemWrite, error) {
	items, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	current := make(map[catalog.Key]catalog.Item, len(items))
	for _, it := range items {
		current[it.Key()] = it
	}
	return slices.DeleteFunc(writes, func(w itemWrite) bool {
		it, exists := current[w.Key]
		if w.Item == nil {
			return !exists
		}
		// As they are encoded, no attributes and an empty map of them are the same.
		return exists && reflect.DeepEqual(encodeItem(it), w.encoded)
	}), nil
}

// transact writes a batch as one. Transactions that meet on an item are cancelled by DynamoDB, all
// but one of them, and tried again.
func (c *Catalog) transact(ctx context.Context, batch []itemWrite) error {
	items := make([]types.TransactWriteItem, len(batch), len(batch)+1)
	for i, w := range batch {
		if w.encoded == nil {
			items[i].Delete = &types.Delete{TableName: &c.table, Key: encodeKey(w.Key)}
		} else {
			items[i].Put = &types.Put{TableName: &c.table, Item: w.encoded}
		}
	}
	items = append(items, c.versionWrite())
	return c.retry.do(ctx, func() (conflict bool, err error) {
		_, err = c.client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: items})
		var cancelled *types.TransactionCanceledException
		if !errors.As(err, &cancelled) {
			return false, err
		}
		if n := len(batch); len(cancelled.CancellationReasons) > n && aws.ToString(cancelled.CancellationReasons[n].Code) == "ConditionalCheckFailed" {
			return false, cmp.Or(c.checkVersion(ctx), err)
		}
		return explain(batch, cancelled, err)
	})
}

// explain says which items made DynamoDB cancel a transaction, and whether that will pass.
func explain(batch []itemWrite, cancelled *types.TransactionCanceledException, err error) (passes bool, _ error) {
	for i, reason := range cancelled.CancellationReasons {
		switch code := aws.ToString(reason.Code); code {
		case "", "None":
		case "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded":
			passes = true
		default:
			if i < len(batch) {
				return false, fmt.Errorf("item %s: %s: %s: %w", batch[i].Key, code, aws.ToString(reason.Message), err)
			}
			return false, err
		}
	}
	return passes, err
}
