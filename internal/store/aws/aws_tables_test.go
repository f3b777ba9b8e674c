//go:build aws

package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

func wantItems(t *testing.T, c *Catalog, want int, version string) {
	t.Helper()
	items, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, it := range items {
		if it.Version == version {
			n++
		}
	}
	if n != want {
		t.Errorf("%d of %d items have version %s, want %d", n, len(items), version, want)
	}
}

// More than one transaction holds is refused whole, unless it is to be split or changes little.
func TestLargeImport(t *testing.T) {
	t.Parallel()
	const n = 230
	whole := openCatalog(t, CatalogOptions{})
	if err := whole.Apply(t.Context(), catalog.Edit{Changes: puts(n)}); err == nil || !strings.Contains(err.Error(), "230 items differ") {
		t.Errorf("Apply of %d changes = %v", n, err)
	}
	wantItems(t, whole, 0, "1")

	split, err := NewCatalog(clients.DynamoDB, whole.table, whole.ledger, CatalogOptions{Split: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := split.Apply(t.Context(), catalog.Edit{Changes: puts(n)}); err != nil {
		t.Fatal(err)
	}
	wantItems(t, whole, n, "1")

	again := puts(n)
	for i := range again {
		if i%3 == 0 {
			again[i].Item.Version = "2"
		}
	}
	again[1] = catalog.Remove(again[1].Key)
	again = append(again, catalog.Remove(catalog.Key{App: "none", Track: "prod"}))
	if err := whole.Apply(t.Context(), catalog.Edit{Changes: again}); err != nil {
		t.Fatalf("Apply of %d changes, of which 78 change something: %v", len(again), err)
	}
	wantItems(t, whole, 77, "2")
	wantItems(t, whole, n-78, "1")
}

// One item that somebody has written by hand does not hide the others.
func TestSnapshotByHand(t *testing.T) {
	t.Parallel()
	c := openCatalog(t, CatalogOptions{})
	if err := c.Apply(t.Context(), catalog.Edit{Changes: []catalog.Change{catalog.Put(goodItem())}}); err != nil {
		t.Fatal(err)
	}
	item := attributes{attrApp: text("bad"), attrTrack: text("prod"), attrVersion: number(1), attrDevice: &types.AttributeValueMemberL{}}
	if _, err := clients.DynamoDB.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &c.table, Item: item}); err != nil {
		t.Fatal(err)
	}
	items, err := c.Snapshot(t.Context())
	if err != nil || len(items) != 2 {
		t.Fatalf("Snapshot = %+v, %v", items, err)
	}
	for _, p := range catalog.Check(items) {
		if p.Key.App != "bad" {
			t.Error(p)
		}
	}
}

// byHand writes an item as somebody does who knows nothing of Precast.
func byHand(t *testing.T, c *Catalog, version string) {
	t.Helper()
	item := attributes{attrApp: text("a"), attrTrack: text("prod"), attrVersion: text(version), attrSize: text("12"), "note": number(7)}
	if _, err := clients.DynamoDB.PutItem(context.WithoutCancel(t.Context()), &dynamodb.PutItemInput{TableName: &c.table, Item: item}); err != nil {
		t.Error(err)
	}
}

func lastEntry(t *testing.T, c *Catalog) (last catalog.LogEntry) {
	t.Helper()
	if err := c.Log(t.Context(), 0, func(e catalog.LogEntry) error { last = e; return nil }); err != nil {
		t.Fatal(err)
	}
	return last
}

