package rig

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The viewer-request Function's event and results:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/functions-event-structure.html

type functionEvent struct {
	Version string          `json:"version"`
	Context functionContext `json:"context"`
	Viewer  struct {
		IP string `json:"ip"`
	} `json:"viewer"`
	Request  functionRequest `json:"request"`
	Response *functionAnswer `json:"response,omitempty"` // of viewer-response events
}

type functionContext struct {
	DistributionDomainName string `json:"distributionDomainName"`
	DistributionID         string `json:"distributionId"`
	EventType              string `json:"eventType"`
	RequestID              string `json:"requestId"`
}

type functionRequest struct {
	Method      string                   `json:"method"`
	URI         string                   `json:"uri"`
	QueryString json.RawMessage          `json:"querystring"` // an object, its order that of the query; or text
	Headers     map[string]functionValue `json:"headers"`
	Cookies     map[string]functionValue `json:"cookies"`
}

// functionValue is a header, parameter or cookie. The first of many is the value.
type functionValue struct {
	Value      string          `json:"value"`
	MultiValue []functionValue `json:"multiValue,omitempty"`
}

func valueOf(values []string) functionValue {
	v := functionValue{Value: values[0]}
	if len(values) > 1 {
		for _, each := range values {
			v.MultiValue = append(v.MultiValue, functionValue{Value: each})
		}
	}
	return v
}

func (v functionValue) values() []string {
	if len(v.MultiValue) == 0 {
		return []string{v.Value}
	}
	var all []string
	for _, each := range v.MultiValue {
		all = append(all, each.Value)
	}
	return all
}

// functionAnswer is a response of the Function's.
type functionAnswer struct {
	StatusCode        int                      `json:"statusCode"`
	StatusDescription string                   `json:"statusDescription"`
	Headers           map[string]functionValue `json:"headers"`
	Cookies           map[string]functionValue `json:"cookies"`
	Body              json.RawMessage          `json:"body,omitempty"`
}

// functionEvent is an event about a request, with the parameters and headers that are in it.
func (c *CloudFront) functionEvent(kind string, r *request) (ev functionEvent, params map[string]functionValue, shown http.Header) {
	ev = functionEvent{Version: "1.0", Context: functionContext{c.dist.Domain, c.dist.ID, kind, r.id}}
	ev.Viewer.IP = r.ip
	names, values := pairs(toUTF8(r.query))
	params = make(map[string]functionValue, len(names))
	for _, name := range names {
		params[name] = valueOf(values[name])
	}
	shown = readable(r.header)
	shown.Del("Cookie")
	ev.Request = functionRequest{Method: r.method, URI: toUTF8(r.uri), QueryString: inOrder(names, params),
		Headers: functionHeaders(shown), Cookies: make(map[string]functionValue)}
	return ev, params, shown
}

func functionHeaders(h http.Header) map[string]functionValue {
	out := make(map[string]functionValue, len(h))
	for name, values := range h {
		out[strings.ToLower(name)] = valueOf(values)
	}
	return out
}

func (c *CloudFront) functionOptions(r *request, stores []*KeyValueStore) map[string]any {
	options := map[string]any{"timeout": c.dist.Limits.FunctionTime.Milliseconds(), "store": nil}
	for _, s := range stores {
		options["store"] = s.seen()
	}
	if r.query != "" {
		options["raw"] = toUTF8(r.query)
	}
	return options
}

