package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// The origin-request event and its results:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/lambda-event-structure.html
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/lambda-generating-http-responses-in-requests.html

type headerLine struct {
	Key   string `json:"key,omitempty"`
	Value string `json:"value"`
}

type headerLines map[string][]headerLine

type lambdaRequest struct {
	ClientIP    string                 `json:"clientIp"`
	Method      string                 `json:"method"`
	URI         string                 `json:"uri"`
	QueryString string                 `json:"querystring"`
	Headers     headerLines            `json:"headers"`
	Origin      map[string]eventOrigin `json:"origin"` // "s3" or "custom"
}

type eventOrigin struct {
	AuthMethod       string      `json:"authMethod,omitempty"`
	CustomHeaders    headerLines `json:"customHeaders"`
	DomainName       string      `json:"domainName"`
	Path             string      `json:"path"`
	Region           string      `json:"region,omitempty"`
	KeepaliveTimeout int         `json:"keepaliveTimeout,omitempty"`
	Port             int         `json:"port,omitempty"`
	Protocol         string      `json:"protocol,omitempty"`
	ReadTimeout      int         `json:"readTimeout,omitempty"`
	SSLProtocols     []string    `json:"sslProtocols,omitempty"`
}

// lines writes headers as events have them.
func lines(h http.Header) headerLines {
	out := make(headerLines)
	for name, values := range h {
		for _, v := range values {
			out[strings.ToLower(name)] = append(out[strings.ToLower(name)], headerLine{name, v})
		}
	}
	return out
}

// header reads the headers of a result.
func (l headerLines) header() (http.Header, error) {
	header := make(http.Header)
	for name, all := range l {
		if name != strings.ToLower(name) {
			return nil, &Broken{RuleHeaderName, 502, fmt.Sprintf("name %q is not in lower case", name)}
		}
		for _, line := range all {
			if line.Key != "" && !strings.EqualFold(line.Key, name) {
				return nil, &Broken{RuleHeaderName, 502, fmt.Sprintf("key %q below %q", line.Key, name)}
			}
			if err := checkHeader(name, line.Value); err != nil {
				return nil, err
			}
			header.Add(name, line.Value)
		}
	}
	return header, nil
}

func (o *Origin) event() map[string]eventOrigin {
	custom := make(http.Header)
	for name, value := range o.CustomHeaders {
		custom.Set(name, value)
	}
	if o.S3 {
		return map[string]eventOrigin{"s3": {AuthMethod: "none", CustomHeaders: lines(custom), DomainName: o.Domain, Region: o.Region}}
	}
	return map[string]eventOrigin{"custom": {CustomHeaders: lines(custom), DomainName: o.Domain, KeepaliveTimeout: 5, Port: 443,
		Protocol: "https", ReadTimeout: int(max(o.ReadTimeout, 30*time.Second) / time.Second), SSLProtocols: []string{"TLSv1.2"}}}
}