// S6: people and programs that write the table without Precast are noticed, though they know of no log.
func TestS6WritesByHandAreNoticed(t *testing.T) {
	t.Parallel()
	c := openCatalog(t, CatalogOptions{})
	byHand(t, c, "1")
	read := func() (catalog.Head, []catalog.Item) {
		head, err := c.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		items, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return head, items
	}
	put := func(version string) catalog.Edit {
		return catalog.Edit{Changes: []catalog.Change{catalog.Put(catalog.Item{App: "a", Track: "prod", Version: version})}}
	}
	// What is there is no obstacle.
	if err := c.Apply(t.Context(), put("2").On(read())); err != nil {
		t.Fatal(err)
	}
	late := put("3").On(read())
	byHand(t, c, "by hand")
	if err := c.Apply(t.Context(), late); !errors.Is(err, builder.ErrPrecondition) {
		t.Errorf("Apply of what was worked out before = %v", err)
	}
	wantItems(t, c, 1, "by hand")
	if err := c.Apply(t.Context(), put("3").On(read())); err != nil {
		t.Errorf("Apply of what was worked out afterwards = %v", err)
	}
	if last := lastEntry(t, c); last.Number != 2 || last.Changes[0].Was.Version != "by hand" {
		t.Errorf("the log ends with %+v", last)
	}

	// In the moment between reading and writing.
	for _, conditional := range []bool{true, false} {
		racing := *c
		once := sync.Once{}
		racing.client = dynamodb.New(clients.DynamoDB.Options(), func(o *dynamodb.Options) {
			o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
				return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("ByHand", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
					if _, writes := in.Parameters.(*dynamodb.TransactWriteItemsInput); writes {
						once.Do(func() { byHand(t, c, fmt.Sprint("meanwhile ", conditional)) })
					}
					return next.HandleInitialize(ctx, in)
				}), middleware.Before)
			})
		})
		edit := put("4")
		if conditional {
			edit = edit.On(read())
		}
		err := racing.Apply(t.Context(), edit)
		if conditional != errors.Is(err, builder.ErrPrecondition) || !conditional && err != nil {
			t.Errorf("Apply, conditional %v = %v", conditional, err)
		}
	}
	wantItems(t, c, 1, "4")
	if last := lastEntry(t, c); last.Number != 3 || last.Changes[0].Was.Version != "meanwhile false" {
		t.Errorf("the log ends with %+v", last)
	}
}