// runFunction calls the Function. It returns the request that it makes of r, or its answer.
func (c *CloudFront) runFunction(ctx context.Context, t *Trace, r *request) (*request, *response, error) {
	ev, params, shown := c.functionEvent("viewer-request", r)
	result, took, err := c.host.call(ctx, "request", ev, c.functionOptions(r, c.dist.Stores))
	t.Function += took
	if err != nil {
		return nil, nil, &Broken{RuleFunctionError, 503, err.Error()}
	}
	invalid := func(format string, args ...any) (*request, *response, error) {
		return nil, nil, &Broken{RuleFunctionResult, 502, fmt.Sprintf(format, args...)}
	}
	var kind struct {
		Method     *string `json:"method"`
		StatusCode *int    `json:"statusCode"`
	}
	if err := json.Unmarshal(result, &kind); err != nil || kind.Method == nil && kind.StatusCode == nil {
		return invalid("neither a request nor a response: %.200s", result)
	}
	if kind.StatusCode != nil {
		answer, err := c.functionAnswer(result)
		return nil, answer, err
	}
	var got functionRequest
	if err := json.Unmarshal(result, &got); err != nil {
		return invalid("%v: %.200s", err, result)
	}
	if got.Method != r.method {
		return invalid("the method was changed to %q", got.Method)
	}
	out := r.clone()
	if got.URI != ev.Request.URI { // what a function does not change goes on as it was sent
		out.uri = got.URI
	}
	if out.query, err = queryOf(got.QueryString, r.query, params); err != nil {
		return invalid("%v", err)
	}
	if err := checkTarget(RuleFunctionResult, out.uri, out.query, c.dist.Limits.URL); err != nil {
		return nil, nil, err
	}
	out.header, err = headersOf(got.Headers)
	if err != nil {
		return nil, nil, err
	}
	if err := checkRequestHeaders(shown, out.header, readOnlyInViewerRequest()); err != nil {
		return nil, nil, err
	}
	asSent(out.header, shown, r.header)
	return out, nil, nil
}

// toUTF8 is how text comes to a function: what is not UTF-8 is taken for ISO-8859-1
// (edge-function-restrictions-all.html, function-restrictions-encoding).
func toUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// readable is headers as they come to a function.
func readable(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		for _, v := range values {
			out[name] = append(out[name], toUTF8(v))
		}
	}
	return out
}

// asSent puts back what a function was shown otherwise than it was sent, and did not change.
func asSent(after, shown, sent http.Header) {
	for name, values := range after {
		if slices.Equal(values, shown[name]) {
			after[name] = sent[name]
		}
	}
}

// inOrder writes parameters as a JSON object.
func inOrder(names []string, values map[string]functionValue) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		// Neither can fail: both are made of strings.
		key, _ := json.Marshal(name)
		value, _ := json.Marshal(values[name])
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// queryOf is the query that a function returns: text, or parameters. Those that it did not touch stay as
// they were sent.
func queryOf(result json.RawMessage, raw string, before map[string]functionValue) (string, error) {
	if len(result) == 0 || bytes.Equal(result, []byte("null")) {
		return "", nil
	}
	var text string
	if json.Unmarshal(result, &text) == nil {
		return text, nil
	}
	after := make(map[string]functionValue)
	if err := json.Unmarshal(result, &after); err != nil {
		return "", fmt.Errorf("querystring: %w", err)
	}
	if reflect.DeepEqual(before, after) {
		return raw, nil
	}
	// JSON objects keep their order: it is read off the text.
	dec := json.NewDecoder(bytes.NewReader(result))
	var parts []string
	for depth := 0; ; {
		token, err := dec.Token()
		if err != nil {
			return strings.Join(parts, "&"), nil
		}
		if d, ok := token.(json.Delim); ok {
			if d == '{' || d == '[' {
				depth++
			} else {
				depth--
			}
			continue
		}
		if depth != 1 {
			continue
		}
		name := token.(string)
		for _, v := range after[name].values() {
			parts = append(parts, name+"="+v)
		}
	}
}

// headersOf reads the headers of a Function's result.
func headersOf(from map[string]functionValue) (http.Header, error) {
	header := make(http.Header)
	for name, v := range from {
		if name != strings.ToLower(name) {
			return nil, &Broken{RuleHeaderName, 502, fmt.Sprintf("name %q is not in lower case", name)}
		}
		for _, value := range v.values() {
			if err := checkHeader(name, value); err != nil {
				return nil, err
			}
			header.Add(name, value)
		}
	}
	return header, nil
}

