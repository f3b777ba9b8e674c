package aws

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/precast-ota/precast/builder"
)

const (
	// The port promises 24 hours. DynamoDB removes an item within days of its time
	// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html), never before.
	entryAge = 72 * time.Hour

	// An entry of so many parts is an item of 27 KB, and each Done costs 27 write units.
	maxLedgerParts = 1 << 17

	// Parts share words. Only those who mark parts of one word at once have to take turns.
	wordParts = 64

	counterID   = "counter"
	entryPrefix = "entry/"

	attrID      = "id"      // partition key
	attrNumber  = "n"       // of the counter
	attrParts   = "parts"   // of an entry
	attrDone    = "done"    // how many of its parts
	attrExpires = "expires" // Unix seconds; the table's TTL attribute
)

// Ledger keeps numbers and entries in a DynamoDB table with partition key id, a string, and TTL
// attribute expires.
//
// An entry is one item: how many parts it has, how many are done, and a bit for each, in words that
// are attributes of their own. Marking a part is one conditional update that sets its bit and counts
// it, on condition that its word is as it was read. So the count is always that of the bits: marking
// the last part returns 0, and so does marking any part after that. (Alternatives: a
// number set needs no condition, but at tens of thousands of parts it nears the 400 KB of an item,
// all of which every update costs; an item for each part needs transactions, of which all but one
// fail where they meet on the count.)
type Ledger struct {
	client *dynamodb.Client
	table  string
	now    func() time.Time
}

// NewLedger returns the ledger in a table.
func NewLedger(client *dynamodb.Client, table string) (*Ledger, error) {
	if table == "" {
		return nil, errors.New("open ledger: no table is named")
	}
	return &Ledger{client, table, time.Now}, nil
}

// Next implements builder.Ledger. The first number is the time in seconds, so that a ledger whose
// table was lost, or that takes over from an embedded one, continues above what went before (which
// took less than one number a second).
func (l *Ledger) Next(ctx context.Context) (uint64, error) {
	out, err := l.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &l.table, Key: ledgerKey(counterID),
		UpdateExpression:         ptr("SET #n = if_not_exists(#n, :now) + :one"),
		ExpressionAttributeNames: map[string]string{"#n": attrNumber},
		ExpressionAttributeValues: attributes{
			":now": number(l.now().Unix()), ":one": number(1),
		},
		ReturnValues: types.ReturnValueUpdatedNew,
	})
	if err != nil {
		return 0, fmt.Errorf("take next number: %w", err)
	}
	n, err := decodeNumber(out.Attributes, attrNumber)
	if err != nil {
		return 0, fmt.Errorf("take next number: %w", err)
	}
	return uint64(n), nil
}

// Advance makes every number that Next returns from now on greater than n.
func (l *Ledger) Advance(ctx context.Context, n uint64) error {
	_, err := l.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &l.table, Key: ledgerKey(counterID),
		UpdateExpression:         ptr("SET #n = :n"),
		ConditionExpression:      ptr("attribute_not_exists(#n) OR #n < :n"),
		ExpressionAttributeNames: map[string]string{"#n": attrNumber},
		// A new table begins with the time, as in Next.
		ExpressionAttributeValues: attributes{":n": number(max(int64(n), l.now().Unix()))},
	})
	if _, beyond := errors.AsType[*types.ConditionalCheckFailedException](err); err != nil && !beyond {
		return fmt.Errorf("advance numbers to %d: %w", n, err)
	}
	return nil
}

// Open implements builder.Ledger. Opening an entry again prolongs its life.
func (l *Ledger) Open(ctx context.Context, id string, parts int) error {
	if parts < 1 || parts > maxLedgerParts {
		return fmt.Errorf("open ledger entry %q: %d parts, not from 1 to %d", id, parts, maxLedgerParts)
	}
	_, err := l.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &l.table, Key: ledgerKey(entryPrefix + id),
		UpdateExpression: ptr("SET #parts = if_not_exists(#parts, :parts), #done = if_not_exists(#done, :zero), #expires = :expires"),
		ExpressionAttributeNames: map[string]string{
			"#parts": attrParts, "#done": attrDone, "#expires": attrExpires,
		},
		ExpressionAttributeValues: attributes{
			":parts": number(parts), ":zero": number(0), ":expires": number(l.now().Add(entryAge).Unix()),
		},
	})
	if err != nil {
		return fmt.Errorf("open ledger entry %q: %w", id, err)
	}
	return nil
}

// Done implements builder.Ledger.
func (l *Ledger) Done(ctx context.Context, id string, part int) (left int, err error) {
	left, err = l.done(ctx, entryPrefix+id, part)
	if err != nil {
		return 0, fmt.Errorf("mark part %d of ledger entry %q: %w", part, id, err)
	}
	return left, nil
}

