package aws

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Send implements builder.Queue. Nothing is sent if SQS would not take one of the messages.
func (q *Queue) Send(ctx context.Context, bodies ...[]byte) error {
	for i, body := range bodies {
		if err := checkMessage(body); err != nil {
			return fmt.Errorf("send message %d of %d: %w", i+1, len(bodies), err)
		}
	}
	sent := 0
	for sent < len(bodies) {
		batch := nextBatch(bodies[sent:])
		if err := q.sendBatch(ctx, batch); err != nil {
			return fmt.Errorf("send messages %d to %d of %d: %w", sent+1, sent+len(batch), len(bodies), err)
		}
		sent += len(batch)
	}
	return nil
}

// checkMessage refuses what SQS cannot carry: messages are text of the characters that XML 1.0 has
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html).
func checkMessage(body []byte) error {
	switch {
	case len(body) == 0:
		return errors.New("it is empty, which SQS does not allow")
	case len(body) > maxMessage:
		return fmt.Errorf("it has %d bytes, more than %d", len(body), maxMessage)
	case !utf8.Valid(body):
		return errors.New("it is not UTF-8, and SQS carries text only")
	}
	for _, r := range string(body) {
		if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return fmt.Errorf("it has the character %U, which SQS does not carry", r)
		}
	}
	return nil
}

// nextBatch returns the first messages that fit into one request.
func nextBatch(bodies [][]byte) [][]byte {
	size := 0
	for i, body := range bodies {
		if size += len(body); i == maxBatch || size > maxMessage {
			return bodies[:i]
		}
	}
	return bodies
}

// sendBatch sends the messages of one request. SQS may take some of them only
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html);
// the others are sent again if it was not their own fault.
func (q *Queue) sendBatch(ctx context.Context, batch [][]byte) error {
	entries := make([]types.SendMessageBatchRequestEntry, len(batch))
	for i, body := range batch {
		entries[i] = types.SendMessageBatchRequestEntry{Id: ptr(strconv.Itoa(i)), MessageBody: ptr(string(body))}
	}
	return q.retry.do(ctx, func() (again bool, err error) {
		out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: entries})
		if err != nil || len(out.Failed) == 0 {
			return false, err
		}
		again, err = batchError(out.Failed)
		failed := make(map[string]bool)
		for _, f := range out.Failed {
			failed[aws.ToString(f.Id)] = true
		}
		var left []types.SendMessageBatchRequestEntry
		for _, e := range entries {
			if failed[*e.Id] {
				left = append(left, e)
			}
		}
		entries = left
		return again, err
	})
}

// batchError joins what went wrong with single messages of a request, and tells whether it may go
// better the next time.
func batchError(failed []types.BatchResultErrorEntry) (again bool, err error) {
	again = true
	var errs []error
	for _, f := range failed {
		again = again && !f.SenderFault
		errs = append(errs, fmt.Errorf("SQS answered %s: %s", aws.ToString(f.Code), aws.ToString(f.Message)))
	}
	return again, errors.Join(errs...)
}
