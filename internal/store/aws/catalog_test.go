package aws

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

func goodItem() catalog.Item {
	return catalog.Item{
		App: "scoreboard", Track: "prod", Version: "1.0.0", Ident: "R-1", URL: "s3://bucket/scoreboard_1.0.0",
		MD5: strings.Repeat("a", 32), SHA256: strings.Repeat("b", 64), Size: 1 << 40, CPUArch: "armv8",
		DeviceAttr: map[string]bool{"gamer": true, "camera": false},
	}
}

func TestItemRoundTrip(t *testing.T) {
	staged := goodItem()
	staged.Rollout = &catalog.Rollout{Percent: 0.25, Salt: "spring"}
	staged.Previous = &catalog.Item{Version: "0.9", URL: "s3://bucket/x", Size: 5, Rollout: &catalog.Rollout{Percent: 100}, DeviceAttr: map[string]bool{"a": true}}
	staged.Floors = []catalog.Item{{Version: "0.5", Passed: []catalog.Item{{Version: "0.6", MD5: "m"}, {Version: "0.7"}}}, {Version: "0.8"}}
	for _, it := range []catalog.Item{goodItem(), {App: "a", Track: "b"}, staged} {
		if got := decodeItem(encodeItem(it)); !reflect.DeepEqual(got, it) {
			t.Errorf("%+v became %+v", it, got)
		}
	}
}

// What others have written by hand is refused by catalog.Check, by item and field, and by nothing
// before it.
func TestItemByHand(t *testing.T) {
	str := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	num := func(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }
	list := &types.AttributeValueMemberL{}
	yes := &types.AttributeValueMemberBOOL{Value: true}
	null := &types.AttributeValueMemberNULL{Value: true}
	object := func(name string, v types.AttributeValue) types.AttributeValue {
		return &types.AttributeValueMemberM{Value: attributes{name: v}}
	}
	for _, test := range []struct {
		attr  string
		value types.AttributeValue
		field string // at fault; empty: none
		says  string
	}{
		{attrVersion, num("1.0"), "version", "is a number (N), not a string (S)"},
		{attrVersion, null, "version", "is empty"},
		{attrVersion, nil, "version", "is empty"},
		{attrMD5, &types.AttributeValueMemberB{Value: []byte("x")}, "md5", "is binary (B), not a string (S)"},
		{attrMD5, str(strings.Repeat("A", 32)), "md5", "lower-case"},
		{attrSHA256, list, "sha256", "is a list (L), not a string (S)"},
		{attrURL, yes, "url", "is true or false (BOOL), not a string (S)"},
		{attrURL, object("S", str("s3://b/k")), "url", "is a map (M), not a string (S)"},
		{attrCPUArch, &types.AttributeValueMemberSS{Value: []string{"armv8"}}, "cpuArch", "is a set, not a string (S)"},
		{attrCPUArch, null, "", ""},
		{attrSize, str("12"), "", ""},
		{attrRollout, object(attrPercent, num("12.5")), "", ""},
		{attrRollout, object(attrPercent, str("12.5")), "", ""},
		{attrRollout, null, "", ""},
		{attrRollout, object(attrPercent, yes), "rollout.percent", "-1 is not a number"},
		{attrRollout, object(attrPercent, str("ten")), "rollout.percent", "-1 is not a number"},
		{attrRollout, object("percentage", num("10")), "rollout.percent", "-1 is not a number"},
		{attrRollout, num("10"), "rollout.salt", "is a number (N), not a map (M)"},
		{attrRollout, object(attrSalt, num("10")), "rollout.salt", "is a number (N), not a string (S)"},
		{attrPrevious, str("1.0"), "previous.version", "is a string (S), not a map (M)"},
		{attrPrevious, object(attrVersion, num("1")), "previous.version", "is a number (N), not a string (S)"},
		{attrPrevious, null, "", ""},
		{attrFloors, str("1.0"), "floors[0].version", "is a string (S), not a list (L)"},
		{attrFloors, &types.AttributeValueMemberL{Value: []types.AttributeValue{str("1.0")}}, "floors[0].version", "is a string (S), not a map (M)"},
		{attrFloors, list, "", ""},
		{attrSize, str("12 MB"), "size", "negative"},
		{attrSize, num("1.5"), "size", "negative"},
		{attrSize, num("1e3"), "size", "negative"},
		{attrSize, yes, "size", "negative"},
		{attrSize, nil, "size", "is missing"},
		{attrDevice, list, "deviceAttr.", "is a list (L), not a map (M) of true or false (BOOL)"},
		{attrDevice, object("gamer", str("true")), "deviceAttr.gamer", "is a string (S), not true or false (BOOL)"},
		{attrDevice, object("gamer", num("1")), "deviceAttr.gamer", "is a number (N), not true or false (BOOL)"},
		{attrDevice, null, "", ""},
		{attrIdent, num("7"), "", ""},
		{"somebody's note", list, "", ""},
	} {
		av := encodeItem(goodItem())
		av[test.attr] = test.value
		if test.value == nil {
			delete(av, test.attr)
		}
		problems := catalog.Check([]catalog.Item{decodeItem(av), {}})
		var own []catalog.Problem
		for _, p := range problems {
			if p.Key == goodItem().Key() {
				own = append(own, p)
			}
		}
		switch {
		case test.field == "" && len(own) == 0:
		case test.field == "" || !slices.ContainsFunc(own, func(p catalog.Problem) bool {
			return strings.HasPrefix(p.Field, test.field) && strings.Contains(p.Error(), test.says)
		}) ||
			slices.ContainsFunc(own, func(p catalog.Problem) bool { return !strings.HasPrefix(p.Field, test.attr) }):
			t.Errorf("%s = %#v: problems %v, want one of field %q that says %q, and none of another attribute", test.attr, test.value, own, test.field, test.says)
		}
	}
}

