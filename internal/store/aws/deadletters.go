package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/precast-ota/precast/builder"
)

const (
	// While Dead collects, what it has seen is invisible, or it would see the same again and again.
	peekVisibility = 30 * time.Second
	moveVisibility = time.Minute
	// The shortest long poll: it asks all of a queue's servers.
	deadPoll = time.Second
	// releaseAfter bounds what is done for a caller who has gone.
	releaseAfter = 10 * time.Second
)

var errNoDeadLetterURL = errors.New("no dead-letter queue URL is given")

// Dead implements builder.DeadLetters, oldest first of those that it comes upon. SQS can only
// receive: the messages are invisible to others for the moment, and their receive counts go up, which
// is of no consequence in a dead-letter queue.
func (q *Queue) Dead(ctx context.Context, most int) ([]builder.Message, error) {
	found, err := q.peek(ctx, most)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	slices.SortStableFunc(found, func(a, b types.Message) int { return strings.Compare(sent(a), sent(b)) })
	messages := make([]builder.Message, len(found))
	for i, m := range found {
		messages[i] = message(m)
	}
	return messages, nil
}

// sent is a time in milliseconds, of 13 digits until the year 2286.
func sent(m types.Message) string {
	return m.Attributes[string(types.MessageSystemAttributeNameSentTimestamp)]
}

func (q *Queue) peek(ctx context.Context, most int) (found []types.Message, err error) {
	if q.dead == "" {
		return nil, errNoDeadLetterURL
	}
	defer func() { q.release(ctx, found) }()
	end := q.now().Add(peekVisibility / 2) // beyond that, the first come again
	for len(found) < most && q.now().Before(end) {
		more, err := q.receive(ctx, q.dead, most-len(found), seconds(peekVisibility), deadPoll)
		if err != nil {
			return found, err
		}
		if len(more) == 0 {
			break
		}
		found = append(found, more...)
	}
	return found, nil
}

// release makes dead letters visible again. If it fails, they become so a little later.
func (q *Queue) release(ctx context.Context, found []types.Message) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseAfter)
	defer cancel()
	for batch := range slices.Chunk(found, maxBatch) {
		entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(batch))
		for i, m := range batch {
			entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{Id: ptr(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle}
		}
		_, _ = q.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q.dead, Entries: entries})
	}
}

// Redrive implements builder.DeadLetters: each message is sent anew, then deleted from the dead
// letters. If it ends in between, messages are in both queues, and handling a job twice does no
// harm. (SQS can move messages by itself, with StartMessageMoveTask, but not say when it is done with
// how many.)
func (q *Queue) Redrive(ctx context.Context) (int, error) {
	moved := 0
	if q.dead == "" {
		return 0, fmt.Errorf("redrive dead letters: %w", errNoDeadLetterURL)
	}
	for {
		found, err := q.receive(ctx, q.dead, maxBatch, seconds(moveVisibility), deadPoll)
		if err == nil && len(found) == 0 {
			return moved, nil
		}
		if err == nil {
			err = q.move(ctx, found)
		}
		if err != nil {
			return moved, fmt.Errorf("redrive dead letters: after %d: %w", moved, err)
		}
		moved += len(found)
	}
}

func (q *Queue) move(ctx context.Context, found []types.Message) error {
	bodies := make([][]byte, len(found))
	for i, m := range found {
		bodies[i] = []byte(aws.ToString(m.Body))
	}
	if err := q.Send(ctx, bodies...); err != nil {
		q.release(ctx, found)
		return err
	}
	entries := make([]types.DeleteMessageBatchRequestEntry, len(found))
	for i, m := range found {
		entries[i] = types.DeleteMessageBatchRequestEntry{Id: ptr(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle}
	}
	out, err := q.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &q.dead, Entries: entries})
	if err == nil && len(out.Failed) > 0 {
		_, err = batchError(out.Failed)
	}
	if err != nil {
		return fmt.Errorf("delete what was sent again: %w", err)
	}
	return nil
}

// Depth implements builder.DeadLetters. SQS counts approximately, and up to a minute late.
func (q *Queue) Depth(ctx context.Context) (waiting, inFlight, dead int, err error) {
	visible, delayed, inFlight, err := q.counts(ctx, q.url)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("count messages: %w", err)
	}
	if q.dead == "" {
		return 0, 0, 0, fmt.Errorf("count dead letters: %w", errNoDeadLetterURL)
	}
	deadVisible, deadDelayed, deadInFlight, err := q.counts(ctx, q.dead)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("count dead letters: %w", err)
	}
	return visible + delayed, inFlight, deadVisible + deadDelayed + deadInFlight, nil
}

func (q *Queue) counts(ctx context.Context, url string) (visible, delayed, inFlight int, err error) {
	names := []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	}
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
	if err != nil {
		return 0, 0, 0, err
	}
	var counts [3]int
	for i, name := range names {
		if counts[i], err = strconv.Atoi(out.Attributes[string(name)]); err != nil {
			return 0, 0, 0, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return counts[0], counts[1], counts[2], nil
}
