package lambdas

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// FunctionURL has a handler answer the requests of a function URL whose invoke mode is BUFFERED. An answer is whole, or
// the caller gets an error: a stream would end in the middle like a whole one, would not say its length, slows down
// after 6 MB, and may never end if it is empty (docs/decisions.md).
//
// The handler sees no HEAD, which the URL makes of a GET's answer, and no conditions but If-Range: no answer is empty.
func FunctionURL(h http.Handler) func(context.Context, events.LambdaFunctionURLRequest) (events.LambdaFunctionURLResponse, error) {
	return func(ctx context.Context, in events.LambdaFunctionURLRequest) (events.LambdaFunctionURLResponse, error) {
		method := in.RequestContext.HTTP.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		r, err := http.NewRequestWithContext(ctx, method, "https://"+in.RequestContext.DomainName+in.RawPath, http.NoBody)
		if err != nil {
			return events.LambdaFunctionURLResponse{}, fmt.Errorf("read request: %w", err)
		}
		for name, value := range in.Headers {
			r.Header.Set(name, value)
		}
		for _, name := range []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since"} {
			r.Header.Del(name)
		}
		w := recorder{header: make(http.Header), status: http.StatusOK}
		h.ServeHTTP(&w, r)
		out := events.LambdaFunctionURLResponse{StatusCode: w.status, Headers: make(map[string]string, len(w.header)),
			Body: base64.StdEncoding.EncodeToString(w.body.Bytes()), IsBase64Encoded: true}
		for name, values := range w.header {
			if name != "Content-Length" { // the URL says it
				out.Headers[name] = strings.Join(values, ", ")
			}
		}
		return out, nil
	}
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(p []byte) (int, error) { return w.body.Write(p) }