func puts(n int) (changes []catalog.Change) {
	for i := range n {
		changes = append(changes, catalog.Put(catalog.Item{App: fmt.Sprintf("app%04d", i), Track: "prod", Version: "1"}))
	}
	return changes
}

func TestApplyRefuses(t *testing.T) {
	c, err := NewCatalog(fakeDynamoDB(t, fakeJSON{}), "catalog", "ledger", CatalogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good := catalog.Put(goodItem())
	mixed := catalog.Put(goodItem())
	mixed.Key.Track = "beta"
	for _, changes := range [][]catalog.Change{
		{good, catalog.Remove(catalog.Key{App: "", Track: "prod"})},
		{good, catalog.Put(catalog.Item{App: "a"})},
		{good, mixed},
	} {
		if err := c.Apply(t.Context(), catalog.Edit{Changes: changes}); err == nil || !strings.Contains(err.Error(), "change item") {
			t.Errorf("Apply(%+v) = %v", changes, err)
		}
	}
}

func TestPack(t *testing.T) {
	sizes := func(changes []catalog.Change) string {
		s := ""
		for _, batch := range pack(toWrites(changes)) {
			s += fmt.Sprint(len(batch), " ")
		}
		return strings.TrimSpace(s)
	}
	big := func(n, size int) []catalog.Change {
		changes := puts(n)
		for _, change := range changes {
			change.Item.Ident = strings.Repeat("x", size)
		}
		return changes
	}
	for _, test := range []struct {
		changes []catalog.Change
		want    string
	}{
		{nil, ""}, {puts(1), "1"}, {puts(98), "98"}, {puts(99), "98 1"}, {puts(250), "98 98 54"},
		{append(puts(98), puts(98)...), "98"}, // of each key the last
		{big(20, 390_000), "9 9 2"},
		{big(3, 5_000_000), "1 1 1"}, // DynamoDB will say no
	} {
		if got := sizes(test.changes); got != test.want {
			t.Errorf("%d changes are packed as %q, want %q", len(test.changes), got, test.want)
		}
	}
}

// fakeTables are a catalog and a ledger without anything in them, whose transactions are answered by f.
func fakeTables(t *testing.T, opt CatalogOptions, transact func(request int) (status int, out any)) (c *Catalog, requests *int, slept *[]time.Duration) {
	t.Helper()
	requests, slept = new(int), new([]time.Duration)
	nothing := func(map[string]any) (int, any) { return 200, map[string]any{} }
	c, err := NewCatalog(fakeDynamoDB(t, fakeJSON{
		"Scan": nothing, "GetItem": nothing,
		"TransactWriteItems": func(map[string]any) (int, any) { *requests++; return transact(*requests) },
	}), "catalog", "ledger", opt)
	if err != nil {
		t.Fatal(err)
	}
	c.retry = fakeRetryer(slept)
	return c, requests, slept
}

// Transactions that meet are tried again; what will not pass is not, and is put down to its item.
func TestTransactionCancelled(t *testing.T) {
	cancelled := func(codes ...string) (int, any) {
		var reasons []any
		for _, code := range codes {
			reasons = append(reasons, map[string]any{"Code": code, "Message": "the fake says so"})
		}
		return 400, map[string]any{
			"__type":              "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
			"Message":             fmt.Sprint("cancelled: ", codes),
			"CancellationReasons": reasons,
		}
	}
	unconditional, conditional := catalog.Edit{Changes: puts(2)}, catalog.Edit{Changes: puts(2)}.On(catalog.NewHead(), nil)
	for _, test := range []struct {
		edit     catalog.Edit
		reasons  []string // of the entry, the log's end and two items
		then     bool     // it succeeds at the second try
		requests int
		says     string
		refused  bool
	}{
		{unconditional, []string{"None", "None", "None", "TransactionConflict"}, true, 2, "", false},
		{conditional, []string{"None", "TransactionConflict", "None", "None"}, true, 2, "", false},
		{unconditional, []string{"None", "None", "TransactionConflict", "None"}, false, attempts, "item app0000/prod: ", false},
		{unconditional, []string{"None", "None", "None", "ValidationError"}, true, 1, "item app0001/prod: ValidationError: the fake says so", false},
		{unconditional, []string{"ConditionalCheckFailed", "ConditionalCheckFailed", "None", "None"}, true, 2, "", false},
		{conditional, []string{"ConditionalCheckFailed", "None", "None", "None"}, true, 1, "the log is not as it was read", true},
		{conditional, []string{"None", "None", "None", "ConditionalCheckFailed"}, true, 1, "item app0001/prod is not as it was read", true},
	} {
		c, requests, _ := fakeTables(t, CatalogOptions{}, func(request int) (int, any) {
			if request > 1 && test.then {
				return 200, map[string]any{}
			}
			return cancelled(test.reasons...)
		})
		err := c.Apply(t.Context(), test.edit)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) || errors.Is(err, builder.ErrPrecondition) != test.refused {
			t.Errorf("Apply = %v, want %q", err, test.says)
		}
		if *requests != test.requests {
			t.Errorf("%d requests, want %d", *requests, test.requests)
		}
	}
}

// Of an import that is split and fails half-way, one is told what to do.
func TestSplitFails(t *testing.T) {
	c, _, _ := fakeTables(t, CatalogOptions{Split: true}, func(request int) (int, any) {
		if request == 3 {
			return 400, map[string]any{"__type": "AccessDeniedException", "message": "no"}
		}
		return 200, map[string]any{}
	})
	if err := c.Apply(t.Context(), catalog.Edit{Changes: puts(250)}); err == nil || !strings.Contains(err.Error(), "196 of 250 items are written") {
		t.Errorf("Apply = %v", err)
	}
}
