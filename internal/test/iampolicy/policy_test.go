package iampolicy_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/test/iampolicy"
)

const document = `{"Version": "2012-10-17", "Statement": [
  {"Sid": "A", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/binaries/*", "arn:aws:s3:::b/sweep"]},
  {"Sid": "B", "Effect": "Allow", "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::b/binaries/*"], "Condition": {"Null": {"s3:if-none-match": "false"}}},
  {"Sid": "C", "Effect": "Allow", "Action": ["dynamodb:PutItem"], "Resource": ["arn:aws:dynamodb:r:1:table/t"]},
  {"Sid": "D", "Effect": "Allow", "Action": ["sqs:SendMessage"], "Resource": ["arn:aws:sqs:r:1:q"]},
  {"Sid": "E", "Effect": "Allow", "Action": ["dynamodb:PutItem"], "Resource": ["arn:aws:dynamodb:r:1:table/l"], "Condition": {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["log", "log/*"]}}}
]}`

func TestGuard(t *testing.T) {
	p, err := iampolicy.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, method, path, target, body, ifNoneMatch string
		upstream, want                                int
	}{
		{name: "an object", method: "GET", path: "/b/binaries/x/y", want: 200},
		{name: "its head", method: "HEAD", path: "/b/sweep", want: 200},
		{name: "another object", method: "GET", path: "/b/index", want: 403},
		{name: "another bucket", method: "GET", path: "/c/sweep", want: 403},
		{name: "a longer name", method: "GET", path: "/b/sweeper", want: 403},
		{name: "missing, and it may not list", method: "GET", path: "/b/sweep", upstream: 404, want: 403},
		{name: "list", method: "GET", path: "/b?list-type=2", want: 403},
		{name: "write what is not there", method: "PUT", path: "/b/binaries/x", ifNoneMatch: "*", want: 200},
		{name: "overwrite", method: "PUT", path: "/b/binaries/x", want: 403},
		{name: "abort", method: "DELETE", path: "/b/binaries/x?uploadId=1", want: 403},
		{name: "put", method: "POST", path: "/", target: "DynamoDB_20120810.PutItem", body: `{"TableName":"t"}`, want: 200},
		{name: "in a transaction", method: "POST", path: "/", target: "DynamoDB_20120810.TransactWriteItems", body: `{"TransactItems":[{"Put":{"TableName":"t"}}]}`, want: 200},
		{name: "and a removal", method: "POST", path: "/", target: "DynamoDB_20120810.TransactWriteItems", body: `{"TransactItems":[{"Put":{"TableName":"t"}},{"Delete":{"TableName":"t"}}]}`, want: 400},
		{name: "another table", method: "POST", path: "/", target: "DynamoDB_20120810.PutItem", body: `{"TableName":"u"}`, want: 400},
		{name: "an item of a key that it may", method: "POST", path: "/", target: "DynamoDB_20120810.PutItem", body: `{"TableName":"l","Item":{"id":{"S":"log/7"}}}`, want: 200},
		{name: "an item of another key", method: "POST", path: "/", target: "DynamoDB_20120810.PutItem", body: `{"TableName":"l","Item":{"id":{"S":"logs"}}}`, want: 400},
		{name: "such items in a transaction", method: "POST", path: "/", target: "DynamoDB_20120810.TransactWriteItems", body: `{"TransactItems":[{"Put":{"TableName":"l","Item":{"id":{"S":"log"}}}},{"Put":{"TableName":"l","Item":{"id":{"S":"counter"}}}}]}`, want: 400},
		{name: "a batch", method: "POST", path: "/", target: "AmazonSQS.SendMessageBatch", body: `{"QueueUrl":"http://h/1/q"}`, want: 200},
		{name: "receive", method: "POST", path: "/", target: "AmazonSQS.ReceiveMessage", body: `{"QueueUrl":"http://h/1/q"}`, want: 400},
		{name: "not understood", method: "POST", path: "/", target: "Logs.Put", body: `{}`, want: 400},
	} {
		g := &iampolicy.Guard{Region: "r", Account: "1", Policies: map[string]iampolicy.Policy{"me": p},
			Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(max(c.upstream, 200)) })}
		ask := func(who string) int {
			req := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+who+"/20260101/r/s3/aws4_request, Signature=0")
			if c.target != "" {
				req.Header.Set("X-Amz-Target", c.target)
			}
			if c.ifNoneMatch != "" {
				req.Header.Set("If-None-Match", c.ifNoneMatch)
			}
			rec := httptest.NewRecorder()
			g.ServeHTTP(rec, req)
			return rec.Code
		}
		if got := ask("me"); got != c.want || (len(g.Refused()) == 0) != (c.want == 200) {
			t.Errorf("%s: %d, want %d; refused %v", c.name, got, c.want, g.Refused())
		}
		if got := ask("somebody"); got != max(c.upstream, 200) {
			t.Errorf("%s by somebody without a policy: %d", c.name, got)
		}
		if c.name == "an object" && !slices.Equal(g.Unused("me"), []string{"dynamodb:PutItem", "s3:PutObject", "sqs:SendMessage"}) {
			t.Errorf("unused: %v", g.Unused("me"))
		}
	}
}

func TestParseRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, statement := range []string{
		`{"Effect": "Deny", "Action": ["s3:GetObject"], "Resource": ["*"]}`,
		`{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}`,
		`{"Effect": "Allow", "Action": "s3:GetObject", "Resource": ["*"]}`,
		`{"Effect": "Allow", "Action": ["s3:GetObject"], "NotResource": ["*"]}`,
		`{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["*"], "Condition": {"Bool": {"aws:SecureTransport": "true"}}}`,
	} {
		if p, err := iampolicy.Parse(`{"Statement": [` + statement + `]}`); err == nil {
			t.Errorf("%s: %+v", statement, p)
		}
	}
}