// The table of the catalog has items alone, and what is in the ledger's for the log does not expire.
func TestLogIsInTheLedger(t *testing.T) {
	t.Parallel()
	c := openCatalog(t, CatalogOptions{})
	if err := c.Apply(t.Context(), catalog.Edit{Changes: puts(3)}); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string]int{c.table: 3, c.ledger: logWrites} {
		out, err := clients.DynamoDB.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table})
		if err != nil || len(out.Items) != want {
			t.Fatalf("%s has %d items, %v, want %d", table, len(out.Items), err, want)
		}
		for _, item := range out.Items {
			if item[attrExpires] != nil || table == c.table && item[attrApp] == nil {
				t.Errorf("%s has %v", table, item)
			}
		}
	}
	// An entry that somebody took away is missed.
	if err := c.Apply(t.Context(), catalog.Edit{Changes: puts(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := clients.DynamoDB.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &c.ledger, Key: logKey(1)}); err != nil {
		t.Fatal(err)
	}
	head := catalog.NewHead()
	err := c.Log(t.Context(), 0, func(e catalog.LogEntry) error {
		err := e.Follow(head)
		head = e.Head()
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "entry 1") {
		t.Errorf("Log = %v", err)
	}
}

func TestApplyTogether(t *testing.T) {
	t.Parallel()
	c := openCatalog(t, CatalogOptions{})
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			changes := puts(20)
			for i := range changes {
				changes[i].Item.Version = fmt.Sprint(w)
			}
			if err := c.Apply(t.Context(), catalog.Edit{Changes: changes}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	items, err := c.Snapshot(t.Context())
	if err != nil || len(items) != 20 {
		t.Fatalf("Snapshot has %d items, %v", len(items), err)
	}
	for _, it := range items {
		if it.Version != items[0].Version {
			t.Errorf("%s is of writer %s, %s of writer %s", it.Key(), it.Version, items[0].Key(), items[0].Version)
		}
	}
}

// A ledger that lost its table goes on above what it was.
func TestNextStartsHigh(t *testing.T) {
	t.Parallel()
	l := openLedger(t)
	l.now = func() time.Time { return time.Unix(2_000_000_000, 0) }
	for _, want := range []uint64{2_000_000_001, 2_000_000_002} {
		if n, err := l.Next(t.Context()); n != want || err != nil {
			t.Errorf("Next = %d, %v, want %d", n, err, want)
		}
		l.now = time.Now
	}
}

func TestLargeEntry(t *testing.T) {
	t.Parallel()
	l := openLedger(t)
	if err := l.Open(t.Context(), "a", maxLedgerParts+1); err == nil {
		t.Error("Open accepted too many parts")
	}
	if err := l.Open(t.Context(), "a", maxLedgerParts); err != nil {
		t.Fatal(err)
	}
	// All other words at once: the item is then as large as it can be.
	names := map[string]string{"#done": attrDone}
	values := attributes{":done": number(maxLedgerParts - wordParts), ":all": wordValue(1<<64 - 1)}
	for start := 1; start < maxLedgerParts/wordParts; start += 200 { // an expression is 4 KB at most
		var b strings.Builder
		b.WriteString("SET #done = :done")
		for w := start; w < min(start+200, maxLedgerParts/wordParts); w++ {
			fmt.Fprintf(&b, ", w%d = :all", w)
		}
		if _, err := clients.DynamoDB.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: &l.table, Key: ledgerKey(entryPrefix + "a"), UpdateExpression: ptr(b.String()),
			ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		}); err != nil {
			t.Fatal(err)
		}
	}
	for part := range wordParts {
		if left, err := l.Done(t.Context(), "a", part); left != wordParts-1-part || err != nil {
			t.Errorf("Done(%d) = %d, %v, want %d", part, left, err, wordParts-1-part)
		}
	}
	if left, err := l.Done(t.Context(), "a", maxLedgerParts-1); left != 0 || err != nil {
		t.Errorf("Done = %d, %v", left, err)
	}
}

// Those who mark parts of one word at once take turns.
func TestDoneTogether(t *testing.T) {
	t.Parallel()
	l := openLedger(t)
	if err := l.Open(t.Context(), "a", wordParts); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := make(map[int]int)
	var wg sync.WaitGroup
	for part := range wordParts {
		wg.Go(func() {
			left, err := l.Done(t.Context(), "a", part)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			seen[left]++
			mu.Unlock()
		})
	}
	wg.Wait()
	for left := range wordParts {
		if seen[left] != 1 {
			t.Errorf("%d were told %d", seen[left], left)
		}
	}
}

func TestSetup(t *testing.T) {
	t.Parallel()
	n := Names{Bucket: "setup", CatalogTable: "setup-catalog", LedgerTable: "setup-ledger", Queue: "setup-jobs", DeadLetters: "setup-dead"}
	first, err := Setup(t.Context(), clients, n)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Setup(t.Context(), clients, n)
	if err != nil || first != second {
		t.Errorf("the second Setup = %+v, %v, the first %+v", second, err, first)
	}
	for _, place := range []string{first.QueueURL, first.DeadLetterURL, first.CatalogStream, first.CatalogTable, first.QueueARN, first.DeadLettersARN} {
		if place == "" {
			t.Errorf("Setup left something out: %+v", first)
		}
	}
	ttl, err := clients.DynamoDB.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &n.LedgerTable})
	if err != nil || ttl.TimeToLiveDescription == nil || *ttl.TimeToLiveDescription.AttributeName != attrExpires {
		t.Errorf("the ledger's TTL is %+v, %v", ttl, err)
	}
	if _, err := Setup(t.Context(), clients, Names{Bucket: "Not A Bucket"}); err == nil {
		t.Error("Setup of a bad name succeeded")
	}
}
