package aws

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/precast-ota/precast/builder"
)

// forgetAfter is how long an expired receipt is remembered: longer than anybody works on a
// message, which stays invisible for 12 hours at most.
const forgetAfter = maxVisibility

// receipts remembers until when the messages of receipts are invisible: of those being worked on, and
// for a while of those that were given up.
type receipts struct {
	mu    sync.Mutex
	until map[string]time.Time
	sweep time.Time // when to forget old ones again
}

func newReceipts() *receipts { return &receipts{until: make(map[string]time.Time)} }

func (r *receipts) add(now time.Time, receipt string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until[receipt] = until
	if now.Before(r.sweep) {
		return
	}
	r.sweep = now.Add(time.Hour)
	for receipt, until := range r.until {
		if now.Sub(until) > forgetAfter {
			delete(r.until, receipt)
		}
	}
}

// extend does not add a receipt that is unknown: it may be another process's.
func (r *receipts) extend(receipt string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.until[receipt]; ok {
		r.until[receipt] = until
	}
}

func (r *receipts) remove(receipt string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.until, receipt)
}

func (r *receipts) expired(receipt string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.until[receipt]
	return ok && !now.Before(until)
}

// receiptError puts SQS's words for a receipt that is no longer valid into the port's. It has three,
// and the documented ones are the rarer
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html,
// https://github.com/aws/aws-sdk-net/issues/1927).
func receiptError(err error) error {
	var invalid *types.ReceiptHandleIsInvalid
	var visible *types.MessageNotInflight
	var api smithy.APIError
	switch {
	case errors.As(err, &invalid), errors.As(err, &visible):
		return builder.ErrNotExist
	case errors.As(err, &api) && api.ErrorCode() == "InvalidParameterValue" && strings.Contains(api.ErrorMessage(), "ReceiptHandle"):
		return builder.ErrNotExist
	}
	return err
}
