package aws

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

func TestLedgerLostAnswer(t *testing.T) {
	word := wordValue(1 << 3).(*types.AttributeValueMemberB).Value
	item := func(done string, b []byte) map[string]any {
		it := map[string]any{"parts": map[string]any{"N": "5"}, "done": map[string]any{"N": done}}
		if b != nil {
			it["w0"] = map[string]any{"B": b}
		}
		return it
	}
	updates := 0
	l, err := NewLedger(fakeDynamoDB(t, fakeJSON{
		"GetItem": func(map[string]any) (int, any) { return 200, map[string]any{"Item": item("0", nil)} },
		"UpdateItem": func(map[string]any) (int, any) {
			if updates++; updates == 1 {
				return 0, nil // it was done, and nobody is told
			}
			return 400, map[string]any{
				"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
				"Item":   item("1", word),
			}
		},
	}), "ledger")
	if err != nil {
		t.Fatal(err)
	}
	if left, err := l.Done(t.Context(), "a", 3); left != 4 || err != nil || updates != 2 {
		t.Errorf("Done = %d, %v after %d updates, want 4", left, err, updates)
	}
	// An entry that has become none meanwhile.
	l.client = fakeDynamoDB(t, fakeJSON{
		"GetItem": func(map[string]any) (int, any) { return 200, map[string]any{"Item": item("0", nil)} },
		"UpdateItem": func(map[string]any) (int, any) {
			return 400, map[string]any{"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}
		},
	})
	if left, err := l.Done(t.Context(), "a", 3); err == nil {
		t.Errorf("Done = %d", left)
	}
	// One that changes more often than it can.
	l.client = fakeDynamoDB(t, fakeJSON{
		"GetItem": func(map[string]any) (int, any) { return 200, map[string]any{"Item": item("0", nil)} },
		"UpdateItem": func(map[string]any) (int, any) {
			return 400, map[string]any{
				"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
				"Item":   item("0", nil),
			}
		},
	})
	if left, err := l.Done(t.Context(), "a", 3); err == nil {
		t.Errorf("Done = %d", left)
	}
}

func TestEntryErrors(t *testing.T) {
	n := number(3)
	for _, av := range []attributes{
		{attrParts: n}, {attrDone: n}, {attrParts: text("3"), attrDone: n},
		{attrParts: n, attrDone: &types.AttributeValueMemberN{Value: "1.5"}},
		{attrParts: n, attrDone: n, "w0": text("x")},
		{attrParts: n, attrDone: n, "w0": &types.AttributeValueMemberB{Value: []byte("short")}},
	} {
		if e, err := decodeEntry(av, "w0"); err == nil {
			t.Errorf("decodeEntry(%v) = %+v", av, e)
		}
	}
}