// runHandler calls the origin-request function. It returns the request that it makes of r, or the response
// that it generates.
func (c *CloudFront) runHandler(ctx context.Context, t *Trace, o *Origin, r *request) (*request, *response, error) {
	type config struct {
		DistributionDomainName string `json:"distributionDomainName"`
		DistributionID         string `json:"distributionId"`
		EventType              string `json:"eventType"`
		RequestID              string `json:"requestId"`
	}
	shown := readable(r.header)
	given := lambdaRequest{ClientIP: r.ip, Method: r.method, URI: toUTF8(r.uri), QueryString: toUTF8(r.query), Headers: lines(shown), Origin: o.event()}
	given.Headers["host"] = []headerLine{{"Host", o.Domain}}
	cf := map[string]any{"config": config{c.dist.Domain, c.dist.ID, "origin-request", r.id}, "request": given}
	event := map[string]any{"Records": []any{map[string]any{"cf": cf}}}

	limited, cancel := context.WithTimeoutCause(ctx, c.dist.Limits.HandlerTime, errTooLong)
	defer cancel()
	result, took, err := c.host.call(limited, "origin", event, map[string]any{"id": r.id})
	t.Handler += took
	t.HandlerRuns++
	switch {
	case errors.Is(err, errTooLong):
		return nil, nil, &Broken{RuleHandlerTime, 500, "more than " + c.dist.Limits.HandlerTime.String()}
	case err != nil:
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/http-500-lambda-execution-error.html
		return nil, nil, &Broken{RuleHandlerError, 500, err.Error()}
	}
	invalid := func(format string, args ...any) (*request, *response, error) {
		return nil, nil, &Broken{RuleHandlerResult, 502, fmt.Sprintf(format, args...)}
	}
	var kind struct {
		Status json.RawMessage `json:"status"`
		URI    *string         `json:"uri"`
	}
	if err := json.Unmarshal(result, &kind); err != nil || kind.URI == nil && len(kind.Status) == 0 {
		return invalid("neither a request nor a response: %.200s", result)
	}
	if len(kind.Status) > 0 {
		generated, err := c.generated(result)
		return nil, generated, err
	}
	var got lambdaRequest
	if err := json.Unmarshal(result, &got); err != nil {
		return invalid("%v: %.200s", err, result)
	}
	if got.Method != r.method {
		return invalid("the method was changed to %q", got.Method)
	}
	if err := checkTarget(RuleHandlerResult, got.URI, got.QueryString, c.dist.Limits.URL); err != nil {
		return nil, nil, err
	}
	header, err := got.Headers.header()
	if err != nil {
		return nil, nil, err
	}
	header.Del("Host") // CloudFront's own for these origins
	if err := checkRequestHeaders(shown, header, readOnlyInOriginRequest()); err != nil {
		return nil, nil, err
	}
	// "OAC doesn't support origin redirect by using Lambda@Edge":
	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-restricting-access-to-s3.html
	if !sameOrigin(got.Origin, o.event()) {
		return nil, nil, &Broken{RuleOriginSwitch, 502, fmt.Sprintf("%v became %v", o.event(), got.Origin)}
	}
	asSent(header, shown, r.header)
	out := r.clone()
	out.header = header
	if got.URI != given.URI {
		out.uri = got.URI
	}
	if got.QueryString != given.QueryString {
		out.query = got.QueryString
	}
	return out, nil, nil
}

var errTooLong = errors.New("time is up")

// sameOrigin compares what says where a request goes.
func sameOrigin(a, b map[string]eventOrigin) bool { return reflect.DeepEqual(a, b) }

// generated checks and reads a generated response.
func (c *CloudFront) generated(result json.RawMessage) (*response, error) {
	var got struct {
		Status       string      `json:"status"`
		Headers      headerLines `json:"headers"`
		Body         *string     `json:"body"`
		BodyEncoding string      `json:"bodyEncoding"`
	}
	if err := json.Unmarshal(result, &got); err != nil {
		return nil, &Broken{RuleHandlerResult, 502, err.Error()} // a status that is no string, for one
	}
	status, err := strconv.Atoi(got.Status)
	if err != nil || status < 200 || status > 599 {
		return nil, &Broken{RuleHandlerResult, 502, fmt.Sprintf("status %q", got.Status)}
	}
	header, err := got.Headers.header()
	if err != nil {
		return nil, err
	}
	if err := checkResponseHeaders(header, []string{"transfer-encoding", "via"}); err != nil {
		return nil, err
	}
	a := &response{status: status, header: header, generated: true}
	if got.Body != nil {
		if a.body, err = decoded(got.BodyEncoding, *got.Body); err != nil {
			return nil, &Broken{RuleHandlerResult, 502, err.Error()}
		}
	}
	size := len(a.body)
	for name, values := range header {
		for _, v := range values {
			size += len(name) + len(v) + 4
		}
	}
	if size > c.dist.Limits.GeneratedAnswer {
		return nil, &Broken{RuleGeneratedLength, 502, fmt.Sprintf("%d bytes, more than %d", size, c.dist.Limits.GeneratedAnswer)}
	}
	return a, nil
}