func (l *Ledger) done(ctx context.Context, key string, part int) (left int, err error) {
	if part < 0 {
		return 0, errors.New("there is no such part")
	}
	e, err := l.read(ctx, key, wordName(part))
	// Who fails to mark a part has seen another part of its word marked: it is over after as many
	// turns as a word has parts. The last turn only looks.
	for range wordParts + 1 {
		if err != nil {
			return 0, err
		}
		if part >= e.parts {
			return 0, fmt.Errorf("the entry has %d parts", e.parts)
		}
		if e.has(part) {
			return e.parts - e.done, nil
		}
		if e, err = l.mark(ctx, key, part, e); err == nil && e.has(part) {
			return e.parts - e.done, nil
		}
	}
	return 0, errors.New("the entry keeps changing")
}

// read looks at what an entry has of a part's word.
func (l *Ledger) read(ctx context.Context, key, word string) (entry, error) {
	out, err := l.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &l.table, Key: ledgerKey(key), ConsistentRead: ptr(true),
		ProjectionExpression:     ptr("#parts, #done, #word"),
		ExpressionAttributeNames: map[string]string{"#parts": attrParts, "#done": attrDone, "#word": word},
	})
	if err != nil {
		return entry{}, err
	}
	return decodeEntry(out.Item, word)
}

// mark marks a part, if its word is as in e, and returns the entry as it is after that.
func (l *Ledger) mark(ctx context.Context, key string, part int, e entry) (entry, error) {
	word, condition := wordName(part), "attribute_exists(#parts) AND #word = :old"
	values := attributes{":new": wordValue(e.word | bit(part)), ":one": number(1)}
	if e.word == 0 {
		condition = "attribute_exists(#parts) AND attribute_not_exists(#word)"
	} else {
		values[":old"] = wordValue(e.word)
	}
	out, err := l.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &l.table, Key: ledgerKey(key),
		UpdateExpression:                    ptr("SET #word = :new, #done = #done + :one"),
		ConditionExpression:                 &condition,
		ExpressionAttributeNames:            map[string]string{"#parts": attrParts, "#done": attrDone, "#word": word},
		ExpressionAttributeValues:           values,
		ReturnValues:                        types.ReturnValueUpdatedNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	// Not only somebody else's mark fails the condition: our own does, too, if its answer was lost
	// and the SDK has tried again.
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return decodeEntry(failed.Item, word)
	}
	if err != nil {
		return entry{}, err
	}
	done, err := decodeNumber(out.Attributes, attrDone)
	return entry{parts: e.parts, done: int(done), word: e.word | bit(part)}, err
}

// Close implements builder.Ledger.
func (l *Ledger) Close(ctx context.Context, id string) error {
	_, err := l.client.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &l.table, Key: ledgerKey(entryPrefix + id)})
	if err != nil {
		return fmt.Errorf("close ledger entry %q: %w", id, err)
	}
	return nil
}

func ledgerKey(id string) attributes { return attributes{attrID: text(id)} }

// entry is what is known of an entry, with one of its words.
type entry struct {
	parts, done int
	word        uint64
}

func (e entry) has(part int) bool { return e.word&bit(part) != 0 }

func bit(part int) uint64 { return bits.RotateLeft64(1, part%wordParts) }

func wordName(part int) string { return "w" + strconv.Itoa(part/wordParts) }

func wordValue(word uint64) types.AttributeValue {
	return &types.AttributeValueMemberB{Value: binary.BigEndian.AppendUint64(nil, word)}
}

func decodeEntry(av attributes, word string) (entry, error) {
	if len(av) == 0 {
		return entry{}, builder.ErrNotExist
	}
	parts, err1 := decodeNumber(av, attrParts)
	done, err2 := decodeNumber(av, attrDone)
	e := entry{parts: int(parts), done: int(done)}
	if err := errors.Join(err1, err2); err != nil {
		return e, err
	}
	if av[word] == nil {
		return e, nil
	}
	b, ok := av[word].(*types.AttributeValueMemberB)
	if !ok || len(b.Value) != 8 {
		return e, fmt.Errorf("read ledger entry: attribute %s is not 8 bytes", word)
	}
	e.word = binary.BigEndian.Uint64(b.Value)
	return e, nil
}

func decodeNumber(av attributes, name string) (int64, error) {
	n, ok := av[name].(*types.AttributeValueMemberN)
	if !ok {
		return 0, fmt.Errorf("read ledger: attribute %s is not a number", name)
	}
	v, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read ledger: attribute %s: %w", name, err)
	}
	return v, nil
}