// functionAnswer checks and reads a response of the Function's.
func (c *CloudFront) functionAnswer(result json.RawMessage) (*response, error) {
	var a functionAnswer
	if err := json.Unmarshal(result, &a); err != nil {
		return nil, &Broken{RuleFunctionResult, 502, err.Error()}
	}
	if a.StatusCode < 100 || a.StatusCode > 599 {
		return nil, &Broken{RuleFunctionResult, 502, fmt.Sprintf("status %d", a.StatusCode)}
	}
	header, err := headersOf(a.Headers)
	if err != nil {
		return nil, err
	}
	if err := checkResponseHeaders(header, nil); err != nil {
		return nil, err
	}
	body, err := bodyOf(a.Body)
	if err != nil {
		return nil, &Broken{RuleFunctionResult, 502, err.Error()}
	}
	// cloudfront-limits.html, limits-functions
	if len(result) > c.dist.Limits.FunctionAnswer {
		return nil, &Broken{RuleFunctionAnswer, 502, fmt.Sprintf("%d bytes, more than %d", len(result), c.dist.Limits.FunctionAnswer)}
	}
	return &response{status: a.StatusCode, header: header, body: body}, nil
}

// runResponse calls the viewer-response Function on an answer that is about to be sent, and changes it. It
// does not run for errors, nor for what the viewer-request Function answered
// (edge-function-restrictions-all.html, function-restrictions-status-codes).
func (c *CloudFront) runResponse(ctx context.Context, t *Trace, r *request, a *wholeAnswer) error {
	ev, _, _ := c.functionEvent("viewer-response", r)
	shown, hidden := make(http.Header), make(http.Header)
	for name, values := range a.header {
		if disallowed(strings.ToLower(name)) || name == "Content-Length" {
			hidden[name] = values
		} else if len(values) > 0 {
			shown[name] = values
		}
	}
	ev.Response = &functionAnswer{StatusCode: a.status, StatusDescription: http.StatusText(a.status), Headers: functionHeaders(readable(shown)), Cookies: make(map[string]functionValue)}
	result, took, err := c.host.call(ctx, "response", ev, c.functionOptions(r, nil))
	t.Function += took
	if err != nil {
		return &Broken{RuleFunctionError, 503, err.Error()}
	}
	var got functionAnswer
	if err := json.Unmarshal(result, &got); err != nil || got.StatusCode < 100 || got.StatusCode > 599 || len(got.Body) > 0 {
		return &Broken{RuleFunctionResult, 502, fmt.Sprintf("%v: %.200s", err, result)} // the rig gives it no way to replace bodies
	}
	header, err := headersOf(got.Headers)
	if err != nil {
		return err
	}
	if err := checkRequestHeaders(shown, header, []string{"warning", "via"}); err != nil {
		return err
	}
	asSent(header, readable(shown), shown)
	clear(a.header)
	maps.Copy(a.header, header)
	maps.Copy(a.header, hidden)
	a.status = got.StatusCode
	if a.status == http.StatusNotModified || a.status == http.StatusNoContent {
		a.body.Reset()
		a.header.Del("Content-Length")
	}
	return nil
}

// bodyOf reads a Function's body: text, or {encoding, data}.
func bodyOf(raw json.RawMessage) ([]byte, error) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []byte(text), nil
	}
	var coded struct{ Encoding, Data string }
	if err := json.Unmarshal(raw, &coded); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return decoded(coded.Encoding, coded.Data)
}

func decoded(encoding, data string) ([]byte, error) {
	switch encoding {
	case "", "text":
		return []byte(data), nil
	case "base64":
		body, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, fmt.Errorf("body is not base64: %w", err)
		}
		return body, nil
	}
	return nil, errors.New("body encoding is " + encoding)
}

// milliseconds of real time, for traces
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
