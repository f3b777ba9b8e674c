// Package lambdas is what the Lambda functions do between their event and the builder. The functions'
// mains, below builder/cmd, only read the environment and start it.
package lambdas

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/precast-ota/precast/builder"
)

// Enqueuer turns a batch of the catalog's change stream into one plan job. A scheduled event, which
// has no records, asks for a full plan: it mends whatever a lost event left behind.
type Enqueuer struct {
	Ledger builder.Ledger
	Queue  builder.Queue
	Log    *slog.Logger
	// Depth counts the jobs, and the dead letters among them, at every scheduled event; Metrics says how
	// many there are. Nil: not.
	Depth   func(ctx context.Context) (waiting, inFlight, dead int, err error)
	Metrics *Metrics
}

// streamRecord is what the enqueuer needs of a record. The change itself is not looked at, since a plan
// reads the whole catalog: no content of a record can make it fail.
type streamRecord struct {
	Change struct {
		SequenceNumber string
		// Seconds since 1970, possibly with a fraction
		// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html).
		ApproximateCreationDateTime float64
	} `json:"dynamodb"`
}

// event is a batch of the stream, or a schedule's input: {"verify": true} has every object looked up.
type event struct {
	Records []json.RawMessage
	builder.PlanOptions
}

// Handle asks for a plan. If that fails, the whole batch is reported as failed, by its first record: Lambda
// delivers it again from there
// (https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html).
func (e *Enqueuer) Handle(ctx context.Context, payload json.RawMessage) (events.DynamoDBEventResponse, error) {
	var ev event
	if err := json.Unmarshal(payload, &ev); err != nil {
		return events.DynamoDBEventResponse{}, fmt.Errorf("decode event: %w", err)
	}
	if len(ev.Records) == 0 && e.Depth != nil {
		e.count(ctx)
	}
	request := builder.Request{PlanOptions: ev.PlanOptions}
	var first string
	oldest := math.Inf(1)
	for i, raw := range ev.Records {
		var r streamRecord
		if err := json.Unmarshal(raw, &r); err != nil {
			// Something changed, whatever it was; a plan will see it.
			e.Log.WarnContext(ctx, "odd stream record", "error", err)
		}
		if i == 0 {
			first = r.Change.SequenceNumber
		}
		if t := r.Change.ApproximateCreationDateTime; t > 0 {
			oldest = min(oldest, t)
		}
	}
	if !math.IsInf(oldest, 1) {
		request.Since = time.UnixMilli(int64(oldest * 1000))
	}
	after, err := builder.RequestPlan(ctx, e.Ledger, e.Queue, request)
	if err != nil {
		if first == "" { // no records, or none that could be named: the whole invocation fails
			return events.DynamoDBEventResponse{}, err
		}
		e.Log.ErrorContext(ctx, "changes were not enqueued", "records", len(ev.Records), "error", err)
		return events.DynamoDBEventResponse{
			BatchItemFailures: []events.DynamoDBBatchItemFailure{{ItemIdentifier: first}},
		}, nil
	}
	e.Log.InfoContext(ctx, "enqueued", "records", len(ev.Records), "after", after)
	return events.DynamoDBEventResponse{BatchItemFailures: []events.DynamoDBBatchItemFailure{}}, nil
}

// count reports the queue's depth; that it cannot be had stops nothing.
func (e *Enqueuer) count(ctx context.Context) {
	waiting, inFlight, dead, err := e.Depth(ctx)
	if err != nil {
		e.Log.WarnContext(ctx, "count jobs", "error", err)
		return
	}
	e.Metrics.Jobs(waiting, inFlight, dead)
}
