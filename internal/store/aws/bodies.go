package aws

import (
	"context"
	"fmt"
	"io"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// plainBodies hides the WriteTo of request bodies from net/http.
//
// When an answer is there the SDK closes the request's body. If the server was quick, net/http may be
// about to look whether the body has more bytes than announced, and at a closed body the SDK's WriteTo
// fails where its Read says EOF (smithy-go 1.28.8, transport/http/internal/io/safe.go). net/http then
// takes the request for broken off and closes the connection; the answer is lost, and the request is
// made again: a message is sent twice, or received by nobody
// (https://github.com/aws/aws-sdk-go-v2/issues/2737).
func plainBodies(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("PlainBody", plainBody), middleware.After)
}

func plainBody(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (out middleware.BuildOutput, meta middleware.Metadata, err error) {
	req, ok := in.Request.(*smithyhttp.Request)
	if !ok {
		return next.HandleBuild(ctx, in)
	}
	body, ok := req.GetStream().(io.ReadSeeker)
	if _, writesItself := body.(io.WriterTo); ok && writesItself {
		if in.Request, err = req.SetStream(struct{ io.ReadSeeker }{body}); err != nil {
			return out, meta, fmt.Errorf("set request body: %w", err)
		}
	}
	return next.HandleBuild(ctx, in)
}
