package aws

import (
	"context"
	"fmt"
	"reflect"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/middleware"
)

// missing are the codes of the errors that say that a resource is not there, without saying which, and the kind and
// input field of the resource.
var missing = map[string][2]string{
	"ResourceNotFoundException":               {"table", "TableName"},
	"NoSuchBucket":                            {"bucket", "Bucket"},
	"AWS.SimpleQueueService.NonExistentQueue": {"queue", "QueueUrl"},
	"QueueDoesNotExist":                       {"queue", "QueueUrl"},
}

// naming names what is missing in such errors, and the region in which it was looked for.
func naming(region string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("NameMissing",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				out, meta, err := next.HandleInitialize(ctx, in)
				if kind, ok := missing[codeOf(err)]; ok {
					if name := fieldOf(in.Parameters, kind[1]); name != "" {
						err = fmt.Errorf("there is no %s %s in %s (is it the right region and account?): %w", kind[0], name, region, err)
					}
				}
				return out, meta, err
			}), middleware.Before)
	}
}

// fieldOf returns a string field of an operation's input, empty if it has none of the name.
func fieldOf(input any, name string) string {
	if in, ok := input.(*dynamodb.TransactWriteItemsInput); ok { // one table for all
		for _, w := range in.TransactItems {
			switch {
			case w.Put != nil:
				return aws.ToString(w.Put.TableName)
			case w.Delete != nil:
				return aws.ToString(w.Delete.TableName)
			}
		}
	}
	v := reflect.Indirect(reflect.ValueOf(input))
	if v.Kind() != reflect.Struct {
		return ""
	}
	if field := v.FieldByName(name); field.IsValid() {
		if s, ok := field.Interface().(*string); ok {
			return aws.ToString(s)
		}
	}
	return ""
}
