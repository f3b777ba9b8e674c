package aws

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/precast-ota/precast/builder"
)

// Limits of SQS
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html).
const (
	maxBatch      = 10      // messages of one request
	maxMessage    = 1 << 20 // bytes, and of all messages of one request together
	maxVisibility = 12 * time.Hour
	maxPoll       = 20 * time.Second
)

// QueueOptions change how a queue is used.
type QueueOptions struct {
	// DeadLetterURL is the URL of the queue's dead-letter queue. Only DeadLetters needs it.
	DeadLetterURL string
}

// Queue hands out jobs through a standard SQS queue. The queue's redrive policy says after how many
// receives a message becomes a dead letter.
//
// SQS counts in whole seconds; durations are rounded up. Its long polls find every visible message,
// but a Receive that does not wait may find none though there are some
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html).
// The SDK cannot ask for a wait or a hiding of 0: the queue's own ReceiveMessageWaitTimeSeconds takes
// the place of the first, so leave it at 0, and 1 s that of the second.
// A message that a cancelled Receive did not get to see becomes visible again after its time.
type Queue struct {
	client    *sqs.Client
	url, dead string
	retry     retryer
	receipts  *receipts
	now       func() time.Time
}

// NewQueue returns the queue at a URL.
func NewQueue(client *sqs.Client, url string, opt QueueOptions) (*Queue, error) {
	if url == "" {
		return nil, errors.New("open queue: no queue URL is given")
	}
	return &Queue{
		client: client, url: url, dead: opt.DeadLetterURL,
		retry:    retryer{sleep: builder.Pause, random: rand.Float64},
		receipts: newReceipts(), now: time.Now,
	}, nil
}

// Receive implements builder.Queue.
func (q *Queue) Receive(ctx context.Context, most int, visibility, wait time.Duration) ([]builder.Message, error) {
	seconds, err := visibilitySeconds(visibility)
	if err != nil {
		return nil, fmt.Errorf("receive messages: %w", err)
	}
	if most < 1 {
		return nil, nil
	}
	seconds = max(seconds, 1)
	end := q.now().Add(wait)
	for {
		poll := min(end.Sub(q.now()), maxPoll)
		found, err := q.receive(ctx, q.url, most, seconds, poll)
		if err != nil {
			return nil, fmt.Errorf("receive messages: %w", err)
		}
		now := q.now()
		if len(found) > 0 {
			until := now.Add(time.Duration(seconds) * time.Second)
			messages := make([]builder.Message, len(found))
			for i, m := range found {
				messages[i] = message(m)
				q.receipts.add(now, messages[i].Receipt, until)
			}
			return messages, nil
		}
		if !now.Before(end) {
			return nil, nil
		}
	}
}

// receive asks a queue once.
func (q *Queue) receive(ctx context.Context, url string, most int, visibility int32, wait time.Duration) ([]types.Message, error) {
	out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: int32(min(most, maxBatch)),
		VisibilityTimeout: visibility, WaitTimeSeconds: seconds(wait),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount,
			types.MessageSystemAttributeNameSentTimestamp,
		},
	})
	if err != nil {
		return nil, err
	}
	return out.Messages, nil
}

func message(m types.Message) builder.Message {
	count := m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)]
	receives, err := strconv.Atoi(count)
	if err != nil {
		receives = 1 // it was received now
	}
	return builder.Message{
		ID: aws.ToString(m.MessageId), Receipt: aws.ToString(m.ReceiptHandle),
		Body: []byte(aws.ToString(m.Body)), Receives: receives,
	}
}

// seconds rounds up; a negative duration is none.
func seconds(d time.Duration) int32 {
	return int32(max(0, (d+time.Second-1)/time.Second))
}

func visibilitySeconds(visibility time.Duration) (int32, error) {
	if visibility < 0 || visibility > maxVisibility {
		return 0, fmt.Errorf("visibility timeout of %v: not between 0 and %v", visibility, maxVisibility)
	}
	return seconds(visibility), nil
}

// Extend implements builder.Queue. SQS accepts a receipt that has expired, and does nothing, so a
// receipt of this Queue is checked against the clock first; one that another process received is
// left to SQS to judge.
func (q *Queue) Extend(ctx context.Context, receipt string, visibility time.Duration) error {
	if err := q.extend(ctx, receipt, visibility); err != nil {
		return fmt.Errorf("extend message: %w", err)
	}
	return nil
}

func (q *Queue) extend(ctx context.Context, receipt string, visibility time.Duration) error {
	seconds, err := visibilitySeconds(visibility)
	if err != nil {
		return err
	}
	if q.receipts.expired(receipt, q.now()) {
		return builder.ErrNotExist
	}
	_, err = q.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &q.url, ReceiptHandle: &receipt, VisibilityTimeout: seconds,
	})
	if err != nil {
		return receiptError(err)
	}
	q.receipts.extend(receipt, q.now().Add(time.Duration(seconds)*time.Second))
	return nil
}

// Delete implements builder.Queue.
func (q *Queue) Delete(ctx context.Context, receipt string) error {
	_, err := q.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: &receipt})
	if err = receiptError(err); err != nil && !errors.Is(err, builder.ErrNotExist) {
		return fmt.Errorf("delete message: %w", err)
	}
	q.receipts.remove(receipt)
	return nil
}
