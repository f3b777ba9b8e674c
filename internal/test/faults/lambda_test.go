package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/lambdas"
)

// functions play AWS Lambda over a world's drivers, in the place of a pipeline in one process: the enqueuer on
// the catalog's stream and on a schedule, and the builder on the queue.
type functions struct {
	w       *world
	timeout time.Duration // of the builder
	// throttle: up to two deliveries of a message never reach a function; nil: none.
	throttle *rand.Rand

	changes  chan struct{}
	enqueuer lambdas.Enqueuer
	worker   lambdas.Worker

	mu   sync.Mutex
	lost map[string]int // deliveries, by message
}

// onLambda has the functions do a world's work.
func (w *world) onLambda(timeout time.Duration, throttle *rand.Rand) {
	f := &functions{w: w, timeout: timeout, throttle: throttle, changes: make(chan struct{}, 100), lost: make(map[string]int)}
	w.changed = func() { f.changes <- struct{}{} }
	w.run = f.run
}

// run invokes the functions until ctx is done.
func (f *functions) run(ctx context.Context) error {
	log := f.w.opt.Log
	f.enqueuer = lambdas.Enqueuer{Ledger: f.w.drivers.Ledger, Queue: f.w.drivers.Queue, Log: log}
	f.worker = lambdas.Worker{Concurrency: 2, DeliveryPolicy: builder.DeliveryPolicy{
		Builder: builder.New(f.w.drivers.Ports, f.w.opt), Margin: f.timeout / 4}}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { f.stream(ctx) })
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				f.poll(ctx)
			}
		})
	}
	for builder.Pause(ctx, time.Hour) == nil {
		if _, err := f.enqueuer.Handle(ctx, json.RawMessage(`{}`)); err != nil {
			log.WarnContext(ctx, "the schedule's plan was not asked for", "error", err)
		}
	}
	return nil
}

// stream tells the enqueuer of changes, up to ten times each, as terraform/pipeline.tf has it.
func (f *functions) stream(ctx context.Context) {
	for number := 0; ; number++ {
		select {
		case <-ctx.Done():
			return
		case <-f.changes:
		}
		batch := fmt.Sprintf(`{"Records": [{"dynamodb": {"SequenceNumber": "%d"}}]}`, number)
		for try := range 11 {
			resp, err := f.enqueuer.Handle(ctx, json.RawMessage(batch))
			if err == nil && len(resp.BatchItemFailures) == 0 {
				break
			}
			pause(ctx, min(time.Second<<try, time.Minute))
		}
	}
}

// poll is one turn of an event source mapping: it receives a batch, invokes the function, and deletes what that has
// not reported as failed. It never makes a message visible.
func (f *functions) poll(ctx context.Context) {
	queue := f.w.base.Queue
	messages, err := queue.Receive(ctx, 2, 6*f.timeout, 20*time.Second)
	if err != nil {
		pause(ctx, time.Second)
		return
	}
	if len(messages) == 0 || f.throttled(messages) {
		return
	}
	var ev events.SQSEvent
	for _, m := range messages {
		ev.Records = append(ev.Records, events.SQSMessage{MessageId: m.ID, ReceiptHandle: m.Receipt, Body: string(m.Body),
			Attributes: map[string]string{"ApproximateReceiveCount": fmt.Sprint(m.Receives)}})
	}
	invocation, cancel := context.WithTimeout(ctx, f.timeout)
	resp, err := f.worker.Handle(invocation, ev)
	late := invocation.Err() != nil
	cancel()
	if err != nil || late { // the answer of a function that is ended is lost
		if ctx.Err() == nil {
			f.w.problem("the function failed: %v, late: %v", err, late)
		}
		return
	}
	for _, m := range messages {
		if slices.Contains(resp.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.ID}) {
			continue
		}
		if err := queue.Delete(ctx, m.Receipt); err != nil && ctx.Err() == nil {
			f.w.problem("delete message: %v", err)
		}
	}
}

// throttled tells whether Lambda has no room for a batch: it has been received, and stays invisible for its time.
func (f *functions) throttled(messages []builder.Message) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.throttle == nil || f.throttle.IntN(3) > 0 || slices.ContainsFunc(messages, func(m builder.Message) bool { return f.lost[m.ID] == 2 }) {
		return false
	}
	for _, m := range messages {
		f.lost[m.ID]++
	}
	return true
}
