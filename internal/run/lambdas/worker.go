package lambdas

import (
	"context"
	"strconv"
	"sync"

	"github.com/aws/aws-lambda-go/events"
	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/builder"
)

// Worker does the jobs of an SQS batch. Its policy extends no visibility: Lambda maps a queue only if the
// queue's visibility timeout is at least the function's
// (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html).
type Worker struct {
	builder.DeliveryPolicy
	// Concurrency is how many jobs of a batch are done at a time.
	Concurrency int
}

// Handle does the jobs and reports those that are to be delivered again
// (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html). Lambda deletes the others,
// among them those that a new message has taken the place of.
func (w *Worker) Handle(ctx context.Context, ev events.SQSEvent) (events.SQSEventResponse, error) {
	var mu sync.Mutex
	failures := []events.SQSBatchItemFailure{}
	var g errgroup.Group
	g.SetLimit(max(1, w.Concurrency))
	for _, record := range ev.Records {
		g.Go(func() error {
			finished, _ := w.Do(ctx, builder.Message{
				ID: record.MessageId, Receipt: record.ReceiptHandle, Body: []byte(record.Body), Receives: receives(record),
			})
			if !finished {
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

func receives(record events.SQSMessage) int {
	n, err := strconv.Atoi(record.Attributes["ApproximateReceiveCount"])
	if err != nil {
		return 1
	}
	return n
}
