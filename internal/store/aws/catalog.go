package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// What one transaction holds
// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html).
const (
	maxTransaction      = 100 - logWrites
	maxTransactionBytes = 3_700_000 // 4 MB, less the entry of the log and the attributes' own overhead
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
//
// The log of its changes is in the ledger's table: whoever else reads or writes the catalog's table finds nothing there
// that is no item.
type Catalog struct {
	client *dynamodb.Client
	table  string
	ledger string // table with the log
	split  bool
	retry  retryer
	now    func() time.Time
}

// NewCatalog returns the catalog in a table, with its log in the table of the ledger.
func NewCatalog(client *dynamodb.Client, table, ledger string, opt CatalogOptions) (*Catalog, error) {
	if table == "" || ledger == "" {
		return nil, errors.New("open catalog: it needs the names of two tables, its own and the ledger's")
	}
	return &Catalog{client, table, ledger, opt.Split, retryer{sleep: builder.Pause, random: rand.Float64}, time.Now}, nil
}

// Snapshot implements builder.Catalog by a strongly consistent scan. Each page of it (1 MB) is of
// another instant.
func (c *Catalog) Snapshot(ctx context.Context) ([]catalog.Item, error) {
	var items []catalog.Item
	if err := c.scan(ctx, func(av attributes) { items = append(items, decodeItem(av)) }); err != nil {
		return nil, err
	}
	// Afterwards: whoever wrote what this program does not know has raised the version with it.
	if _, err := c.Head(ctx); err != nil {
		return nil, err
	}
	return items, nil
}

func (c *Catalog) scan(ctx context.Context, yield func(attributes)) error {
	pages := dynamodb.NewScanPaginator(c.client, &dynamodb.ScanInput{TableName: &c.table, ConsistentRead: ptr(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("read catalog: %w", err)
		}
		for _, av := range page.Items {
			yield(av)
		}
	}
	return nil
}

// Apply implements builder.CatalogWriter with one transaction, which holds 98 changes and 4 MB of
// items besides the log. It promises all or nothing, so it refuses more than that, unless
// CatalogOptions.Split gives the promise up. Of a large import it first drops what the table has
// already: importing a file of thousands of items again after changing a few is one transaction.
//
// Each item is written on condition that it is as it was read, and the log on condition that it still
// ends there. An edit without a base is worked out anew when that fails.
func (c *Catalog) Apply(ctx context.Context, edit catalog.Edit) error {
	if len(edit.Changes) == 0 && edit.Act == nil {
		return ctx.Err()
	}
	err := edit.Check()
	if err == nil {
		err = c.retry.do(ctx, func() (again bool, _ error) {
			err := c.apply(ctx, edit)
			return edit.Base == "" && errors.Is(err, builder.ErrPrecondition) || errors.Is(err, errConflict), err
		})
	}
	if err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	return nil
}

func (c *Catalog) apply(ctx context.Context, edit catalog.Edit) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	head, err := c.Head(ctx)
	if err != nil {
		return err
	}
	current := make(map[catalog.Key]attributes)
	if len(edit.Changes) > 0 {
		if err := c.scan(ctx, func(av attributes) { current[decodeItem(av).Key()] = av }); err != nil {
			return err
		}
	}
	writes := toWrites(edit.Changes)
	batches := pack(writes)
	if len(batches) > 1 {
		writes = drop(writes, current)
		batches = pack(writes)
	}
	if len(batches) > 1 && !c.split {
		return fmt.Errorf("%d items differ from the catalog, more than the %d items or %.1f MB that DynamoDB writes as one: "+
			"nothing was written; write them in smaller steps, each of which may be published, or ask for the import to be split",
			len(writes), maxTransaction, maxTransactionBytes/1e6)
	}
	if len(batches) == 0 {
		batches = [][]itemWrite{nil} // the log's entry alone
	}
	written := 0
	for _, batch := range batches {
		edit.Changes = changesOf(batch)
		if head, err = c.transact(ctx, edit, head, batch, current); err != nil {
			if written > 0 {
				err = fmt.Errorf("%d of %d items are written, apply the same changes again: %w", written, len(writes), err)
			}
			return err
		}
		if edit.Base != "" {
			edit.Base = head.Digest // its own entry
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

// toWrites keeps the last change of each key: a transaction has at most one of a key. Puts come before removals.
func toWrites(changes []catalog.Change) []itemWrite {
	var puts, removals []itemWrite
	for _, change := range catalog.Final(changes) {
		if change.Item == nil {
			removals = append(removals, itemWrite{Change: change, size: len(change.Key.App + change.Key.Track)})
			continue
		}
		av := encodeItem(*change.Item)
		puts = append(puts, itemWrite{change, av, sizeOf(av)})
	}
	return append(puts, removals...)
}

func changesOf(writes []itemWrite) []catalog.Change {
	changes := make([]catalog.Change, len(writes))
	for i, w := range writes {
		changes[i] = w.Change
	}
	return changes
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
func drop(writes []itemWrite, current map[catalog.Key]attributes) []itemWrite {
	return slices.DeleteFunc(writes, func(w itemWrite) bool {
		av, exists := current[w.Key]
		if w.Item == nil {
			return !exists
		}
		// As they are encoded, no attributes and an empty map of them are the same.
		return exists && reflect.DeepEqual(encodeItem(decodeItem(av)), w.encoded)
	})
}

// errConflict: transactions have met on an item. DynamoDB cancels all but one of them; the others may try again.
var errConflict = errors.New("others write the catalog at the same moment")

// transact writes a batch and its entry of the log as one, and returns where the log ends then.
func (c *Catalog) transact(ctx context.Context, edit catalog.Edit, head catalog.Head, batch []itemWrite, current map[catalog.Key]attributes) (catalog.Head, error) {
	entry, err := edit.Entry(head, func(k catalog.Key) *catalog.Item {
		av, exists := current[k]
		if !exists {
			return nil
		}
		it := decodeItem(av)
		return &it
	}, c.now())
	if err != nil {
		return head, fmt.Errorf("%w: %w", builder.ErrPrecondition, err)
	}
	items, err := c.logWrites(entry, head)
	if err != nil {
		return head, err
	}
	for _, w := range batch {
		was := unchanged(current[w.Key])
		if w.encoded == nil {
			items = append(items, types.TransactWriteItem{Delete: &types.Delete{TableName: &c.table, Key: encodeKey(w.Key),
				ConditionExpression: was.expression, ExpressionAttributeNames: was.names, ExpressionAttributeValues: was.values}})
		} else {
			items = append(items, types.TransactWriteItem{Put: &types.Put{TableName: &c.table, Item: w.encoded,
				ConditionExpression: was.expression, ExpressionAttributeNames: was.names, ExpressionAttributeValues: was.values}})
		}
	}
	_, err = c.client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: items})
	if cancelled := (*types.TransactionCanceledException)(nil); errors.As(err, &cancelled) {
		err = explain(batch, cancelled, err)
	}
	return entry.Head(), err
}

// condition is one of a write.
type condition struct {
	expression *string
	names      map[string]string
	values     attributes
}

// unchanged is the condition that an item is as it was read: all that decodeItem looks at.
func unchanged(av attributes) condition {
	if av == nil {
		return condition{expression: ptr("attribute_not_exists(#app)"), names: map[string]string{"#app": attrApp}}
	}
	c := condition{names: make(map[string]string), values: make(attributes)}
	var terms []string
	for i, name := range itemAttributes() {
		field, value := "#"+strconv.Itoa(i), ":"+strconv.Itoa(i)
		c.names[field] = name
		if av[name] == nil {
			terms = append(terms, "attribute_not_exists("+field+")")
			continue
		}
		c.values[value] = av[name]
		terms = append(terms, field+" = "+value)
	}
	c.expression = ptr(strings.Join(terms, " AND "))
	return c
}

// explain says why DynamoDB cancelled a transaction, and which items made it do so.
func explain(batch []itemWrite, cancelled *types.TransactionCanceledException, err error) error {
	var conflict error
	for i, reason := range cancelled.CancellationReasons {
		key := "the log"
		if at := i - logWrites; 0 <= at && at < len(batch) {
			key = "item " + batch[at].Key.String()
		}
		switch code := aws.ToString(reason.Code); code {
		case "", "None":
		case "ConditionalCheckFailed":
			return fmt.Errorf("%w: %s is not as it was read: %w", builder.ErrPrecondition, key, err)
		case "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded":
			conflict = fmt.Errorf("%w: %s: %w", errConflict, key, err)
		default:
			return fmt.Errorf("%s: %s: %s: %w", key, code, aws.ToString(reason.Message), err)
		}
	}
	return cmp.Or(conflict, err)
}
