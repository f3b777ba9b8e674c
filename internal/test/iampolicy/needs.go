package iampolicy

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
)

// Action is the action that permits an operation of a service
// (https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html);
// empty if there is none of its name: a transaction needs those of its parts.
func Action(service, operation string) string {
	switch service {
	case "s3":
		switch operation {
		case "HeadObject":
			operation = "GetObject"
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html#mpuAndPermissions
		case "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload":
			operation = "PutObject"
		case "ListObjectsV2":
			operation = "ListBucket"
		case "DeleteObjects":
			operation = "DeleteObject"
		}
	case "sqs":
		operation = strings.TrimSuffix(operation, "Batch")
	case "dynamodb":
		if operation == "TransactWriteItems" {
			return ""
		}
	case "dynamodbstreams":
		service = "dynamodb"
	case "cloudfrontkeyvaluestore":
		service = "cloudfront-keyvaluestore"
	}
	return service + ":" + operation
}

// tablePart is a call of one item of a table, or a part of a transaction.
type tablePart struct {
	TableName string
	Key, Item map[string]map[string]any
}

// id is the partition key of an item of the ledger.
func (p tablePart) id() string {
	for _, item := range []map[string]map[string]any{p.Key, p.Item} {
		if id, ok := item["id"]["S"].(string); ok {
			return id
		}
	}
	return ""
}

// Needs are the actions that a request is made of. Buckets are in the path, as at custom endpoints.
func Needs(r *http.Request, body []byte, region, account string) ([]Need, error) {
	service, operation, ok := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if !ok && r.URL.Path == "/" && strings.HasPrefix(string(body), "Action=GetCallerIdentity&") {
		return nil, nil // https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: no permissions are required
	}
	if !ok {
		return bucketNeeds(r, body)
	}
	var in struct {
		tablePart
		QueueUrl      string
		TransactItems []map[string]tablePart
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("read %s: %w", operation, err)
	}
	table := func(name string) string { return "arn:aws:dynamodb:" + region + ":" + account + ":table/" + name }
	switch {
	case service == "DynamoDB_20120810" && operation == "TransactWriteItems":
		var all []Need
		for _, item := range in.TransactItems {
			for kind, part := range item {
				action, known := map[string]string{"Put": "PutItem", "Delete": "DeleteItem", "Update": "UpdateItem", "ConditionCheck": "ConditionCheckItem"}[kind]
				if !known {
					return nil, fmt.Errorf("a transaction with %s", kind)
				}
				all = append(all, Need{Action: Action("dynamodb", action), Resource: table(part.TableName), LeadingKey: part.id()})
			}
		}
		return all, nil
	case service == "DynamoDB_20120810" && in.TableName != "":
		return []Need{{Action: Action("dynamodb", operation), Resource: table(in.TableName), LeadingKey: in.id()}}, nil
	case service == "AmazonSQS" && in.QueueUrl != "":
		name := in.QueueUrl[strings.LastIndex(in.QueueUrl, "/")+1:]
		return []Need{{Action: Action("sqs", operation), Resource: "arn:aws:sqs:" + region + ":" + account + ":" + name}}, nil
	}
	return nil, fmt.Errorf("a call of %s.%s", service, operation)
}

func bucketNeeds(r *http.Request, body []byte) ([]Need, error) {
	q := r.URL.Query()
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	arn := "arn:aws:s3:::" + bucket
	need := func(operation string) []Need {
		return []Need{{Action: Action("s3", operation), Resource: arn + "/" + key, IfNoneMatch: r.Header.Get("If-None-Match") != ""}}
	}
	switch {
	case bucket == "":
	case key == "" && r.Method == http.MethodGet && q.Get("list-type") == "2":
		return []Need{{Action: Action("s3", "ListObjectsV2"), Resource: arn}}, nil
	case key == "" && r.Method == http.MethodPost && q.Has("delete"):
		var in struct {
			Object []struct{ Key string }
		}
		if err := xml.Unmarshal(body, &in); err != nil {
			return nil, fmt.Errorf("read DeleteObjects: %w", err)
		}
		var all []Need
		for _, o := range in.Object {
			all = append(all, Need{Action: Action("s3", "DeleteObjects"), Resource: arn + "/" + o.Key})
		}
		return all, nil
	case key == "":
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		return need("GetObject"), nil
	case r.Method == http.MethodPut, r.Method == http.MethodPost && (q.Has("uploads") || q.Has("uploadId")):
		return need("PutObject"), nil
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return need("AbortMultipartUpload"), nil
	case r.Method == http.MethodDelete:
		return need("DeleteObject"), nil
	}
	return nil, fmt.Errorf("a call of %s %s", r.Method, r.URL)
}
