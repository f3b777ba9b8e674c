package lambdas

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
)

// Worker does the jobs of an SQS batch.
type Worker struct {
	Builder *builder.Builder
	Queue   builder.Queue
	Log     *slog.Logger
	// Concurrency is how many jobs of a batch are done at a time.
	Concurrency int
	// Margin is how long before the function's deadline work is stopped and given back.
	Margin time.Duration
}

// giveBack bounds the calls that make a failed job visible again.
const giveBack = 2 * time.Second

// Handle does the jobs and reports those that are to be delivered again
// (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html).
func (w *Worker) Handle(ctx context.Context, ev events.SQSEvent) (events.SQSEventResponse, error) {
	work := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		work, cancel = context.WithDeadline(ctx, deadline.Add(-w.Margin))
		defer cancel()
	}
	var mu sync.Mutex
	failures := []events.SQSBatchItemFailure{}
	var g errgroup.Group
	g.SetLimit(max(1, w.Concurrency))
	for _, record := range ev.Records {
		g.Go(func() error {
			if err := w.do(work, record); err != nil {
				w.giveBack(ctx, work, record, err)
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, events.SQSBatchItemFailure{ItemIdentifier: record.MessageId})
			}
			return nil
		})
	}
	_ = g.Wait() // failures are per message
	return events.SQSEventResponse{BatchItemFailures: failures}, nil
}

func (w *Worker) do(ctx context.Context, record events.SQSMessage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.Builder.Handle(ctx, builder.Message{
		ID:       record.MessageId,
		Receipt:  record.ReceiptHandle,
		Body:     []byte(record.Body),
		Receives: receives(record),
	})
}

// giveBack makes a job visible soon: the queue hides it for six times the function's timeout, which is
// meant for functions that die, not for jobs that fail.
func (w *Worker) giveBack(ctx, work context.Context, record events.SQSMessage, cause error) {
	delay := builder.Backoff(receives(record))
	if work.Err() != nil { // out of time: somebody else goes on at once
		delay = 0
		w.Log.WarnContext(ctx, "job handed back before the deadline", "job", record.MessageId)
	} else {
		w.Log.ErrorContext(ctx, "job failed", "job", record.MessageId, "receives", receives(record), "error", cause)
	}
	ctx, cancel := context.WithTimeout(ctx, giveBack)
	defer cancel()
	if err := w.Queue.Extend(ctx, record.ReceiptHandle, delay); err != nil {
		w.Log.WarnContext(ctx, "job stays hidden until its time is up", "job", record.MessageId, "error", err)
	}
}

func receives(record events.SQSMessage) int {
	n, err := strconv.Atoi(record.Attributes["ApproximateReceiveCount"])
	if err != nil {
		return 1
	}
	return n
}
