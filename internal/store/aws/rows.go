package aws

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Rows reads a table as it is, whoever filled it: strings, json.Number, bool, nil, lists and maps of these.
func Rows(ctx context.Context, client *dynamodb.Client, table string) ([]map[string]any, error) {
	var rows []map[string]any
	pages := dynamodb.NewScanPaginator(client, &dynamodb.ScanInput{TableName: &table, ConsistentRead: ptr(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", table, err)
		}
		for _, av := range page.Items {
			rows = append(rows, plainMap(av))
		}
	}
	return rows, nil
}

func plainMap(av attributes) map[string]any {
	row := make(map[string]any, len(av))
	for name, value := range av {
		row[name] = plain(value)
	}
	return row
}

func plain(av types.AttributeValue) any {
	switch v := av.(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return json.Number(v.Value)
	case *types.AttributeValueMemberBOOL:
		return v.Value
	case *types.AttributeValueMemberNULL:
		return nil
	case *types.AttributeValueMemberM:
		return plainMap(v.Value)
	}
	return []any{} // lists, sets and bytes: no field of an item is one
}
