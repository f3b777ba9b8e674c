package awspipeline

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// callerWait bounds how long a change waits for the answer who makes it.
const callerWait = 5 * time.Second

// Caller returns what tells whose credentials this process has: the ARN that AWS knows them by. It asks once; where
// nobody answers, it is empty, as no change shall fail for it.
func Caller(cfg aws.Config) func(ctx context.Context) string {
	var once sync.Once
	var arn string
	return func(ctx context.Context) string {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(ctx, callerWait)
			defer cancel()
			who, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
			if err == nil {
				arn = aws.ToString(who.Arn)
			}
		})
		return arn
	}
}
